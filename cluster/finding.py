"""Two nodes that have lost each other tell where they are now: one node's part, as asker and as answerer.

    asker                                    answerer
      ── where can I tell you? ─────────────▶
      ◀────────────────────── a challenge ──   nothing is stored for it
      ── statement over the challenge ──────▶   looked at; the asker is dialed where it says
      ◀────────── statement over its draw ──   looked at; the answerer is dialed where it says

What is carried is opaque to whoever carries it (`core`, over the API). Rules enforced here, beside those of `statements.py`:

* A challenge is this process's own, and good for a minute; of one member nothing is heard over one that is not later than
  the last, so no statement is heard twice. No two clocks have to agree.
* Nobody learns where this node is before he has shown that he is a member, except whom this node asks itself.
* What the answerer has heard of others helps the asker to find those, too: what they say themselves counts for more.
* Nothing is believed but where to dial. Whoever answers there must have the member's certificate, and only what is said
  over that connection is ever recorded.
"""

import hmac
from collections.abc import Callable
from typing import Final

from conclave.cluster.errors import StatementRefused
from conclave.cluster.links import Links
from conclave.cluster.membership import Identity
from conclave.cluster.statements import STATEMENT_VERSION, Side, Statement, check_usable, encode_signed, read, signer_of
from conclave.cluster.surroundings import Surroundings

CHALLENGE_SECONDS_MAX: Final = 60.0
_NUMBER_BYTES: Final = 8
_SEAL_BYTES: Final = 32
_DRAW_BYTES: Final = 32


class Finding:
    """See `replica.Finding`.

    Args:
        identity: of this node, as it is now.
        links: who is a member, and how to dial it.
        address: this node's own cluster address.
        takes_part: whether this node still is one of the cluster.
        surroundings: time and randomness.
    """

    def __init__(
        self,
        identity: Callable[[], Identity],
        links: Links,
        *,
        address: Callable[[], str],
        takes_part: Callable[[], bool],
        surroundings: Surroundings,
    ) -> None:
        self._identity = identity
        self._links = links
        self._address = address
        self._takes_part = takes_part
        self._surroundings = surroundings
        self._secret = surroundings.random_bytes(32)
        self._last_number = 0
        self._heard: dict[int, int] = {}  # of each member the number of the last challenge it was heard by

    @property
    def is_needed(self) -> bool:
        """See `replica.Finding`."""
        return self._takes_part() and self._links.lacks_voters()

    # -- the answerer --

    def challenge(self) -> bytes:
        """See `replica.Finding`."""
        self._check_takes_part()
        self._last_number = max(self._last_number + 1, int(self._surroundings.clock() * 1e6))
        number = self._last_number.to_bytes(_NUMBER_BYTES, "big")
        return number + self._seal(number)

    def _seal(self, number: bytes) -> bytes:
        return hmac.digest(self._secret, b"challenge" + number, "sha256")

    def _number_of(self, challenge: bytes) -> int:
        number = challenge[:_NUMBER_BYTES]
        if not hmac.compare_digest(challenge[_NUMBER_BYTES:], self._seal(number)):
            raise StatementRefused("the statement is over no challenge of this process; ask for one")
        microseconds = int.from_bytes(number, "big")
        if self._surroundings.clock() - microseconds / 1e6 > CHALLENGE_SECONDS_MAX:
            raise StatementRefused("the statement's challenge is too old; ask for another one")
        return microseconds

    def answer(self, signed: bytes) -> bytes:
        """See `replica.Finding`."""
        self._check_takes_part()
        statement = read(signed)
        number = self._number_of(statement.drawn)  # first: it is cheap, and anybody may come here
        asker = self._signer(signed, Side.ASKER)
        self._links.check_may_be_dialed(asker, statement.incarnation)
        if number <= self._heard.get(asker, -1):
            raise StatementRefused("this member has said something later already; ask for another challenge")
        self._heard[asker] = number
        self._links.is_at(asker, statement.cluster_address)
        return self._sign(Side.ANSWERER, statement.draw, others=self._links.heard_addresses(asker))

    # -- the asker --

    def ask(self, challenge: bytes) -> tuple[bytes, bytes]:
        """See `replica.Finding`."""
        self._check_takes_part()
        if len(challenge) != _NUMBER_BYTES + _SEAL_BYTES:
            raise StatementRefused("what was asked for is no challenge")  # nothing else is ever signed
        draw = self._surroundings.random_bytes(_DRAW_BYTES)
        return self._sign(Side.ASKER, challenge, draw=draw), draw

    def answered(self, signed: bytes, draw: bytes) -> None:
        """See `replica.Finding`."""
        statement = read(signed)
        answerer = self._signer(signed, Side.ANSWERER)
        if not hmac.compare_digest(statement.drawn, draw):
            raise StatementRefused("the answer is to another question")
        self._links.check_may_be_dialed(answerer, statement.incarnation)
        self._links.is_at(answerer, statement.cluster_address)
        for other, address in statement.others:
            check_usable(address)
            self._links.may_be_at(other, address)

    # -- both --

    def _check_takes_part(self) -> None:
        if not self._takes_part():
            raise StatementRefused("this node takes no part in a cluster any more")

    def _signer(self, signed: bytes, side: Side) -> int:
        identity = self._identity()
        return signer_of(
            signed,
            side=side,
            cluster_id=identity.cluster_id,
            authority_pem=identity.authority_pem,
            now=self._surroundings.utc_now(),
        )

    def _sign(self, side: Side, drawn: bytes, *, draw: bytes = b"", others: tuple[tuple[int, str], ...] = ()) -> bytes:
        identity = self._identity()
        statement = Statement(
            STATEMENT_VERSION,
            side,
            identity.cluster_id,
            identity.certificate_pem,
            identity.incarnation,
            self._address(),
            drawn,
            draw,
            others,
        )
        return encode_signed(statement, identity.private_key_pem)
