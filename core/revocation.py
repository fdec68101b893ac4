"""Ending tokens and leases with all that hangs on them, and the pieces of that which go on in the background.

Ending one token is a handful of records whatever hangs on it: its tree is dead at once (see `core/tokens.py`), and the
rest is cleared by `clear_step` and `empty_step`, a bounded number of records at a time, each piece an entry of its own,
resumable from the state alone: what is still there is what is still to do. Ending all leases below a prefix is one record.
"""

from typing import Final

from msgspec import Struct

from conclave.core.cubbyholes import cubbyhole_of
from conclave.core.errors import TooManyRequests
from conclave.core.identity import Identities
from conclave.core.leases import LeaseKind, LeaseRecord, Leases
from conclave.core.mounts import CUBBYHOLE_PATH, MountTable
from conclave.core.services import AREA_DOOMED, AREA_IDENTITY, AREA_LEASES, AREA_MOUNTS, AREA_TOKENS, Services
from conclave.core.tokens import ENDED_PREFIXES, BarrierSealer, EndedPrefix, EndedPrefixes, TokenRecord, Tokens

EXPIRED_MAX: Final = 64
"""How many leases one background step ends."""
CLEARED_MAX: Final = 64
"""How many tokens one background step clears away."""
EMPTIED_MAX: Final = 512
"""How many records of a doomed directory one background step deletes."""
REVOKED_AT_ONCE_MAX: Final = 32
"""How many leases a revocation by prefix clears before it is answered; the others are dead, and cleared later."""
ENDED_PREFIXES_MAX: Final = 64
"""How many prefixes can wait to be cleared; each lookup of a token compares with all of them."""

MOVE_PAUSE_NS: Final = 10**9
"""How long after the move of a mount its leases are cleared: whoever asks at once how it goes learns that it goes on."""


class Doomed(Struct, array_like=True, frozen=True):
    """What is to be deleted in pieces: a mount's whole storage, a part of it, or the aliases of an auth mount.

    New fields come last, with defaults.
    """

    mount_uuid: str
    path: str = ""
    alias_accessor: str = ""  # of an auth mount that is gone, whose aliases are to go


def tokens_of(services: Services) -> Tokens:
    """Return the tokens of the vault, within this transaction."""
    return Tokens(services.random, BarrierSealer(services.barrier))


def leases_of(services: Services) -> Leases:
    """Return the leases of the vault, within this transaction."""
    return Leases(services.area(AREA_LEASES), services.expiry)


# -- tokens and leases --


def register_token(services: Services, record: TokenRecord) -> None:
    """Give a token that was just made the lease that ends it, if it ends."""
    if record.lease_id:
        leases_of(services).register(
            LeaseRecord(
                id=record.lease_id,
                kind=LeaseKind.TOKEN,
                issued_ns=record.created_ns,
                expires_ns=record.expires_ns,
                token=record.name,
                is_renewable=record.is_renewable,
                ttl_seconds=record.ttl_seconds,
            )
        )


def renew_token(services: Services, record: TokenRecord, expires_ns: int) -> TokenRecord:
    """Let a token and its lease end at another time."""
    leases = leases_of(services)
    lease = leases.lookup(record.lease_id)
    if lease is not None:
        leases.renew(lease, expires_ns, services.now_ns)
    return tokens_of(services).renew(services.area(AREA_TOKENS), record, expires_ns, services.now_ns)


def revoke_token(services: Services, record: TokenRecord) -> None:
    """End a token and its children."""
    _forget(services, record)
    tokens_of(services).remove(services.area(AREA_TOKENS), record)


def release_token(services: Services, record: TokenRecord) -> None:
    """End a token; its children become orphans."""
    _forget(services, record)
    tokens_of(services).release(services.area(AREA_TOKENS), record)


def revoke_lease(services: Services, lease: LeaseRecord) -> None:
    """End a lease and what it stands for."""
    assert lease.kind is LeaseKind.TOKEN, "no engine registers a lease of another kind"
    record = services.area(AREA_TOKENS).get(lease.token, TokenRecord)
    if record is not None:
        revoke_token(services, record)
    leases_of(services).remove(lease.id)


def lookup_lease(services: Services, lease_id: str) -> LeaseRecord | None:
    """Return a lease that is not over; None if there is none."""
    lease = leases_of(services).lookup(lease_id)
    ended = services.area(AREA_TOKENS).get(ENDED_PREFIXES, EndedPrefixes)
    if lease is None or lease.expires_ns <= services.now_ns:
        return None
    return None if ended is not None and ended.cover(lease.id, lease.issued_ns) else lease


def revoke_prefix(services: Services, prefix: str) -> None:
    """End all leases below a prefix: at once in effect, a first piece also in their records.

    Args:
        services: in a transaction that writes.
        prefix: with or without a slash at its end; it may also be the id of one lease.

    Raises:
        TooManyRequests: too many prefixes wait to be cleared.
    """
    lease = leases_of(services).lookup(prefix)
    if lease is not None:
        revoke_lease(services, lease)
    prefix = prefix.rstrip("/") + "/"
    if services.area(AREA_LEASES).directory.exists(prefix):
        _end_prefix(services, EndedPrefix(prefix, services.now_ns, [(prefix, b"")]))
        _clear_prefix(services, REVOKED_AT_ONCE_MAX)


def revoke_moved(services: Services, prefix: str) -> None:
    """End all leases of a mount that has moved away from a prefix: at once in effect, in their records a little later.

    `is_clearing` tells until when that goes on, also if there is no lease at all.

    Raises:
        TooManyRequests: too many prefixes wait to be cleared.
    """
    _end_prefix(services, EndedPrefix(prefix, services.now_ns, [(prefix, b"")], services.now_ns + MOVE_PAUSE_NS))


def is_clearing(services: Services, prefix: str) -> bool:
    """Return whether leases below exactly this prefix are still to be cleared."""
    ended = services.area(AREA_TOKENS).get(ENDED_PREFIXES, EndedPrefixes)
    return ended is not None and any(each.prefix == prefix for each in ended.prefixes)


def next_clearing_ns(services: Services) -> int | None:
    """Return when ended leases are to be cleared next; None if there is nothing to wait for."""
    ended = services.area(AREA_TOKENS).get(ENDED_PREFIXES, EndedPrefixes)
    return min((each.clearing_ns for each in ended.prefixes), default=None) if ended is not None else None


def _end_prefix(services: Services, ending: EndedPrefix) -> None:
    storage = services.area(AREA_TOKENS)
    ended = storage.get(ENDED_PREFIXES, EndedPrefixes) or EndedPrefixes()
    others = [each for each in ended.prefixes if each.prefix != ending.prefix]
    if len(others) >= ENDED_PREFIXES_MAX:
        raise TooManyRequests("too many revocations by prefix are under way; try again later")
    storage.put(ENDED_PREFIXES, EndedPrefixes([ending, *others]))


def _forget(services: Services, record: TokenRecord) -> None:
    """Remove what belongs to one token besides its record."""
    leases_of(services).remove(record.lease_id)
    mount = MountTable(services.area(AREA_MOUNTS)).at(CUBBYHOLE_PATH)
    if mount is not None and record.accessor:
        doom(services, mount.uuid, cubbyhole_of(record.accessor) + "/")


def doom(services: Services, mount_uuid: str, path: str = "") -> None:
    """Mark a mount's storage, or a directory in it, to be emptied in the background; nothing is marked that is empty."""
    if path and not services.mount_storage(mount_uuid).directory.exists(path):
        return
    name = mount_uuid + "." + path.rstrip("/").replace("/", ".")
    services.area(AREA_DOOMED).put(name, Doomed(mount_uuid, path))


def doom_aliases(services: Services, mount_accessor: str) -> None:
    """Mark the aliases of an auth mount that is gone to be removed from their entities in the background."""
    services.area(AREA_DOOMED).put(mount_accessor, Doomed("", alias_accessor=mount_accessor))


# -- background steps; each returns how much it did, 0 when there is nothing to do --


def expire_due(services: Services, limit: int = EXPIRED_MAX) -> int:
    """End leases that are over."""
    over, looked_at = leases_of(services).due(services.now_ns, limit)
    for lease in over:
        revoke_lease(services, lease)
    return looked_at


def clear_step(services: Services, limit: int = CLEARED_MAX) -> int:
    """Clear away what is left of ended tokens and leases: spent ones themselves, children, those below ended prefixes."""
    return _clear_token(services, limit) or _clear_prefix(services, limit)


def _clear_token(services: Services, limit: int) -> int:
    tokens = tokens_of(services)
    storage = services.area(AREA_TOKENS)
    for name in tokens.ending(storage, 1):
        record = storage.get(name, TokenRecord)
        if record is not None and not record.is_released:  # spent
            revoke_token(services, record)
        children = tokens.children(storage, name, limit)
        for child in children.names:
            _end_child(services, child, name, is_spared=record is not None and record.is_released)
        if not children.has_more:
            storage.delete(name)
            tokens.ended(storage, name)
        return len(children.names) + 1
    return 0


def _end_child(services: Services, name: str, parent: str, *, is_spared: bool) -> None:
    storage = services.area(AREA_TOKENS)
    child = storage.get(name, TokenRecord)
    if is_spared:
        tokens_of(services).make_orphan(storage, name, parent)
    elif child is not None:
        revoke_token(services, child)
    else:
        storage.delete(f"child/{parent}/{name}")


def _clear_prefix(services: Services, limit: int) -> int:
    """Revoke some leases of the first ended prefix; forget the prefix when it has been walked to its end."""
    storage = services.area(AREA_TOKENS)
    ended = storage.get(ENDED_PREFIXES, EndedPrefixes)
    if ended is None:
        return 0
    first = next((each for each in ended.prefixes if each.clearing_ns <= services.now_ns), None)
    if first is None:
        return 0
    others = [each for each in ended.prefixes if each is not first]
    walk = list(first.walk)
    looked_at = 0
    while walk and looked_at < limit:
        path, cursor = walk.pop()
        names, cursor = services.area(AREA_LEASES).directory.list_piece(path, cursor, limit=limit - looked_at)
        looked_at += max(1, len(names))
        if cursor:
            walk.append((path, cursor))
        walk.extend((path + name, b"") for name in names if name.endswith("/"))
        for name in names:
            lease = None if name.endswith("/") else leases_of(services).lookup(path + name)
            if lease is not None and lease.issued_ns <= first.time_ns:
                revoke_lease(services, lease)
    left = [EndedPrefix(first.prefix, first.time_ns, walk, first.clearing_ns), *others] if walk else others
    if left:
        storage.put(ENDED_PREFIXES, EndedPrefixes(left))
    else:
        storage.delete(ENDED_PREFIXES)
    return looked_at


def empty_step(services: Services, limit: int = EMPTIED_MAX) -> int:
    """Delete records of something doomed."""
    doomed_area = services.area(AREA_DOOMED)
    for name in doomed_area.directory.list_piece(limit=1)[0]:
        doomed = doomed_area.get(name, Doomed)
        assert doomed is not None, "it was listed a line above"
        if _is_emptied(services, doomed, limit):
            doomed_area.delete(name)
        return limit
    return 0


def _is_emptied(services: Services, doomed: Doomed, limit: int) -> bool:
    """Delete a piece, and return whether nothing is left."""
    if doomed.alias_accessor:
        identities = Identities(services.area(AREA_IDENTITY), services.random, services.now_ns)
        return identities.mount_removed(doomed.alias_accessor, min(limit, CLEARED_MAX)) == 0
    return services.mount_storage(doomed.mount_uuid).directory.walk_delete(doomed.path, limit=limit)
