"""Rules of the driver, the disk and the membership, deliberately broken: seeds of whole nodes must notice each of them.

As in `tests/simulator/mutations.py`, which breaks the rules of the core: each is a context manager, and its docstring says
what the broken code would do.
"""

import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, Final

from msgspec import structs

from conclave.cluster import installing, node
from conclave.cluster.append_jobs import AppendJobs
from conclave.cluster.asking import Asks
from conclave.cluster.driver import Driver
from conclave.cluster.errors import NotLeader, Unreachable
from conclave.cluster.membership import Identity, decode_identity, encode_identity
from conclave.cluster.persistence import SaveIdentity, append_record
from conclave.cluster.raft import NO_NODE, AppendJob, Role
from conclave.cluster.replica import Standing
from tests.simulator.mutations import Mutation, replaced
from tests.simulator.nodes.disk import SimulatedWriter
from tests.simulator.nodes.machine import Register
from tests.simulator.nodes.play import play

SEEDS_MAX: Final = 60
"""A rule that can be broken for so many seeds without being noticed counts as not noticed."""


def answers_before_the_sync() -> AbstractContextManager[None]:
    """What promises a peer that a job is durable is sent when the job is handed to the disk."""

    def hasty(self: Any, job: AppendJob) -> None:
        self._durable([message for message in job.responses if message.to != message.source])
        own = [message for message in job.responses if message.to == message.source]
        self._writer.submit(append_record(job), self._of_this_core(lambda: self._durable(own)))

    return replaced(AppendJobs, "_write", hasty)


def leads_before_everything_is_applied() -> AbstractContextManager[None]:
    """A new leader serves at once, whatever earlier terms have left to be applied."""

    def hasty(self: Any) -> None:
        raft = self._raft
        may_lead = raft.role is Role.LEADER and raft.transferee == NO_NODE and not self.fault and not self.is_halted
        if self.standing is Standing.REMOVED or (self.standing is Standing.FOLLOWER and not may_lead):
            return
        if self.standing is Standing.LEADER and not (may_lead and raft.term == self._standing_term):
            self._change_standing(Standing.FOLLOWER)
        if self.standing is Standing.FOLLOWER and may_lead:
            self._change_standing(Standing.LEADER)

    return replaced(Driver, "_settle_standing", hasty)


def read_barrier_without_a_round() -> AbstractContextManager[None]:
    """A node that is asked to read takes what it has for the newest."""

    async def at_once(self: Any) -> int:
        return int(self._applied.index)

    return replaced(Driver, "read_barrier", at_once)


def read_before_it_is_applied() -> AbstractContextManager[None]:
    """A read waits for the leader's word, and not until what that says is applied."""

    async def impatient(self: Any) -> int:
        answer = self._rounds.join()
        self.schedule()
        await answer
        return int(self._applied.index)

    return replaced(Driver, "read_barrier", impatient)


def snapshot_without_resetting_the_log() -> AbstractContextManager[None]:
    """A snapshot replaces the state, and the log stays as it was."""

    def not_reset(place: object, hard_state: object, identity: Identity) -> SaveIdentity:
        del place, hard_state
        return SaveIdentity(encode_identity(structs.replace(identity, installing=(0, 0))))

    return replaced(installing, "_reset", not_reset)


def removed_node_goes_on() -> AbstractContextManager[None]:
    """A node that was removed does not look at that when it is restarted."""

    def forgetful(stored: bytes) -> Identity:
        return structs.replace(decode_identity(stored), is_removed=False)

    return replaced(node, "decode_identity", forgetful)


def log_cut_before_the_state_is_durable() -> AbstractContextManager[None]:
    """The log is cut up to what is applied, flushed or not."""
    return replaced(Register, "durable_index", property(lambda self: self.applied[0]))


def failed_sync_taken_for_success() -> AbstractContextManager[None]:
    """A sync that failed is reported as done."""

    def blind(self: Any, succeeded: bool) -> None:  # as the method that it replaces
        if self._is_gone:
            return
        if succeeded:
            self._perform()
        self._process.post(self._tell)

    return replaced(SimulatedWriter, "_ended", blind)


def lost_answer_taken_for_a_refusal() -> AbstractContextManager[None]:
    """Whoever gets no answer from the leader is told that nothing was done."""
    ask = Asks.ask

    async def sure(self: Asks, *arguments: Any, **options: Any) -> bytes:
        try:
            return await ask(self, *arguments, **options)
        except Unreachable as error:
            raise NotLeader(str(error)) from error

    return replaced(Asks, "ask", sure)


MUTATIONS: Final[dict[str, Mutation]] = {
    mutation.__name__: mutation
    for mutation in (
        answers_before_the_sync,
        leads_before_everything_is_applied,
        read_barrier_without_a_round,
        read_before_it_is_applied,
        snapshot_without_resetting_the_log,
        removed_node_goes_on,
        log_cut_before_the_state_is_durable,
        failed_sync_taken_for_success,
        lost_answer_taken_for_a_refusal,
    )
}


def seeds_until_noticed(mutation: Mutation, start: int = 1, seeds_max: int = SEEDS_MAX) -> tuple[int | None, str]:
    """Return how many seeds it takes to notice a broken rule, and what they show; None if they do not notice it."""
    with mutation():
        for count, seed in enumerate(range(start, start + seeds_max), 1):
            outcome = play(seed)
            if outcome.failure:
                return count, outcome.failure
    return None, ""


def _judge(name: str) -> tuple[int | None, str]:
    return seeds_until_noticed(MUTATIONS[name])


def judge_all() -> int:
    """Break every rule, print how each was noticed, and return the exit status."""
    began, missed = time.monotonic(), 0
    with ProcessPoolExecutor() as pool:
        for name, (count, symptom) in zip(MUTATIONS, pool.map(_judge, MUTATIONS), strict=True):
            missed += count is None
            print(f"{name:<45} {count or '-':<5} {symptom[:120] or 'NOTHING'}", flush=True)  # noqa: T201
    print(f"{len(MUTATIONS) - missed} of {len(MUTATIONS)} noticed; {time.monotonic() - began:.0f} s")  # noqa: T201
    return 1 if missed else 0
