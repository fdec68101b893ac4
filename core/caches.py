"""What a node remembers of committed records, so that a request need not read and decrypt them again.

Each is derived from one area: the router and plans made with it from the mounts, compiled policies from the policies,
token records from the tokens, what an entity's tokens count on from the identities. Nothing but the feed invalidates
them: an entry that changes a record drops what was derived from it, before the entry's own answer leaves.

They hold committed state only. A transaction that could see more (a change of the same area that is proposed, or its
own) reads the records itself; `usable` decides that.
"""

from collections.abc import Callable
from typing import Final, TypeVar, overload

from msgspec import Struct

from conclave.core.acl import Acl
from conclave.core.doorkeeper import RepeatCache
from conclave.core.identity import NOBODY, Standing
from conclave.core.mounts import MountTable
from conclave.core.privileged import compile_acl, policies_of, standing_of
from conclave.core.records import Records
from conclave.core.router import Router
from conclave.core.services import AREA_IDENTITY, AREA_MOUNTS, AREA_POLICIES, AREA_TOKENS, Services, area_id
from conclave.core.tokens import ENDED_PREFIXES, TokenRecord
from conclave.storage.barrier import Barrier
from conclave.storage.overlay import Overlay

T = TypeVar("T")
P = TypeVar("P")

CACHED_TOKENS_MAX: Final = 10_000
CACHED_ACLS_MAX: Final = 1_000
CACHED_STANDINGS_MAX: Final = 10_000
CACHED_PLANS_MAX: Final = 8_192
"""How many of each are remembered; one more, and all of that kind are forgotten."""


UNKNOWN: Final = object()
"""Says that nothing is remembered, which is not the same as remembering that there is nothing."""


class Caches:
    """The caches of one node; empty and unused while it is sealed."""

    def __init__(self) -> None:
        self.plans: RepeatCache[object, object] = RepeatCache(CACHED_PLANS_MAX)
        self._router: Router | None = None
        self._acls: dict[tuple[tuple[str, ...], str], Acl] = {}
        self._personal_acls: dict[tuple[tuple[str, ...], str], Acl] = {}  # of tokens that stand for an entity
        self._standings: dict[str, Standing] = {}
        self._tokens: dict[str, object] = {}
        self._token_names: dict[bytes, str] = {}  # storage key -> name of a remembered token
        self._overlay: Overlay | None = None
        self._barrier: Barrier | None = None
        self._area_ids: dict[str, bytes] = {}
        self._unsubscribe: list[Callable[[], None]] = []

    # -- following the feed --

    def attach(self, overlay: Overlay, barrier: Barrier) -> None:
        """Begin to remember what this barrier opens, and follow the feed."""
        assert self._overlay is None, "detach() comes first"
        self.clear()
        self._overlay = overlay
        self._barrier = barrier
        areas = (AREA_MOUNTS, AREA_POLICIES, AREA_TOKENS, AREA_IDENTITY)
        self._area_ids = {name: area_id(barrier, name) for name in areas}
        self._unsubscribe = [
            overlay.subscribe(self._area_ids[AREA_MOUNTS], self._mount_changed),
            overlay.subscribe(self._area_ids[AREA_POLICIES], self._policy_changed),
            overlay.subscribe(self._area_ids[AREA_TOKENS], self._token_changed),
            overlay.subscribe(self._area_ids[AREA_IDENTITY], self._identity_changed),
        ]

    def detach(self, overlay: Overlay) -> None:
        """Forget everything and stop following the feed."""
        assert self._overlay in (overlay, None), "a node has one overlay"
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        self._unsubscribe = []
        self._overlay = self._barrier = None
        self.clear()

    def clear(self) -> None:
        """Forget everything: a snapshot has replaced the state."""
        self.plans.clear()
        self._router = None
        self._acls.clear()
        self._personal_acls.clear()
        self._standings.clear()
        self._tokens.clear()
        self._token_names.clear()

    def _mount_changed(self, _index: int, _key: bytes) -> None:
        self._router = None
        self.plans.clear()

    def _policy_changed(self, _index: int, _key: bytes) -> None:
        self._acls.clear()
        self._personal_acls.clear()

    def _identity_changed(self, _index: int, _key: bytes) -> None:
        self._personal_acls.clear()
        self._standings.clear()  # the record `generation` lies in the area itself and changes with every change

    def _token_changed(self, _index: int, key: bytes) -> None:
        name = self._token_names.pop(key, None)
        if name is not None:
            del self._tokens[name]

    # -- what is remembered --

    def usable(self, services: Services, area: str) -> bool:
        """Whether committed records of an area are what this transaction sees."""
        if self._overlay is None:
            return False
        transaction = services.transaction
        if not transaction.is_writable:
            return True
        return not transaction.has_changes and not self._overlay.proposes_under(self._area_ids[area])

    def router(self, services: Services) -> Router:
        """Return the router of all mounts."""
        if not self.usable(services, AREA_MOUNTS):
            return _new_router(services)
        if self._router is None:
            self._router = _new_router(services)
        return self._router

    def standing(self, services: Services, entity_id: str) -> Standing:
        """Return what an entity's tokens may count on."""
        if not entity_id:
            return NOBODY
        if not self.usable(services, AREA_IDENTITY):
            return standing_of(services, entity_id)
        found = self._standings.get(entity_id)
        if found is None:
            found = standing_of(services, entity_id)
            bounded_put(self._standings, entity_id, found, CACHED_STANDINGS_MAX)
        return found

    def policies(self, services: Services, record: TokenRecord) -> tuple[str, ...]:
        """Return the policies that count for a token."""
        return policies_of(record, self.standing(services, record.entity_id))

    def acl(self, services: Services, record: TokenRecord) -> Acl:
        """Return what a token may do."""
        policies = self.policies(services, record)
        entity_id = record.entity_id
        is_known = self.usable(services, AREA_POLICIES) and (not entity_id or self.usable(services, AREA_IDENTITY))
        if not is_known:
            return compile_acl(services, policies, entity_id)
        acls = self._personal_acls if entity_id else self._acls
        key = (policies, entity_id)
        found = acls.get(key)
        if found is None:
            found = compile_acl(services, policies, entity_id)
            bounded_put(acls, key, found, CACHED_ACLS_MAX)
        return found

    def tokens(self, services: Services) -> "TokenRecords | Records":
        """Return the directory of tokens, with remembered records where they count."""
        return TokenRecords(services, self) if self.usable(services, AREA_TOKENS) else services.area(AREA_TOKENS)

    def token_record(self, name: str) -> object:
        """Return a remembered record of the tokens' area; `UNKNOWN` where nothing is."""
        return self._tokens.get(name, UNKNOWN)

    def remember_token_record(self, name: str, record: object) -> None:
        """Remember a record as it is committed; None says that there is none."""
        assert self._barrier is not None, "only usable caches are written"
        if len(self._tokens) >= CACHED_TOKENS_MAX:
            self._tokens.clear()
            self._token_names.clear()
        self._tokens[name] = record
        self._token_names[self._barrier.child_key(self._area_ids[AREA_TOKENS], name.encode())] = name


class TokenRecords:
    """The directory of tokens as `Tokens.lookup` reads it, through the cache. Writing goes to the directory itself."""

    __slots__ = ("_caches", "_services")

    def __init__(self, services: Services, caches: Caches) -> None:
        self._services = services
        self._caches = caches

    @property
    def _records(self) -> Records:
        return self._services.area(AREA_TOKENS)

    @overload
    def get(self, path: str) -> bytes | None: ...
    @overload
    def get(self, path: str, as_type: type[T]) -> T | None: ...
    def get(self, path: str, as_type: type[T] | None = None) -> bytes | T | None:
        """Return a record, from the cache if it is there."""
        if as_type is None:
            return self._records.get(path)
        found = self._caches.token_record(path)
        if found is UNKNOWN:
            found = self._records.get(path, as_type)
            if found is not None or path == ENDED_PREFIXES:  # texts that are no token's are not worth remembering
                self._caches.remember_token_record(path, found)
        return found  # type: ignore[return-value]  # each name has records of one type

    def recall(self, path: str, as_type: type[T]) -> T | None:
        """Return a record, from the cache if it is there."""
        return self.get(path, as_type)

    def exists(self, path: str) -> bool:
        """Whether there is a record."""
        return self._records.exists(path)

    def put(self, path: str, value: bytes | Struct) -> None:
        """Store a record."""
        self._records.put(path, value)

    def delete(self, path: str) -> bool:
        """Remove a record."""
        return self._records.delete(path)

    def list(self, path: str = "", *, after: str = "", limit: int | None = None) -> list[str]:
        """Return the sorted names in a directory."""
        return self._records.list(path, after=after, limit=limit)


def bounded_put(cache: dict[T, P], key: T, value: P, size_max: int) -> None:
    """Remember one thing more; a full cache is emptied first, which costs less than keeping an order."""
    if len(cache) >= size_max:
        cache.clear()
    cache[key] = value


def _new_router(services: Services) -> Router:
    return Router(MountTable(services.area(AREA_MOUNTS)).all())
