"""Lockout: whoever fails to log in too often is refused for a while, right password or not.

Counted in memory by the node that leads, as in Vault: failed logins write nothing to the log, so that guessing costs the
cluster no disk. A new leader starts to count anew. Source: Vault's page "User lockout": five failures, each within a
quarter of an hour of the last, lock for a quarter of an hour.
"""

from collections import OrderedDict
from typing import Final

from msgspec import Struct

from conclave.core.crypto import hash_text
from conclave.core.durations import NANOSECONDS

FAILURES_MAX: Final = 5
LOCK_SECONDS: Final = 900
RESET_SECONDS: Final = 900
"""After so long without a failure the count starts again."""
NAMES_MAX: Final = 100_000
"""How many names are counted at once; the one that failed longest ago is forgotten first."""
NAME_CHARACTERS_MAX: Final = 128
"""A longer name is counted under its hash: whoever fails to log in chooses it, and need be nobody."""
LOCKING_METHODS: Final = frozenset({"approle", "ldap", "userpass"})


class _Failures(Struct):
    count: int = 0
    last_ns: int = 0


class Lockouts:
    """Failed logins by mount and name."""

    def __init__(self) -> None:
        self._failures: OrderedDict[tuple[str, str], _Failures] = OrderedDict()

    def is_locked(self, accessor: str, name: str, now_ns: int) -> bool:
        """Whether logins of this name at the mount with this accessor are refused."""
        found = self._failures.get(_key(accessor, name))
        return found is not None and found.count >= FAILURES_MAX and now_ns - found.last_ns < LOCK_SECONDS * NANOSECONDS

    def failed(self, accessor: str, name: str, now_ns: int) -> None:
        """Count a failed login."""
        key = _key(accessor, name)
        found = self._failures.pop(key, None) or _Failures()
        if now_ns - found.last_ns >= RESET_SECONDS * NANOSECONDS:
            found.count = 0
        found.count += 1
        found.last_ns = now_ns
        self._failures[key] = found
        if len(self._failures) > NAMES_MAX:
            self._failures.popitem(last=False)

    def succeeded(self, accessor: str, name: str) -> None:
        """Forget the failures of whoever has logged in, or has been unlocked."""
        self._failures.pop(_key(accessor, name), None)

    def locked(self, now_ns: int) -> dict[str, list[str]]:
        """Return the locked names by accessor, sorted."""
        by_accessor: dict[str, list[str]] = {}
        for accessor, name in sorted(self._failures):
            if self.is_locked(accessor, name, now_ns):
                by_accessor.setdefault(accessor, []).append(name)
        return by_accessor


def _key(accessor: str, name: str) -> tuple[str, str]:
    return accessor, name if len(name) <= NAME_CHARACTERS_MAX else hash_text(name, "conclave-lockout")
