"""The log and the state in memory: for `storage "inmem"`, for tests, and as the plain reading of both contracts.

They survive nothing. Everything else is as `log.LogStore` and `state.StateStore` say, and the same test suite checks it.
"""

import bisect
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, takewhile
from typing import Final, NamedTuple

from conclave.storage.errors import Corrupt
from conclave.storage.log import EntryTuple, HardStateRecord, LogView, check_append, take
from conclave.storage.state import Applied, Staging, StateInstaller, StateReader, check_staged


class MemoryLog:
    """A `LogStore` that a process takes with it when it ends."""

    def __init__(self) -> None:
        self._entries: list[EntryTuple] = []
        self._before = (0, 0)  # index and term of the last compacted entry
        self._hard_state: HardStateRecord = (0, 0, 0)
        self._identity = b""

    @property
    def first_index(self) -> int:
        """See `LogStore`."""
        return self._before[0] + 1

    @property
    def last_index(self) -> int:
        """See `LogStore`."""
        return self._before[0] + len(self._entries)

    @property
    def hard_state(self) -> HardStateRecord:
        """See `LogStore`."""
        return self._hard_state

    def append(self, hard_state: HardStateRecord | None, entries: Sequence[EntryTuple]) -> None:
        """See `LogStore`."""
        if entries:
            check_append(self._bounds(), entries)
            self._entries[entries[0][1] - self.first_index :] = entries
        if hard_state is not None:
            self._hard_state = hard_state

    def read(self, low: int, high: int, bytes_max: int) -> list[EntryTuple]:
        """See `LogStore`."""
        self._bounds().check_range(low, high)
        return take(self._entries[low - self.first_index : high - self.first_index], bytes_max)

    def term(self, index: int) -> int:
        """See `LogStore`."""
        if self.first_index <= index <= self.last_index:
            return self._entries[index - self.first_index][0]
        return self._bounds().term(index)

    def compact(self, index: int) -> None:
        """See `LogStore`."""
        assert index <= self.last_index, "only what is in the log can be compacted"
        if index > self._before[0]:
            before = (index, self.term(index))
            del self._entries[: index - self._before[0]]
            self._before = before

    def reset(self, index: int, term: int, hard_state: HardStateRecord | None = None) -> None:
        """See `LogStore`."""
        self._entries, self._before = [], (index, term)
        if hard_state is not None:
            self._hard_state = hard_state

    def get_identity(self) -> bytes:
        """See `LogStore`."""
        return self._identity

    def set_identity(self, identity: bytes) -> None:
        """See `LogStore`."""
        self._identity = identity

    def close(self) -> None:
        """See `LogStore`."""

    def _bounds(self) -> LogView:
        return LogView(self._before[0], self._before[1], self.last_index)


class MemoryState:
    """A `StateStore` that a process takes with it when it ends."""

    def __init__(self) -> None:
        self._tables = (_NOTHING, _NOTHING)
        self._applied = Applied()
        self._seen = (self._tables, self._applied)  # as of the last refresh
        self._installer = _MemoryInstaller()

    @property
    def applied(self) -> tuple[int, int]:
        """See `StateStore`."""
        return self._seen[1].index, self._seen[1].term

    @property
    def applied_record(self) -> Applied:
        """See `StateStore`."""
        return self._seen[1]

    @property
    def membership(self) -> bytes:
        """See `StateStore`."""
        return self._seen[1].membership

    def get(self, key: bytes, table: int | None = None) -> bytes | None:
        """See `StateStore`."""
        tables, applied = self._seen
        return tables[applied.is_swapped if table is None else table].data.get(key)

    def keys(self, prefix: bytes, start: bytes = b"", table: int | None = None) -> Iterator[bytes]:
        """See `StateStore`."""
        tables, applied = self._seen
        keys = tables[applied.is_swapped if table is None else table].keys
        first = bisect.bisect_left(keys, max(prefix, start))
        return takewhile(lambda key: key.startswith(prefix), islice(keys, first, None))

    def flush(self, puts: Mapping[bytes, bytes | None], applied: Applied, staging: Staging | None = None) -> None:
        """See `StateStore`. Copies everything: readers keep what they saw, and nobody runs a large vault in memory."""
        assert applied.index >= self._applied.index, "the applied index never goes back"
        live, other = self._tables[applied.is_swapped], self._tables[not applied.is_swapped]
        if staging is not None:
            live = _NOTHING if staging.clears_live else live
            other = _changed(_NOTHING if staging.clears_staged else other, staging.puts)
            check_staged(applied, len(other.keys))
        live = _changed(live, puts)
        self._tables = (other, live) if applied.is_swapped else (live, other)
        self._applied = applied

    def refresh(self) -> None:
        """See `StateStore`."""
        self._seen = (self._tables, self._applied)

    def open_reader(self) -> StateReader:
        """See `StateStore`."""
        return _MemoryReader(self._tables[self._applied.is_swapped], self._applied)

    @property
    def has_readers(self) -> bool:
        """See `StateStore`. A reader here keeps what it saw, whatever becomes of the state."""
        return False

    def open_installer(self) -> StateInstaller:
        """See `StateStore`."""
        return self._installer

    def install(self) -> None:
        """See `StateStore`."""
        if self._installer.applied is None:
            raise Corrupt("state: there is no completed snapshot to install")
        self._tables = (_changed(_NOTHING, self._installer.data), _NOTHING)
        self._applied = self._installer.applied
        self._installer = _MemoryInstaller()
        self.refresh()

    def close(self) -> None:
        """See `StateStore`."""


class _Table(NamedTuple):
    """Records, and their keys in order; replaced as a whole."""

    data: dict[bytes, bytes]
    keys: list[bytes]


_NOTHING: Final = _Table({}, [])


def _changed(table: _Table, puts: Mapping[bytes, bytes | None]) -> _Table:
    """Return a table with changes; None deletes."""
    data = table.data | {key: value for key, value in puts.items() if value is not None}
    for key, value in puts.items():
        if value is None:
            data.pop(key, None)
    return _Table(data, sorted(data))


class _MemoryReader:
    """A state as it was when the reader was opened."""

    def __init__(self, table: _Table, applied: Applied) -> None:
        self._data, self._keys = table
        self.applied = applied.alone()
        self.is_staging = applied.staging_since > 0
        self.count = len(self._data)

    def pairs(self, after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        for key in islice(self._keys, bisect.bisect_right(self._keys, after), None):
            yield key, self._data[key]

    def close(self) -> None:
        """Nothing is held."""


class _MemoryInstaller:
    """Records on their way into a `MemoryState`."""

    def __init__(self) -> None:
        self.data: dict[bytes, bytes] = {}
        self.applied: Applied | None = None
        self._progress: bytes | None = None

    def progress(self) -> bytes | None:
        return self._progress

    def start(self, progress: bytes) -> None:
        self.data, self.applied, self._progress = {}, None, progress

    def put(self, pairs: list[tuple[bytes, bytes]], progress: bytes) -> None:
        self.data.update(pairs)
        self._progress = progress

    def complete(self, applied: Applied, progress: bytes) -> None:
        self.applied, self._progress = applied.alone(), progress

    def close(self) -> None:
        """What was put stays for the next time."""
