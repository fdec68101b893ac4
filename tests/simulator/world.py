"""One simulated cluster: nodes with the real core, a disk each, a network between them, clients; all from one seed.

Time is virtual, in milliseconds; an event queue plays it, so idle time costs nothing. Every choice is drawn from one
random source in an order that depends on nothing but the seed, and everything that happens goes into a hash: the same
seed gives the same hash, on any machine.
"""

import heapq
import zlib
from collections import Counter
from collections.abc import Callable
from random import Random

from conclave.cluster.raft import ConfState, Entry, Message, MessageKind, Role, Snapshot, SnapshotMeta
from tests.simulator.checkers import Checkers, Violation
from tests.simulator.faults import Faults, draw
from tests.simulator.node import Node

FOUNDERS = (1, 2, 3)
FIRST_ENTRY = Entry(1, 1)
"""What the snapshot that all founders start from stands for."""
LARGE_VALUE_BYTES = 120
LARGE_VALUES = 0.2
"""So many are large, so that batches reach over the borders of sectors."""
HEAL_MS_MAX = 6_000
"""Within so much fault-free time a write must commit, and within as much again all members converge."""
QUIET_LEADER_MS_MAX = 2_500
"""A cluster without faults has a leader, and has acknowledged a write, within this time."""


class World:
    """One seed.

    Attributes:
        nodes: by id; nodes that are down or removed stay.
        hash: of everything that has happened so far.
        happened: how often each kind of thing has happened.
    """

    def __init__(self, seed: int, faults: Faults | None = None, *, trace: Callable[[str], None] | None = None) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.faults = faults if faults is not None else draw(self.random)
        self.checkers = Checkers()
        self.now = 0.0
        self.hash = 0
        self.happened: Counter[str] = Counter()
        self.is_healing = False
        self._trace = trace
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._scheduled = 0
        self._cuts: Counter[tuple[int, int]] = Counter()
        self._operations = 0
        first = Snapshot(SnapshotMeta(FIRST_ENTRY.index, FIRST_ENTRY.term, ConfState(FOUNDERS)))
        self.nodes: dict[int, Node] = {}
        for node_id in FOUNDERS:
            self.nodes[node_id] = Node(self, node_id, first)
        self.checkers.begin(FIRST_ENTRY)

    # -- time and chance --

    def after(self, delay_ms: float, action: Callable[[], None]) -> None:
        """Do something later."""
        self._scheduled += 1
        heapq.heappush(self._queue, (self.now + delay_ms, self._scheduled, action))

    def run(self, until_ms: float, stop: Callable[[], bool] = lambda: False) -> bool:
        """Play events up to a time; return whether `stop` came true before."""
        while self._queue and self._queue[0][0] <= until_ms:
            self.now, _, action = heapq.heappop(self._queue)
            action()
            if stop():
                return True
        self.now = until_ms
        return stop()

    def note(self, what: str) -> None:
        """Put what happened into the event hash, and into the trace."""
        line = f"{self.now:10.3f}  {what}"
        self.hash = zlib.crc32(line.encode(), self.hash)
        self.happened[what.partition(" ")[0]] += 1
        if self._trace is not None:
            self._trace(line)

    def fails(self, probability: float) -> bool:
        """Throw a die."""
        return self.random.random() < probability

    def sync_ms(self) -> float:
        """How long the next disk write takes."""
        faults = self.faults
        slow_ms = self.random.random() * (1000 * self.fails(faults.slow_sync) + 5000 * self.fails(faults.hanging_sync))
        return 0.2 + self.random.random() * faults.sync_ms_max + slow_ms

    def frozen_ms(self) -> float:
        """How long a process stops in the middle of a read."""
        return self.random.random() * 1000 if self.fails(self.faults.freeze) else 0.0

    # -- network --

    def send(self, message: Message) -> None:
        """Put a message on the network."""
        faults, random = self.faults, self.random
        self.note(
            f"{message.kind.name} {message.source}>{message.to} term={message.term} at={message.index}/{message.log_term} "
            f"entries={len(message.entries)} commit={message.commit}{' refused' if message.reject else ''}"
        )
        if message.kind is MessageKind.SNAPSHOT:
            # The real sender streams the state beside the core and always says in the end how that went.
            self.after(50 + random.random() * 300, lambda: self._report_snapshot(message))
        for _ in range(1 + self.fails(faults.duplication)):
            if self.fails(faults.loss) or self._is_cut(message):
                continue
            late_ms = random.random() * 1000 if self.fails(faults.heavy_delay) else 0.0
            self.after(0.2 + random.random() * faults.delay_ms_max + late_ms, lambda: self._arrive(message))

    def _is_cut(self, message: Message) -> bool:
        return self._cuts[message.source, message.to] > 0

    def _arrive(self, message: Message) -> None:
        node = self.nodes.get(message.to)
        if node is not None and not self._is_cut(message):
            node.receive(message)

    def _report_snapshot(self, message: Message) -> None:
        node = self.nodes[message.source]
        if node.is_running:
            node.raft.report_snapshot(message.to, ok=self.random.random() < 0.5)
            node.turn()
        elif node.is_up:
            self.after(100, lambda: self._report_snapshot(message))

    def cut(self, links: set[tuple[int, int]], ms_max: float) -> None:
        """Cut links (from, to) for a while; some of those who lose their leader by that are told at once."""
        self.note("cut " + " ".join(f"{a}>{b}" for a, b in sorted(links)))
        self._cuts.update(links)
        for leader, node in sorted(links):
            if self.nodes[node].is_running and self.nodes[node].raft.leader == leader and self.fails(self.faults.hint):
                self.nodes[node].raft.leader_connection_lost()
        self.after(self.random.random() * ms_max, lambda: self._cuts.subtract(links))

    # -- processes --

    def crash(self, node: Node, *, down_ms_max: float = 600) -> None:
        """Kill a process; it starts again before long."""
        if not node.is_up:
            return
        self.note(f"crash {node.id}")
        node.crash()
        self.after(self.random.random() * down_ms_max, lambda: self.restart(node))

    def restart(self, node: Node) -> None:
        """Start a process that is down, unless its disk is gone."""
        if node.disk.is_damaged and not node.is_lost:
            self.damaged(node)
        if not node.is_up and not node.is_lost:
            self.note(f"restart {node.id}")
            node.start(is_restart=True)

    def lose(self, node: Node) -> None:
        """Take a node away for good."""
        node.is_lost = True
        if node.is_up:
            node.crash()

    def damaged(self, node: Node) -> None:
        """Give a node up whose log has been found damaged; it is as good as lost, and says so."""
        self.note(f"damaged {node.id}")
        self.lose(node)

    def new_node(self) -> int:
        """Start a node that knows nothing and wait to be added; ids are never used again."""
        node_id = max(self.nodes) + 1
        self.nodes[node_id] = Node(self, node_id, None)
        return node_id

    # -- clients --

    def operate(self) -> None:
        """One client operation, and the next one later: a write to whoever leads, or a read anywhere."""
        node = self.nodes[self.random.choice(sorted(self.nodes))]
        self._operations += 1
        if self.fails(self.faults.write_share):
            for leader in [n for n in self.nodes.values() if n.is_running and n.raft.role is Role.LEADER]:
                # A deposed leader is written to like the real one.
                value = f"{self._operations}@{leader.id}".encode()
                leader.propose(value.ljust(LARGE_VALUE_BYTES) if self.fails(LARGE_VALUES) else value)
        elif node.is_running:
            node.read(self._operations)
        self.after(self.random.random() * 2 * self.faults.client_pause_ms, self.operate)

    # -- the whole play --

    def heal(self) -> None:
        """End all faults and demand progress."""
        self.note("heal")
        self.is_healing = True
        self._cuts.clear()
        self.faults = Faults()
        for node in self.nodes.values():
            node.paused_until = min(node.paused_until, self.now)
            node.disk.files.grow()
            self.restart(node)
        before = self.checkers.writes_acknowledged
        if not self.run(self.now + HEAL_MS_MAX, lambda: self.checkers.writes_acknowledged > before):
            raise Violation(f"no write was acknowledged within {HEAL_MS_MAX} ms of quiet")
        goal = self.checkers.last_committed
        if not self.run(self.now + HEAL_MS_MAX, lambda: self._have_converged(goal)):
            raise Violation(f"the members did not all apply entry {goal} within {HEAL_MS_MAX} ms of quiet")

    def _have_converged(self, goal: int) -> bool:
        newest = max(self.nodes.values(), key=lambda node: node.applied)
        state = newest.conf_at_applied
        members = [self.nodes[member] for member in (*state.voters, *state.learners)]
        return all(member.applied >= goal for member in members if not member.is_lost)

    def demand_quiet_progress(self) -> None:
        """Without faults: a leader soon, the same all along, and writes."""
        if not self.run(QUIET_LEADER_MS_MAX, lambda: self.checkers.writes_acknowledged > 0):
            raise Violation(f"no write was acknowledged within {QUIET_LEADER_MS_MAX} ms without any fault")
