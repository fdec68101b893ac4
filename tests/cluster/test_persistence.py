"""Writing the log: merging, order, a disk that is full, and one that has failed."""

import queue
import threading
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis.strategies import DataObject, data, integers, lists

from conclave.cluster import raft
from conclave.cluster.persistence import (
    Append,
    Compact,
    DurableLog,
    InlineWriter,
    Reset,
    SaveIdentity,
    ThreadWriter,
    append_record,
    merge,
)
from conclave.cluster.raft import ConfState, Entry, EntryKind, HardState, Snapshot, SnapshotMeta
from conclave.storage.errors import Fenced, Full
from conclave.storage.log import EntryTuple, HardStateRecord
from conclave.storage.memory import MemoryLog

WAIT_SECONDS = 10.0


def entry(index: int, term: int = 1, payload: bytes = b"x") -> EntryTuple:
    return (term, index, 0, payload)


class SickLog(MemoryLog):
    """A log whose disk fails as told: one error for each append to come, None for one that succeeds."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[Exception | None] = []
        self.append_count = 0

    def append(self, hard_state: HardStateRecord | None, entries: Sequence[EntryTuple]) -> None:
        self.append_count += 1
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise fault
        super().append(hard_state, entries)


class Loop:
    """Stands for the event loop: calls from the thread wait here until the test lets them happen."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.faults: list[tuple[str, bool]] = []

    def call_soon(self, call: Callable[[], None]) -> None:
        self.calls.put(call)

    def fault(self, text: str, is_final: bool) -> None:
        self.faults.append((text, is_final))

    def turn(self) -> None:
        self.calls.get(timeout=WAIT_SECONDS)()


# -- merging --


@given(data=data(), firsts=lists(integers(1, 12), max_size=8))
def test_a_merged_append_has_the_effect_of_all_in_order(data: DataObject, firsts: list[int]) -> None:
    one_by_one, at_once = MemoryLog(), MemoryLog()
    appends: list[Append] = []
    for number, first in enumerate(firsts):
        start = min(first, one_by_one.last_index + 1)
        count = data.draw(integers(0, 4), label="count")
        hard_state = data.draw(integers(0, 1), label="has hard state")
        append = Append(
            (number, 0, 0) if hard_state else None,
            [entry(index, number, b"%d" % number) for index in range(start, start + count)],
        )
        one_by_one.append(append.hard_state, append.entries)
        appends.append(append)

    if appends:
        merged = merge(appends)
        at_once.append(merged.hard_state, merged.entries)

    assert at_once.hard_state == one_by_one.hard_state
    assert at_once._entries == one_by_one._entries


def test_a_job_with_nothing_to_write_is_an_order_to_keep() -> None:
    job = raft.AppendJob(hard_state=HardState(3, 1, 2), entries=(), snapshot=None, responses=(), must_sync=False)

    assert append_record(job) == Append(None, [])


def test_entries_bring_the_whole_hard_state_along() -> None:
    entries = (Entry(3, 9, EntryKind.NORMAL, b"d"),)
    job = raft.AppendJob(HardState(3, 1, 2), entries, snapshot=None, responses=(), must_sync=True)

    assert append_record(job) == Append((3, 1, 2), [(3, 9, 0, b"d")])


# -- reading --


def durable(store: MemoryLog, applied_index: int = 0) -> DurableLog:
    return DurableLog(store, ConfState(voters=(1,)), applied_index, lambda: Snapshot(SnapshotMeta(7)))


def test_the_core_sees_the_stored_entries() -> None:
    store = MemoryLog()
    store.append((1, 0, 0), [entry(1), entry(2)])

    assert list(durable(store).entries(1, 3, 1 << 20)) == [Entry(1, 1, EntryKind.NORMAL, b"x"), Entry(1, 2, data=b"x")]


def test_the_commit_index_is_never_below_what_is_applied() -> None:
    store = MemoryLog()
    store.append((4, 2, 5), [entry(index) for index in range(1, 10)])

    assert durable(store, applied_index=8).initial_state()[0] == HardState(4, 2, 8)


def test_the_store_s_refusals_are_those_of_the_core() -> None:
    store = MemoryLog()
    store.append(None, [entry(index) for index in range(1, 10)])
    store.compact(5)

    with pytest.raises(raft.Compacted):
        durable(store).entries(3, 4, 100)
    with pytest.raises(raft.Compacted):
        durable(store).term(3)
    with pytest.raises(raft.Unavailable):
        durable(store).entries(6, 20, 100)
    with pytest.raises(raft.Unavailable):
        durable(store).term(20)


# -- writing --


def writer_of(loop: Loop, store: MemoryLog) -> ThreadWriter:
    return ThreadWriter(store, loop.call_soon, loop.fault, lambda: 0.0)


def test_done_comes_after_the_entry_is_stored_and_in_order() -> None:
    loop, store, seen = Loop(), MemoryLog(), list[tuple[str, int]]()
    writer = writer_of(loop, store)

    writer.submit(Append((1, 0, 0), [entry(1)]), lambda: seen.append(("first", store.last_index)))
    loop.turn()
    writer.submit(Append(None, [entry(2)]), lambda: seen.append(("second", store.last_index)))
    loop.turn()
    writer.close()

    assert seen == [("first", 1), ("second", 2)]


def test_every_kind_of_job_is_performed() -> None:
    loop, store = Loop(), MemoryLog()
    seen: list[int] = []
    writer = writer_of(loop, store)

    writer.submit(Append(None, [entry(1), entry(2), entry(3)]), lambda: seen.append(1))
    writer.submit(Compact(2), lambda: seen.append(2))
    writer.submit(SaveIdentity(b"me"), lambda: seen.append(3))
    writer.submit(Reset(9, 4, (4, 0, 9), b"still me"), lambda: seen.append(4))
    while len(seen) < 4:
        loop.turn()
    writer.close()

    assert (store.first_index, store.last_index, store.hard_state) == (10, 9, (4, 0, 9))
    assert (seen, store.get_identity()) == ([1, 2, 3, 4], b"still me")


def test_what_waits_behind_a_sync_goes_in_one_transaction() -> None:
    loop, store = Loop(), SickLog()
    go_on = threading.Event()
    writer = writer_of(loop, store)
    set_identity = store.set_identity
    store.set_identity = lambda identity: (go_on.wait(WAIT_SECONDS), set_identity(identity))[1]  # type: ignore[method-assign]
    seen: list[int] = []

    writer.submit(SaveIdentity(b"slow"), lambda: None)
    for index in range(1, 51):
        writer.submit(Append(None, [entry(index)]), lambda: seen.append(1))
    go_on.set()
    while len(seen) < 50:
        loop.turn()
    writer.close()

    assert (store.last_index, store.append_count) == (50, 1)


def test_a_failed_sync_is_told_once_and_nothing_is_written_any_more() -> None:
    loop, store = Loop(), SickLog()
    store.faults = [Fenced("the sync failed")]
    writer = writer_of(loop, store)

    writer.submit(Append(None, [entry(1)]), lambda: pytest.fail("it was not written"))
    loop.turn()
    writer.submit(Append(None, [entry(1)]), lambda: pytest.fail("it was not written"))
    writer.close()

    assert loop.faults == [("cannot write the log: the sync failed", True)]
    assert (store.append_count, store.last_index, loop.calls.empty()) == (1, 0, True)


def test_a_fenced_writer_does_not_even_say_done_to_nothing() -> None:
    loop, store = Loop(), SickLog()
    store.faults = [Fenced("the sync failed")]
    writer = InlineWriter(store, loop.call_soon, loop.fault)

    writer.submit(Append(None, [entry(1)]), lambda: pytest.fail("it was not written"))
    writer.submit(Append(None, []), lambda: pytest.fail("nothing is promised any more"))
    loop.turn()

    assert (loop.faults, loop.calls.empty()) == ([("cannot write the log: the sync failed", True)], True)


def test_a_full_disk_is_told_and_the_same_batch_tried_until_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conclave.cluster.persistence.FULL_RETRY_SECONDS", 0.0)
    loop, store, seen = Loop(), SickLog(), list[int]()
    store.faults = [Full("no space"), Full("no space"), None]
    writer = writer_of(loop, store)

    writer.submit(Append(None, [entry(1)]), lambda: seen.append(store.last_index))
    while not seen:
        loop.turn()
    writer.close()

    assert loop.faults == [("no room for the log: no space", False), ("", False)]
    assert (seen, store.append_count) == ([1], 3)


def test_a_pending_job_has_an_age() -> None:
    loop, store, now = Loop(), MemoryLog(), [10.0]
    writer = ThreadWriter(store, loop.call_soon, loop.fault, lambda: now[0])

    writer.submit(Append(None, [entry(1)]), lambda: None)
    waiting = writer.oldest_pending_seconds(12.5)
    loop.turn()
    writer.close()

    assert (waiting, writer.oldest_pending_seconds(99.0)) == (2.5, 0.0)


def test_nothing_to_write_and_nothing_to_wait_for_is_done_at_once() -> None:
    loop, seen = Loop(), list[int]()
    writer = writer_of(loop, MemoryLog())

    writer.submit(Append(None, []), lambda: seen.append(1))
    writer.close()

    assert seen == [1]
