"""Deliberately broken rules: the proof that the simulator would find them.

Each mutation is a context manager that breaks one rule of the core, or of a world's driver, until it is left. A simulator
that does not catch every one of them within a bounded number of seeds is blind (raft.md, sections 4 and 5).
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType
from typing import Any, Final

from conclave.cluster.raft import AppendJob, HardState, Message, Raft, follower, leader
from conclave.cluster.raft.log import RaftLog
from conclave.cluster.raft.reads import Reads
from conclave.cluster.raft.tracker import Tracker
from tests.simulator.world import Disk, World


@contextmanager
def _replaced(owner: type | ModuleType, name: str, value: Any) -> Iterator[None]:
    before = owner.__dict__[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def vote_in_memory_only() -> AbstractContextManager[None]:
    """A restarted node has forgotten whom it voted for."""
    write = Disk.write

    def forgetful(self: Disk, job: AppendJob) -> None:
        write(self, job)
        if job.must_sync:
            self.storage.set_hard_state(HardState(job.hard_state.term, 0, job.hard_state.commit))

    return _replaced(Disk, "write", forgetful)


def entries_in_memory_only() -> AbstractContextManager[None]:
    """Promises leave before what they promise is durable."""
    start = World.__init__

    def early(self: World, *arguments: Any, **named: Any) -> None:
        start(self, *arguments, **named)
        self.answers_early = True

    return _replaced(World, "__init__", early)


def commit_of_an_old_term() -> AbstractContextManager[None]:
    """An entry of an earlier term is committed by counting copies (the paper's figure 8)."""

    def maybe_commit(raft: Raft) -> bool:
        index = raft.tracker.committed_index()
        if index <= raft.log.committed:
            return False
        raft.log.commit_to(index)
        return True

    return _replaced(leader, "maybe_commit", maybe_commit)


def commit_by_a_minority() -> AbstractContextManager[None]:
    """The leader's own copy is enough."""
    return _replaced(Tracker, "committed_index", lambda self: max(p.match for p in self.progress.values()))


def read_without_a_quorum() -> AbstractContextManager[None]:
    """A read is answered from the commit index of whoever thinks that it leads."""

    def read_index(raft: Raft, request: Message) -> None:
        raft.answer_read(request, raft.log.committed)

    return _replaced(leader, "read_index", read_index)


def read_before_the_first_commit() -> AbstractContextManager[None]:
    """A new leader answers reads before it knows what its predecessors committed."""
    return _replaced(Raft, "has_committed_own_term", lambda self: True)  # noqa: ARG005  (the rule's own signature)


def read_confirmed_by_an_old_round() -> AbstractContextManager[None]:
    """An answer to heartbeats that were sent before the read confirms it."""
    add = Reads.add

    def too_early(self: Reads, request: Message, index: int, needed_sequence: int) -> bool:
        add(self, request, index, max(needed_sequence - 3, 0))
        return True

    return _replaced(Reads, "add", too_early)


def vote_for_any_log() -> AbstractContextManager[None]:
    """A vote goes to a candidate that lacks entries."""
    return _replaced(RaftLog, "is_up_to_date", lambda self, index, term: True)  # noqa: ARG005  (as above)


def vote_twice() -> AbstractContextManager[None]:
    """A vote is given to whoever asks."""
    answer = follower.answer_vote

    def generous(raft: Raft, message: Message) -> None:
        raft.vote = 0
        raft.leader = 0
        answer(raft, message)

    return _replaced(follower, "answer_vote", generous)


def promise_forgotten_at_a_restart() -> AbstractContextManager[None]:
    """A node votes right after its start, although a leader leans on its promise; and one that keeps none at all."""
    return _replaced(Raft, "has_promised", property(lambda self: False))  # noqa: ARG005  (as above)


def lease_after_a_transfer() -> AbstractContextManager[None]:
    """A leader reads under its lease after it has told another to take over."""

    def usable(self: Raft) -> bool:
        return self.role is self.role.LEADER and self.has_committed_own_term()

    return _replaced(Raft, "lease_usable", property(usable))


def truncation_by_a_shorter_append() -> AbstractContextManager[None]:
    """An append that is equal but shorter cuts the log."""
    append = RaftLog.maybe_append

    def cutting(self: RaftLog, index: int, term: int, entries: Any, commit: int) -> int | None:
        last = append(self, index, term, entries, commit)
        if last is not None and entries and self.committed <= last < self.last_index():
            self.unstable.truncate_and_append(entries[-1:] if entries[-1].index > self.committed else [])
        return last

    def guarded(self: RaftLog, index: int, term: int, entries: Any, commit: int) -> int | None:
        fits = entries and entries[-1].index > self.committed
        return cutting(self, index, term, entries, commit) if fits else append(self, index, term, entries, commit)

    return _replaced(RaftLog, "maybe_append", guarded)


MUTATIONS: Final[dict[str, Callable[[], AbstractContextManager[None]]]] = {
    mutation.__name__: mutation
    for mutation in (
        vote_in_memory_only,
        entries_in_memory_only,
        commit_of_an_old_term,
        commit_by_a_minority,
        read_without_a_quorum,
        read_before_the_first_commit,
        read_confirmed_by_an_old_round,
        vote_for_any_log,
        vote_twice,
        promise_forgotten_at_a_restart,
        lease_after_a_transfer,
        truncation_by_a_shorter_append,
    )
}
