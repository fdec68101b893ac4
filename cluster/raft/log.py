"""The log as the core sees it: what the storage holds, and behind it what is not durable yet.

`Unstable` is the tail that was handed to the storage, or will be, and not yet confirmed; it may begin before the end of the
stored log, which the next write then cuts. `RaftLog` joins both, and counts how far the log is committed, handed out to be
applied, and applied.

Rules: `applied <= applying <= committed <= last_index`, and none of the first three ever falls; nothing committed is cut;
an equal but shorter append changes nothing. What our own disk must have kept and did not is `CorruptLog`.
"""

from collections.abc import Iterable, Sequence

from conclave.cluster.raft.errors import Compacted, CorruptLog, Unavailable
from conclave.cluster.raft.messages import Entry, EntryKind, Snapshot, entry_size
from conclave.cluster.raft.storage import LogStorage, limit_size


class Unstable:
    """Entries and a snapshot that the storage has not confirmed.

    Attributes:
        snapshot: received, and not yet confirmed; it stands before all entries.
        entries: contiguous, from `offset` on.
        offset: the index of `entries[0]`, or of the entry that comes next.
        offset_in_progress: the first entry that was not handed to the storage.
        snapshot_in_progress: the snapshot was handed to the storage.
    """

    __slots__ = ("entries", "offset", "offset_in_progress", "snapshot", "snapshot_in_progress")

    def __init__(self, offset: int) -> None:
        self.snapshot: Snapshot | None = None
        self.entries: list[Entry] = []
        self.offset = offset
        self.offset_in_progress = offset
        self.snapshot_in_progress = False

    def first_index(self) -> int | None:
        """Return the first index of the log, if a snapshot here decides it."""
        return self.snapshot.meta.index + 1 if self.snapshot else None

    def last_index(self) -> int | None:
        """Return the last index of the log, if it is here."""
        if self.entries:
            return self.offset + len(self.entries) - 1
        return self.snapshot.meta.index if self.snapshot else None

    def term(self, index: int) -> int | None:
        """Return the term of an entry or of the snapshot, if it is here."""
        position = index - self.offset
        if position >= 0:
            return self.entries[position].term if position < len(self.entries) else None
        if self.snapshot and self.snapshot.meta.index == index:
            return self.snapshot.meta.term
        return None

    def next_entries(self) -> Sequence[Entry]:
        """Return the entries that were not handed out yet."""
        skip = self.offset_in_progress - self.offset
        return self.entries[skip:] if skip < len(self.entries) else ()

    def next_snapshot(self) -> Snapshot | None:
        """Return the snapshot, if it was not handed out yet."""
        return None if self.snapshot_in_progress else self.snapshot

    def accept_in_progress(self) -> None:
        """Note that everything here was handed to the storage."""
        self.offset_in_progress = self.offset + len(self.entries)
        self.snapshot_in_progress = self.snapshot is not None

    def stable_to(self, index: int, term: int) -> None:
        """Drop what is stored up to an entry, unless another entry has taken its place meanwhile."""
        if index < self.offset or self.term(index) != term:
            return
        del self.entries[: index + 1 - self.offset]
        self.offset = index + 1
        self.offset_in_progress = max(self.offset_in_progress, self.offset)

    def stable_snapshot_to(self, index: int) -> None:
        """Drop the snapshot, if it is the one that was stored."""
        if self.snapshot and self.snapshot.meta.index == index:
            self.snapshot = None
            self.snapshot_in_progress = False

    def restore(self, snapshot: Snapshot) -> None:
        """Begin anew behind a snapshot."""
        self.offset = snapshot.meta.index + 1
        self.offset_in_progress = self.offset
        self.entries = []
        self.snapshot = snapshot
        self.snapshot_in_progress = False

    def truncate_and_append(self, entries: Sequence[Entry]) -> None:
        """Put entries in, and drop what was at their first index and behind."""
        first = entries[0].index
        if first == self.offset + len(self.entries):
            self.entries.extend(entries)
        elif first <= self.offset:
            self.entries = list(entries)
            self.offset = first
            self.offset_in_progress = first
        else:
            del self.entries[first - self.offset :]
            self.entries.extend(entries)
            self.offset_in_progress = min(self.offset_in_progress, first)


class RaftLog:
    """Storage and unstable tail as one log.

    Attributes:
        committed: the highest index known to be held by a quorum.
        applying: the highest index handed out to be applied.
        applied: the highest index that was applied.
    """

    __slots__ = (
        "_apply_unstable",
        "_applying_bytes",
        "_applying_paused",
        "_max_applying_bytes",
        "_storage",
        "applied",
        "applying",
        "committed",
        "unstable",
    )

    def __init__(self, storage: LogStorage, max_applying_bytes: int, *, apply_unstable: bool) -> None:
        self._storage = storage
        self.unstable = Unstable(storage.last_index() + 1)
        self.committed = self.applying = self.applied = storage.first_index() - 1
        # A budget of nothing would never apply anything; one byte still means one entry at a time.
        self._max_applying_bytes = max(max_applying_bytes, 1)
        self._applying_bytes = 0
        self._applying_paused = False
        self._apply_unstable = apply_unstable

    def first_index(self) -> int:
        """Return the index of the first entry that can be read."""
        first = self.unstable.first_index()
        return self._storage.first_index() if first is None else first

    def last_index(self) -> int:
        """Return the index of the last entry."""
        last = self.unstable.last_index()
        return self._storage.last_index() if last is None else last

    def last_term(self) -> int:
        """Return the term of the last entry."""
        return self.term(self.last_index())

    def term(self, index: int) -> int:
        """Return the term of an entry, or of the one just before the first.

        Raises:
            Compacted: the entry is gone.
            Unavailable: there is no such entry.
        """
        term = self.unstable.term(index)
        if term is not None:
            return term
        if index + 1 < self.first_index():
            raise Compacted(f"entry {index} is gone")
        if index > self.last_index():
            raise Unavailable(f"there is no entry {index}")
        return self._storage.term(index)

    def matches(self, index: int, term: int) -> bool:
        """Tell whether the log has this entry."""
        try:
            return self.term(index) == term
        except (Compacted, Unavailable):
            return False

    def is_up_to_date(self, index: int, term: int) -> bool:
        """Tell whether a log that ends with this entry lacks nothing that ours might have committed."""
        last_term = self.last_term()
        return term > last_term or (term == last_term and index >= self.last_index())

    def entries(self, lo: int, max_bytes: int) -> Sequence[Entry]:
        """Return the entries from `lo` on, cut at `max_bytes`, but at least one if there is one.

        Raises:
            Compacted: the first of them is gone.
        """
        last = self.last_index()
        return self.slice(lo, last + 1, max_bytes) if lo <= last else ()

    def slice(self, lo: int, hi: int, max_bytes: int) -> Sequence[Entry]:
        """Return the entries of [lo, hi), cut at `max_bytes`, but at least one.

        Raises:
            Compacted: the first of them is gone.
        """
        unstable = self.unstable
        if lo >= unstable.offset:
            return limit_size(unstable.entries[lo - unstable.offset : hi - unstable.offset], max_bytes)
        if lo < self.first_index():
            raise Compacted(f"entry {lo} is gone")
        stored_hi = min(hi, unstable.offset)
        stored = self._storage.entries(lo, stored_hi, max_bytes)
        if len(stored) < stored_hi - lo or hi <= unstable.offset:
            return stored
        return limit_size([*stored, *unstable.entries[: hi - unstable.offset]], max_bytes)

    def snapshot(self) -> Snapshot:
        """Return the newest snapshot.

        Raises:
            SnapshotTemporarilyUnavailable: there is none right now.
        """
        return self.unstable.snapshot or self._storage.snapshot()

    def append(self, entries: Sequence[Entry]) -> int:
        """Append entries, cutting what they replace; return the last index."""
        assert entries[0].index > self.committed, "a committed entry would be cut"
        self.unstable.truncate_and_append(entries)
        return self.last_index()

    def maybe_append(self, index: int, term: int, entries: Sequence[Entry], commit: int) -> int | None:
        """Take over a leader's entries behind (index, term); return the last index that now matches, or None.

        Only what conflicts is replaced, and the commit index goes no further than the entries of this message.

        Raises:
            CorruptLog: the leader contradicts a committed entry.
        """
        if not self.matches(index, term):
            return None
        last_new = index + len(entries)
        conflict = self._find_conflict(entries)
        if conflict:
            if conflict <= self.committed:
                raise CorruptLog(f"entry {conflict} conflicts with the committed one; committed is {self.committed}")
            self.append(entries[conflict - index - 1 :])
        self.commit_to(min(commit, last_new))
        return last_new

    def _find_conflict(self, entries: Iterable[Entry]) -> int:
        """Return the index of the first entry that the log does not have, 0 if it has them all."""
        for entry in entries:
            if not self.matches(entry.index, entry.term):
                return entry.index
        return 0

    def find_conflict_by_term(self, index: int, term: int) -> tuple[int, int]:
        """Return the last entry at or before `index` whose term is at most `term` as (index, term).

        Term 0 means that it is not known: the search left the part of the log that can be read.
        """
        while index > 0:
            try:
                own = self.term(index)
            except (Compacted, Unavailable):
                return index, 0
            if own <= term:
                return index, own
            index -= 1
        return 0, 0

    def commit_to(self, index: int) -> None:
        """Move the commit index, never back.

        Raises:
            CorruptLog: the entry is not there, although this node has said that it was.
        """
        if index <= self.committed:
            return
        last = self.last_index()
        if index > last:
            raise CorruptLog(f"entry {index} is committed, but the log ends at {last}: acknowledged entries were lost")
        self.committed = index

    def restore(self, snapshot: Snapshot) -> None:
        """Replace the whole log by a snapshot."""
        self.committed = snapshot.meta.index
        self.unstable.restore(snapshot)

    def next_committed_entries(self) -> Sequence[Entry]:
        """Return committed entries that were not handed out yet, within the budget of what may be under way."""
        lo, hi = self.applying + 1, self._max_appliable_index() + 1
        if lo >= hi or self._applying_paused or self.unstable.snapshot:
            return ()
        return self.slice(lo, hi, self._max_applying_bytes - self._applying_bytes)

    def has_next_committed_entries(self) -> bool:
        """Tell whether `next_committed_entries` would return any."""
        return self.applying < self._max_appliable_index() and not self._applying_paused and not self.unstable.snapshot

    def _max_appliable_index(self) -> int:
        if self._apply_unstable:
            return self.committed
        return min(self.committed, self.unstable.offset - 1)

    def accept_applying(self, entries: Sequence[Entry]) -> None:
        """Note that entries were handed out to be applied."""
        self.applying = entries[-1].index
        self._applying_bytes += total_size(entries)
        self._applying_paused = (
            self._applying_bytes >= self._max_applying_bytes or self.applying < self._max_appliable_index()
        )

    def applied_to(self, index: int, size: int) -> None:
        """Note that everything up to `index` was applied, `size` bytes of it since the last call."""
        assert self.applied <= index <= self.committed, f"applied {index} of {self.applied}..{self.committed}"
        self.applied = index
        self.applying = max(self.applying, index)
        self._applying_bytes = max(self._applying_bytes - size, 0)
        self._applying_paused = self._applying_bytes >= self._max_applying_bytes

    def has_unapplied_conf_change(self) -> bool:
        """Tell whether a membership change is committed but not applied."""
        lo = self.applied + 1
        while lo <= self.committed:
            page = self.slice(lo, self.committed + 1, self._max_applying_bytes)
            if any(entry.kind is not EntryKind.NORMAL for entry in page):
                return True
            lo += len(page)
        return False


def total_size(entries: Iterable[Entry]) -> int:
    """Return what entries count for in messages and batches."""
    return sum([entry_size(entry) for entry in entries])


def payload_size(entries: Iterable[Entry]) -> int:
    """Return the bytes of data in entries."""
    return sum([len(entry.data) for entry in entries])
