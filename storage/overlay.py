"""What has been proposed and committed, in memory, above the durable state.

Four layers answer a read, newest first:

    proposed    effects that this leader has put into the log but that are not committed; only write handlers see them
    committed   effects of committed entries since the last flush began
    flushing    the layer that a flush is writing to the state at this moment, in a thread
    state       what is on disk

The state has two tables, and so has each of the layers that are to be flushed: one is live, in the other a snapshot can be
staged that is being restored. The swap makes the staged table the live one, in memory at once, and on disk with the next
flush; a batch of effects is reduced to what is left of it for each table, so it does not matter where flushes fall.

Rules it enforces:

* Entries are applied one by one in order of their index; the applied index and the time never go back.
* A committed entry takes effect at once; it reaches the state in groups, by time and by size, and until then it is
  safe in the log, from which it is replayed after a crash.
* Losing leadership drops what is only proposed.
* What is staged cannot be read before the swap, and the swap is refused, on every node alike, unless everything that
  should have been staged has been.
* This is the one feed: whoever keeps something derived from the state subscribes here and hears of every committed
  write, in order. Nothing else invalidates anything.

Keys are 32 bytes or more, and the first 16 are the directory or table they belong to; layers are kept by these, so that
a listing looks only at its own. Every method but `FlushJob.run` is called on one thread. It opens no value and knows
nothing of consensus.
"""

import logging
from collections import deque
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Sequence
from heapq import nsmallest
from itertools import chain, islice
from typing import Final, TypeAlias, TypeVar, overload

from conclave.storage.state import Applied, Staging, StateReader, StateStore
from conclave.storage.writeset import Stage, WriteSet

log = logging.getLogger(__name__)

PREFIX_BYTES: Final = 16
FLUSH_SECONDS: Final = 1.0
"""How old a committed effect may get in memory before a flush is due; it bounds what a restart has to replay."""
FLUSH_BYTES: Final = 16 << 20
"""How many bytes of committed effects make a flush due."""
REPLAY_BYTES: Final = 64 << 20
"""How many bytes of entries, what later ones replace included, make a flush due: a restart has to replay them."""
LOOKED_THROUGH_MAX: Final = 2048
"""A search for any record in a directory that meets more deleted ones in vain makes a flush due, or deleting all of a large
one would take as long for each record as there are."""
OUTCOMES_MAX: Final = 16_384
OUTCOME_BYTES_MAX: Final = 32 << 20
OUTCOME_AGE_NS_MAX: Final = 120 * 10**9
"""How long an answer is kept for whoever forwarded the request: far longer than any client waits."""
_RECORD_OVERHEAD_BYTES: Final = 200  # a layer's dictionary entry and objects, for the bound on memory

_Layer: TypeAlias = dict[bytes, dict[bytes, bytes | None]]  # prefix -> key -> value; None: deleted
KeyCallback: TypeAlias = Callable[[int, bytes], None]
WriteSetCallback: TypeAlias = Callable[[int, WriteSet], None]
_ABSENT: Final = object()
T = TypeVar("T")


class _Batch:
    """Effects of committed entries on the two tables of the state, reduced to what is left of them.

    Attributes:
        layers: changes of each table.
        is_cleared: for each table, whether it is to be emptied before those.
        replay_bytes: of the entries that had these effects.
    """

    __slots__ = ("_sizes_bytes", "is_cleared", "layers", "replay_bytes")

    def __init__(self) -> None:
        self.layers: tuple[_Layer, _Layer] = ({}, {})
        self.is_cleared = [False, False]
        self._sizes_bytes = [0, 0]
        self.replay_bytes = 0

    @property
    def size_bytes(self) -> int:
        """Roughly how much memory it takes."""
        return sum(self._sizes_bytes)

    def take(self, table: int, puts: Sequence[tuple[bytes, bytes]], deletes: Sequence[bytes] = ()) -> None:
        """Set and delete keys of one table."""
        layer = self.layers[table]
        size = self._sizes_bytes[table]
        for key, value in puts:
            records = _records_under(layer, key[:PREFIX_BYTES])
            size += len(value) + (-len(records[key] or b"") if key in records else len(key) + _RECORD_OVERHEAD_BYTES)
            records[key] = value
        for key in deletes:
            records = _records_under(layer, key[:PREFIX_BYTES])
            size += -len(records[key] or b"") if key in records else len(key) + _RECORD_OVERHEAD_BYTES
            records[key] = None
        self._sizes_bytes[table] = size

    def clear(self, table: int) -> None:
        """Empty one table."""
        self.layers[table].clear()
        self._sizes_bytes[table] = 0
        self.is_cleared[table] = True

    def changes(self, table: int) -> dict[bytes, bytes | None]:
        """Return the changes of one table."""
        return {key: value for records in self.layers[table].values() for key, value in records.items()}


class FlushJob:
    """One group of effects on its way to the state. `run` may be called in a thread; everything else may not."""

    def __init__(self, state: StateStore, batch: _Batch, applied: Applied) -> None:
        self.batch = batch
        self.applied = applied
        self.has_failed = False
        self._state = state

    def run(self) -> None:
        """Write the group in one synced transaction.

        Raises:
            Corrupt: the state does not hold what the log says; nothing was written.
            Full: nothing was written; `Overlay.begin_flush` offers the job again.
            Fenced: the disk's content is unknown; every further try fails, too.
        """
        self.has_failed = False
        try:
            live = int(self.applied.is_swapped)
            self._state.flush(self.batch.changes(live), self.applied, self._staging(live))
        except BaseException:
            self.has_failed = True
            raise

    def _staging(self, live: int) -> Staging | None:
        staged, is_cleared = self.batch.changes(1 - live), self.batch.is_cleared
        if not staged and not any(is_cleared):
            return None
        return Staging(staged, clears_live=is_cleared[live], clears_staged=is_cleared[1 - live])


class Overlay:
    """The memory of the state machine.

    Attributes:
        applied_index, applied_term: of the last applied entry.
        durable_index: of the last entry whose effects the state holds.
        membership: the record beside the applied index.
        now_ns: the newest write set's clock.
        staging_since: the index of the entry that began to stage a state beside the live one; 0: none is staged.
        swapped_at: the index of the last swap since this object was made, or the state replaced; 0: there was none.
    """

    def __init__(self, state: StateStore) -> None:
        self._state = state
        self._key_callbacks: dict[bytes, list[KeyCallback]] = {}
        self._write_set_callbacks: list[WriteSetCallback] = []
        self._load()

    def _load(self) -> None:
        """Take over what the state holds, with nothing above it."""
        applied = self._state.applied_record
        self.applied_index: int = applied.index
        self.applied_term: int = applied.term
        self.durable_index: int = applied.index
        self.membership: bytes = applied.membership
        self.now_ns: int = applied.time_ns
        self.staging_since: int = applied.staging_since
        self.swapped_at: int = 0
        self._staged_count = applied.staged_count
        self._live = int(applied.is_swapped)
        self._proposed: dict[bytes, dict[bytes, tuple[int, bytes | None]]] = {}
        self._proposed_keys: deque[tuple[int, list[bytes]]] = deque()
        self._batch = _Batch()
        self._job: FlushJob | None = None
        self._look_anew()
        self._dirty_since_seconds: float | None = None
        self._is_flush_wanted = False
        self._outcomes = _Outcomes(applied.index + 1)

    def reload(self) -> None:
        """Forget every layer: a snapshot has replaced the state. Subscriptions stay."""
        self._load()

    # -- writing --

    def propose(self, index: int, write_set: WriteSet) -> None:
        """Let uncommitted reads see a write set that this leader has put into the log at `index`."""
        assert index > max(self.last_proposed_index, self.applied_index), "proposals come in order of their index"
        keys: list[bytes] = []
        if write_set.stage is Stage.NONE:  # what is staged is not to be seen
            proposed = self._proposed
            for key, value in write_set.puts:
                _records_under(proposed, key[:PREFIX_BYTES])[key] = (index, value)
                keys.append(key)
            for key in write_set.deletes:
                _records_under(proposed, key[:PREFIX_BYTES])[key] = (index, None)
                keys.append(key)
        self._proposed_keys.append((index, keys))

    def drop_proposed(self) -> None:
        """Forget everything that is only proposed: leadership is lost."""
        self._proposed.clear()
        self._proposed_keys.clear()

    @property
    def last_proposed_index(self) -> int:
        """The newest index that is proposed and not yet applied; 0 if there is none."""
        return self._proposed_keys[-1][0] if self._proposed_keys else 0

    def apply(self, index: int, term: int, data: bytes) -> WriteSet | None:
        """Take a committed entry into the state machine.

        Args:
            index: one more than the last.
            term: of the entry.
            data: an encoded write set; empty for a new leader's no-op.

        Returns:
            the write set; None for a no-op.

        Raises:
            Corrupt: the data is no write set; nothing has changed.
        """
        assert index == self.applied_index + 1, f"entry {index} applied behind entry {self.applied_index}"
        write_set = WriteSet.decode(data) if data else None
        self.applied_index, self.applied_term = index, term
        self._batch.replay_bytes += len(data)
        self._settle_proposed(index)
        if write_set is not None:
            self.now_ns = max(self.now_ns, write_set.time_ns)
            if write_set.stage is Stage.NONE:
                self._take(index, write_set)
            else:
                self._take_staged(index, write_set)
        return write_set

    def _take(self, index: int, write_set: WriteSet) -> None:
        self._batch.take(self._live, write_set.puts, write_set.deletes)
        if write_set.request_id:
            self._outcomes.add(index, write_set.request_id, write_set.answer, self.now_ns)
        self._publish(index, write_set)

    def apply_membership(self, index: int, term: int, membership: bytes) -> None:
        """Take a committed membership change; the record is kept beside the applied index."""
        assert index == self.applied_index + 1, f"entry {index} applied behind entry {self.applied_index}"
        self.applied_index, self.applied_term, self.membership = index, term, membership
        self._is_flush_wanted = True  # a new member can be given the state only once it knows it
        self._settle_proposed(index)

    def _settle_proposed(self, index: int) -> None:
        """Drop proposed effects up to `index`: the entry that was committed there is what counts."""
        proposed = self._proposed
        while self._proposed_keys and self._proposed_keys[0][0] <= index:
            for key in self._proposed_keys.popleft()[1]:
                prefix = key[:PREFIX_BYTES]
                records = proposed.get(prefix)
                if records is not None and key in records and records[key][0] <= index:
                    del records[key]
                    if not records:
                        del proposed[prefix]

    # -- a state that comes through the log --

    def _take_staged(self, index: int, write_set: WriteSet) -> None:
        if write_set.stage is Stage.PUTS:
            if self.staging_since:
                self._batch.take(1 - self._live, write_set.puts)
                self._staged_count += len(write_set.puts)
        elif write_set.stage is Stage.BEGIN:
            self._forget_staged(staging_since=index)
        elif write_set.stage is Stage.SWAP and self.staging_since and self._staged_count == write_set.stage_count:
            self._swap(index)
        else:
            if write_set.stage is Stage.SWAP:  # the same on every node: the entry has its index, and changes nothing
                log.error("a staged state is not whole and is dropped", extra={"index": index})
            self._forget_staged()
        # As long as a state is staged on disk, it cannot be given to anybody.
        self._is_flush_wanted = self._is_flush_wanted or not self.staging_since

    def _forget_staged(self, *, staging_since: int = 0) -> None:
        self._batch.clear(1 - self._live)
        self.staging_since, self._staged_count = staging_since, 0

    def _swap(self, index: int) -> None:
        """Let what is staged be the state, and what was the state be nothing."""
        self._batch.clear(self._live)
        self._live = 1 - self._live
        self.staging_since, self._staged_count, self.swapped_at = 0, 0, index
        self._look_anew()

    # -- reading --

    def get(self, key: bytes, *, uncommitted: bool) -> bytes | None:
        """Return a key's newest value: of what is committed, or of everything."""
        prefix = key[:PREFIX_BYTES]
        if uncommitted and prefix in self._proposed and key in self._proposed[prefix]:
            return self._proposed[prefix][key][1]
        for layer in self._layers:
            records = layer.get(prefix)
            if records is not None:
                value = records.get(key, _ABSENT)
                if value is not _ABSENT:
                    return value  # type: ignore[return-value]  # not the sentinel, so bytes or None
        return None if self._is_below_hidden else self._state.get(key, self._live)

    def keys(self, prefix: bytes, *, uncommitted: bool, start: bytes = b"", limit: int | None = None) -> list[bytes]:
        """Return the keys of one directory's or table's records in order.

        Args:
            prefix: 16 bytes.
            uncommitted: whether to see what is only proposed.
            start: the first key that may come, itself included; empty: from the beginning.
            limit: how many at most.
        """
        assert len(prefix) == PREFIX_BYTES, "one call stays within one directory or table"
        changes: dict[bytes, bytes | None] = {}
        for layer in reversed(self._layers):
            changes.update(layer.get(prefix, {}))
        if uncommitted:
            changes.update((key, value) for key, (_, value) in self._proposed.get(prefix, {}).items())
        return merged(self._below(prefix, start), changes, start, limit)

    def has_records(self, prefix: bytes, *, uncommitted: bool, without: Collection[bytes] = ()) -> bool:
        """Whether a directory or table (16 bytes) has a record besides those `without`.

        Asked for every record that is deleted, so it looks at no more than it must: the first one found will do. The
        newest are looked at first, for the oldest are often deleted.
        """
        proposed = self._proposed.get(prefix, {}) if uncommitted else {}
        if any(value is not None and key not in without for key, (_, value) in reversed(proposed.items())):
            return True
        newer: list[Container[bytes]] = [frozenset(without), proposed]
        looked_through = len(proposed)
        for layer in self._layers:
            records = layer.get(prefix, {})
            if any(value is not None and _in_none(key, newer) for key, value in reversed(records.items())):
                return True
            newer.append(records)
            looked_through += len(records)
        self._is_flush_wanted = self._is_flush_wanted or looked_through > LOOKED_THROUGH_MAX
        return any(_in_none(key, newer) for key in self._below(prefix))

    def proposes_under(self, prefix: bytes) -> bool:
        """Whether anything of this directory or table (16 bytes) is proposed and not yet committed."""
        return prefix in self._proposed

    def outcome(self, request_id: bytes) -> tuple[int, bytes] | None:
        """Return index and sealed answer of a forwarded request that was committed lately, or None."""
        return self._outcomes.get(request_id)

    @property
    def outcomes_since(self) -> int:
        """The index from which on every outcome is known: absence of a request proposed there means it did not happen."""
        return self._outcomes.since

    def _look_anew(self) -> None:
        """Work out where reads look: the live table's layers, newest first, and whether that hides the state below."""
        batches = (self._batch,) if self._job is None else (self._batch, self._job.batch)
        layers: list[_Layer] = []
        self._is_below_hidden = False
        for batch in batches:
            layers.append(batch.layers[self._live])
            if batch.is_cleared[self._live]:
                self._is_below_hidden = True
                break
        self._layers = tuple(layers)

    def _below(self, prefix: bytes, start: bytes = b"") -> Iterator[bytes]:
        return iter(()) if self._is_below_hidden else self._state.keys(prefix, start, self._live)

    # -- the feed --

    @overload
    def subscribe(self, prefix: bytes, callback: KeyCallback) -> Callable[[], None]: ...
    @overload
    def subscribe(self, prefix: None, callback: WriteSetCallback) -> Callable[[], None]: ...
    def subscribe(self, prefix: bytes | None, callback: Callable[..., None]) -> Callable[[], None]:
        """Call back for every committed write, in order, before its answer leaves.

        Args:
            prefix: 16 bytes: `callback(index, key)` for each key under it that was put or deleted.
                None: `callback(index, write_set)` for every write set.
            callback: must not raise; runs inside `apply`.

        Returns:
            a function that ends the subscription.
        """
        callbacks = self._write_set_callbacks if prefix is None else self._key_callbacks.setdefault(prefix, [])
        callbacks.append(callback)
        return lambda: callbacks.remove(callback)

    def _publish(self, index: int, write_set: WriteSet) -> None:
        for on_write_set in tuple(self._write_set_callbacks):
            on_write_set(index, write_set)
        followed = self._key_callbacks
        for key in [key for key, _ in write_set.puts] + write_set.deletes:
            if key[:PREFIX_BYTES] in followed:
                for on_key in tuple(followed[key[:PREFIX_BYTES]]):
                    on_key(index, key)

    # -- flushing --

    def open_reader(self) -> StateReader:
        """Begin one consistent read of everything that is durable in the state."""
        return self._state.open_reader()

    @property
    def pending_bytes(self) -> int:
        """Roughly how much memory committed effects take that are not durable in the state."""
        return self._batch.size_bytes + (self._job.batch.size_bytes if self._job is not None else 0)

    def flush_due(self, now_seconds: float) -> bool:
        """Whether it is time for `begin_flush`; at once if one has failed: whoever asks knows when to try again.

        Args:
            now_seconds: of a monotonic clock.
        """
        if self._job is not None:
            return self._job.has_failed
        if self.applied_index == self.durable_index:
            self._dirty_since_seconds = None
            return False
        if self._dirty_since_seconds is None:
            self._dirty_since_seconds = now_seconds
        return (
            self._is_flush_wanted
            or self._batch.size_bytes >= FLUSH_BYTES
            or self._batch.replay_bytes >= REPLAY_BYTES
            or now_seconds - self._dirty_since_seconds >= FLUSH_SECONDS
        )

    def begin_flush(self) -> FlushJob | None:
        """Set the committed effects aside to be written; None if there are none or a flush is under way.

        A job whose `run` failed is offered again, unchanged. After a `run` that returned, call `finish_flush`.
        """
        if self._job is not None:
            return self._job if self._job.has_failed else None
        if self.applied_index == self.durable_index:
            return None
        applied = Applied(
            self.applied_index,
            self.applied_term,
            self.now_ns,
            self.membership,
            is_swapped=bool(self._live),
            staging_since=self.staging_since,
            staged_count=self._staged_count,
        )
        self._job = FlushJob(self._state, self._batch, applied)
        self._batch = _Batch()
        self._is_flush_wanted = False
        self._look_anew()
        return self._job

    def finish_flush(self, job: FlushJob) -> None:
        """Let reads find in the state what the job has written there, and forget it here."""
        assert not job.has_failed, "only a flush that was written can be finished"
        if job is self._job:  # not if a snapshot has replaced the state meanwhile
            self._state.refresh()
            self.durable_index = job.applied.index
            self._dirty_since_seconds = None
            self._job = None
            self._look_anew()


def _in_none(key: bytes, layers: list[Container[bytes]]) -> bool:
    """Whether no layer says anything of a key."""
    return all(key not in layer for layer in layers)


def _records_under(layer: dict[bytes, dict[bytes, T]], prefix: bytes) -> dict[bytes, T]:
    """Return the records of a layer under a prefix, to be changed."""
    records = layer.get(prefix)
    if records is None:
        records = layer[prefix] = {}
    return records


class _Outcomes:
    """The answers of forwarded requests that were committed lately, bounded by number, bytes and age."""

    def __init__(self, since: int) -> None:
        self.since = since
        self._answers: dict[bytes, tuple[int, bytes]] = {}
        self._order: deque[tuple[int, int, bytes]] = deque()  # time, index, request id
        self._bytes = 0

    def add(self, index: int, request_id: bytes, answer: bytes, now_ns: int) -> None:
        before = self._answers.get(request_id)
        if before is not None:  # a later step of the same request: its answer is the one that counts
            self._bytes -= len(before[1])
        self._answers[request_id] = (index, answer)
        self._order.append((now_ns, index, request_id))
        self._bytes += len(answer)
        while self._is_over(now_ns):
            _, dropped_index, dropped = self._order.popleft()
            if self._answers[dropped][0] == dropped_index:
                self._bytes -= len(self._answers.pop(dropped)[1])
            self.since = dropped_index + 1

    def get(self, request_id: bytes) -> tuple[int, bytes] | None:
        return self._answers.get(request_id)

    def _is_over(self, now_ns: int) -> bool:
        if len(self._order) <= 1:
            return False
        return (
            len(self._order) > OUTCOMES_MAX
            or self._bytes > OUTCOME_BYTES_MAX
            or now_ns - self._order[0][0] > OUTCOME_AGE_NS_MAX
        )


def merged(below: Iterable[bytes], changes: dict[bytes, bytes | None], start: bytes, limit: int | None) -> list[bytes]:
    """Return the keys `below` (ascending) with `changes` (None deletes) laid over, from `start` on, `limit` at most."""
    if not changes:
        return list(islice(below, limit))
    kept = islice((key for key in below if key not in changes), limit)
    put = (key for key, value in changes.items() if value is not None and key >= start)
    return sorted(chain(kept, put if limit is None else nsmallest(limit, put)))[:limit]
