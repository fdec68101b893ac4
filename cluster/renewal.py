"""Renewing this node's certificate at half of its life, without a restart.

A node whose vault is unsealed holds the authority's key in its own state, and signs for itself. One that is sealed asks
the leader, over the connection that its present certificate still opens; a leader signs for whoever that certificate
names, and for nobody else. A node that was away, sealed, until its certificate expired is talked to by nobody: it takes
part again once it is unsealed. So what lies in the clear on a stolen disk opens nothing after at most one such life,
while a running cluster never waits for its operator.

The authority's own certificate is renewed on the way, for the same key and name: old and new verify the same members.
See docs/adr/0010-certificates-that-renew-themselves.md.
"""

import datetime as dt
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from msgspec import Struct

from conclave.cluster.certificates import (
    check_issued,
    days_left,
    is_authority_key,
    is_due,
    new_private_key,
    new_request,
    renewed_authority,
    sign_request,
)
from conclave.cluster.errors import ClusterError, JoinRefused
from conclave.cluster.membership import Identity, MembershipRecord

log = logging.getLogger(__name__)

RETRY_SECONDS_MAX: Final = 600.0
"""How long to wait before asking the leader again that could not sign."""
RETRIES_A_LIFE: Final = 100
ANSWER_SECONDS_MAX: Final = 10.0

Ask = Callable[[bytes, float], Awaitable[bytes]]
Adopt = Callable[["Issued", bytes], Awaitable[None]]


class Issued(Struct, array_like=True, frozen=True):
    """What a node is given for its request: its certificate, and the authority's, PEM each. Sent from node to node."""

    certificate_pem: bytes
    authority_pem: bytes


class Renewal:
    """The renewal of one node's certificate, and its answers to others' requests.

    Args:
        identity: who this node is now.
        record: the members, as the log knows them now.
        authority_key: the authority's private key, PEM; None while this node is sealed.
        ask: asks the leader within so many seconds.
        adopt: stores and uses a new certificate and its private key.
        validity: of a certificate.
        clock: seconds, monotone.
        utc_now: the date.
    """

    def __init__(
        self,
        identity: Callable[[], Identity],
        *,
        record: Callable[[], MembershipRecord],
        authority_key: Callable[[], bytes | None],
        ask: Ask,
        adopt: Adopt,
        validity: dt.timedelta,
        clock: Callable[[], float],
        utc_now: Callable[[], dt.datetime],
    ) -> None:
        self._identity = identity
        self._record = record
        self._authority_key = authority_key
        self._ask = ask
        self._adopt = adopt
        self._validity = validity
        self._clock = clock
        self._utc_now = utc_now
        self._ask_again_at = 0.0

    async def attempt(self) -> None:
        """Renew the certificate if it is time."""
        identity = self._identity()
        if not is_due(identity.certificate_pem, self._validity, self._utc_now()):
            return
        key_pem = new_private_key()
        request_pem = new_request(key_pem, identity.node_id)
        issued = self._issue(identity.raft_id, identity.node_id, request_pem) or await self._ask_leader(request_pem)
        if issued is None:
            return
        try:
            check_issued(
                issued.certificate_pem, key_pem, issued.authority_pem, known_authority_pem=identity.authority_pem
            )
        except ValueError as error:
            log.error("the leader signed a certificate that does not fit", extra={"reason": str(error)})  # noqa: TRY400
            return
        await self._adopt(issued, key_pem)
        log.info(
            "renewed the certificate of this node", extra={"days": days_left(issued.certificate_pem, self._utc_now())}
        )

    async def _ask_leader(self, request_pem: bytes) -> Issued | None:
        now = self._clock()
        if now < self._ask_again_at:
            return None
        self._ask_again_at = now + min(RETRY_SECONDS_MAX, self._validity.total_seconds() / RETRIES_A_LIFE)
        try:
            answer = await self._ask(request_pem, ANSWER_SECONDS_MAX)
        except ClusterError as error:
            self._warn(str(error))
            return None
        if not answer:
            self._warn("the leader is sealed, or holds another cluster's authority")
            return None
        return msgspec.msgpack.decode(answer, type=Issued)

    def _warn(self, reason: str) -> None:
        days = days_left(self._identity().certificate_pem, self._utc_now())
        log.warning(
            "cannot renew the certificate of this node yet; unsealing it helps", extra={"days": days, "reason": reason}
        )

    async def answer(self, request_pem: bytes, asker: str) -> bytes:
        """Sign the request of a member; empty if this node cannot sign."""
        member = self._record().named(asker)
        issued = self._issue(member.raft_id, asker, request_pem) if member is not None else None
        return msgspec.msgpack.encode(issued) if issued is not None else b""

    def _issue(self, raft_id: int, node_id: str, request_pem: bytes) -> Issued | None:
        """Sign, if this node is unsealed and its state holds this cluster's authority."""
        identity, now = self._identity(), self._utc_now()
        authority_key_pem = self._authority_key()
        if authority_key_pem is None or not is_authority_key(identity.authority_pem, authority_key_pem):
            return None
        authority_pem = renewed_authority(identity.authority_pem, authority_key_pem, now)
        try:
            certificate_pem = sign_request(
                request_pem,
                cluster_id=identity.cluster_id,
                raft_id=raft_id,
                node_id=node_id,
                authority_pem=authority_pem,
                authority_key_pem=authority_key_pem,
                now=now,
                validity=self._validity,
            )
        except JoinRefused as error:
            log.warning("refused to renew a certificate", extra={"node_id": node_id, "reason": str(error)})
            return None
        return Issued(certificate_pem, authority_pem)
