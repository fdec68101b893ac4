"""A simulated disk: what is durable, and the writes on their way there, in order.

Like the real writer it makes all waiting jobs durable in one transaction, so a crash or a failed sync keeps all of the
transaction under way or nothing of it; what waits behind is lost.
"""

from collections.abc import Callable, Sequence

from conclave.cluster.raft import AppendJob, Compacted, MemoryStorage, Snapshot


class LiveLog(MemoryStorage):
    """A log whose owner flushes its state when a peer needs a snapshot, so that the snapshot is of that moment."""

    __slots__ = ("_flush",)

    def __init__(self, snapshot: Snapshot | None, flush: Callable[[], None]) -> None:
        super().__init__(snapshot)
        self._flush = flush

    @property
    def flushed(self) -> Snapshot:
        """The state that was made durable last."""
        return super().snapshot()

    def snapshot(self) -> Snapshot:
        """Return the state of this moment."""
        self._flush()
        return super().snapshot()


class Disk:
    """One node's log.

    Attributes:
        storage: what is durable.
        waiting: jobs that were handed over and are not under way yet.
        writing: the jobs of the transaction under way.
        busy_since: when that transaction began.
    """

    def __init__(self, storage: LiveLog) -> None:
        self.storage = storage
        self.waiting: list[AppendJob] = []
        self.writing: list[AppendJob] = []
        self.busy_since = 0.0

    def begin(self, now: float) -> None:
        """Put all waiting jobs under way."""
        self.writing, self.waiting = self.waiting, []
        self.busy_since = now

    def finish(self) -> Sequence[AppendJob]:
        """Make the transaction under way durable; return its jobs."""
        done, self.writing = self.writing, []
        for job in done:
            self.write(job)
        return done

    def lose(self, *, keep_transaction: bool) -> None:
        """Lose what is not durable; the transaction under way may have happened."""
        if keep_transaction:
            self.finish()
        self.writing, self.waiting = [], []

    def write(self, job: AppendJob) -> None:
        """Make one job durable."""
        if job.snapshot is not None:
            self.storage.apply_snapshot(job.snapshot)
        if job.entries:
            self.storage.append(job.entries)
        if job.must_sync:
            self.storage.set_hard_state(job.hard_state)

    def holds(self, index: int, term: int) -> bool:
        """Whether an entry (or a snapshot that covers it) is durable."""
        try:
            return self.storage.last_index() >= index and self.storage.term(index) == term
        except Compacted:
            return True
