"""The time by which tokens and leases end: the wall clock, but jumps of it are walked, not leapt.

A wall clock can be set. If the leader leapt with it, an hour ahead would end every shorter lease at once, for good and on
all nodes, since the vault's time never goes back; and an hour back would let them all last so much longer. So time passes
here as it does on a clock that nobody sets, and comes nearer to the wall clock by a tenth of what passes at the most. What
the wall clock says is taken at its word once, at the start of the process.

It does not make the clocks of several nodes agree; the log's own time does that (`Store.now_ns`). Where that is ahead, time
goes on from there, rather than stand still until this node's clock has come so far: nothing would end meanwhile.
"""

import logging
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

WALK_DIVISOR: Final = 10
"""A lease of ten hours ends up to an hour early or late while a jump is being walked."""
TOLD_NS_MIN: Final = 60 * 10**9
"""Being away by less is not worth an operator's attention."""


class WalkingClock:
    """A clock that follows the wall clock slowly.

    Args:
        wall_ns: nanoseconds since 1970; may jump.
        steady_ns: nanoseconds since any moment; never jumps, and counts while the machine sleeps.
        reached_ns: the time that the log has reached; never goes back.
    """

    def __init__(self, wall_ns: Callable[[], int], steady_ns: Callable[[], int], reached_ns: Callable[[], int]) -> None:
        self._wall_ns = wall_ns
        self._steady_ns = steady_ns
        self._reached_ns = reached_ns
        self._now_ns = wall_ns()
        self._counted_ns = steady_ns()
        self._is_told = False

    def now_ns(self) -> int:
        """Return nanoseconds since 1970; never less than before, nor than the log has reached."""
        counted_ns = self._steady_ns()
        passed_ns = counted_ns - self._counted_ns
        away_ns = self._wall_ns() - self._now_ns - passed_ns
        most_ns = passed_ns // WALK_DIVISOR
        self._counted_ns = counted_ns
        self._now_ns = max(self._now_ns + passed_ns + max(-most_ns, min(most_ns, away_ns)), self._reached_ns())
        self._tell(away_ns)
        return self._now_ns

    def _tell(self, away_ns: int) -> None:
        """Log that the wall clock is far away, once for each time."""
        has_jumped = abs(away_ns) >= TOLD_NS_MIN
        if has_jumped and not self._is_told:
            log.warning(
                "the wall clock is far from the time that tokens end by; it is followed slowly",
                extra={"ahead_seconds": away_ns // 10**9},
            )
        self._is_told = has_jumped
