"""What must never happen, checked at every step; the log is the witness.

Every write knows its index and every read the index up to which the state that answered it was applied, so a history is
linearizable if indexes respect real time: an operation that begins after another has ended must not be answered from an
earlier place in the log. That is exact and costs O(1) an operation.
"""

from collections.abc import Mapping, Sequence

from conclave.cluster.raft import ConfState, Entry


class Violation(Exception):
    """A promise was broken; the text says which, when and where."""


class Checkers:
    """What has been seen of the whole cluster so far."""

    def __init__(self) -> None:
        self.leaders: dict[int, int] = {}  # term → node
        self.votes: dict[tuple[int, int], int] = {}  # (node, term) → candidate
        self.committed: dict[int, Entry] = {}
        self.last_committed = 0
        self.floor = 0  # the newest place in the log that a completed operation has shown to its client
        self.applied_values: dict[bytes, int] = {}
        self.writes_acknowledged = 0
        self.reads_answered = 0

    def became_leader(self, node: int, term: int, held: Mapping[int, int]) -> None:
        """One leader a term; and it holds every committed entry (`held`: index → term, of what is in its log)."""
        if self.leaders.setdefault(term, node) != node:
            raise Violation(f"term {term} has two leaders: {self.leaders[term]} and {node}")
        first = min(held, default=0)
        for index in range(max(first, self.last_committed - 20, 1), self.last_committed + 1):
            if held.get(index) != self.committed[index].term:
                raise Violation(f"leader {node} of term {term} lacks the committed entry {index}")

    def voted(self, node: int, term: int, candidate: int) -> None:
        """One vote a term, across crashes."""
        if self.votes.setdefault((node, term), candidate) != candidate:
            raise Violation(f"node {node} voted twice in term {term}")

    def applied(self, node: int, before: int, entry: Entry) -> None:
        """Entries are applied in order, without a gap, and the same everywhere."""
        if entry.index != before + 1:
            raise Violation(f"node {node} applied entry {entry.index} behind entry {before}")
        known = self.committed.setdefault(entry.index, entry)
        if known != entry:
            raise Violation(f"entry {entry.index} differs: {known.term} and, on node {node}, {entry.term}")
        self.last_committed = max(self.last_committed, entry.index)
        if entry.data:
            first = self.applied_values.setdefault(entry.data, entry.index)
            if first != entry.index:
                raise Violation(f"a write happened twice, at {first} and {entry.index}")

    def write_acknowledged(self, index: int, holders: frozenset[int], configurations: Sequence[ConfState]) -> None:
        """What is acknowledged is on the disks of a quorum: of the configuration in force, or of the one before it."""
        if not any(_is_quorum(holders, configuration) for configuration in configurations):
            raise Violation(f"entry {index} was acknowledged while only {sorted(holders)} held it durably")
        self.floor = max(self.floor, index)
        self.writes_acknowledged += 1

    def read_answered(self, floor: int, served_index: int, how: str) -> None:
        """A read is as new as everything that was over before it began."""
        if served_index < floor:
            raise Violation(
                f"a {how} was answered from entry {served_index}; entry {floor} had been seen before it began"
            )
        self.floor = max(self.floor, served_index)
        self.reads_answered += 1


def _is_quorum(holders: frozenset[int], configuration: ConfState) -> bool:
    halves = (configuration.voters, configuration.voters_outgoing)
    return all(2 * len(holders.intersection(half)) > len(half) for half in halves if half)
