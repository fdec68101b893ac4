"""Rate limits: how many requests each client address may make below a path, within an interval.

The limits are records that every node follows; what is counted is counted in memory, by the node that took the request
from its client, so a limit costs the cluster nothing and holds on each node for itself. Of several limits the one with
the longest path counts. Nothing is counted as long as there is no limit.

Source: Vault's API page "sys/quotas/rate-limit"; texts and the window (all of the rate at once, again after the interval)
recorded from a real server.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

from msgspec import Struct

from conclave.core.contract import Request, Storage
from conclave.core.durations import NANOSECONDS
from conclave.core.errors import InvalidRequest, TooManyRequests

LIMITS_MAX: Final = 256
"""How many limits there can be; each request is compared with all of them."""
ADDRESSES_MAX: Final = 100_000
"""How many client addresses are counted at once; the one that came first is forgotten first."""
OVERALL_RATE_MIN: Final = 100.0
"""The least that a limit on all requests lets through in a second: a smaller one would stop the cluster, not protect it."""
QUOTAS_PREFIX: Final = "sys/quotas/"
"""Never limited: who has made a limit that is too small must be able to remove it."""
EXEMPT_PATHS: Final = frozenset({"sys/generate-root/attempt", "sys/generate-root/update"})
"""Not counted, besides what a sealed node answers: who holds shares must be able to use them in an emergency."""


class RateLimit(Struct, array_like=True, frozen=True):
    """A limit as it is kept. New fields come last, with defaults."""

    name: str
    path: str  # "" for all requests, else a mount with or without more: "secret/", "secret/data/app"
    rate: float  # requests of one address, within `interval_seconds`
    interval_seconds: int = 1
    block_interval_seconds: int = 0  # how long an address is refused that has made more


class RateLimitTable:
    """The limits, in one directory.

    Args:
        storage: the directory.
    """

    __slots__ = ("_storage",)

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def names(self) -> list[str]:
        """Return the names of all limits, sorted."""
        return [limit.name for limit in self.all()]

    def all(self) -> list[RateLimit]:
        """Return every limit, sorted by name."""
        found = (self._storage.get(name, RateLimit) for name in self._storage.list())
        return sorted((limit for limit in found if limit is not None), key=lambda limit: limit.name)

    def at(self, name: str) -> RateLimit | None:
        """Return a limit by its name; None if there is none."""
        return self._storage.get(quote(name, safe=""), RateLimit)

    def put(self, limit: RateLimit) -> None:
        """Add or replace a limit.

        Raises:
            InvalidRequest: another is about the same path, there are as many as there may be, or it would let next to
                nothing through.
        """
        if not limit.path and limit.rate / limit.interval_seconds < OVERALL_RATE_MIN:
            raise InvalidRequest(
                f"a limit on all requests must let at least {OVERALL_RATE_MIN:.0f} a second through; "
                "name a mount by 'path' to limit that"
            )
        others = [each for each in self.all() if each.name != limit.name]
        same = next((each for each in others if each.path == limit.path), None)
        if same is not None:
            raise InvalidRequest(f'quota rule with similar properties exists under the name "{same.name}"')
        if len(others) >= LIMITS_MAX:
            raise InvalidRequest(f"there can be at most {LIMITS_MAX} rate limits")
        self._storage.put(quote(limit.name, safe=""), limit)

    def remove(self, name: str) -> None:
        """Remove a limit; nothing happens if there is none."""
        self._storage.delete(quote(name, safe=""))


class _Window(Struct):
    """What one address has made of one limit."""

    start_ns: int
    count: int = 0
    blocked_until_ns: int = 0


class RateLimiter:
    """Counts requests on one node."""

    def __init__(self) -> None:
        self._limits: list[RateLimit] = []
        self._windows: OrderedDict[tuple[str, str], _Window] = OrderedDict()

    def use(self, limits: Iterable[RateLimit]) -> None:
        """Go by these limits from now on."""
        self._limits = sorted(limits, key=lambda limit: len(limit.path), reverse=True)
        self._windows.clear()

    def admit(self, request: Request, now_ns: int) -> None:
        """Count a request.

        Raises:
            TooManyRequests: its address has made too many below that path.
        """
        if not self._limits or request.path in EXEMPT_PATHS or request.path.startswith(QUOTAS_PREFIX):
            return
        limit = next((each for each in self._limits if _covers(each.path, request.path)), None)
        if limit is not None and not _is_within(limit, self._window(limit, request.remote_address, now_ns), now_ns):
            raise TooManyRequests(f'request path "{request.path}": rate limit quota exceeded')

    def _window(self, limit: RateLimit, address: str, now_ns: int) -> _Window:
        key = (limit.name, address)
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = _Window(now_ns)
            if len(self._windows) > ADDRESSES_MAX:
                self._windows.popitem(last=False)
        return window


def _covers(path: str, requested: str) -> bool:
    return not path or requested == path.rstrip("/") or requested.startswith(path.rstrip("/") + "/")


def _is_within(limit: RateLimit, window: _Window, now_ns: int) -> bool:
    """Count one request in its window, and return whether it may be answered."""
    if now_ns < window.blocked_until_ns:
        return False
    if now_ns - window.start_ns >= limit.interval_seconds * NANOSECONDS:
        window.start_ns, window.count = now_ns, 0
    window.count += 1
    if window.count <= math.ceil(limit.rate):
        return True
    window.blocked_until_ns = now_ns + limit.block_interval_seconds * NANOSECONDS
    return False
