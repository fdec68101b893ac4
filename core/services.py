"""What the vault's own engines (`sys/`, `auth/token/`, cubbyhole) may touch beyond their mount, within one transaction.

An ordinary engine gets a `Context` and nothing else. The few that are part of the vault also see its records: mounts,
policies, tokens, leases. Each area is a directory of the sealed tree; all of them share the request's transaction, so a
change to several is one atomic step.
"""

from collections.abc import Callable, Mapping
from typing import Final

from conclave.core.contract import Engine
from conclave.core.records import Records
from conclave.storage.barrier import Barrier
from conclave.storage.tables import OrderedTable
from conclave.storage.transaction import Transaction
from conclave.storage.tree import Directory

ROOT: Final = bytes(16)
"""The parent of all areas; nothing is stored in it directly."""

AREA_CLUSTER: Final = "cluster"
AREA_MOUNTS: Final = "mounts"
AREA_POLICIES: Final = "policies"
AREA_TOKENS: Final = "tokens"
AREA_LEASES: Final = "leases"
AREA_DOOMED: Final = "doomed"
AREA_AUDIT: Final = "audit"
AREA_IDENTITY: Final = "identity"
AREA_QUOTAS: Final = "quotas"
AREA_LOGICAL: Final = "logical"
TABLE_EXPIRY: Final = "expiry"


def area_id(barrier: Barrier, name: str) -> bytes:
    """Return the 16-byte directory id of an area of the vault's own records."""
    return barrier.descend(ROOT, name + "/")


class Limits:
    """The system's lifetimes, in seconds."""

    __slots__ = ("default_lease_ttl_seconds", "max_lease_ttl_seconds")

    def __init__(self, default_lease_ttl_seconds: int, max_lease_ttl_seconds: int) -> None:
        self.default_lease_ttl_seconds = default_lease_ttl_seconds
        self.max_lease_ttl_seconds = max_lease_ttl_seconds


class Services:
    """The vault's records within one transaction.

    Args:
        transaction: the request's; reading or writing.
        barrier: opens and seals.
        now_ns: the request's time.
        random: so many random bytes.
        limits: system-wide lifetimes.
        engines, methods: the registries, type → instance.
    """

    __slots__ = ("_directories", "barrier", "engines", "limits", "methods", "now_ns", "random", "transaction")

    def __init__(
        self,
        transaction: Transaction,
        barrier: Barrier,
        *,
        now_ns: int,
        random: Callable[[int], bytes],
        limits: Limits,
        engines: Mapping[str, Engine],
        methods: Mapping[str, Engine],
    ) -> None:
        self.transaction = transaction
        self.barrier = barrier
        self.now_ns = now_ns
        self.random = random
        self.limits = limits
        self.engines = engines
        self.methods = methods
        self._directories: dict[str, Records] = {}  # by an area's name, or a mount's id

    def area(self, name: str) -> Records:
        """Return the directory of one area (`AREA_…`)."""
        records = self._directories.get(name)
        if records is None:
            records = self._directories[name] = Records(
                Directory(self.transaction, self.barrier, area_id(self.barrier, name))
            )
        return records

    def mount_storage(self, uuid: str) -> Records:
        """Return the directory of a mount's own data; it hangs on the mount's id, so moving a mount moves one record."""
        records = self._directories.get(uuid)
        if records is None:
            directory_id = self.barrier.descend(ROOT, f"{AREA_LOGICAL}/{uuid}/")
            records = self._directories[uuid] = Records(Directory(self.transaction, self.barrier, directory_id))
        return records

    @property
    def expiry(self) -> OrderedTable:
        """The table of leases in order of their expiry."""
        return OrderedTable(self.transaction, self.barrier, area_id(self.barrier, TABLE_EXPIRY))
