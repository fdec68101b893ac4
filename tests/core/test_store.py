"""The replicated state: what becomes of a proposal, and how the state environment is written behind it."""

import asyncio
import threading

import pytest

from conclave.cluster.errors import NotLeader, Overloaded
from conclave.core.store import FULL_RETRY_SECONDS, SETTLE_SECONDS_MAX, Settlement, Store
from conclave.storage.errors import Fenced, Full
from conclave.storage.memory import MemoryState
from conclave.storage.overlay import Overlay
from tests.fakes import Clock, FakeReplica, on_loop

KEY = bytes(32)


class Disk(MemoryState):
    """A state whose flushes a test can stop or let fail."""

    def __init__(self) -> None:
        super().__init__()
        self.error: BaseException | None = None
        self.gate = threading.Event()
        self.gate.set()

    def flush(self, puts: object, applied: object, staging: object = None) -> None:
        self.gate.wait(5)
        if self.error is not None:
            raise self.error
        super().flush(puts, applied, staging)  # type: ignore[arg-type]  # handed through as they came


class Harness:
    """A store on a leader that holds what is proposed."""

    def __init__(self) -> None:
        self.disk = Disk()
        self.clock = Clock()
        self.replica = FakeReplica()
        self.store = Store(
            Overlay(self.disk), wall_clock_ns=self.clock.wall_ns, monotonic_seconds=self.clock.monotonic_seconds
        )
        self.replica.machine = self.store
        self.store.connect(self.replica)
        self.replica.holds = True
        self.replica.lead()
        self.heard: list[Settlement] = []

    def put(self, value: bytes) -> None:
        transaction = self.store.writing()
        transaction.put(KEY, value)
        self.store.commit(transaction, self.heard.append)

    def put_and_commit(self, value: bytes) -> None:
        self.put(value)
        self.replica.commit()

    def look(self) -> None:
        self.store.commit(self.store.writing(), self.heard.append)

    def give_up_waiting(self) -> None:
        self.clock.advance(SETTLE_SECONDS_MAX + 1)
        self.store._expire_pending()

    async def flush_in_vain(self, error: Exception) -> None:
        """Let the disk fail from now on, and flush something to it."""
        self.put_and_commit(b"x")
        self.disk.error = error
        await self.store._flush_watched()


# -- settlements --


@on_loop
async def test_a_proposal_settles_when_it_is_applied() -> None:
    harness = Harness()

    harness.put(b"x")
    assert harness.heard == []
    harness.replica.commit()

    assert harness.heard == [Settlement.COMMITTED]


@on_loop
async def test_another_entry_at_its_index_means_that_it_is_lost() -> None:
    harness = Harness()
    harness.put(b"x")

    harness.replica.lose_leadership()

    assert harness.heard == [Settlement.LOST]
    assert harness.store.reading().get(KEY) is None


@on_loop
async def test_what_changes_nothing_settles_at_once_if_nothing_is_in_flight() -> None:
    harness = Harness()

    harness.look()

    assert harness.heard == [Settlement.NOTHING]


@on_loop
async def test_what_changes_nothing_settles_with_what_it_may_have_seen() -> None:
    harness = Harness()
    harness.put(b"x")
    harness.look()

    harness.replica.lose()

    assert harness.heard == [Settlement.LOST, Settlement.LOST]


@on_loop
async def test_what_is_not_heard_of_in_time_is_unknown() -> None:
    harness = Harness()
    harness.put(b"x")

    harness.give_up_waiting()

    assert harness.heard == [Settlement.UNKNOWN]


@on_loop
async def test_whoever_proposed_at_an_index_that_was_used_again_hears_what_became_of_it() -> None:
    harness = Harness()
    harness.put(b"first")
    harness.put(b"second")
    harness.replica.follow()
    harness.replica.waiting.clear()  # both are cut from the log
    harness.replica.index -= 2
    harness.replica.lead()  # the entry with which this term begins takes the first one's index
    harness.put(b"at the second one's index")

    harness.replica.commit()

    assert harness.heard == [Settlement.LOST, Settlement.LOST, Settlement.COMMITTED]


@on_loop
async def test_what_was_given_up_waiting_for_is_still_in_flight() -> None:
    harness = Harness()
    harness.put(b"x")
    harness.give_up_waiting()

    harness.look()
    assert harness.heard == [Settlement.UNKNOWN]
    harness.replica.commit()

    assert harness.heard == [Settlement.UNKNOWN, Settlement.COMMITTED]


@on_loop
async def test_a_snapshot_leaves_what_it_covers_unknown() -> None:
    harness = Harness()
    harness.put(b"x")
    other = Harness()
    other.put_and_commit(b"y")
    await other.store.flush()

    harness.store.overlay._state = other.disk
    harness.store.state_replaced()

    assert harness.heard == [Settlement.UNKNOWN]
    assert harness.store.reading().get(KEY) == b"y"


@on_loop
async def test_an_answer_that_fails_to_be_delivered_does_not_stop_the_log(caplog: pytest.LogCaptureFixture) -> None:
    harness = Harness()
    transaction = harness.store.writing()
    transaction.put(KEY, b"x")
    harness.store.commit(transaction, lambda _: 1 / 0)  # type: ignore[arg-type]  # it raises
    harness.put(b"y")

    harness.replica.commit()

    assert harness.heard == [Settlement.COMMITTED]
    assert "could not be delivered" in caplog.text


@on_loop
async def test_nothing_is_proposed_where_nothing_can_be() -> None:
    harness = Harness()
    harness.replica.is_overloaded = True
    with pytest.raises(Overloaded):
        harness.put(b"x")
    harness.replica.follow()
    with pytest.raises(NotLeader):
        harness.put(b"x")

    assert harness.heard == []
    assert harness.store.writing().get(KEY) is None


@on_loop
async def test_losing_leadership_hides_what_was_only_proposed() -> None:
    harness = Harness()
    harness.put(b"x")
    assert harness.store.writing().get(KEY) == b"x"

    harness.replica.follow()

    assert harness.store.writing().get(KEY) is None


@on_loop
async def test_time_never_goes_back_behind_what_was_applied() -> None:
    harness = Harness()
    harness.put_and_commit(b"x")
    before = harness.store.now_ns()

    harness.clock.advance(-100)

    assert harness.store.now_ns() == before


# -- flushing --


@on_loop
async def test_committed_effects_reach_the_state_in_the_background() -> None:
    harness = Harness()
    harness.store.start()
    harness.put_and_commit(b"x")

    while harness.disk.get(KEY) != b"x":
        harness.clock.advance(1)
        await asyncio.sleep(0.01)
    await harness.store.stop()

    assert harness.store.fault is None


@on_loop
async def test_a_replacement_waits_for_the_flush_under_way_and_lets_no_other_begin() -> None:
    harness = Harness()
    harness.put_and_commit(b"x")
    harness.disk.gate.clear()
    flushing = asyncio.ensure_future(harness.store.flush())
    await asyncio.sleep(0)

    preparing = asyncio.ensure_future(harness.store.prepare_replacement())
    await asyncio.sleep(0)
    assert not preparing.done()
    harness.disk.gate.set()
    await preparing

    assert flushing.done()
    harness.put_and_commit(b"y")
    await harness.store.flush()
    assert harness.disk.get(KEY) == b"x"
    harness.store.state_replaced()
    await harness.store.stop()


@on_loop
async def test_a_flush_that_nobody_waits_for_any_more_is_finished_all_the_same() -> None:
    harness = Harness()
    harness.disk.gate.clear()
    harness.put_and_commit(b"x")
    flushing = asyncio.ensure_future(harness.store.flush())
    await asyncio.sleep(0)

    flushing.cancel()
    await asyncio.sleep(0)
    harness.disk.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await flushing
    harness.put_and_commit(b"y")
    await harness.store.flush()

    assert harness.disk.get(KEY) == b"y"
    await harness.store.stop()


@on_loop
async def test_a_full_disk_is_a_fault_until_there_is_room() -> None:
    harness = Harness()
    await harness.flush_in_vain(Full("no room"))
    faults = [harness.store.fault]
    assert harness.store.reading().get(KEY) == b"x"

    harness.disk.error = None
    harness.clock.advance(FULL_RETRY_SECONDS / 2)
    assert not harness.store._flush_due()
    harness.clock.advance(FULL_RETRY_SECONDS)
    assert harness.store._flush_due()
    await harness.store._flush_watched()
    faults.append(harness.store.fault)

    assert faults == ["cannot flush the state: no room", None]
    assert harness.disk.get(KEY) == b"x"
    await harness.store.stop()


@on_loop
async def test_a_fenced_disk_stays_a_fault() -> None:
    harness = Harness()
    await harness.flush_in_vain(Fenced("a sync failed"))

    harness.clock.advance(100)

    assert harness.store.fault == "cannot flush the state: a sync failed"
    assert not harness.store._flush_due()
    await harness.store.stop()
