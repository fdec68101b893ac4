"""How this process treats its memory and its threads, and what it tells of that: the collector's pauses, the memory in use.

Requests leave hardly a cycle behind. So the collector looks rarely, never again at what starting up has made, and each of
its pauses is measured: it stops every request.

The event loop computes; the threads that write the log and the state wait for the disk and need the interpreter for
moments. An interpreter that is asked for goes on for a while before it is handed over, and a write waits meanwhile that
could be on its way to the disk. So that while is short.
"""

import gc
import os
import sys
import time
from pathlib import Path
from typing import Final, Literal

from conclave.core.metrics import Metrics

GC_THRESHOLDS: Final = (50_000, 20, 100)
"""Of each generation; the first counts objects made and not gone, the others collections of the one before."""
SWITCH_SECONDS: Final = 0.0005
"""After how long a thread gives up the interpreter to one that waits for it: a tenth of Python's default, with which a
leader of 64 clients that write does a tenth less."""
_MEMORY: Final = Path("/proc/self/statm")


def settle_memory() -> None:
    """Collect once, leave what is there now alone from here on, and look rarely."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def share_interpreter() -> None:
    """Let threads that need the interpreter for a moment have it soon."""
    sys.setswitchinterval(SWITCH_SECONDS)


class CollectorWatch:
    """Measures the collector's pauses from its making until `stop`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._began_ns = 0
        metrics.alloc_bytes.follow(_resident_bytes)
        gc.callbacks.append(self._collecting)

    def stop(self) -> None:
        """Measure no more."""
        gc.callbacks.remove(self._collecting)

    def _collecting(self, phase: Literal["start", "stop"], _info: dict[str, int]) -> None:
        if phase == "start":
            self._began_ns = time.perf_counter_ns()
        else:
            pause_ns = time.perf_counter_ns() - self._began_ns
            self._metrics.gc_pause_ns.observe(pause_ns)
            self._metrics.gc_total_pause_ns.add(pause_ns)
            self._metrics.gc_runs.add(1)


def _resident_bytes() -> float:
    try:
        return int(_MEMORY.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0.0
