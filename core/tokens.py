"""Tokens: making them, finding them, prolonging and ending them.

A service token is a record; its text is never stored, only a hash of it, which is the record's name. Beside the records
lie two indexes: accessor → name, and parent → children. A batch token has no record: its text is the sealed record.

* A token is good if its record is there, has not expired and has uses left, and its parent is good, up to a token
  without a parent. So deleting one record ends a whole tree of tokens at once, however large; what is left of the tree
  is cleared away in bounded pieces by `core/revocation.py`.
* A token may be ended without its children: its record then stays behind as `is_released`, useless itself, until the
  children have been made orphans one by one.
* All tokens that came by one mount are ended at once by one record, `ended-prefixes`: what is issued before its time and
  has a lease below its prefix is dead, however many there are.

Area `tokens`: `<name>` the records, `accessor/<accessor>`, `child/<parent>/<name>`, `ending/<name>` what is to be cleared,
`ended-prefixes`.
Source: Vault's pages "Tokens" and "Token auth method (API)"; features measured on a real server.
"""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from conclave.core.contract import Storage, TokenView
from conclave.core.crypto import Random, hash_text, new_base62
from conclave.core.durations import NANOSECONDS
from conclave.core.errors import InvalidRequest
from conclave.core.policies import DEFAULT, ROOT
from conclave.core.records import Records
from conclave.storage.barrier import Barrier
from conclave.storage.errors import StorageError

SERVICE_PREFIX: Final = "hvs."
BATCH_PREFIX: Final = "hvb."
RESERVED_PREFIXES: Final = ("hvs.", "hvb.", "hvr.", "s.", "b.", "r.")
"""What the text of a token that a client chooses itself must not begin with."""
TEXT_CHARACTERS: Final = 24
"""Random characters of a token and of an accessor: 142 bits."""
ANCESTORS_MAX: Final = 128
"""How long a chain of parents may become; a lookup walks it."""
TEXT_CHARACTERS_MAX: Final = 4096
"""The longest text that is looked up at all; batch tokens with much metadata are the longest."""

SERVICE: Final = "service"
BATCH: Final = "batch"
USES_SPENT: Final = -1
"""`num_uses` of a token whose last use is under way or over; 0 means that uses are not counted."""


class TokenRecord(Struct, array_like=True, frozen=True):
    """A token as it is kept. New fields come last, with defaults."""

    name: str  # hash of the text, 64 hex digits; empty for a batch token
    accessor: str
    policies: list[str]
    path: str  # that made it: "auth/token/create"
    created_ns: int
    ttl_seconds: int = 0  # as first given; 0: without end
    expires_ns: int = 0  # 0: never
    explicit_max_ttl_seconds: int = 0
    period_seconds: int = 0
    num_uses: int = 0
    parent: str = ""  # the parent's name; empty: an orphan
    type: str = SERVICE
    is_renewable: bool = False
    display_name: str = ""
    meta: dict[str, str] | None = None
    entity_id: str = ""
    role: str = ""
    renewed_ns: int = 0
    bound_cidrs: list[str] = []
    is_released: bool = False  # ended, while its children live on
    max_ttl_seconds: int = 0  # how old renewals let it become; 0: as the system says

    @property
    def is_root(self) -> bool:
        """Whether it may do everything."""
        return ROOT in self.policies

    @property
    def is_batch(self) -> bool:
        """Whether it has no record."""
        return self.type == BATCH

    @property
    def lease_id(self) -> str:
        """The lease that ends it; empty for one that ends by itself or never."""
        return f"{self.path}/h{self.name}" if self.expires_ns and not self.is_batch else ""

    @property
    def last_ttl_seconds(self) -> int:
        """How long it was good for when it was made or last renewed, which is what a renewal gives that asks for nothing."""
        return (self.expires_ns - self.renewed_ns) // NANOSECONDS if self.renewed_ns else self.ttl_seconds

    def ttl_left_seconds(self, now_ns: int) -> int:
        """Return how long it is good for, rounded down; 0 for one without an end."""
        return max(0, (self.expires_ns - now_ns) // NANOSECONDS) if self.expires_ns else 0

    def view(self) -> TokenView:
        """Return what an engine may know."""
        return TokenView(self.accessor, self.policies, self.display_name, self.entity_id, self.is_root)


ENDED_PREFIXES: Final = "ended-prefixes"
"""The name of the record that says which prefixes of leases are over."""


class EndedPrefix(Struct, array_like=True, frozen=True):
    """All leases below a prefix are over that were issued until then. New fields come last, with defaults."""

    prefix: str  # with a slash at its end: "auth/approle/"
    time_ns: int
    walk: list[tuple[str, bytes]] = []  # directories that are still to be cleared, and where to go on in each
    clearing_ns: int = 0  # their records are cleared from this time on


class EndedPrefixes(Struct, array_like=True, frozen=True):
    """The prefixes that have not been cleared to the end yet."""

    prefixes: list[EndedPrefix] = []

    def cover(self, lease_id: str, issued_ns: int) -> bool:
        """Whether a lease is over because of its prefix."""
        return any(lease_id.startswith(each.prefix) and issued_ns <= each.time_ns for each in self.prefixes)


class Sealer(Protocol):
    """Seals batch tokens; what does not open is None."""

    def seal(self, plaintext: bytes) -> bytes:
        """Encrypt."""

    def open(self, sealed: bytes) -> bytes | None:
        """Decrypt what `seal` made; None for anything else."""


class BarrierSealer:
    """Seals batch tokens with the barrier, so that any unsealed node opens them."""

    __slots__ = ("_barrier",)
    _LOCATION: Final = hashlib.blake2b(b"conclave batch token", digest_size=32).digest()

    def __init__(self, barrier: Barrier) -> None:
        self._barrier = barrier

    def seal(self, plaintext: bytes) -> bytes:
        """Encrypt."""
        return self._barrier.seal_record(self._LOCATION, plaintext)

    def open(self, sealed: bytes) -> bytes | None:
        """Decrypt what `seal` made; None for anything else."""
        try:
            return self._barrier.open_record(self._LOCATION, sealed)
        except StorageError:
            return None


class Children(Struct, frozen=True):
    """Some children of a token, and whether there are more."""

    names: list[str]
    has_more: bool


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(TokenRecord)


class Tokens:
    """The tokens of the vault; every call says in which directory.

    Args:
        random: so many random bytes.
        sealer: seals and opens batch tokens.
    """

    __slots__ = ("_random", "_sealer")

    def __init__(self, random: Random, sealer: Sealer) -> None:
        self._random = random
        self._sealer = sealer

    # -- finding --

    def lookup(self, storage: Storage, text: str, now_ns: int) -> TokenRecord | None:
        """Return the record of a token's text if it is good; None otherwise."""
        record = self.find(storage, text)
        return record if record is not None and is_good(storage, record, now_ns) else None

    def find(self, storage: Storage, text: str) -> TokenRecord | None:
        """Return the record of a token's text, good or not; None if there is none."""
        if not text or len(text) > TEXT_CHARACTERS_MAX:
            return None
        if text.startswith(BATCH_PREFIX):
            return self._open_batch(text)
        return storage.recall(name_of(text), TokenRecord)

    def lookup_accessor(self, storage: Storage, accessor: str, now_ns: int) -> TokenRecord | None:
        """Return the record of the good token with this accessor; None if there is none."""
        if not accessor or "/" in accessor:
            return None
        name = storage.get(f"accessor/{accessor}")
        record = None if name is None else storage.get(name.decode(), TokenRecord)
        return record if record is not None and is_good(storage, record, now_ns) else None

    def accessors(self, storage: Storage) -> list[str]:
        """Return all accessors, sorted."""
        return storage.list("accessor")

    def children(self, storage: Records, name: str, limit: int) -> Children:
        """Return at most `limit` children of a token."""
        names, cursor = storage.directory.list_piece(f"child/{name}", limit=limit)
        return Children(names, bool(cursor))

    def _open_batch(self, text: str) -> TokenRecord | None:
        try:
            sealed = base64.b64decode(_padded(text.removeprefix(BATCH_PREFIX)), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        plaintext = self._sealer.open(sealed)
        return None if plaintext is None else _decoder.decode(plaintext)

    # -- making --

    def create(
        self,
        storage: Storage,
        *,
        now_ns: int,
        policies: Sequence[str],
        path: str,
        ttl_seconds: int = 0,
        explicit_max_ttl_seconds: int = 0,
        period_seconds: int = 0,
        num_uses: int = 0,
        parent: str = "",
        token_type: str = SERVICE,
        is_renewable: bool = False,
        display_name: str = "",
        meta: dict[str, str] | None = None,
        entity_id: str = "",
        role: str = "",
        bound_cidrs: Sequence[str] = (),
        text: str = "",
        max_ttl_seconds: int = 0,
    ) -> tuple[str, TokenRecord]:
        """Make a token.

        Args:
            storage: the directory of tokens.
            now_ns: the time.
            policies: exactly those that it gets, sorted.
            path: that makes it.
            ttl_seconds: 0 for one without an end.
            explicit_max_ttl_seconds: after which no renewal helps; 0: as the system says.
            period_seconds: what each renewal gives, without a maximum; 0: not periodic.
            num_uses: how often it can be used; 0: not counted.
            parent: name of the token that ends it with itself; empty for an orphan.
            token_type: `SERVICE` or `BATCH`.
            is_renewable: whether it can be prolonged.
            display_name: told to whoever looks it up, as are the next four.
            meta: free text by name.
            entity_id: whom it stands for.
            role: by which it was made.
            bound_cidrs: from where it can be used.
            text: chosen by the client; empty for a random one.
            max_ttl_seconds: how old renewals let it become; 0: as the system says.

        Returns:
            the token's text, which nobody can find out later, and its record.

        Raises:
            InvalidRequest: the text is taken, or the chain of parents too long.
        """
        is_batch = token_type == BATCH
        if not is_batch and not text:
            text = SERVICE_PREFIX + new_base62(self._random, TEXT_CHARACTERS)
        record = TokenRecord(
            name="" if is_batch else name_of(text),
            accessor="" if is_batch else new_base62(self._random, TEXT_CHARACTERS),
            policies=list(policies),
            path=path,
            created_ns=now_ns,
            ttl_seconds=ttl_seconds,
            expires_ns=now_ns + ttl_seconds * NANOSECONDS if ttl_seconds else 0,
            explicit_max_ttl_seconds=explicit_max_ttl_seconds,
            period_seconds=period_seconds,
            num_uses=num_uses,
            parent=parent,
            type=token_type,
            is_renewable=is_renewable and ttl_seconds > 0,
            display_name=display_name,
            meta=meta,
            entity_id=entity_id,
            role=role,
            bound_cidrs=list(bound_cidrs),
            max_ttl_seconds=max_ttl_seconds,
        )
        _check_chain(storage, record)
        if is_batch:
            sealed = self._sealer.seal(_encode(record))
            return BATCH_PREFIX + base64.urlsafe_b64encode(sealed).rstrip(b"=").decode(), record
        if storage.get(record.name) is not None:
            raise InvalidRequest("cannot create a token with a duplicate ID")
        storage.put(record.name, record)
        storage.put(f"accessor/{record.accessor}", record.name.encode())
        if parent:
            storage.put(f"child/{parent}/{record.name}", b"")
        return text, record

    # -- changing --

    def use(self, storage: Storage, record: TokenRecord) -> TokenRecord:
        """Count one use of a token that counts them, and return its record as it is then.

        With the last use it is spent: that use goes on, no further one is accepted, and the rest of it is to be cleared.
        """
        if record.num_uses <= 0:
            return record
        left = USES_SPENT if record.num_uses == 1 else record.num_uses - 1
        record = msgspec.structs.replace(record, num_uses=left)
        storage.put(record.name, record)
        if left == USES_SPENT:
            storage.put(f"ending/{record.name}", b"")
        return record

    def renew(self, storage: Storage, record: TokenRecord, expires_ns: int, now_ns: int) -> TokenRecord:
        """Let a token end at another time, and return its record as it is then."""
        record = msgspec.structs.replace(record, expires_ns=expires_ns, renewed_ns=now_ns)
        storage.put(record.name, record)
        return record

    def remove(self, storage: Records, record: TokenRecord) -> None:
        """End a token, and with it all its children: they are dead at once, and marked to be cleared."""
        storage.delete(record.name)
        storage.delete(f"accessor/{record.accessor}")
        if record.parent:
            storage.delete(f"child/{record.parent}/{record.name}")
        if storage.directory.exists(f"child/{record.name}/"):
            storage.put(f"ending/{record.name}", b"")

    def release(self, storage: Records, record: TokenRecord) -> None:
        """End a token but not its children, who become orphans: at once in effect, one by one in their records."""
        self.remove(storage, record)
        if storage.get(f"ending/{record.name}") is not None:
            storage.put(record.name, msgspec.structs.replace(record, is_released=True))

    def make_orphan(self, storage: Storage, name: str, parent: str) -> None:
        """Detach a child from its parent."""
        storage.delete(f"child/{parent}/{name}")
        child = storage.get(name, TokenRecord)
        if child is not None:
            storage.put(name, msgspec.structs.replace(child, parent=""))

    def ending(self, storage: Records, limit: int) -> list[str]:
        """Return the names of at most `limit` tokens that are over and of which something is left."""
        return storage.directory.list_piece("ending", limit=limit)[0]

    def ended(self, storage: Storage, name: str) -> None:
        """Say that nothing is left of a token."""
        storage.delete(f"ending/{name}")


def name_of(text: str) -> str:
    """Return the name of a token's record: a hash of its text."""
    return hash_text(text, "conclave-token")


def is_good(storage: Storage, record: TokenRecord, now_ns: int) -> bool:
    """Whether a token can be used: neither expired, spent nor ended, and its ancestors likewise."""
    ended = storage.recall(ENDED_PREFIXES, EndedPrefixes)
    for _ in range(ANCESTORS_MAX):
        if record.num_uses < 0 or record.is_released or 0 < record.expires_ns <= now_ns:
            return False
        if ended is not None and ended.cover(record.lease_id, record.created_ns):
            return False
        if not record.parent:
            return True
        parent = storage.recall(record.parent, TokenRecord)
        if parent is None:
            return False
        if parent.is_released:
            return True
        record = parent
    return False


def with_default(policies: Sequence[str], *, no_default: bool) -> list[str]:
    """Return policies as a token gets them: lower case, sorted, once each, with `default` unless it is unwanted.

    `root` makes every other one needless.
    """
    wanted = {policy.strip().lower() for policy in policies} - {""}
    if ROOT in wanted:
        return [ROOT]
    return sorted(wanted if no_default else wanted | {DEFAULT})


def _check_chain(storage: Storage, record: TokenRecord) -> None:
    length = 1
    parent = record.parent
    while parent:
        above = storage.recall(parent, TokenRecord)
        parent = above.parent if above is not None else ""
        length += 1
    if length >= ANCESTORS_MAX:
        raise InvalidRequest(f"a token can have at most {ANCESTORS_MAX} ancestors; create an orphan")


def _padded(text: str) -> str:
    return text + "=" * (-len(text) % 4)
