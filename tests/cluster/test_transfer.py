"""Snapshots from node to node, over a wire that loses, repeats and damages."""

import asyncio
from collections.abc import Callable, Container, Coroutine
from pathlib import Path

import msgspec
import pytest

from conclave.cluster import transfer
from conclave.cluster.frames import ChunkReply, ChunkRequest
from conclave.cluster.membership import Member, MembershipRecord, encode_record
from conclave.cluster.raft import ConfState, Snapshot, SnapshotMeta, SnapshotTemporarilyUnavailable
from conclave.cluster.transfer import (
    ATTEMPTS_MAX,
    IDLE_SECONDS_MAX,
    REPEAT_SECONDS_MAX,
    REQUESTS_MAX,
    SILENCE_SECONDS_MAX,
    Descriptor,
    SnapshotReceiver,
    SnapshotSender,
    T,
    TransferFailed,
)
from conclave.storage.errors import Full
from conclave.storage.memory import MemoryState
from conclave.storage.snapshots import Progress, advance
from conclave.storage.state import Applied, LmdbState, Staging, StateInstaller, StateStore

MAP_BYTES = 1 << 28
CONF_STATE = ConfState(voters=(1, 2))
MEMBERSHIP = encode_record(MembershipRecord(conf_state=CONF_STATE, members=(Member(1, "a", "x:1", "", bytes(16)),)))
SENDER = 1
TAKER, OTHER = 2, 3


def filled(*, count: int = 40, index: int = 7) -> MemoryState:
    state = MemoryState()
    write(state, count=count, index=index)
    return state


def write(state: StateStore, *, count: int = 40, index: int = 7) -> None:
    records = {number.to_bytes(32, "big"): bytes([number % 256]) * 20_000 for number in range(count)}
    state.flush(records, Applied(index, 3, 5, MEMBERSHIP))
    state.refresh()


def content(state: StateStore) -> dict[bytes, bytes]:
    reader = state.open_reader()
    pairs = dict(reader.pairs())
    reader.close()
    return pairs


async def inline(function: Callable[[], T]) -> T:
    return function()


async def in_thread(function: Callable[[], T]) -> T:
    return await asyncio.to_thread(function)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Wire:
    """Sender and receiver, and what happens to the frames between them."""

    def __init__(self, source: StateStore, target: StateStore, *, reply_seconds_max: float = 5.0) -> None:
        self.clock = Clock()
        self.sender = SnapshotSender(source, inline, self.clock)
        self.receiver = SnapshotReceiver(target, self.ask, in_thread, reply_seconds_max=reply_seconds_max)
        self.requests: list[ChunkRequest] = []
        self.lost: Container[int] = ()  # numbers of questions
        self.changed: Callable[[int, ChunkReply], ChunkReply] = lambda _, reply: reply
        self.arrival = asyncio.Event()

    def ask(self, peer: int, request: ChunkRequest) -> bool:
        number = len(self.requests)
        self.requests.append(request)
        self.arrival.set()
        if number not in self.lost:
            self.sender.requested(TAKER, request, lambda reply: self.answer(peer, number, reply))
        return True

    def answer(self, peer: int, number: int, reply: ChunkReply) -> None:
        asyncio.get_running_loop().call_soon(self.receiver.reply_received, peer, self.changed(number, reply))

    async def asked(self, count: int) -> None:
        while len(self.requests) < count:
            self.arrival.clear()
            await self.arrival.wait()


def run(test: Coroutine[None, None, T]) -> T:
    return asyncio.run(test)


# -- the whole way --


def test_a_follower_gets_the_whole_state() -> None:
    source, target = filled(), MemoryState()

    async def scenario() -> None:
        wire = Wire(source, target)
        await wire.receiver.fetch(SENDER, wire.sender.take())
        await wire.sender.close()

    run(scenario())
    target.install()

    assert content(target) == content(source)
    assert target.applied_record == source.applied_record


def test_a_state_on_disk_travels_to_a_state_on_disk(tmp_path: Path) -> None:
    source = LmdbState(tmp_path / "source", map_bytes=MAP_BYTES)
    target = LmdbState(tmp_path / "target", map_bytes=MAP_BYTES)
    write(source)

    async def scenario() -> None:
        wire = Wire(source, target)
        wire.sender = SnapshotSender(source, in_thread, wire.clock)
        await wire.receiver.fetch(SENDER, wire.sender.take())
        await wire.sender.close()

    run(scenario())
    target.install()

    assert content(target) == content(source)
    source.close()
    target.close()


def test_the_descriptor_names_the_place_in_the_log_and_the_configuration() -> None:
    sender = SnapshotSender(filled(), inline, Clock())

    snapshot = sender.take()

    assert snapshot.meta == SnapshotMeta(7, 3, CONF_STATE)
    assert len(snapshot.data) < 32


def test_bug_b48_a_snapshot_names_the_members_as_of_its_own_index_whatever_changes_while_it_is_sent() -> None:
    source, target = filled(), MemoryState()
    later = encode_record(MembershipRecord(conf_state=ConfState(voters=(1, 2, 3))))

    async def scenario() -> None:
        wire = Wire(source, target)
        snapshot = wire.sender.take()

        def change(number: int, reply: ChunkReply) -> ChunkReply:
            source.flush({}, Applied(8 + number, 3, 5, later))
            source.refresh()
            return reply

        wire.changed = change
        await wire.receiver.fetch(SENDER, snapshot)
        assert wire.sender.take() == snapshot
        await wire.sender.close()

    run(scenario())
    target.install()

    assert target.applied_record == Applied(7, 3, 5, MEMBERSHIP)
    assert source.membership == later


def test_lost_questions_are_repeated() -> None:
    source, target = filled(), MemoryState()

    async def scenario() -> None:
        wire = Wire(source, target, reply_seconds_max=0.005)
        wire.lost = range(1, 1000, 3)
        await wire.receiver.fetch(SENDER, wire.sender.take())
        await wire.sender.close()

    run(scenario())
    target.install()

    assert content(target) == content(source)


def test_a_damaged_chunk_is_asked_for_again() -> None:
    source, target = filled(), MemoryState()

    def damage_one(number: int, reply: ChunkReply) -> ChunkReply:
        return ChunkReply(reply.snapshot_id, reply.progress, reply.chunk[:-1] + b"x") if number == 2 else reply

    async def scenario() -> list[ChunkRequest]:
        wire = Wire(source, target)
        wire.changed = damage_one
        await wire.receiver.fetch(SENDER, wire.sender.take())
        await wire.sender.close()
        return wire.requests

    requests = run(scenario())
    target.install()

    assert requests[2] == requests[3]
    assert content(target) == content(source)


def test_a_transfer_goes_on_after_it_was_cut_off(tmp_path: Path) -> None:
    source = filled(count=100)
    target = LmdbState(tmp_path / "state", map_bytes=MAP_BYTES)

    async def scenario() -> tuple[int, int]:
        wire = Wire(source, target, reply_seconds_max=0.05)  # enough for a busy machine
        snapshot = wire.sender.take()
        wire.lost = range(5, 1000)
        with pytest.raises(TransferFailed, match="does not answer"):
            await wire.receiver.fetch(SENDER, snapshot)
        before = len(wire.requests)
        wire.lost = ()
        again = wire.sender.take()
        await wire.receiver.fetch(SENDER, again)
        await wire.sender.close()
        return before - ATTEMPTS_MAX, len(wire.requests) - before

    first, second = run(scenario())
    target.install()

    assert (first, first + second) == (5, 2 + 8)
    assert content(target) == content(source)
    target.close()


# -- the sender --


def test_a_snapshot_is_shared_while_it_is_on_its_way() -> None:
    source = filled()
    sender = SnapshotSender(source, inline, Clock())
    first = sender.take()

    write(source, index=9)

    assert sender.take() == first


def test_a_snapshot_that_the_log_does_not_reach_any_more_is_replaced() -> None:
    source = filled()
    sender = SnapshotSender(source, inline, Clock())
    sender.take()

    write(source, index=9)

    assert sender.take(index_min=8).meta.index == 9


def test_a_state_older_than_the_log_is_no_snapshot() -> None:
    sender = SnapshotSender(filled(), inline, Clock())

    with pytest.raises(SnapshotTemporarilyUnavailable):
        sender.take(index_min=8)


def test_an_empty_state_is_no_snapshot() -> None:
    sender = SnapshotSender(MemoryState(), inline, Clock())

    with pytest.raises(SnapshotTemporarilyUnavailable):
        sender.take()


def test_a_snapshot_pins_the_log_until_it_is_dropped() -> None:
    async def scenario() -> tuple[int | None, ...]:
        wire = Wire(filled(), MemoryState())
        before = wire.sender.pinned_index
        snapshot = wire.sender.take()
        during = wire.sender.pinned_index
        await wire.receiver.fetch(SENDER, snapshot)
        being_installed = wire.sender.pinned_index
        wire.clock.now += REPEAT_SECONDS_MAX + 1
        wire.sender.expire(has_taker=False)
        return before, during, being_installed, wire.sender.pinned_index

    assert run(scenario()) == (None, 7, 7, None)


def test_another_taker_shares_a_snapshot_that_one_is_installing() -> None:
    source = filled()

    async def scenario() -> tuple[bool, list[int | None]]:
        wire = Wire(source, MemoryState())
        first = wire.sender.take()
        await wire.receiver.fetch(SENDER, first)
        write(source, index=9)
        is_shared = wire.sender.take() == first and wire.sender.is_at_end(TAKER)
        pinned = [wire.sender.pinned_index]
        wire.sender.requested(OTHER, wire.requests[0], lambda _: None)
        await asyncio.gather(*wire.sender._tasks)
        wire.clock.now += REPEAT_SECONDS_MAX + 1
        wire.sender.expire(has_taker=False)
        pinned.append(wire.sender.pinned_index)
        wire.clock.now += IDLE_SECONDS_MAX
        wire.sender.expire(has_taker=True)
        return is_shared, [*pinned, wire.sender.pinned_index]

    assert run(scenario()) == (True, [7, 7, None])


def test_after_a_snapshot_that_was_taken_comes_a_new_one() -> None:
    source = filled()

    async def scenario() -> int:
        wire = Wire(source, MemoryState())
        await wire.receiver.fetch(SENDER, wire.sender.take())
        write(source, index=9)
        wire.clock.now += REPEAT_SECONDS_MAX + 1
        wire.sender.expire(has_taker=False)
        index = wire.sender.take().meta.index
        await wire.sender.close()
        return index

    assert run(scenario()) == 9


def test_an_end_that_is_asked_for_again_and_again_does_not_keep_a_snapshot() -> None:
    async def scenario() -> int | None:
        wire = Wire(filled(), MemoryState())
        await wire.receiver.fetch(SENDER, wire.sender.take())
        for _ in range(2):
            wire.clock.now += IDLE_SECONDS_MAX / 2 + 1
            wire.sender.requested(TAKER, wire.requests[-1], lambda _: None)
            await asyncio.gather(*wire.sender._tasks)
            wire.sender.expire(has_taker=True)
        return wire.sender.pinned_index

    assert run(scenario()) is None


def test_a_snapshot_that_nobody_asks_for_is_dropped() -> None:
    clock = Clock()
    sender = SnapshotSender(filled(), inline, clock)
    sender.take()

    clock.now += IDLE_SECONDS_MAX
    sender.expire(has_taker=True)
    kept = sender.pinned_index
    clock.now += 1
    sender.expire(has_taker=True)

    assert (kept, sender.pinned_index) == (7, None)


def test_a_snapshot_that_nobody_gets_further_in_is_dropped() -> None:
    async def scenario() -> tuple[list[int | None], int | None]:
        source = filled()
        clock = Clock()
        sender = SnapshotSender(source, inline, clock)

        async def ask(peer: int, progress: bytes) -> bytes:
            replies: list[ChunkReply] = []
            snapshot_id = transfer._decode_descriptor(sender.take().data).snapshot_id
            sender.requested(peer, ChunkRequest(snapshot_id, progress), replies.append)
            await asyncio.gather(*sender._tasks)
            return replies[0].chunk

        progress, _ = advance(Progress(), await ask(TAKER, b""))
        beyond = msgspec.msgpack.encode(progress.position)
        pinned = []
        for peer, place in ((TAKER, beyond), (OTHER, b""), (OTHER, beyond)):  # each of them is further than it was
            clock.now += IDLE_SECONDS_MAX
            assert await ask(peer, place)
            sender.expire(has_taker=True)
            pinned.append(sender.pinned_index)
        for _ in range(2):
            clock.now += IDLE_SECONDS_MAX / 2 + 1
            assert await ask(TAKER, beyond)
        sender.expire(has_taker=True)
        return pinned, sender.pinned_index

    assert run(scenario()) == ([7, 7, 7], None)


def test_who_has_asked_for_the_end_is_known() -> None:
    async def scenario() -> list[bool]:
        wire = Wire(filled(), MemoryState())
        snapshot = wire.sender.take()
        known = [wire.sender.is_at_end(TAKER)]
        await wire.receiver.fetch(SENDER, snapshot)
        known += [wire.sender.is_at_end(TAKER), wire.sender.is_at_end(OTHER)]
        await wire.sender.close()
        return [*known, wire.sender.is_at_end(TAKER)]

    assert run(scenario()) == [False, True, False, False]


def test_a_taker_is_silent_soon_and_later_while_it_installs() -> None:
    async def scenario() -> list[bool]:
        wire = Wire(filled(), MemoryState())
        snapshot, since = wire.sender.take(), wire.clock.now
        wire.clock.now += SILENCE_SECONDS_MAX
        seen = [wire.sender.is_silent(TAKER, since)]
        wire.clock.now += 1
        seen.append(wire.sender.is_silent(TAKER, since))
        await wire.receiver.fetch(SENDER, snapshot)
        wire.clock.now += IDLE_SECONDS_MAX
        seen.append(wire.sender.is_silent(TAKER, since))
        wire.clock.now += 1
        return [*seen, wire.sender.is_silent(TAKER, since)]

    assert run(scenario()) == [False, True, False, True]


def test_a_finished_snapshot_is_dropped_soon(tmp_path: Path) -> None:
    source = LmdbState(tmp_path / "source", map_bytes=MAP_BYTES)
    write(source)

    async def scenario() -> None:
        wire = Wire(source, MemoryState())
        await wire.receiver.fetch(SENDER, wire.sender.take())
        wire.clock.now += IDLE_SECONDS_MAX + 1
        wire.sender.expire(has_taker=True)

    run(scenario())

    assert source._reader_count == 0
    source.close()


def test_a_finished_snapshot_that_everybody_has_is_dropped_when_no_question_can_come_again(tmp_path: Path) -> None:
    source = LmdbState(tmp_path / "source", map_bytes=MAP_BYTES)
    write(source)

    async def scenario() -> list[int]:
        wire = Wire(source, MemoryState())
        snapshot = wire.sender.take()
        counts = []
        for is_fetched, seconds, has_taker in (
            (False, REPEAT_SECONDS_MAX + 1, False),  # under way
            (True, REPEAT_SECONDS_MAX - 1, False),  # its end may have got lost
            (False, 2, True),  # somebody installs it
            (False, 0, False),
        ):
            if is_fetched:
                await wire.receiver.fetch(SENDER, snapshot)
            wire.clock.now += seconds
            wire.sender.expire(has_taker=has_taker)
            counts.append(source._reader_count)
        return counts

    assert run(scenario()) == [1, 1, 1, 0]
    source.close()


def test_a_question_that_waits_keeps_its_snapshot() -> None:
    async def scenario() -> bytes:
        replies: list[ChunkReply] = []
        wire = Wire(filled(), MemoryState())
        snapshot = wire.sender.take()
        await wire.receiver.fetch(SENDER, snapshot)
        last = wire.requests[-1]
        wire.sender.requested(TAKER, last, replies.append)
        wire.clock.now += IDLE_SECONDS_MAX
        wire.sender.expire(has_taker=False)
        await asyncio.gather(*wire.sender._tasks)
        await wire.sender.close()
        return replies[0].chunk

    assert run(scenario())


def test_an_unknown_snapshot_is_not_to_be_had() -> None:
    replies: list[ChunkReply] = []
    sender = SnapshotSender(filled(), inline, Clock())
    sender.take()

    sender.requested(TAKER, ChunkRequest(b"another", b""), replies.append)

    assert replies == [ChunkReply(b"another", b"", b"")]


def test_a_progress_from_elsewhere_is_not_to_be_had() -> None:
    async def scenario() -> list[ChunkReply]:
        replies: list[ChunkReply] = []
        sender = SnapshotSender(filled(), inline, Clock())
        snapshot_id = transfer._decode_descriptor(sender.take().data).snapshot_id
        sender.requested(TAKER, ChunkRequest(snapshot_id, b"\xc1"), replies.append)
        await sender.close()
        return replies

    assert [reply.chunk for reply in run(scenario())] == [b""]


def test_too_many_questions_at_once_are_dropped() -> None:
    async def scenario() -> int:
        replies: list[ChunkReply] = []
        sender = SnapshotSender(filled(), inline, Clock())
        snapshot_id = transfer._decode_descriptor(sender.take().data).snapshot_id
        for _ in range(REQUESTS_MAX + 5):
            sender.requested(TAKER, ChunkRequest(snapshot_id, b""), replies.append)
        await asyncio.gather(*sender._tasks)
        await sender.close()
        return len(replies)

    assert run(scenario()) == REQUESTS_MAX


def test_a_closed_sender_has_closed_its_reader_only_after_the_thread_was_done(tmp_path: Path) -> None:
    source = LmdbState(tmp_path / "source", map_bytes=MAP_BYTES)
    write(source)

    async def scenario() -> tuple[int, list[bytes]]:
        started, go_on = asyncio.Event(), asyncio.Event()

        async def slow(function: Callable[[], T]) -> T:
            started.set()
            await go_on.wait()
            return function()

        replies: list[ChunkReply] = []
        sender = SnapshotSender(source, slow, Clock())
        snapshot_id = transfer._decode_descriptor(sender.take().data).snapshot_id
        sender.requested(TAKER, ChunkRequest(snapshot_id, b""), replies.append)
        await started.wait()
        closing = asyncio.create_task(sender.close())
        await asyncio.sleep(0)
        readers_meanwhile = source._reader_count
        go_on.set()
        await closing
        return readers_meanwhile, [reply.chunk[:1] for reply in replies]

    readers_meanwhile, kinds = run(scenario())

    assert (readers_meanwhile, source._reader_count, kinds) == (1, 0, [b"\x01"])
    source.close()


# -- the receiver --


def test_a_snapshot_that_the_sender_has_dropped_fails() -> None:
    async def scenario() -> None:
        wire = Wire(filled(), MemoryState())
        snapshot = wire.sender.take()
        await wire.sender.close()
        await wire.receiver.fetch(SENDER, snapshot)

    with pytest.raises(TransferFailed, match="does not have this snapshot"):
        run(scenario())


def test_a_chunk_that_keeps_being_damaged_fails() -> None:
    async def scenario() -> None:
        wire = Wire(filled(), MemoryState())
        wire.changed = lambda _, reply: ChunkReply(reply.snapshot_id, reply.progress, b"junk" * 10)
        await wire.receiver.fetch(SENDER, wire.sender.take())

    with pytest.raises(TransferFailed, match="keeps being damaged"):
        run(scenario())


def test_chunks_of_another_snapshot_fail() -> None:
    other = SnapshotSender(filled(), inline, Clock())

    async def scenario() -> None:
        wire = Wire(filled(), MemoryState())
        other.take()
        assert other._offer is not None
        strange = other._offer.stream.chunk(b"")
        wire.changed = lambda _, reply: ChunkReply(reply.snapshot_id, reply.progress, strange)
        await wire.receiver.fetch(SENDER, wire.sender.take())

    with pytest.raises(TransferFailed, match="does not fit together"):
        run(scenario())


def test_a_snapshot_of_another_place_than_promised_fails() -> None:
    async def scenario() -> None:
        wire = Wire(filled(), MemoryState())
        snapshot = wire.sender.take()
        await wire.receiver.fetch(SENDER, Snapshot(SnapshotMeta(99, 3, CONF_STATE), snapshot.data))

    with pytest.raises(TransferFailed, match="another place in the log"):
        run(scenario())


def test_a_descriptor_of_junk_fails() -> None:
    async def scenario() -> None:
        wire = Wire(filled(), MemoryState())
        await wire.receiver.fetch(SENDER, Snapshot(SnapshotMeta(7, 3), b"\xc1"))

    with pytest.raises(TransferFailed):
        run(scenario())


def test_an_answer_of_another_peer_is_dropped() -> None:
    async def scenario() -> None:
        wire = Wire(filled(), MemoryState(), reply_seconds_max=0.002)
        snapshot = wire.sender.take()
        wire.receiver._send = lambda peer, request: wire.ask(peer + 1, request)
        await wire.receiver.fetch(SENDER, snapshot)

    with pytest.raises(TransferFailed, match="does not answer"):
        run(scenario())


def test_a_full_disk_fails_the_transfer_and_closes_the_installer(monkeypatch: pytest.MonkeyPatch) -> None:
    target = MemoryState()
    closed: list[StateInstaller] = []

    def put(*_: object) -> None:
        raise Full("no space left on the device")

    async def scenario() -> None:
        wire = Wire(filled(), target)
        installer = target.open_installer()
        monkeypatch.setattr(installer, "put", put)
        monkeypatch.setattr(installer, "close", lambda: closed.append(installer))
        await wire.receiver.fetch(SENDER, wire.sender.take())

    with pytest.raises(TransferFailed, match="no space left"):
        run(scenario())

    assert closed == [target.open_installer()]


def test_a_cancelled_fetch_leaves_nothing_open(tmp_path: Path) -> None:
    target = LmdbState(tmp_path / "state", map_bytes=MAP_BYTES)

    async def scenario() -> None:
        wire = Wire(filled(), target)
        wire.lost = range(2, 1000)
        fetching = asyncio.create_task(wire.receiver.fetch(SENDER, wire.sender.take()))
        await wire.asked(3)
        fetching.cancel()
        await asyncio.wait([fetching])
        await wire.sender.close()

    run(scenario())

    target.open_installer().close()  # InUse, if the first were still open
    target.close()


def test_a_fetch_that_is_cancelled_while_it_opens_the_installer_closes_it(tmp_path: Path) -> None:
    target = LmdbState(tmp_path / "state", map_bytes=MAP_BYTES)

    async def scenario() -> None:
        started, go_on = asyncio.Event(), asyncio.Event()

        async def slow(function: Callable[[], T]) -> T:
            started.set()
            await go_on.wait()
            return function()

        sender = SnapshotSender(filled(), inline, Clock())
        receiver = SnapshotReceiver(target, lambda *_: True, slow)
        fetching = asyncio.create_task(receiver.fetch(SENDER, sender.take()))
        await started.wait()
        fetching.cancel()
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.wait([fetching])
        assert fetching.cancelled()

    run(scenario())

    target.open_installer().close()
    target.close()


def test_closing_ends_a_fetch_that_waits() -> None:
    async def scenario() -> None:
        wire = Wire(filled(), MemoryState())
        wire.lost = range(1000)
        fetching = asyncio.create_task(wire.receiver.fetch(SENDER, wire.sender.take()))
        await wire.asked(1)
        wire.receiver.close()
        await fetching

    with pytest.raises(TransferFailed, match="is stopping"):
        run(scenario())


def test_the_descriptor_has_this_layout() -> None:
    assert transfer._encode(Descriptor(b"0123")).hex() == "91c40430313233"


def test_nothing_is_offered_while_a_state_is_staged_that_it_would_lack() -> None:
    async def scenario() -> None:
        state = filled()
        staging = Staging({bytes(32): b"staged"}, clears_live=False, clears_staged=True)
        state.flush({}, Applied(8, 3, 5, MEMBERSHIP, staging_since=8, staged_count=1), staging)
        sender = SnapshotSender(state, inline, Clock())

        with pytest.raises(SnapshotTemporarilyUnavailable):
            sender.take()
        state.flush({}, Applied(9, 3, 5, MEMBERSHIP), Staging({}, clears_live=False, clears_staged=True))

        assert sender.take().meta.index == 9
        await sender.close()

    run(scenario())
