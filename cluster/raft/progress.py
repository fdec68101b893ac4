"""What a leader knows of one peer, and how fast it may send to it.

A peer is in one of three states. *Probe*: its log is not known to match; one message with entries, then silence until it
answers or a heartbeat answer gives leave. *Replicate*: entries are sent ahead of the answers, within a window. *Snapshot*:
a snapshot is under way and nothing is sent.

Rules: `match < next` always; `match` never falls; an answer that tells less than is known changes nothing.

Source: the design notes of etcd's `tracker` package.
"""

from collections import deque
from enum import Enum


class ProgressState(Enum):
    """How entries are sent to a peer."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Inflights:
    """The window of messages with entries that were not answered yet: last index and payload bytes of each.

    Full when the number of messages reaches its limit, or the bytes reach or cross theirs.
    """

    __slots__ = ("_bytes", "_max_bytes", "_max_messages", "_sent")

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._sent: deque[tuple[int, int]] = deque()
        self._bytes = 0
        self._max_messages = max_messages
        self._max_bytes = max_bytes

    def __len__(self) -> int:
        return len(self._sent)

    @property
    def is_full(self) -> bool:
        """Tell whether nothing more may be sent."""
        return len(self._sent) >= self._max_messages or self._bytes >= self._max_bytes

    def add(self, last_index: int, size: int) -> None:
        """Note a message whose last entry is `last_index`."""
        assert not self.is_full, "a message was sent through a full window"
        self._sent.append((last_index, size))
        self._bytes += size

    def free_up_to(self, index: int) -> None:
        """Forget the messages whose last entry is `index` or before it."""
        sent = self._sent
        while sent and sent[0][0] <= index:
            self._bytes -= sent.popleft()[1]

    def reset(self) -> None:
        """Forget everything."""
        self._sent.clear()
        self._bytes = 0


class Progress:
    """One peer as the leader sees it.

    Attributes:
        match: the last index known to be stored there.
        next: the index to be sent next; everything between was sent already.
        state: probe, replicate or snapshot.
        pending_snapshot: in state snapshot, its index.
        recently_active: it answered since the last CheckQuorum round.
        flow_paused: in probe: a message is on its way; in replicate: the window is full.
        sent_commit: the highest commit index that was sent to it.
        inflights: the window.
    """

    __slots__ = (
        "flow_paused",
        "inflights",
        "match",
        "next",
        "pending_snapshot",
        "recently_active",
        "sent_commit",
        "state",
    )

    def __init__(self, next_index: int, inflights: Inflights, *, match: int = 0, recently_active: bool = False) -> None:
        self.match = match
        self.next = next_index
        self.state = ProgressState.PROBE
        self.pending_snapshot = 0
        self.recently_active = recently_active
        self.flow_paused = False
        self.sent_commit = 0
        self.inflights = inflights

    def become_probe(self) -> None:
        """Ask where the logs match, behind a snapshot that was under way."""
        behind_snapshot = self.pending_snapshot + 1 if self.state is ProgressState.SNAPSHOT else 0
        self._reset(ProgressState.PROBE)
        self.next = max(self.match + 1, behind_snapshot)
        self.sent_commit = min(self.sent_commit, self.next - 1)

    def become_replicate(self) -> None:
        """Send ahead from the last match."""
        self._reset(ProgressState.REPLICATE)
        self.next = self.match + 1

    def become_snapshot(self, index: int) -> None:
        """Wait for a snapshot of `index`."""
        self._reset(ProgressState.SNAPSHOT)
        self.pending_snapshot = index
        self.next = index + 1
        self.sent_commit = index

    def _reset(self, state: ProgressState) -> None:
        self.flow_paused = False
        self.pending_snapshot = 0
        self.state = state
        self.inflights.reset()

    def sent_entries(self, count: int, size: int) -> None:
        """Note that a message with `count` entries of `size` payload bytes was sent from `next` on."""
        if self.state is ProgressState.REPLICATE:
            if count:
                self.next += count
                self.inflights.add(self.next - 1, size)
            # An empty message through a full window must not open it.
            self.flow_paused = self.inflights.is_full
        elif count:
            assert self.state is ProgressState.PROBE, "entries were sent while a snapshot is under way"
            self.flow_paused = True

    def may_lack_commit(self, commit: int) -> bool:
        """Tell whether sending the commit index again could teach the peer something."""
        return commit > self.sent_commit and self.sent_commit < self.next - 1

    def maybe_update(self, index: int) -> bool:
        """Take in that the peer stores everything up to `index`; return False if that was known."""
        if index <= self.match:
            return False
        self.match = index
        self.next = max(self.next, index + 1)
        self.flow_paused = False
        return True

    def maybe_decrease(self, rejected: int, hint: int) -> bool:
        """Take in that the peer refused entries behind `rejected` and may match at `hint`; return False if it is stale."""
        if self.state is ProgressState.REPLICATE:
            if rejected <= self.match:
                return False
            self.next = self.match + 1
        else:
            if self.next - 1 != rejected:
                return False
            self.next = max(min(rejected, hint + 1), self.match + 1)
            self.flow_paused = False
        self.sent_commit = min(self.sent_commit, self.next - 1)
        return True

    @property
    def is_paused(self) -> bool:
        """Tell whether nothing may be sent now."""
        return self.state is ProgressState.SNAPSHOT or self.flow_paused
