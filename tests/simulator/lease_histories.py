"""Histories about leases, played by hand in a simulated world without faults of its own.

In each a leader that holds a lease is replaced, and asked to read all the while; the checkers say whether it answers with
less than its successor has acknowledged. Random seeds rarely cut a leader off at just the right millisecond.
"""

from collections.abc import Callable
from typing import Final

from conclave.cluster.raft import Role
from conclave.cluster.timing import LEASE_TICKS
from tests.simulator.faults import Faults
from tests.simulator.node import TICK_MS, Node
from tests.simulator.world import World

SETTLED_MS = 3_000
STEP_MS = 1.0
PROMISE_MS = LEASE_TICKS * TICK_MS
AFTERMATH_MS = 600
RIVAL_STEPS = 20


class _Stage:
    """A world in which `leader` leads with a lease, and two others."""

    def __init__(self) -> None:
        self.world = World(1, Faults())
        self.world.run(SETTLED_MS, lambda: any(node.has_lease() for node in self.world.nodes.values()))
        self.leader = next(node for node in self.world.nodes.values() if node.raft.role is Role.LEADER)
        self.witness, self.rival = (node for node in self.world.nodes.values() if node is not self.leader)
        self._written = 0

    def separate(self, *pairs: tuple[Node, Node]) -> None:
        """Cut links in both directions for the rest of the history."""
        links = {(a.id, b.id) for a, b in pairs} | {(b.id, a.id) for a, b in pairs}
        self.world.cut(links, float("inf"))

    def isolate_leader(self) -> None:
        self.separate((self.leader, self.witness), (self.leader, self.rival))

    def go_on(self, ms: float, stop: Callable[[], bool] = lambda: False) -> None:
        """Let time pass."""
        self.world.run(self.world.now + ms, stop)

    def read_and_write(self) -> None:
        """Read at the old leader and write to every leader, each millisecond; the rival does not give up."""
        until = self.world.now + AFTERMATH_MS
        while self.world.now < until:
            self.go_on(STEP_MS)
            self._written += 1
            if self._written % RIVAL_STEPS == 0 and self.rival.raft.leader in (0, self.leader.id):
                self.rival.raft.campaign()
                self.rival.turn()
            if self.leader.has_lease():
                self.leader.read(self._written)
            for node in self.world.nodes.values():
                if node.raft.role is Role.LEADER:
                    node.propose(b"%d@%d" % (self._written, node.id))


def _rival_that_heard_nothing() -> _Stage:
    """Cut the rival off from the leader for longer than its promise; the witness keeps the lease alive."""
    stage = _Stage()
    stage.separate((stage.leader, stage.rival))
    stage.go_on(1.5 * PROMISE_MS)
    assert stage.leader.has_lease()
    return stage


def lease_against_a_rival() -> None:
    """A rival asks the witness, which has just answered the leader."""
    stage = _rival_that_heard_nothing()
    stage.rival.raft.campaign()
    stage.rival.turn()
    stage.separate((stage.leader, stage.witness))
    stage.read_and_write()


def lease_against_a_restart() -> None:
    """The witness restarts just after it has answered the leader, and is asked by the rival."""
    stage = _rival_that_heard_nothing()
    stage.witness.crash()
    stage.witness.start(is_restart=True)
    stage.separate((stage.leader, stage.witness))
    stage.rival.raft.campaign()
    stage.rival.turn()
    stage.read_and_write()


def lease_against_a_transfer() -> None:
    """The leader has told the rival to take over and hears nothing of what follows."""
    stage = _Stage()
    stage.leader.raft.transfer_leader(stage.rival.id)
    stage.leader.turn()
    stage.go_on(PROMISE_MS, lambda: stage.rival.raft.role is not Role.FOLLOWER)
    stage.isolate_leader()
    stage.read_and_write()


def lease_against_a_resignation() -> None:
    """The leader has resigned, and hears nothing of what follows."""
    stage = _Stage()
    stage.leader.raft.resign()
    stage.leader.turn()
    stage.go_on(PROMISE_MS, lambda: stage.rival.raft.leader == stage.witness.raft.leader == 0)
    stage.isolate_leader()
    stage.read_and_write()


def lease_against_its_own_end() -> None:
    """The leader is cut off, and the others elect another as soon as they may."""
    stage = _Stage()
    stage.isolate_leader()
    stage.witness.raft.leader_connection_lost()
    stage.rival.raft.leader_connection_lost()
    stage.read_and_write()


def lease_against_a_freeze() -> None:
    """The leader is frozen while an answer to its heartbeats is on the way, and counts from when it hears it."""
    stage = _rival_that_heard_nothing()
    rounds = stage.leader.raft.heartbeat_sequence
    stage.go_on(PROMISE_MS, lambda: stage.leader.raft.heartbeat_sequence > rounds)
    stage.leader.paused_until = stage.world.now + 0.95 * PROMISE_MS
    stage.go_on(PROMISE_MS)
    stage.separate((stage.leader, stage.witness))
    stage.read_and_write()


LEASE_HISTORIES: Final[tuple[Callable[[], None], ...]] = (
    lease_against_a_rival,
    lease_against_a_restart,
    lease_against_a_transfer,
    lease_against_a_resignation,
    lease_against_its_own_end,
    lease_against_a_freeze,
)
