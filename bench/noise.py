"""Is the machine quiet enough? Figures that were taken beside other work say more about that work than about us."""

import time
from pathlib import Path
from typing import Final

BUSY_SHARE_MAX: Final = 0.10
"""Of all processors' time, before anything of ours runs."""
STOLEN_SHARE_MAX: Final = 0.05
"""Of all processors' time during the run, taken by other machines on the same hardware."""
LOOK_SECONDS: Final = 2.0
SPREAD_MAX: Final = 0.5
"""Of the median: rounds of one operation that are further apart tell of what else the machine did."""


class TooNoisy(Exception):
    """The machine did other work."""


class Watch:
    """Watches the machine from its making on."""

    def __init__(self) -> None:
        self._began = _times()

    @property
    def busy_share(self) -> float:
        """Which part of all processors' time was not idle."""
        idle, _, total = self._passed()
        return 1 - idle / total

    @property
    def stolen_share(self) -> float:
        """Which part the hypervisor gave to others while this machine wanted it."""
        _, stolen, total = self._passed()
        return stolen / total

    def _passed(self) -> tuple[int, int, int]:
        idle, stolen, total = (now - began for now, began in zip(_times(), self._began, strict=True))
        return idle, stolen, max(total, 1)


def demand_quiet() -> None:
    """Look at the machine for a moment.

    Raises:
        TooNoisy: others use it.
    """
    watch = Watch()
    time.sleep(LOOK_SECONDS)  # what is looked at is what others do in this time
    share = watch.busy_share
    if share > BUSY_SHARE_MAX:
        raise TooNoisy(
            f"other programs use {share:.0%} of this machine's processors: stop them, or measure all the same "
            "with --noisy"
        )


def _times() -> tuple[int, int, int]:
    """Return idle, stolen and all ticks of all processors since they were started (proc(5))."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return fields[3] + fields[4], fields[7], sum(fields)
