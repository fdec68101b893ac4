"""The read side of the stored log, as the core asks for it, and an implementation in memory.

The core never writes: the driver stores what an `AppendJob` holds. `MemoryStorage` serves tests, the simulator and
single nodes without a disk; it holds everything that was ever given to it until it is compacted.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

from conclave.cluster.raft.errors import Compacted, SnapshotTemporarilyUnavailable, Unavailable
from conclave.cluster.raft.messages import ConfState, Entry, HardState, Snapshot, SnapshotMeta, entry_size


class LogStorage(Protocol):
    """What is stored. Calls must be cheap: the core asks in the middle of a step."""

    def initial_state(self) -> tuple[HardState, ConfState]:
        """Return the stored hard state and the configuration as of the *applied* index given to the core."""

    def entries(self, lo: int, hi: int, max_bytes: int) -> Sequence[Entry]:
        """Return the entries of [lo, hi), cut at `max_bytes` (by `entry_size`), but at least one.

        Raises:
            Compacted: `lo` is before the first index.
            Unavailable: `hi` is beyond the last entry.
        """

    def term(self, index: int) -> int:
        """Return the term of an entry in [first_index() - 1, last_index()].

        Raises:
            Compacted: `index` is before that range.
            Unavailable: `index` is behind it.
        """

    def first_index(self) -> int:
        """Return the index of the first entry that can be read; last_index() + 1 in an empty log."""

    def last_index(self) -> int:
        """Return the index of the last entry; first_index() - 1 in an empty log."""

    def snapshot(self) -> Snapshot:
        """Return the newest snapshot that could be sent to a peer; its index is at least first_index() - 1.

        Raises:
            SnapshotTemporarilyUnavailable: not now.
        """


class MemoryStorage:
    """A log in memory that keeps the rules of `LogStorage`.

    The first cell is a dummy that stands for the snapshot: entry `i` is in cell `i - offset`.
    """

    __slots__ = ("_entries", "_hard_state", "_snapshot")

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        self._snapshot = snapshot or Snapshot(SnapshotMeta())
        self._entries = [Entry(self._snapshot.meta.term, self._snapshot.meta.index)]
        self._hard_state = HardState(0, 0, self._snapshot.meta.index)

    def initial_state(self) -> tuple[HardState, ConfState]:
        """Return the hard state and the configuration of the snapshot."""
        return self._hard_state, self._snapshot.meta.conf_state

    def entries(self, lo: int, hi: int, max_bytes: int) -> Sequence[Entry]:
        """Return entries of [lo, hi), at least one, cut at `max_bytes`."""
        offset = self._entries[0].index
        if lo <= offset:
            raise Compacted(f"entry {lo} is behind the snapshot at {offset}")
        if hi > offset + len(self._entries):
            raise Unavailable(f"entry {hi - 1} is beyond the last, {self.last_index()}")
        return limit_size(self._entries[lo - offset : hi - offset], max_bytes)

    def term(self, index: int) -> int:
        """Return the term of an entry, or of the snapshot."""
        position = index - self._entries[0].index
        if position < 0:
            raise Compacted(f"entry {index} is behind the snapshot at {self._entries[0].index}")
        if position >= len(self._entries):
            raise Unavailable(f"entry {index} is beyond the last, {self.last_index()}")
        return self._entries[position].term

    def first_index(self) -> int:
        """Return the index after the snapshot's."""
        return self._entries[0].index + 1

    def last_index(self) -> int:
        """Return the index of the last entry, or of the snapshot."""
        return self._entries[0].index + len(self._entries) - 1

    def snapshot(self) -> Snapshot:
        """Return the snapshot that was installed or created last."""
        if self._snapshot.meta.index < self._entries[0].index:
            raise SnapshotTemporarilyUnavailable("the log was cut behind the newest snapshot")
        return self._snapshot

    def set_hard_state(self, hard_state: HardState) -> None:
        """Remember a hard state."""
        self._hard_state = hard_state

    def append(self, entries: Sequence[Entry]) -> None:
        """Append entries, cutting off what is stored at their first index and behind; ignore what is compacted."""
        for before, after in pairwise(entries):
            assert after.index == before.index + 1, "entries to be stored are not contiguous"
        offset = self._entries[0].index
        fresh = [entry for entry in entries if entry.index > offset]
        if not fresh:
            return
        assert fresh[0].index <= self.last_index() + 1, f"a gap between {self.last_index()} and {fresh[0].index}"
        del self._entries[fresh[0].index - offset :]
        self._entries.extend(fresh)

    def apply_snapshot(self, snapshot: Snapshot) -> None:
        """Replace everything by a snapshot that was received; an older one is ignored."""
        if snapshot.meta.index <= self._snapshot.meta.index:
            return
        self._snapshot = snapshot
        self._entries = [Entry(snapshot.meta.term, snapshot.meta.index)]

    def create_snapshot(self, index: int, conf_state: ConfState, data: bytes = b"") -> None:
        """Make the snapshot that stands for the log up to `index`; an older one than the newest is ignored."""
        if index > self._snapshot.meta.index:
            self._snapshot = Snapshot(SnapshotMeta(index, self.term(index), conf_state), data)

    def compact(self, index: int) -> None:
        """Forget the entries up to and including `index`.

        Raises:
            Compacted: they are gone already.
        """
        offset = self._entries[0].index
        if index <= offset:
            raise Compacted(f"entry {index} is behind the snapshot at {offset}")
        assert index <= self.last_index(), f"entry {index} is beyond the last, {self.last_index()}"
        self._entries = [Entry(self.term(index), index), *self._entries[index - offset + 1 :]]


def limit_size(entries: Sequence[Entry], max_bytes: int) -> Sequence[Entry]:
    """Return the longest prefix whose size is at most `max_bytes`, but at least one entry if there is one."""
    total = 0
    for count, entry in enumerate(entries):
        total += entry_size(entry)
        if total > max_bytes and count:
            return entries[:count]
    return entries
