"""What a machine's disk holds, and a `Writer` whose syncs take time, hang or fail: what no sync has ended is lost in a crash.

The log is a `MemoryLog` that nobody writes but the disk, when a sync ends; the state is a `MemoryState` that is written by
a flush at once. Both outlive the process. A process that dies may leave the batch under way written or not.
"""

from collections import deque
from collections.abc import Callable
from random import Random

from conclave.cluster.persistence import BATCH_JOBS_MAX, Append, Compact, Done, Job, Reset, SaveIdentity, merge
from conclave.storage.memory import MemoryLog, MemoryState
from tests.simulator.nodes.faults import Faults
from tests.simulator.nodes.loop import Process, VirtualLoop


class Disk:
    """A data directory, and how long writing to it takes.

    Args:
        loop: time.
        random: decides how long everything takes.
        faults: what may go wrong.
    """

    def __init__(self, loop: VirtualLoop, random: Random, faults: Faults) -> None:
        self.log = MemoryLog()
        self.state = MemoryState()
        self.faults = faults
        self.has_failed = False
        self._loop = loop
        self._random = random

    def sync(self, ended: Callable[[bool], None]) -> None:
        """Begin a sync; `ended` is told whether it succeeded."""
        faults, random = self.faults, self._random
        seconds = random.uniform(0.0002, faults.sync_seconds_max)
        luck = random.random()
        if luck < faults.hanging_sync:
            seconds += random.uniform(0.5, 4.0)
        elif luck < faults.hanging_sync + faults.slow_sync:
            seconds += random.uniform(0.0, 0.5)
        fails = random.random() < faults.failed_sync
        self._loop.in_world(seconds, lambda: ended(not fails))

    def survives(self) -> bool:
        """Tell whether what was being written when the process died is there all the same."""
        return self._random.random() < 0.5


class SimulatedWriter:
    """A `Writer` on a `Disk`, with one sync at a time; what waits meanwhile goes together.

    Args:
        disk: holds the log.
        process: hears when something is durable.
        on_fault: as for `ThreadWriter`.
    """

    def __init__(self, disk: Disk, process: Process, on_fault: Callable[[str, bool], None]) -> None:
        self._disk = disk
        self._process = process
        self._on_fault = on_fault
        self._waiting: deque[tuple[float, Job, Done]] = deque()
        self._under_way: list[tuple[float, Job, Done]] = []
        self._is_fenced = False
        self._is_gone = False

    def submit(self, job: Job, done: Done) -> None:
        """See `Writer`."""
        is_empty = isinstance(job, Append) and not job.entries and job.hard_state is None
        if is_empty and not self._waiting and not self._under_way:
            if not self._is_fenced:
                done()
            return
        self._waiting.append((self._process.boot_seconds(), job, done))
        self._begin()

    def oldest_pending_seconds(self, now: float) -> float:
        """See `Writer`."""
        oldest = self._under_way or self._waiting
        return now - oldest[0][0] if oldest else 0.0

    def close(self) -> None:
        """See `Writer`."""

    def crash(self) -> None:
        """Lose what waits; what is under way happens as a whole, or not."""
        self._is_gone = True
        if self._under_way and not self._is_fenced and self._disk.survives():
            self._perform()

    def _begin(self) -> None:
        if self._under_way or not self._waiting or self._is_fenced or self._is_gone:
            return
        self._under_way = [self._waiting.popleft()]
        if isinstance(self._under_way[0][1], Append):
            while self._waiting and len(self._under_way) < BATCH_JOBS_MAX and isinstance(self._waiting[0][1], Append):
                self._under_way.append(self._waiting.popleft())
        self._disk.sync(self._ended)

    def _ended(self, succeeded: bool) -> None:
        if self._is_gone:
            return
        if not succeeded:
            self._is_fenced = True
            self._disk.has_failed = True
            self._process.post(self._on_fault, "cannot write the log: a sync failed", True)
            return
        self._perform()
        self._process.post(self._tell)

    def _tell(self) -> None:
        done, self._under_way = self._under_way, []
        self._begin()
        for _, _, call in done:
            call()

    def _perform(self) -> None:
        log, jobs = self._disk.log, [job for _, job, _ in self._under_way]
        match jobs[0]:
            case Append():
                merged = merge([job for job in jobs if isinstance(job, Append)])
                if merged.entries or merged.hard_state is not None:
                    log.append(merged.hard_state, merged.entries)
            case Compact(index):
                log.compact(index)
            case Reset(index, term, hard_state, identity):
                log.reset(index, term, hard_state)
                log.set_identity(identity)
            case SaveIdentity(identity):
                log.set_identity(identity)
