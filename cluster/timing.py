"""How time passes for a node: the settings of raft.md section 6 in seconds, the clock, and the ticks.

Rules enforced here:

* The clock counts while the machine is suspended (CLOCK_BOOTTIME): a lease must not outlive a sleep.
* Two ticks are never closer than one interval, or a follower would forget its promise to the leader too early.
* Ticks that were missed (a busy loop, a stopped process) are not replayed: one tick says how late it is, and no more come.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from msgspec import Struct

TICK_SECONDS: Final = 0.010
HEARTBEAT_TICKS: Final = 5
LEASE_TICKS: Final = 20
"""L: for so long after it heard a leader, a node helps nobody else to be elected."""
ELECTION_TICKS: Final = 50
"""T: without a leader a node campaigns after T to 2T - 1."""
LEASE_FRACTION: Final = 0.9
LEASE_MARGIN_TICKS: Final = 1
"""A lease is shorter than the promise it leans on: clocks may differ by a tenth, and ticks are counted, not measured."""
FENCE_SECONDS_MIN: Final = 1.0
EARLY_FRACTION: Final = 0.05
"""Event loops count in milliseconds; a timer that is early by no more than this part of an interval is on time."""


class Timing(Struct, frozen=True):
    """Durations in seconds, all scaled by Vault's `performance_multiplier`."""

    multiplier: float = 1.0

    @property
    def tick_seconds(self) -> float:
        """One tick of the core."""
        return TICK_SECONDS * self.multiplier

    @property
    def election_seconds(self) -> float:
        """T, the shortest election timeout."""
        return ELECTION_TICKS * self.tick_seconds

    @property
    def lease_seconds(self) -> float:
        """How long after a heartbeat was sent no other node can have been elected, if a quorum acknowledges it."""
        return (LEASE_FRACTION * LEASE_TICKS - LEASE_MARGIN_TICKS) * self.tick_seconds

    @property
    def fence_seconds(self) -> float:
        """How long a disk may owe an answer before its node gives up leadership."""
        return max(2 * self.election_seconds, FENCE_SECONDS_MIN)


def boot_seconds() -> float:
    """Return seconds of a clock that never goes back and also counts while the machine sleeps."""
    return time.clock_gettime(_CLOCK)


def boot_ns() -> int:
    """Return nanoseconds of that clock."""
    return time.clock_gettime_ns(_CLOCK)


_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Ticker:
    """Calls `on_tick` once in every interval.

    Args:
        interval_seconds: between two ticks.
        on_tick: given how many seconds later than planned this tick comes.
        clock: seconds, monotone.
    """

    def __init__(
        self, interval_seconds: float, on_tick: Callable[[float], None], clock: Callable[[], float] = boot_seconds
    ) -> None:
        self._interval_seconds = interval_seconds
        self._on_tick = on_tick
        self._clock = clock
        self._last = clock()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to tick, an interval from now."""
        self._last = self._clock()
        self._arm(self._interval_seconds)

    def stop(self) -> None:
        """Tick no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._fire)

    def _fire(self) -> None:
        now = self._clock()
        late_seconds = now - self._last - self._interval_seconds
        if late_seconds < -EARLY_FRACTION * self._interval_seconds:
            # Loops measure a timer from when their turn began, which may be a while ago.
            self._arm(-late_seconds)
            return
        self._last = now
        self._arm(self._interval_seconds)
        self._on_tick(max(0.0, late_seconds))
