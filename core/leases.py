"""Leases: what ends by itself at a certain time, and the order in which it does.

A lease is a record under its id, so that leases can be looked up and listed by prefix, and a row in the ordered table of
expiry, so that finding what is due costs what is due. Renewing moves the row.

A service token that ends has the lease `<path that made it>/h<name of its record>`. What happens when a lease ends is in
`core/revocation.py`. Area `leases`: `<lease id>`. Source: Vault's page "Lease, renew, and revoke".
"""

from enum import StrEnum

import msgspec
from msgspec import Struct

from conclave.core.contract import Storage
from conclave.core.durations import NANOSECONDS
from conclave.storage.tables import OrderedTable


class LeaseKind(StrEnum):
    """What a lease is of."""

    TOKEN = "token"  # noqa: S105  (no password: the word)
    SECRET = "secret"  # noqa: S105


class LeaseRecord(Struct, array_like=True, frozen=True):
    """A lease as it is kept. New fields come last, with defaults."""

    id: str
    kind: LeaseKind
    issued_ns: int
    expires_ns: int
    token: str = ""  # name of the token that it is of, or that it ends with
    is_renewable: bool = False
    renewed_ns: int = 0
    ttl_seconds: int = 0
    max_ttl_seconds: int = 0
    mount_uuid: str = ""
    data: bytes = b""  # the engine's own: what it needs to revoke

    def ttl_left_seconds(self, now_ns: int) -> int:
        """Return how long it is good for, rounded down."""
        return max(0, (self.expires_ns - now_ns) // NANOSECONDS)


class Leases:
    """The leases of the vault.

    Args:
        storage: the directory of their records.
        expiry: the table in which they stand in order of their end.
    """

    __slots__ = ("_expiry", "_storage")

    def __init__(self, storage: Storage, expiry: OrderedTable) -> None:
        self._storage = storage
        self._expiry = expiry

    def register(self, lease: LeaseRecord) -> None:
        """Keep a new lease."""
        self._storage.put(lease.id, lease)
        self._expiry.put(lease.expires_ns, lease.id.encode(), lease.id.encode())

    def lookup(self, lease_id: str) -> LeaseRecord | None:
        """Return a lease; None if there is none."""
        if not lease_id or lease_id.endswith("/"):
            return None
        return self._storage.get(lease_id, LeaseRecord)

    def names(self, prefix: str) -> list[str]:
        """Return the names below a prefix ("auth/token/create/"), sorted; deeper ones end in a slash."""
        return self._storage.list(prefix)

    def renew(self, lease: LeaseRecord, expires_ns: int, now_ns: int) -> LeaseRecord:
        """Let a lease end at another time, and return it as it is then."""
        self._expiry.delete(lease.expires_ns, lease.id.encode())
        renewed = msgspec.structs.replace(lease, expires_ns=expires_ns, renewed_ns=now_ns)
        self.register(renewed)
        return renewed

    def remove(self, lease_id: str) -> None:
        """Forget a lease, if it is there; what it stood for is the caller's business."""
        lease = self.lookup(lease_id)
        if lease is not None:
            self._storage.delete(lease_id)
            self._expiry.delete(lease.expires_ns, lease_id.encode())

    def due(self, now_ns: int, limit: int) -> tuple[list[LeaseRecord], int]:
        """Return leases that are over, the oldest first, and how many rows of the table were looked at, at most `limit`."""
        over: list[LeaseRecord] = []
        rows = self._expiry.due(now_ns, limit)
        for time_ns, key, lease_id in rows:
            lease = self.lookup(lease_id.decode())
            if lease is None or lease.expires_ns != time_ns:
                self._expiry.delete_key(key)  # a row without its lease would come up for ever
            else:
                over.append(lease)
        return over, len(rows)

    def next_expiry_ns(self) -> int | None:
        """Return when the next lease ends; None if there is none."""
        return self._expiry.next_time()
