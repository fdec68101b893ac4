"""The replicated log on disk: entries by index, hard state, and whose log it is.

An entry is a plain tuple `(term, index, kind, data)`; this room knows no Raft rule beyond "an entry at an index that is
already there replaces it and everything behind it". Rules it enforces:

* One `append` is one synced transaction: truncation, entries and hard state become durable together or not at all.
* Entries are contiguous. LMDB never shows half a transaction, so a missing index or a wrong checksum is damage, never a
  torn tail: it raises `Corrupt`, and nothing is cut (Alagappan et al., "Protocol-Aware Recovery", FAST 2018).
* The whole log is checked when it is opened, and each entry again when it is read from disk.
* `append`, `compact` and `reset` are called by one thread at a time; everything else may be called by another thread
  meanwhile, and sees either the log before or the log after.

Layout (docs/storage.md): table `entries`: 8-byte big-endian index -> CRC-32C (4, seeded with that of the index) +
term (8) + kind (1) + data. Table `meta`: `format`, `first`, `hard_state`, `identity`.
"""

import struct
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol, TypeAlias

from msgspec import Struct, structs

from conclave.storage.checksums import checksum
from conclave.storage.environment import MAP_BYTES, Environment, Table, Transaction
from conclave.storage.errors import Compacted, Corrupt, Misfit, Unavailable

EntryTuple: TypeAlias = tuple[int, int, int, bytes]
"""Term, index, kind (0 to 255), data."""
HardStateRecord: TypeAlias = tuple[int, int, int]
"""Term, vote, commit index: each 0 to 2**64 - 1."""

FORMAT: Final = b"conclave-log-1"
TAIL_ENTRIES_MAX: Final = 2048
"""Entries kept in memory: replication and application read what was appended a moment ago. Twice as many for a while."""
TAIL_BYTES_MAX: Final = 8 << 20
NOWHERE: Final = 1 << 64
"""An index above all others."""
COMPACT_ENTRIES_MAX: Final = 512
"""Entries deleted in one transaction, so that an append never waits long behind a compaction."""

_INDEX: Final = struct.Struct(">Q")
_HEAD: Final = struct.Struct(">IQB")
_CHECKSUM: Final = struct.Struct(">I")
_FIRST: Final = struct.Struct(">QQ")
_HARD_STATE: Final = struct.Struct(">QQQ")


class LogStore(Protocol):
    """A durable log. `file_log.FileLog` and `LmdbLog` keep it on disk, `memory.MemoryLog` in memory; one suite tests all."""

    @property
    def first_index(self) -> int:
        """The lowest index that can be read: one above the compacted prefix; 1 in a new log."""

    @property
    def last_index(self) -> int:
        """The highest index; `first_index - 1` if the log is empty."""

    @property
    def hard_state(self) -> HardStateRecord:
        """The hard state last appended; zeros in a new log."""

    def append(self, hard_state: HardStateRecord | None, entries: Sequence[EntryTuple]) -> None:
        """Make entries and hard state durable in one synced transaction.

        Args:
            hard_state: None leaves it as it is.
            entries: contiguous, starting anywhere from `first_index` to `last_index + 1`; what stood at their first
                index and behind it is replaced.

        Raises:
            Full: nothing was written; may be tried again.
            Fenced: the disk's content is unknown; never tried again.
        """

    def read(self, low: int, high: int, bytes_max: int) -> list[EntryTuple]:
        """Return the entries of [low, high), as many as fit into `bytes_max` of data, but at least one.

        Raises:
            Compacted: `low` is below `first_index`.
            Unavailable: `high` is above `last_index + 1`.
            Corrupt: an entry is missing or damaged.
        """

    def term(self, index: int) -> int:
        """Return an entry's term; also known for `first_index - 1`.

        Raises:
            Compacted: `index` is below that.
            Unavailable: `index` is above `last_index`.
        """

    def compact(self, index: int) -> None:
        """Drop the entries up to and including `index`, in bounded pieces; its term stays known.

        An index that is compacted already changes nothing; one above `last_index` is the caller's bug.
        """

    def reset(self, index: int, term: int, hard_state: HardStateRecord | None = None) -> None:
        """Empty the log, in one transaction, so that it goes on behind `index`: after a snapshot was installed."""

    def get_identity(self) -> bytes:
        """Return the identity record; empty if none was set."""

    def set_identity(self, identity: bytes) -> None:
        """Store the identity record, durably: whose log this is, in the cluster's own encoding."""

    def close(self) -> None:
        """Close the store; no other call may follow."""


class LogView(Struct, frozen=True):
    """What the log holds, at one moment. Replaced as a whole, so that another thread never sees half a change.

    Only the list of newest entries is shared by a view and the ones that extend it: what is behind a view's own last
    index is not for its eyes. So an append costs what it appends, and not what is remembered.
    """

    before_index: int = 0  # the last compacted entry, whose term is still known
    before_term: int = 0
    last_index: int = 0
    run_starts: tuple[int, ...] = ()  # ascending first indexes of runs of one term
    run_terms: tuple[int, ...] = ()
    tail: list[EntryTuple] = []  # the newest entries, up to last_index and maybe beyond
    tail_first: int = NOWHERE  # the index of the first of them
    tail_bytes: int = 0  # the data of all of them

    def term(self, index: int) -> int:
        """Return the term at `index`; raises as `LogStore.term`."""
        if index < self.before_index:
            raise Compacted(f"entry {index} is compacted; the log starts at {self.before_index + 1}")
        if index > self.last_index:
            raise Unavailable(f"entry {index} is beyond the log's end, {self.last_index}")
        if index == self.before_index:
            return self.before_term
        return self.run_terms[bisect_right(self.run_starts, index) - 1]

    def check_range(self, low: int, high: int) -> None:
        """Raise unless [low, high) is there; raises as `LogStore.read`."""
        if low <= self.before_index:
            raise Compacted(f"entry {low} is compacted; the log starts at {self.before_index + 1}")
        if high > self.last_index + 1:
            raise Unavailable(f"entry {high - 1} is beyond the log's end, {self.last_index}")

    def take_newest(self, low: int, high: int, bytes_max: int) -> list[EntryTuple]:
        """Return the entries of [low, high), none of them before `tail_first`, as `LogStore.read` does."""
        return take(self.tail[low - self.tail_first : high - self.tail_first], bytes_max)

    def cut(self, last_index: int) -> "LogView":
        """Return this view without what is behind `last_index`."""
        if last_index >= self.last_index:
            return self
        runs = bisect_right(self.run_starts, last_index)
        tail = self.tail[: max(0, last_index + 1 - self.tail_first)]
        return structs.replace(
            self,
            last_index=last_index,
            run_starts=self.run_starts[:runs],
            run_terms=self.run_terms[:runs],
            tail=tail,
            tail_first=self.tail_first if tail else NOWHERE,
            tail_bytes=sum(len(entry[3]) for entry in tail),
        )

    def extended(self, entries: Sequence[EntryTuple]) -> "LogView":
        """Return this view with contiguous `entries` behind its end."""
        starts, terms = self.run_starts, self.run_terms
        for term, index, _, _ in entries:
            if not terms or terms[-1] != term:
                starts, terms = (*starts, index), (*terms, term)
        tail, tail_first = self.tail, self.tail_first if self.tail else entries[0][1]
        tail.extend(entries)
        tail_bytes = self.tail_bytes + sum(len(entry[3]) for entry in entries)
        if len(tail) > 2 * TAIL_ENTRIES_MAX or tail_bytes > 2 * TAIL_BYTES_MAX:
            tail = _bounded_tail(tail)
            tail_first = entries[-1][1] + 1 - len(tail) if tail else NOWHERE
            tail_bytes = sum(len(entry[3]) for entry in tail)
        return LogView(self.before_index, self.before_term, entries[-1][1], starts, terms, tail, tail_first, tail_bytes)

    def compacted(self, index: int, term: int | None = None) -> "LogView":
        """Return this view without the entries up to and including `index`, whose term is looked up if it is not given."""
        drop = max(0, bisect_right(self.run_starts, index + 1) - 1)
        return structs.replace(
            self,
            before_index=index,
            before_term=self.term(index) if term is None else term,
            run_starts=self.run_starts[drop:],
            run_terms=self.run_terms[drop:],
        )


def take(entries: Sequence[EntryTuple], bytes_max: int) -> list[EntryTuple]:
    """Return as many leading entries as have `bytes_max` bytes of data together, but at least one if there is one."""
    total = 0
    for count, entry in enumerate(entries):
        total += len(entry[3])
        if total > bytes_max and count:
            return list(entries[:count])
    return list(entries)


def check_append(view: LogView, entries: Sequence[EntryTuple]) -> None:
    """Assert what a caller of `append` owes: contiguous entries that leave no gap and touch nothing compacted."""
    first = entries[0][1]
    assert view.before_index < first <= view.last_index + 1, f"append at {first} does not fit the log"
    assert all(entry[1] == first + offset for offset, entry in enumerate(entries)), "entries are not contiguous"


class LmdbLog:
    """A `LogStore` in one LMDB environment."""

    def __init__(self, folder: Path, *, map_bytes: int = MAP_BYTES) -> None:
        """Open the log in `folder`, creating it if it is missing, and check all of it.

        Raises:
            Corrupt: an entry is missing or damaged, or the folder has another format.
            InUse: the folder is open already.
        """
        self._env = Environment(folder, ["entries", "meta"], map_bytes=map_bytes)
        try:
            self._entries, self._meta = self._env.table("entries"), self._env.table("meta")
            self._check_format()
            with self._env.read() as transaction:
                self._hard_state = self._load_hard_state(transaction)
                self._view = _load_view(transaction, self._entries, self._meta)
        except BaseException:
            self._env.close()
            raise

    @property
    def first_index(self) -> int:
        """See `LogStore`."""
        return self._view.before_index + 1

    @property
    def last_index(self) -> int:
        """See `LogStore`."""
        return self._view.last_index

    @property
    def hard_state(self) -> HardStateRecord:
        """See `LogStore`."""
        return self._hard_state

    def append(self, hard_state: HardStateRecord | None, entries: Sequence[EntryTuple]) -> None:
        """See `LogStore`."""
        before = self._view
        if not entries:
            kept = before
        else:
            check_append(before, entries)
            kept = before.cut(entries[0][1] - 1)
        # A reader on another thread may only ever see less than what is there, so the view shrinks before the commit.
        self._view = kept
        try:
            with self._env.write() as transaction:
                self._delete(transaction, kept.last_index + 1, before.last_index)
                for entry in entries:
                    transaction.put(_INDEX.pack(entry[1]), _encode(entry), db=self._entries, append=True)
                if hard_state is not None:
                    transaction.put(b"hard_state", _sealed_meta(_HARD_STATE.pack(*hard_state)), db=self._meta)
        except BaseException:
            self._view = before
            raise
        if hard_state is not None:
            self._hard_state = hard_state
        if entries:
            self._view = kept.extended(entries)

    def read(self, low: int, high: int, bytes_max: int) -> list[EntryTuple]:
        """See `LogStore`."""
        while True:
            view = self._view
            view.check_range(low, high)
            if low >= view.tail_first:
                return view.take_newest(low, high, bytes_max)
            try:
                return self._read_disk(low, high, bytes_max)
            except Corrupt:
                if self._view is view:
                    raise
                # The log was cut while it was read: look again, against the new view.

    def term(self, index: int) -> int:
        """See `LogStore`."""
        return self._view.term(index)

    def compact(self, index: int) -> None:
        """See `LogStore`."""
        assert index <= self.last_index, "only what is in the log can be compacted"
        while self._view.before_index < index:
            before = self._view
            piece = min(index, before.before_index + COMPACT_ENTRIES_MAX)
            self._view = before.compacted(piece)
            try:
                with self._env.write() as transaction:
                    self._delete(transaction, before.before_index + 1, piece)
                    self._put_first(transaction, piece, self._view.before_term)
            except BaseException:
                self._view = before
                raise

    def reset(self, index: int, term: int, hard_state: HardStateRecord | None = None) -> None:
        """See `LogStore`."""
        before = self._view
        self._view = LogView(before_index=index, before_term=term, last_index=index)
        try:
            with self._env.write() as transaction:
                transaction.drop(self._entries, delete=False)
                self._put_first(transaction, index, term)
                if hard_state is not None:
                    transaction.put(b"hard_state", _sealed_meta(_HARD_STATE.pack(*hard_state)), db=self._meta)
        except BaseException:
            self._view = before
            raise
        if hard_state is not None:
            self._hard_state = hard_state

    def get_identity(self) -> bytes:
        """See `LogStore`."""
        with self._env.read() as transaction:
            return _open_meta(transaction, self._meta, b"identity") or b""

    def set_identity(self, identity: bytes) -> None:
        """See `LogStore`."""
        with self._env.write() as transaction:
            transaction.put(b"identity", _sealed_meta(identity), db=self._meta)

    def close(self) -> None:
        """See `LogStore`."""
        self._env.close()

    def _check_format(self) -> None:
        with self._env.read() as transaction:
            found = _open_meta(transaction, self._meta, b"format")
        if found is None:
            with self._env.write() as transaction:
                transaction.put(b"format", _sealed_meta(FORMAT), db=self._meta)
        elif found != FORMAT:
            raise Misfit(f"log: format {found!r} is not {FORMAT!r}; a newer version wrote it")

    def _load_hard_state(self, transaction: Transaction) -> HardStateRecord:
        record = _open_meta(transaction, self._meta, b"hard_state")
        if record is None:
            return (0, 0, 0)
        term, vote, commit = _HARD_STATE.unpack(record)
        return (term, vote, commit)

    def _read_disk(self, low: int, high: int, bytes_max: int) -> list[EntryTuple]:
        entries: list[EntryTuple] = []
        total = 0
        with self._env.read() as transaction, transaction.cursor(self._entries) as cursor:
            found = cursor.set_key(_INDEX.pack(low))
            for index in range(low, high):
                if not found or cursor.key() != _INDEX.pack(index):
                    raise Corrupt(f"log: entry {index} is missing")
                entry = _decode(index, cursor.value())
                total += len(entry[3])
                if total > bytes_max and entries:
                    break
                entries.append(entry)
                found = cursor.next()
        return entries

    def _delete(self, transaction: Transaction, low: int, high: int) -> None:
        for index in range(low, high + 1):
            transaction.delete(_INDEX.pack(index), db=self._entries)

    def _put_first(self, transaction: Transaction, index: int, term: int) -> None:
        transaction.put(b"first", _sealed_meta(_FIRST.pack(index, term)), db=self._meta)


def _load_view(transaction: Transaction, entries: Table, meta: Table) -> LogView:
    """Read and check the whole log."""
    first = _open_meta(transaction, meta, b"first")
    before_index, before_term = (0, 0) if first is None else _FIRST.unpack(first)
    expected = before_index
    starts: list[int] = []
    terms: list[int] = []
    with transaction.cursor(entries) as cursor:
        for key, value in cursor:
            expected += 1
            if key != _INDEX.pack(expected):
                raise Corrupt(f"log: entry {expected} is missing")
            term = _decode(expected, value)[0]
            if not terms or terms[-1] != term:
                starts.append(expected)
                terms.append(term)
    return LogView(before_index, before_term, expected, tuple(starts), tuple(terms))


def _encode(entry: EntryTuple) -> bytes:
    term, index, kind, data = entry
    body = _HEAD.pack(0, term, kind)[4:] + data
    return _CHECKSUM.pack(checksum(body, checksum(_INDEX.pack(index)))) + body


def _decode(index: int, value: bytes) -> EntryTuple:
    if len(value) < _HEAD.size:
        raise Corrupt(f"log: entry {index} is cut short")
    stored, term, kind = _HEAD.unpack_from(value)
    if checksum(value[4:], checksum(_INDEX.pack(index))) != stored:
        raise Corrupt(f"log: entry {index} has a wrong checksum")
    return (term, index, kind, value[_HEAD.size :])


def _sealed_meta(record: bytes) -> bytes:
    return _CHECKSUM.pack(checksum(record)) + record


def _open_meta(transaction: Transaction, meta: Table, name: bytes) -> bytes | None:
    value = transaction.get(name, db=meta)
    if value is None:
        return None
    if len(value) < _CHECKSUM.size or _CHECKSUM.unpack_from(value)[0] != checksum(value[4:]):
        raise Corrupt(f"log: the record {name.decode()!r} has a wrong checksum")
    return value[4:]


def _bounded_tail(entries: list[EntryTuple]) -> list[EntryTuple]:
    """Return the newest entries that fit the bounds; an entry over the byte bound alone is not kept."""
    entries = entries[-TAIL_ENTRIES_MAX:]
    total = sum(len(entry[3]) for entry in entries)
    drop = 0
    while total > TAIL_BYTES_MAX:
        total -= len(entries[drop][3])
        drop += 1
    return entries[drop:]
