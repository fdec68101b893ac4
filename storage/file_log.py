"""The replicated log as an append-only file: one write and one sync make a batch durable.

`FileLog` is a `log.LogStore` in a folder of segments. Rules it enforces:

* One `append` is one *batch*: truncation, entries and hard state stand or fall together with the batch's checksum.
* A batch is written only after the one before it was synced. So after a crash only the very last batch of the last
  segment may be torn; it was never acknowledged, and is cut off. Anything else that is wrong is damage: `Corrupt`, and
  nothing is cut (Alagappan et al., "Protocol-Aware Recovery", FAST 2018). `is_torn` tells the two apart.
* Space is filled with zeros before it is used, by another thread if it is fast enough. A sync then has no metadata to
  write, a disk that is full is noticed before a batch is begun, and what a torn batch did not reach is known to be blank.
* A segment appears under its name only when it is whole and synced, and the folder is synced after that. Segments go
  only after a synced batch has said that what they hold is compacted.
* What is found at the start is synced before it is used: its writer may have ended before that. The last batch is written
  once more for it, since after a sync that failed a later one may succeed without having written anything.
* A write or sync that failed fences the log: it is never repeated, since what the disk holds is unknown.

What stands in a body (docs/storage.md), integers big endian; files and batches: `log_batches`, decision: ADR 0008.

    body    kind (1), then by kind:
            BASE, first in each segment: is a reset (1) · before index, before term, last index (8 each) · hard state
            APPEND: has a hard state (1) · hard state · index of the first entry (8) · entries
            COMPACT: index (8) · term (8)
            IDENTITY: the record, as it is from here on; repeated behind each BASE
    entry   length of data (4) · CRC-32C of index (8), term, kind and data (4) · term (8) · kind (1) · data
"""

import contextlib
import enum
import errno
import os
import struct
import threading
from array import array
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, NoReturn

from msgspec import Struct, field

from conclave.storage.checksums import checksum
from conclave.storage.environment import LMDB_FILE
from conclave.storage.errors import Corrupt, Fenced, Full, Misfit
from conclave.storage.files import Files, SystemFiles
from conclave.storage.log import EntryTuple, HardStateRecord, LogView, check_append
from conclave.storage.log_batches import (
    BATCH_HEAD_BYTES,
    FILE_HEAD_BYTES,
    batch_bytes,
    body_checksum,
    file_head,
    is_torn,
    make_batch,
    open_batch,
    open_file_head,
)

SEGMENT_BYTES_MAX: Final = 16 << 20
"""A segment that has reached this is followed by another; compaction drops whole segments."""
FILL_BYTES: Final = 1 << 18
"""Zeros that a batch writes ahead if it finds too few."""
FILL_AHEAD_BYTES: Final = 4 << 20
"""Zeros that a thread of its own keeps ahead of the batches."""
FILL_STEP_BYTES: Final = 1 << 20
"""Zeros that it writes at a time."""
CLOSE_SECONDS_MAX: Final = 5.0
"""How long closing waits for that thread: a disk that hangs must not keep the process from ending."""
PAGE_BYTES: Final = 4096
"""Zeros in one write. Larger writes make larger units in the kernel's memory, and each later sync then writes and counts
the whole unit: 1 MiB and 1.2 ms instead of 4 KiB and 0.3 ms, on Linux 6.18."""

_BASE: Final = struct.Struct(">B?QQQQQQ")
_APPEND: Final = struct.Struct(">B?QQQQ")
_COMPACT: Final = struct.Struct(">BQQ")
_ENTRY: Final = struct.Struct(">IIQB")
_ENTRY_NAME: Final = struct.Struct(">QQB")
_POSITION_BITS: Final = 32


class _Kind(enum.IntEnum):
    """What a batch's body holds."""

    BASE = 1
    APPEND = 2
    COMPACT = 3
    IDENTITY = 4


class _Positions(Struct, frozen=True):
    """Where each entry stands: segment number << 32 | offset in the file.

    Replaced as a whole, but for what is added at its end, since another thread may be reading it.
    """

    before: int  # the first of them is that of the entry behind this index
    places: "array[int]"

    def extended(self, first: int, places: Sequence[int]) -> "_Positions":
        """Return these with the entries from index `first` on; what stood there and behind is forgotten."""
        keep = first - self.before - 1
        if keep == len(self.places):
            self.places.extend(places)
            return self
        if keep < 0:  # they replace what a segment held that is gone
            return _Positions(first - 1, array("Q", places))
        return _Positions(self.before, self.places[:keep] + array("Q", places))

    def compacted(self, index: int) -> "_Positions":
        """Return these without the entries up to `index`."""
        return _Positions(index, self.places[index - self.before :])


class _Contents(Struct):
    """What a log holds: built up by `_replay_body`, batch by batch, as it was written."""

    view: LogView = field(default_factory=LogView)
    hard_state: HardStateRecord = (0, 0, 0)
    identity: bytes = b""
    positions: _Positions = field(default_factory=lambda: _Positions(0, array("Q")))


class _Segment(Struct):
    """A file of batches."""

    number: int
    path: Path
    last_index: int = 0  # the highest index of any entry in it, cut off or not


class _Filling(threading.Thread):
    """Writes and syncs zeros behind `start`, through a descriptor of its own: an error must not be lost to the batches'."""

    def __init__(self, files: Files, path: Path, start: int, end: int) -> None:
        super().__init__(name="log-filler", daemon=True)
        self.filled = start  # up to where there are zeros, once this has ended
        self._files, self._path, self._end = files, path, end
        self.start()

    def run(self) -> None:
        # What goes wrong here goes wrong again when a batch needs the room, and is told then.
        with contextlib.suppress(OSError):
            file = self._files.open(self._path, writable=True)
            try:
                _write_zeros(self._files, file, self.filled, self._end)
                self._files.sync(file)
                self.filled = self._end
            finally:
                self._files.close(file)


class FileLog:
    """A `LogStore` in a folder of append-only segments."""

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes_max: int = SEGMENT_BYTES_MAX,
        fill_bytes: int = FILL_BYTES,
        fill_ahead_bytes: int = FILL_AHEAD_BYTES,
        files: Files | None = None,
    ) -> None:
        """Open the log in `folder`, creating it if it is missing, and check all of it.

        Args:
            folder: its parent must exist.
            segment_bytes_max: see `SEGMENT_BYTES_MAX`.
            fill_bytes: see `FILL_BYTES`.
            fill_ahead_bytes: see `FILL_AHEAD_BYTES`; with 0 there is no thread.
            files: those of the operating system if none are given.

        Raises:
            Corrupt: something is missing or damaged, or the folder has another format.
            InUse: the folder is open already.
            Full: the disk has no room for an empty log.
            Fenced: the disk failed.
        """
        self._folder = folder
        self._files = files or SystemFiles()
        self._segment_bytes_max = segment_bytes_max
        self._fill_bytes = fill_bytes
        self._fill_ahead_bytes = fill_ahead_bytes
        self._fenced = ""
        self._contents = _Contents()
        self._segments: list[_Segment] = []
        self._file = -1  # the last segment
        self._offset = 0  # in it, where the next batch goes
        self._filled = 0  # up to where it is filled with zeros
        self._filling: _Filling | None = None  # to whom what is behind belongs meanwhile
        self._sequence = 1  # of the next batch
        self._chained = 0  # the checksum before it
        self._lock = self._files.own(folder)
        try:
            self._recover()
        except BaseException:
            self.close()
            raise

    @property
    def first_index(self) -> int:
        """See `LogStore`."""
        return self._contents.view.before_index + 1

    @property
    def last_index(self) -> int:
        """See `LogStore`."""
        return self._contents.view.last_index

    @property
    def hard_state(self) -> HardStateRecord:
        """See `LogStore`."""
        return self._contents.hard_state

    def append(self, hard_state: HardStateRecord | None, entries: Sequence[EntryTuple]) -> None:
        """See `LogStore`."""
        contents = self._contents
        before = contents.view
        if entries:
            check_append(before, entries)
        self._make_room()
        offset = self._offset
        body, starts = _append_body(hard_state, entries)
        kept = before.cut(entries[0][1] - 1) if entries else before
        # A reader on another thread may only ever see less than what is there, so the view shrinks before the write.
        contents.view = kept
        try:
            self._write(body)
        except BaseException:
            contents.view = before
            raise
        if hard_state is not None:
            contents.hard_state = hard_state
        if entries:
            origin = self._segments[-1].number << _POSITION_BITS | offset + BATCH_HEAD_BYTES
            contents.positions = contents.positions.extended(entries[0][1], [origin + start for start in starts])
            self._segments[-1].last_index = max(self._segments[-1].last_index, entries[-1][1])
            contents.view = kept.extended(entries)

    def read(self, low: int, high: int, bytes_max: int) -> list[EntryTuple]:
        """See `LogStore`."""
        while True:
            view = self._contents.view
            view.check_range(low, high)
            if low >= view.tail_first:
                return view.take_newest(low, high, bytes_max)
            try:
                return self._read_disk(view, low, high, bytes_max)
            except Corrupt:
                if self._contents.view is view:
                    raise
                # The log was cut while it was read: look again, against the new view.

    def term(self, index: int) -> int:
        """See `LogStore`."""
        return self._contents.view.term(index)

    def compact(self, index: int) -> None:
        """See `LogStore`; one batch, and then whole segments go."""
        contents = self._contents
        before = contents.view
        assert index <= before.last_index, "only what is in the log can be compacted"
        if index <= before.before_index:
            return
        self._make_room()
        contents.view = before.compacted(index)
        try:
            self._write(_COMPACT.pack(_Kind.COMPACT, index, contents.view.before_term))
        except BaseException:
            contents.view = before
            raise
        contents.positions = contents.positions.compacted(index)
        self._remove_compacted()

    def reset(self, index: int, term: int, hard_state: HardStateRecord | None = None) -> None:
        """See `LogStore`; a new segment that says so, and then the older ones go."""
        contents = self._contents
        before = contents.view
        contents.view = LogView(index, term, index)
        try:
            self._begin_segment(hard_state or contents.hard_state, is_reset=True)
        except BaseException:
            contents.view = before
            raise
        contents.hard_state = hard_state or contents.hard_state
        contents.positions = _Positions(index, array("Q"))
        self._remove_compacted()

    def get_identity(self) -> bytes:
        """See `LogStore`."""
        return self._contents.identity

    def set_identity(self, identity: bytes) -> None:
        """See `LogStore`."""
        self._make_room()
        self._write(bytes([_Kind.IDENTITY]) + identity)
        self._contents.identity = identity

    def close(self) -> None:
        """See `LogStore`."""
        if self._filling is not None:
            self._filling.join(CLOSE_SECONDS_MAX)
        if self._file >= 0:
            self._files.close(self._file)
            self._file = -1
        if self._lock >= 0:
            self._files.close(self._lock)
            self._lock = -1

    # -- writing --

    def _write(self, body: bytes) -> None:
        """Make one batch durable; behind it the next one starts.

        Raises:
            Full: no room; nothing was written.
            Fenced: this or an earlier write failed.
        """
        if self._fenced:
            raise Fenced(self._fenced)
        batch, chained = make_batch(body, self._sequence, self._chained)
        self._fill(self._offset + len(batch))
        with self._failing():
            _write_all(self._files, self._file, batch, self._offset)
            self._sync()
        self._offset += len(batch)
        self._sequence += 1
        self._chained = chained
        self._fill_ahead()

    def _sync(self) -> None:
        """Wait for the disk: the one place where that happens for a batch, so that tests can make it fail."""
        self._files.sync_data(self._file)

    def _fill(self, end: int) -> None:
        """Have zeros where the next batch will stand; what is missing when the disk is full is tried again next time."""
        if end > self._filled and self._filling is not None:
            self._end_filling(self._filling)
        if end <= self._filled:
            return
        target = -(-end // self._fill_bytes) * self._fill_bytes
        try:
            _write_zeros(self._files, self._file, self._filled, target)
        except OSError as error:
            self._refused(error)
        self._filled = target

    def _fill_ahead(self) -> None:
        """Have zeros written for the batches after this one, if there are few left."""
        if self._filling is not None and not self._filling.is_alive():
            self._end_filling(self._filling)
        target = min(self._offset + self._fill_ahead_bytes, self._segment_bytes_max)
        if self._filling is None and self._filled < target:
            self._filling = _Filling(self._files, self._segments[-1].path, self._filled, self._filled + FILL_STEP_BYTES)

    def _end_filling(self, filling: _Filling) -> None:
        filling.join()
        self._filled, self._filling = filling.filled, None

    def _make_room(self) -> None:
        """Begin another segment if this one has reached its size."""
        if self._offset >= self._segment_bytes_max:
            self._begin_segment(self._contents.hard_state, is_reset=False)

    def _begin_segment(self, hard_state: HardStateRecord, *, is_reset: bool) -> None:
        """Go on in a new segment, which says by itself all that those before it add up to but the entries.

        Raises:
            Full: no room; nothing has changed.
            Fenced: this or an earlier write failed.
        """
        if self._fenced:
            raise Fenced(self._fenced)
        number = self._segments[-1].number + 1 if self._segments else 1
        view = self._contents.view
        base = _BASE.pack(_Kind.BASE, is_reset, view.before_index, view.before_term, view.last_index, *hard_state)
        batch, chained = make_batch(base, self._sequence, self._chained)
        identity, chained = make_batch(bytes([_Kind.IDENTITY]) + self._contents.identity, self._sequence + 1, chained)
        content = file_head(number, self._sequence, self._chained) + batch + identity
        path = self._folder / f"{number:016x}.log"
        file = self._create(path, content)
        if self._filling is not None:
            self._end_filling(self._filling)
        if self._file >= 0:
            self._files.close(self._file)
        self._file, self._offset, self._filled = file, len(content), len(content)
        self._sequence, self._chained = self._sequence + 2, chained
        self._segments.append(_Segment(number, path))

    def _create(self, path: Path, content: bytes) -> int:
        """Return a new file, that is there under its name with all its content or not at all."""
        draft = path.with_suffix(".new")
        files = self._files
        file = -1
        try:
            file = files.create(draft)
            _write_all(files, file, content, 0)
            files.sync(file)
            files.rename(draft, path)
            files.sync_folder(self._folder)
        except OSError as error:
            with self._failing():
                if file >= 0:
                    files.close(file)
                if error.errno in {errno.ENOSPC, errno.EDQUOT} and path.name not in files.names(self._folder):
                    files.unlink(draft)
                    raise Full(f"{self._folder.name}: no space left on the device") from error
            self._fence(error)
        return file

    def _remove_compacted(self) -> None:
        """Remove the segments, from the oldest on, that hold nothing any more but what a later one says again."""
        before_index = self._contents.view.before_index
        while len(self._segments) > 1 and self._segments[0].last_index <= before_index:
            del self._segments[0]
        with self._failing():
            for path in self._find("*.log"):
                if path < self._segments[0].path:
                    self._files.unlink(path)

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Fence the log if the disk refuses."""
        try:
            yield
        except OSError as error:
            self._fence(error)

    def _refused(self, error: OSError) -> NoReturn:
        """Say that the disk is full, if that is all; else fence the log."""
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise Full(f"{self._folder.name}: no space left on the device") from error
        self._fence(error)

    def _fence(self, error: OSError) -> NoReturn:
        self._fenced = f"{self._folder.name}: {os.strerror(error.errno or errno.EIO)}"
        raise Fenced(self._fenced) from error

    # -- reading --

    def _read_disk(self, view: LogView, low: int, high: int, bytes_max: int) -> list[EntryTuple]:
        positions = self._contents.positions
        first = max(0, low - positions.before - 1)
        entries: list[EntryTuple] = []
        total = 0
        with contextlib.ExitStack() as opened:
            file, number = -1, -1
            for index, position in enumerate(positions.places[first : first + high - low], low):
                if position >> _POSITION_BITS != number:
                    number = position >> _POSITION_BITS
                    file = opened.enter_context(self._opened(self._folder / f"{number:016x}.log"))
                entry = _read_entry(self._files, file, position & (1 << _POSITION_BITS) - 1, index)
                if entry[0] != view.term(index):
                    raise Corrupt(f"log: entry {index} is of another term")
                total += len(entry[3])
                if total > bytes_max and entries:
                    break
                entries.append(entry)
        if not entries:
            raise Corrupt(f"log: entry {low} is missing")
        return entries

    @contextlib.contextmanager
    def _opened(self, path: Path) -> Iterator[int]:
        """Open a segment for reading: for each read anew, so that compaction need not know who reads."""
        try:
            file = self._files.open(path)
        except FileNotFoundError as error:
            raise Corrupt(f"log: segment {path.stem} is missing") from error
        try:
            yield file
        finally:
            self._files.close(file)

    # -- recovering --

    def _recover(self) -> None:
        """Read all segments, and make ready to write behind the last whole batch."""
        self._segments = self._find_segments()
        if not self._segments:
            self._begin_segment((0, 0, 0), is_reset=True)
            return
        for segment in self._segments:
            self._replay(segment, is_first=segment is self._segments[0], is_last=segment is self._segments[-1])
        contents = self._contents
        before_index = contents.view.before_index
        if contents.positions.before > before_index:
            raise Corrupt(f"log: entry {before_index + 1} is missing: a segment is not there")
        contents.positions = contents.positions.compacted(before_index)
        self._remove_compacted()

    def _find_segments(self) -> list[_Segment]:
        if self._find(LMDB_FILE):
            raise Corrupt(f"{self._folder.name}: there is a log of another format")
        for draft in self._find("*.new"):
            self._files.unlink(draft)
        segments = [_Segment(int(path.stem, 16), path) for path in self._find("*.log")]
        for number in range(len(segments) - 1, 0, -1):
            if segments[number - 1].number != segments[number].number - 1:
                # A crash may leave some of the segments that were being removed. If one was not, entries are missing.
                return segments[number:]
        return segments

    def _find(self, pattern: str) -> list[Path]:
        return [self._folder / name for name in self._files.names(self._folder) if fnmatchcase(name, pattern)]

    def _replay(self, segment: _Segment, *, is_first: bool, is_last: bool) -> None:
        content = self._files.read(segment.path)
        number, sequence, chained = open_file_head(content)
        if is_first:
            self._sequence, self._chained = sequence, chained
        if (number, sequence, chained) != (segment.number, self._sequence, self._chained):
            raise Corrupt(f"log: segment {segment.number:016x} does not follow the one before it")
        last = offset = FILE_HEAD_BYTES
        while (body := open_batch(content, offset, self._sequence, self._chained)) is not None:
            _replay_body(self._contents, body, segment, offset + BATCH_HEAD_BYTES)
            self._chained = body_checksum(content, offset)
            self._sequence += 1
            last, offset = offset, offset + batch_bytes(len(body))
        if offset == FILE_HEAD_BYTES or (content.count(0, offset) < len(content) - offset and not is_last):
            raise Corrupt(f"log: segment {segment.number:016x} is damaged at {offset}")
        if is_last:
            self._continue(segment, content, last, offset)

    def _continue(self, segment: _Segment, content: bytes, last: int, offset: int) -> None:
        """Make ready to write at `offset`, where the last segment's last whole batch ends, which begins at `last`."""
        self._file = self._files.open(segment.path, writable=True)
        self._offset, self._filled = offset, len(content)
        try:
            # Whoever wrote it may have ended before its sync, or it failed: what the disk lacks, memory may still show.
            _write_all(self._files, self._file, content[last:offset], last)
            self._sync()
            self._files.sync_folder(self._folder)
        except OSError as error:
            self._refused(error)
        rest = content[offset:]
        if rest.count(0) == len(rest):
            return
        if not is_torn(content, offset, self._sequence):
            raise Corrupt(f"log: segment {segment.number:016x} is damaged at {offset}")
        # What a torn batch left must not lie behind the next one, which may be shorter.
        with self._failing():
            _write_zeros(self._files, self._file, offset, len(content))
            self._files.sync(self._file)


# -- bodies --


def _append_body(hard_state: HardStateRecord | None, entries: Sequence[EntryTuple]) -> tuple[bytes, list[int]]:
    """Return the body of an APPEND, and where in it each entry begins."""
    first = entries[0][1] if entries else 0
    parts = [_APPEND.pack(_Kind.APPEND, hard_state is not None, *(hard_state or (0, 0, 0)), first)]
    starts = []
    position = _APPEND.size
    for term, index, kind, data in entries:
        starts.append(position)
        sealed = checksum(data, checksum(_ENTRY_NAME.pack(index, term, kind)))
        parts += (_ENTRY.pack(len(data), sealed, term, kind), data)
        position += _ENTRY.size + len(data)
    return b"".join(parts), starts


def _replay_body(contents: _Contents, body: bytes, segment: _Segment, origin: int) -> None:
    """Do what a batch says to what the ones before it have made; `origin` is where its body begins in the segment."""
    match body[0]:
        case _Kind.BASE:
            _replay_base(contents, body)
        case _Kind.APPEND:
            _replay_append(contents, body, segment, origin)
        case _Kind.COMPACT:
            _, index, term = _COMPACT.unpack(body)
            # Its term may stand in a segment that is gone.
            contents.view = contents.view.compacted(index, term)
        case _Kind.IDENTITY:
            contents.identity = body[1:]
        case kind:
            raise Misfit(f"log: a batch is of kind {kind}: a newer version wrote it")


def _replay_base(contents: _Contents, body: bytes) -> None:
    _, is_reset, before_index, before_term, last_index, term, vote, commit = _BASE.unpack(body)
    if is_reset or contents.view == LogView():
        contents.view = LogView(before_index, before_term, last_index)
        contents.positions = _Positions(last_index, array("Q"))
    elif (contents.view.before_index, contents.view.last_index) != (before_index, last_index):
        raise Corrupt("log: a segment does not go on where the one before it ended")
    contents.hard_state = (term, vote, commit)


def _replay_append(contents: _Contents, body: bytes, segment: _Segment, origin: int) -> None:
    _, has_hard_state, term, vote, commit, first = _APPEND.unpack_from(body)
    if has_hard_state:
        contents.hard_state = (term, vote, commit)
    entries: list[EntryTuple] = []
    positions: list[int] = []
    offset = _APPEND.size
    while offset < len(body):
        length, _, entry_term, kind = _ENTRY.unpack_from(body, offset)
        data = body[offset + _ENTRY.size : offset + _ENTRY.size + length]
        entries.append((entry_term, first + len(entries), kind, data))
        positions.append(segment.number << _POSITION_BITS | origin + offset)
        offset += _ENTRY.size + length
    if entries:
        contents.positions = contents.positions.extended(first, positions)
        contents.view = contents.view.cut(first - 1).extended(entries)
        segment.last_index = max(segment.last_index, entries[-1][1])


# -- files --


def _read_entry(files: Files, file: int, offset: int, index: int) -> EntryTuple:
    head = files.pread(file, _ENTRY.size, offset)
    if len(head) < _ENTRY.size:
        raise Corrupt(f"log: entry {index} is cut short")
    length, sealed, term, kind = _ENTRY.unpack(head)
    data = files.pread(file, length, offset + _ENTRY.size)
    if checksum(data, checksum(_ENTRY_NAME.pack(index, term, kind))) != sealed:
        raise Corrupt(f"log: entry {index} has a wrong checksum")
    return term, index, kind, data


def _write_zeros(files: Files, file: int, start: int, end: int) -> None:
    """Write zeros to [start, end), a page at a time."""
    while start < end:
        stop = min(end, (start // PAGE_BYTES + 1) * PAGE_BYTES)
        _write_all(files, file, bytes(stop - start), start)
        start = stop


def _write_all(files: Files, file: int, content: bytes, offset: int) -> None:
    """Write all of `content`; a disk may take less at a time."""
    written = files.pwrite(file, content, offset)
    while written < len(content):
        written += files.pwrite(file, content[written:], offset + written)
