"""A simulated disk: the real log on simulated files, a state that stands in, and the writes on their way there, in order.

Like the real writer it merges waiting appends into one transaction, does one job after the other, tries again what found no
room, and is done for after a failed sync. All of it happens at the end of the time that it takes; if the process dies
before, it dies after any number of steps, and the real recovery sees what the files make of that. The state is there as
a whole or not at all: LMDB, which keeps it, owns its files.
"""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Final

from msgspec import structs

from conclave.cluster import persistence
from conclave.cluster.installing import recovery
from conclave.cluster.membership import RECORD_VERSION, Identity, decode_identity, encode_identity
from conclave.cluster.persistence import (
    Append,
    Compact,
    DurableLog,
    Job,
    Reset,
    SaveIdentity,
    append_record,
    merge,
)
from conclave.cluster.raft import AppendJob, Snapshot, SnapshotMeta
from conclave.storage.errors import Compacted, Corrupt
from conclave.storage.file_log import FileLog
from conclave.storage.log import EntryTuple
from tests.simulator.checkers import Violation
from tests.simulator.files import Died, SimulatedFiles

SEGMENT_BYTES_MAX: Final = 4096
FILL_BYTES: Final = 2048
AUDIT_READS: Final = 4
"""Of so many reads from memory one is compared with the disk: in the short life of a node memory holds the whole log."""
STEPS_MAX: Final = 8
"""A process dies within so many steps of a transaction, or after it."""
DEATH_IN_RECOVERY: Final = 0.1

_FOLDER: Final = Path("log")


class AuditedLog(FileLog):
    """The real log, some of whose reads are compared with what is on the disk."""

    def __init__(self, files: SimulatedFiles) -> None:
        self.is_damaged = False
        self._simulated = files
        self._reads = 0
        super().__init__(
            _FOLDER, segment_bytes_max=SEGMENT_BYTES_MAX, fill_bytes=FILL_BYTES, fill_ahead_bytes=0, files=files
        )

    def read(self, low: int, high: int, bytes_max: int) -> list[EntryTuple]:
        """See `FileLog`."""
        entries = super().read(low, high, bytes_max)
        self._reads += 1
        if self._reads % AUDIT_READS == 0:
            self._compare(entries, low, high, bytes_max)
        return entries

    def _compare(self, entries: list[EntryTuple], low: int, high: int, bytes_max: int) -> None:
        try:
            stored = self._read_disk(self._contents.view, low, high, bytes_max)
        except Corrupt as error:
            if not self._simulated.are_rotten:
                raise Violation(f"an undamaged log cannot be read: {error}") from error
            self.is_damaged = True
            return
        if stored != entries:
            raise Violation(f"the log holds {stored} where it should hold {entries}")


class Disk:
    """One node's log and state.

    Args:
        node_id: whose.
        snapshot: what the node begins from.
        random: decides what a crash leaves.

    Attributes:
        files: what the log is in.
        log: the log; after the damage that could not be opened, the one before.
        state: what stands for the state that is durable.
        is_damaged: whether the log could not be opened, after a bit was flipped.
        waiting: jobs that were handed over and are not under way yet.
        writing: the jobs of the transaction under way.
        busy_since: when that transaction began.
    """

    def __init__(self, node_id: int, snapshot: Snapshot | None, random: Random) -> None:
        self.files = SimulatedFiles(random)
        self.state = snapshot or Snapshot(SnapshotMeta())
        self.is_damaged = False
        self.waiting: list[AppendJob | Compact] = []
        self.writing: list[AppendJob | Compact] = []
        self.busy_since = 0.0
        self._identity = Identity(RECORD_VERSION, b"", f"node-{node_id}", raft_id=node_id)
        self._steps: list[Job | Snapshot] = []  # of the transaction under way, those that are left to be done
        self._random = random
        self.log = AuditedLog(self.files)
        self.log.set_identity(encode_identity(self._identity))
        if snapshot is not None:
            persistence.perform(self.log, self._reset(snapshot, (0, 0, snapshot.meta.index)))

    def storage(self, take_snapshot: Callable[[], Snapshot]) -> DurableLog:
        """Return what the core reads."""
        return DurableLog(self.log, self.state.meta.conf_state, self.state.meta.index, take_snapshot)

    def begin(self, now: float) -> None:
        """Put all waiting jobs under way."""
        self.writing, self.waiting = self.waiting, []
        self._steps = self._plan(self.writing)
        self.busy_since = now

    def finish(self) -> Sequence[AppendJob | Compact]:
        """Make the transaction under way durable; return its jobs.

        Raises:
            Full: no room; what is left may be tried again.
            Fenced: a sync has failed.
        """
        self._perform()
        done, self.writing = self.writing, []
        return done

    def end_process(self, *, loses_power: bool, steps: int | None = None) -> None:
        """Do some steps of the transaction under way, lose what is lost, and see what the next process will find."""
        self.files.grow()
        self.files.steps_left = self._death() if steps is None else steps
        with contextlib.suppress(Died):
            self._perform()
        self._steps, self.writing, self.waiting = [], [], []
        self._die(loses_power=loses_power)
        self._reopen()

    def fail(self) -> None:
        """Forget the transaction under way: nobody knows what became of it."""
        self._steps = []

    def holds(self, index: int, term: int) -> bool:
        """Whether an entry (or a snapshot that covers it) is durable."""
        try:
            return self.log.last_index >= index and self.log.term(index) == term
        except Compacted:
            return True

    # -- writing --

    def _plan(self, jobs: Sequence[AppendJob | Compact]) -> list[Job | Snapshot]:
        """Return what the real writer, and whoever installs a snapshot, would do one after the other."""
        steps: list[Job | Snapshot] = []
        appends: list[Append] = []
        for job in jobs:
            if isinstance(job, Compact) or job.snapshot is not None:
                _flush(appends, steps)
            if isinstance(job, Compact):
                steps.append(job)
                continue
            if job.snapshot is not None:
                meta, hard = job.snapshot.meta, job.hard_state
                intent = structs.replace(self._identity, installing=(meta.index, meta.term))
                hard_state = (hard.term, hard.vote, max(hard.commit, meta.index))
                steps += (
                    SaveIdentity(encode_identity(intent)),
                    job.snapshot,
                    self._reset(job.snapshot, hard_state),
                )
            appends.append(append_record(job))
        _flush(appends, steps)
        return steps

    def _reset(self, snapshot: Snapshot, hard_state: tuple[int, int, int]) -> Reset:
        return Reset(snapshot.meta.index, snapshot.meta.term, hard_state, encode_identity(self._identity))

    def _perform(self) -> None:
        while self._steps:
            step = self._steps[0]
            if isinstance(step, Snapshot):
                self.state = step
            else:
                persistence.perform(self.log, step)
            del self._steps[0]

    # -- dying and recovering --

    def _death(self) -> int:
        """Return after how many steps the process dies: rather early, since most transactions have two."""
        return self._random.randrange(1 + self._random.randrange(STEPS_MAX))

    def _die(self, *, loses_power: bool) -> None:
        self.files.end_process()
        if loses_power:
            self.files.lose_power()

    def _reopen(self) -> None:
        """Let the real recovery run, until it has come through."""
        while True:
            if self._random.random() < DEATH_IN_RECOVERY:
                self.files.steps_left = self._death()
            try:
                self.log = self._recovered()
            except Died:
                self._die(loses_power=self._random.random() < 0.5)
                continue
            except Corrupt as error:
                if not self.files.are_rotten:
                    raise Violation(f"a crash was taken for damage: {error}") from error
                self.is_damaged = True
            self.files.steps_left = None
            return

    def _recovered(self) -> AuditedLog:
        log = AuditedLog(self.files)
        meta = self.state.meta
        stored = log.get_identity()
        if not stored:
            raise Violation("a log that was there is empty")
        identity = decode_identity(stored)
        if structs.replace(identity, installing=(0, 0)) != self._identity:
            raise Violation(f"the log is not of {self._identity.node_id} any more, but of {identity.node_id}")
        job = recovery(identity, (meta.index, meta.term), log.hard_state)
        if job is not None:
            persistence.perform(log, job)
        if not log.first_index - 1 <= meta.index <= log.last_index:
            raise Violation(
                f"the state holds entry {meta.index}, but the log reaches from {log.first_index} to {log.last_index}"
            )
        return log


def _flush(appends: list[Append], steps: list[Job | Snapshot]) -> None:
    if appends:
        steps.append(merge(appends))
        appends.clear()
