"""The core's append jobs on their way to the disk, and back: what promised that something is durable is let out when it is.

Rules enforced here:

* Jobs are written in the order in which the core gave them out.
* While a snapshot is installed nothing is written, and so nothing promised: the jobs behind it are held, and follow once
  log and state have been replaced.
* What a job of an earlier core brings about (one from before a snapshot was abandoned) is of no account any more.

It installs nothing and sends nothing: it says which snapshot to install, and what may be said now.
"""

from collections.abc import Callable, Sequence

from msgspec import structs

from conclave.cluster.compaction import Trail
from conclave.cluster.persistence import Append, Done, Writer, append_record
from conclave.cluster.raft import AppendJob, Message


class AppendJobs:
    """The jobs of one node.

    Args:
        writer: makes the log durable.
        snapshot_offered: called with a job whose snapshot must be installed before anything else is written.
        durable: called with the responses of a job when it, and all before it, are durable.

    Attributes:
        trail: where the newest entries begin that are kept for peers that were away for a moment.
    """

    def __init__(
        self,
        writer: Writer,
        *,
        snapshot_offered: Callable[[AppendJob], None],
        durable: Callable[[Sequence[Message]], None],
    ) -> None:
        self.trail = Trail()
        self._writer = writer
        self._snapshot_offered = snapshot_offered
        self._durable = durable
        self._generation = 0
        self._installing: AppendJob | None = None
        self._held: list[AppendJob] = []

    @property
    def is_installing(self) -> bool:
        """Whether a snapshot is being installed."""
        return self._installing is not None

    def begin(self) -> None:
        """Forget the jobs of the core before: a new one is built from what is durable."""
        self._generation += 1
        self._installing = None
        self._held = []

    def add(self, job: AppendJob) -> None:
        """Take in the next job of the core."""
        if self._installing is not None:
            self._held.append(job)
        elif job.snapshot is not None:
            self._installing = job
            self._snapshot_offered(job)
        else:
            self._write(job)

    def resume(self) -> None:
        """Go on behind a snapshot that has been installed: with what its own job writes besides, then with those held."""
        job, self._installing = self._installing, None
        assert job is not None, "no snapshot was being installed"
        self._write(structs.replace(job, snapshot=None))
        held, self._held = self._held, []
        for waiting in held:
            self.add(waiting)

    def call_behind_all(self, step: Done) -> None:
        """Call `step` when all writes that are under way are durable, if the core is still the same by then."""
        self._writer.submit(Append(None, []), self._of_this_core(step))

    def _write(self, job: AppendJob) -> None:
        if job.entries:
            self.trail.appended(job.entries[-1].index, (len(entry.data) for entry in job.entries))
        responses = job.responses
        self._writer.submit(append_record(job), self._of_this_core(lambda: self._durable(responses)))

    def _of_this_core(self, step: Done) -> Done:
        generation = self._generation

        def step_if_current() -> None:
            if generation == self._generation:
                step()

        return step_if_current
