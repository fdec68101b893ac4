"""What must never happen, checked at every step; the log is the witness.

Every write knows its index and every read the index up to which the state that answered it was applied, so a history is
linearizable if indexes respect real time: an operation that begins after another has ended must not be answered from an
earlier place in the log. That is exact and costs O(1) an operation.
"""

from collections.abc import Mapping, Sequence

from conclave.cluster.raft import ConfState, Entry, EntryKind

LEADER_COMPLETENESS_ENTRIES = 20
"""How many of the newest committed entries a new leader is asked for; earlier ones were checked with earlier leaders."""


class Violation(Exception):
    """A promise was broken; the text says which, when and where."""


class Checkers:
    """What has been seen of the whole cluster so far.

    Attributes:
        leaders: term → the node that led it.
        committed: what was applied anywhere, by index.
        floor: the newest place in the log that a completed operation has shown to its client.
    """

    def __init__(self) -> None:
        self.leaders: dict[int, int] = {}
        self.committed: dict[int, Entry] = {}
        self.last_committed = 0
        self.floor = 0
        self.writes_acknowledged = 0
        self.reads_answered = 0
        self._committed_in: dict[int, int] = {}  # index → the term of the node that applied it first
        self._votes: dict[tuple[int, int], int] = {}
        self._applied_values: dict[bytes, int] = {}
        self._reached: dict[tuple[int, int], tuple[int, int]] = {}

    def begin(self, entry: Entry) -> None:
        """Take the entry that everybody starts from as committed."""
        self.committed[entry.index] = entry
        self._committed_in[entry.index] = entry.term
        self.last_committed = entry.index

    def became_leader(self, node: int, term: int, held: Mapping[int, int]) -> None:
        """One leader a term; and it holds what was committed in earlier terms (`held`: index → term, of its log).

        A node may hear late that it won; later terms have committed more by then.
        """
        if self.leaders.setdefault(term, node) != node:
            raise Violation(f"term {term} has two leaders: {self.leaders[term]} and {node}")
        first = max(min(held, default=1), self.last_committed - LEADER_COMPLETENESS_ENTRIES, 1)
        for index in range(first, self.last_committed + 1):
            if self._committed_in[index] < term and held.get(index) != self.committed[index].term:
                raise Violation(f"leader {node} of term {term} lacks the committed entry {index}")

    def voted(self, node: int, term: int, candidate: int) -> None:
        """One vote a term, across crashes."""
        if self._votes.setdefault((node, term), candidate) != candidate:
            raise Violation(f"node {node} voted twice in term {term}")

    def advanced(self, node: int, generation: int, term: int, commit: int) -> None:
        """Term and commit index of a process never go back."""
        before = self._reached.get((node, generation), (0, 0))
        if term < before[0] or commit < before[1]:
            raise Violation(f"node {node} went back from term and commit {before} to {(term, commit)}")
        self._reached[node, generation] = (term, commit)

    def applied(self, node: int, term: int, before: int, entry: Entry) -> None:
        """Entries are applied in order, without a gap, and the same everywhere (`term`: the node's, now)."""
        if entry.index != before + 1:
            raise Violation(f"node {node} applied entry {entry.index} behind entry {before}")
        known = self.committed.setdefault(entry.index, entry)
        self._committed_in.setdefault(entry.index, term)
        if known != entry:
            raise Violation(f"entry {entry.index} is of term {known.term}, and of {entry.term} on node {node}")
        self.last_committed = max(self.last_committed, entry.index)
        if entry.data and entry.kind is EntryKind.NORMAL:
            first = self._applied_values.setdefault(entry.data, entry.index)
            if first != entry.index:
                raise Violation(f"a write happened twice, at {first} and {entry.index}")

    def write_acknowledged(
        self, entry: Entry, value: bytes, holders: frozenset[int], configurations: Sequence[ConfState]
    ) -> None:
        """What is acknowledged is what was written, and is on the disks of a quorum of one of these configurations."""
        if entry.data != value:
            raise Violation(f"the write of {value!r} was acknowledged for entry {entry.index}, which is {entry.data!r}")
        if not any(_is_quorum(holders, configuration) for configuration in configurations):
            raise Violation(f"entry {entry.index} was acknowledged while only {sorted(holders)} held it durably")
        self.floor = max(self.floor, entry.index)
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
