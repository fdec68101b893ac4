"""The core's log on disk: `DurableLog` lets the core read it, `Writer` owns the one thread that writes it.

Jobs are written in the order in which they were submitted. Jobs that wait while a sync runs are merged into one
transaction, so the size of a batch follows the load without a timer. A job's `done` is called on the event loop once it,
and all before it, are durable.

* A sync that failed is never retried: the writer is fenced for good and says so once (`on_fault`).
* No room on the disk is no such failure (nothing was written): the writer says so, and tries the same batch again every
  second until it fits.
* `oldest_pending_seconds` tells how long the disk has owed an answer, for the leader that has to notice that it hangs.

`storage.log` knows plain tuples and no Raft rule; this is the one place where the two meet.
"""

import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Final, Protocol

from msgspec import Struct

from conclave.cluster import raft
from conclave.cluster.raft import ConfState, Entry, EntryKind, HardState, Snapshot
from conclave.storage.errors import Compacted, Corrupt, Full, Unavailable
from conclave.storage.log import EntryTuple, HardStateRecord, LogStore

BATCH_BYTES_MAX: Final = 4 * 1024 * 1024
BATCH_JOBS_MAX: Final = 1024
FULL_RETRY_SECONDS: Final = 1.0
SIZES_ENTRIES: Final = 64
"""Entries that `newest_sizes` has in memory at a time."""


class DurableLog:
    """`raft.LogStorage` over a `LogStore`.

    Args:
        store: the log.
        conf_state: the configuration in force at the applied index.
        applied_index: what the state machine holds; the commit index is never below it, though a commit index alone is
            not synced.
        take_snapshot: called when a peer needs one.
    """

    def __init__(
        self, store: LogStore, conf_state: ConfState, applied_index: int, take_snapshot: Callable[[], Snapshot]
    ) -> None:
        self._store = store
        self._conf_state = conf_state
        self._applied_index = applied_index
        self._take_snapshot = take_snapshot

    def initial_state(self) -> tuple[HardState, ConfState]:
        """Return the stored hard state and the configuration at the applied index."""
        term, vote, commit = self._store.hard_state
        return HardState(term, vote, max(commit, self._applied_index)), self._conf_state

    def entries(self, lo: int, hi: int, max_bytes: int) -> Sequence[Entry]:
        """Return entries of [lo, hi), at least one, cut at `max_bytes`."""
        try:
            stored = self._store.read(lo, hi, max_bytes)
        except Compacted as error:
            raise raft.Compacted(str(error)) from error
        except Unavailable as error:
            raise raft.Unavailable(str(error)) from error
        return [Entry(term, index, EntryKind(kind), data) for term, index, kind, data in stored]

    def term(self, index: int) -> int:
        """Return an entry's term."""
        try:
            return self._store.term(index)
        except Compacted as error:
            raise raft.Compacted(str(error)) from error
        except Unavailable as error:
            raise raft.Unavailable(str(error)) from error

    def first_index(self) -> int:
        """Return the index of the first entry that can be read."""
        return self._store.first_index

    def last_index(self) -> int:
        """Return the index of the last entry."""
        return self._store.last_index

    def snapshot(self) -> Snapshot:
        """Return the descriptor of a snapshot that can be streamed now."""
        return self._take_snapshot()


def newest_sizes(store: LogStore, *, entries_max: int, bytes_max: int) -> Iterator[tuple[int, int]]:
    """Return index and bytes of the newest entries that are stored, in order.

    Args:
        store: the log.
        entries_max: not many more than these.
        bytes_max: nor many more than are so large together.

    Raises:
        CorruptLog: one of them is damaged.
    """
    pieces: list[list[tuple[int, int]]] = []
    end = store.last_index + 1
    first, total = end, 0
    while first > max(store.first_index, end - entries_max) and total < bytes_max:
        low = max(store.first_index, first - SIZES_ENTRIES)
        try:
            entries = store.read(low, first, sys.maxsize)
        except Corrupt as error:
            raise raft.CorruptLog(str(error)) from error
        pieces.append([(index, len(data)) for _, index, _, data in entries])
        first, total = low, total + sum(size for _, size in pieces[-1])
    return chain.from_iterable(reversed(pieces))


class Append(Struct, frozen=True):
    """Entries and hard state to be made durable. Without either there is nothing to write, only an order to keep."""

    hard_state: HardStateRecord | None
    entries: list[EntryTuple]


class Compact(Struct, frozen=True):
    """Entries up to `index` are to be dropped."""

    index: int


class Reset(Struct, frozen=True):
    """The log is to begin anew behind a snapshot, with the identity as given."""

    index: int
    term: int
    hard_state: HardStateRecord
    identity: bytes


class SaveIdentity(Struct, frozen=True):
    """The identity record is to be replaced."""

    identity: bytes


Job = Append | Compact | Reset | SaveIdentity
Done = Callable[[], None]


def append_record(job: raft.AppendJob) -> Append:
    """Return what a job of the core (without a snapshot) has to write: the full hard state with everything that counts."""
    if not job.entries and not job.must_sync:
        return Append(None, [])
    hard = job.hard_state
    return Append(
        (hard.term, hard.vote, hard.commit),
        [(entry.term, entry.index, int(entry.kind), entry.data) for entry in job.entries],
    )


def merge(appends: Sequence[Append]) -> Append:
    """Return one append with the effect of several in order: a later one cuts off what it overwrites."""
    if len(appends) == 1:
        return appends[0]
    hard_state: HardStateRecord | None = None
    entries: list[EntryTuple] = []
    for append in appends:
        hard_state = append.hard_state or hard_state
        if not append.entries:
            continue
        first = append.entries[0][1]
        if entries and first <= entries[-1][1]:
            # What is cut off was never durable, so nobody was told of it.
            del entries[max(0, first - entries[0][1]) :]
        entries.extend(append.entries)
    return Append(hard_state, entries)


class Writer(Protocol):
    """Writes jobs in their order."""

    def submit(self, job: Job, done: Done) -> None:
        """Queue a job; `done` is called on the event loop once it and all before it are durable."""

    def oldest_pending_seconds(self, now: float) -> float:
        """Return how long the oldest unfinished job has been waiting; 0.0 if there is none."""

    def close(self) -> None:
        """Finish what is queued (unless the disk hangs) and end; nothing may be submitted any more."""


class InlineWriter:
    """A `Writer` without a thread, for logs in memory and for tests under virtual time."""

    def __init__(
        self, store: LogStore, call_soon: Callable[[Done], object], on_fault: Callable[[str, bool], None]
    ) -> None:
        self._store = store
        self._call_soon = call_soon
        self._on_fault = on_fault
        self._is_fenced = False

    def submit(self, job: Job, done: Done) -> None:
        """See `Writer`."""
        if self._is_fenced:
            return
        try:
            perform(self._store, job)
        except Exception as error:  # noqa: BLE001  # whatever it was, the store's content is unknown from here on
            self._is_fenced = True
            text = f"cannot write the log: {error}"
            self._call_soon(lambda: self._on_fault(text, True))
            return
        self._call_soon(done)

    def oldest_pending_seconds(self, now: float) -> float:
        """See `Writer`."""
        del now
        return 0.0

    def close(self) -> None:
        """See `Writer`."""


class ThreadWriter:
    """A `Writer` with its own thread, so that no sync ever runs on the event loop.

    Args:
        store: the log; written by this thread only.
        call_soon: how to get back to the event loop from a thread.
        on_fault: called on the event loop with a text and whether it is for good; with an empty text when a full disk
            has room again.
        clock: seconds, monotone.
    """

    def __init__(
        self,
        store: LogStore,
        call_soon: Callable[[Done], object],
        on_fault: Callable[[str, bool], None],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._call_soon = call_soon
        self._on_fault = on_fault
        self._clock = clock
        self._queue: queue.SimpleQueue[tuple[Job, Done] | None] = queue.SimpleQueue()
        self._pending: deque[float] = deque()  # submission times, oldest first; event loop only
        self._is_fenced = False
        self._closing = threading.Event()
        # A daemon: a disk that hangs for ever must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def submit(self, job: Job, done: Done) -> None:
        """See `Writer`."""
        if isinstance(job, Append) and not job.entries and job.hard_state is None and not self._pending:
            if not self._is_fenced:
                done()  # nothing to write and nothing to wait for: spare the way through the thread
            return
        self._pending.append(self._clock())
        self._queue.put((job, done))

    def oldest_pending_seconds(self, now: float) -> float:
        """See `Writer`."""
        return now - self._pending[0] if self._pending else 0.0

    def close(self) -> None:
        """See `Writer`."""
        self._closing.set()
        self._queue.put(None)
        self._thread.join(timeout=5)

    # -- on the thread --

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            batch, successor = self._collect(first)
            while batch:
                if not self._write(_merged([job for job, _ in batch])):
                    return
                self._tell(_finisher(self._finished, [done for _, done in batch]))
                batch, successor = ([successor], None) if successor is not None else ([], None)

    def _collect(self, first: tuple[Job, Done]) -> tuple[list[tuple[Job, Done]], tuple[Job, Done] | None]:
        """Return the appends that can go with `first` in one transaction, and the job that ended the search."""
        batch = [first]
        if not isinstance(first[0], Append):
            return batch, None
        size = _size(first[0])
        while len(batch) < BATCH_JOBS_MAX and size < BATCH_BYTES_MAX:
            try:
                following = self._queue.get_nowait()
            except queue.Empty:
                break
            if following is None:
                self._queue.put(None)  # seen too early: it ends the loop after this batch
                break
            if not isinstance(following[0], Append):
                return batch, following
            size += _size(following[0])
            batch.append(following)
        return batch, None

    def _write(self, job: Job) -> bool:
        """Make a job durable; False if that cannot be any more."""
        is_full = False
        while True:
            try:
                perform(self._store, job)
            except Full as error:
                if not is_full:
                    is_full = True
                    self._report(f"no room for the log: {error}", is_final=False)
                if self._closing.wait(FULL_RETRY_SECONDS):
                    return False
            except Exception as error:  # noqa: BLE001  # whatever it was, the disk's content is unknown from here on
                self._is_fenced = True
                self._report(f"cannot write the log: {error}", is_final=True)
                return False
            else:
                if is_full:
                    self._report("", is_final=False)
                return True

    def _report(self, text: str, *, is_final: bool) -> None:
        self._tell(lambda: self._on_fault(text, is_final))

    def _tell(self, call: Done) -> None:
        try:
            self._call_soon(call)
        except RuntimeError:
            # The event loop may end before a disk that hung; nobody is left to be told.
            if not self._closing.is_set():
                raise

    # -- on the event loop --

    def _finished(self, done: Sequence[Done]) -> None:
        for _ in done:
            self._pending.popleft()
        for call in done:
            call()


def _finisher(finished: Callable[[Sequence[Done]], None], done: list[Done]) -> Done:
    return lambda: finished(done)


def _size(job: Append) -> int:
    return sum(len(entry[3]) for entry in job.entries)


def _merged(jobs: Sequence[Job]) -> Job:
    appends = [job for job in jobs if isinstance(job, Append)]
    return merge(appends) if appends else jobs[0]


def perform(store: LogStore, job: Job) -> None:
    """Make a job durable; raises as the store does."""
    match job:
        case Append(hard_state, entries):
            if entries or hard_state is not None:
                store.append(hard_state, entries)
        case Compact(index):
            store.compact(index)
        case Reset(index, term, hard_state, identity):
            store.reset(index, term, hard_state)
            store.set_identity(identity)
        case SaveIdentity(identity):
            store.set_identity(identity)
