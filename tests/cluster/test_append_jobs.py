"""Append jobs: their order, what is held behind a snapshot, and what an earlier core has asked for."""

from collections.abc import Callable, Sequence

from conclave.cluster.append_jobs import AppendJobs
from conclave.cluster.persistence import Append, Job
from conclave.cluster.raft import AppendJob, Entry, HardState, Message, MessageKind, Snapshot, SnapshotMeta

OFFER = Snapshot(SnapshotMeta(10, 1))


def job(index: int, snapshot: Snapshot | None = None) -> AppendJob:
    entries = () if snapshot is not None else (Entry(1, index),)
    response = Message(MessageKind.APPEND_RESPONSE, 2, 1, index=index)
    return AppendJob(HardState(1, 0, 0), entries, snapshot, (response,), must_sync=True)


class Disk:
    """A `Writer` that finishes a job when it is told to, and everything that becomes of the jobs."""

    def __init__(self) -> None:
        self.pending: list[tuple[Job, Callable[[], None]]] = []
        self.durable: list[int] = []
        self.offered: list[AppendJob] = []
        self.jobs = AppendJobs(self, snapshot_offered=self.offered.append, durable=self._durable)
        self.jobs.begin()

    @property
    def written(self) -> list[list[int]]:
        """The indexes that each unfinished write holds."""
        return [[entry[1] for entry in job.entries] for job, _ in self.pending if isinstance(job, Append)]

    def submit(self, job: Job, done: Callable[[], None]) -> None:
        self.pending.append((job, done))

    def oldest_pending_seconds(self, now: float) -> float:
        del now
        return 0.0

    def close(self) -> None:
        self.finish()

    def finish(self) -> None:
        pending, self.pending = self.pending, []
        for _, done in pending:
            done()

    def _durable(self, responses: Sequence[Message]) -> None:
        self.durable += [response.index for response in responses]


def test_what_a_job_promised_is_said_when_it_is_durable_and_not_before() -> None:
    disk = Disk()

    disk.jobs.add(job(1))
    disk.jobs.add(job(2))

    assert disk.written == [[1], [2]]
    assert disk.durable == []
    disk.finish()
    assert disk.durable == [1, 2]


def test_nothing_is_written_while_a_snapshot_is_installed_and_then_all_in_order() -> None:
    disk = Disk()
    offer = job(10, OFFER)

    disk.jobs.add(offer)
    disk.jobs.add(job(11))
    disk.jobs.add(job(12))
    assert (disk.offered, disk.pending, disk.jobs.is_installing) == ([offer], [], True)

    disk.jobs.resume()
    assert disk.written == [[], [11], [12]]
    disk.finish()
    assert disk.durable == [10, 11, 12]
    assert not disk.jobs.is_installing


def test_a_second_snapshot_holds_what_is_behind_it_again() -> None:
    disk = Disk()
    for each in (job(10, OFFER), job(11), job(20, OFFER), job(21)):
        disk.jobs.add(each)

    disk.jobs.resume()

    assert disk.written == [[], [11]]
    assert disk.jobs.is_installing
    disk.jobs.resume()
    assert disk.written == [[], [11], [], [21]]


def test_jobs_of_an_earlier_core_are_of_no_account() -> None:
    disk = Disk()
    disk.jobs.add(job(1))
    disk.jobs.add(job(10, OFFER))
    disk.jobs.add(job(11))

    disk.jobs.begin()
    disk.finish()

    assert disk.durable == []
    disk.jobs.add(job(2))
    assert disk.written == [[2]]


def test_a_step_behind_all_writes_is_taken_once_and_not_for_an_earlier_core() -> None:
    disk = Disk()
    steps: list[str] = []
    disk.jobs.add(job(1))

    disk.jobs.call_behind_all(disk.jobs.begin)
    disk.jobs.call_behind_all(lambda: steps.append("of the core before"))
    disk.finish()
    disk.jobs.call_behind_all(lambda: steps.append("of this core"))
    disk.finish()

    assert disk.durable == [1]
    assert steps == ["of this core"]
