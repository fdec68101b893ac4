"""What leaves at once: on which connection, in which order, and what may wait for a moment."""

import asyncio
from collections.abc import Callable

import pytest

from conclave.cluster.frames import Frame, Lane, Messages
from conclave.cluster.outbox import COMMIT_NOTICE_SECONDS, EARLY_SECONDS, MESSAGES_IN_FRAME_MAX, Outbox
from conclave.cluster.raft import Entry, Message, MessageKind, ProgressState, Raft
from tests.cluster.cluster_of_nodes import until
from tests.cluster.fake_loop import FakeLoop
from tests.cluster.raft.harness import Cluster

ANSWER = Message(MessageKind.READ_INDEX_RESPONSE, 2, 1, sequence=1)
HEARTBEAT = Message(MessageKind.HEARTBEAT, 2, 1)


def leader() -> Raft:
    """Return the core of a leader whose followers have all that is committed."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.run(5)
    return cluster[1]


def notice(raft: Raft, to: int = 2) -> Message:
    return Message(MessageKind.APPEND, to, 1, term=raft.term, index=raft.log.committed, commit=raft.log.committed)


def append(raft: Raft) -> Message:
    return Message(MessageKind.APPEND, 2, 1, term=raft.term, entries=(Entry(raft.term, raft.last_index + 1),))


class Desk:
    """An outbox, and what has left it."""

    def __init__(self, raft: Raft, *, may_change: bool = True, is_heard: bool = True) -> None:
        self.sent: list[tuple[Lane, Message]] = []
        self.frames: list[Messages] = []
        self.is_heard = is_heard
        self.outbox = Outbox(lambda: raft, self._send, lambda: may_change)

    @property
    def messages(self) -> list[Message]:
        return [message for _, message in self.sent]

    def _send(self, _: int, lane: Lane, frame: Frame) -> bool:
        assert isinstance(frame, Messages)
        self.frames.append(frame)
        self.sent += [(lane, message) for message in frame.messages]
        return self.is_heard


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> FakeLoop:
    """Give an outbox that is made in the test timers that fire when the test says so."""
    fake = FakeLoop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: fake)
    return fake


def play(history: Callable[[Raft], object]) -> None:
    """Play a history on an event loop, since notices wait there."""

    async def on_loop() -> None:
        answer = history(leader())
        if asyncio.iscoroutine(answer):
            await answer

    asyncio.run(on_loop())


def test_appends_leave_before_the_rest_and_on_a_connection_of_their_own() -> None:
    def history(raft: Raft) -> None:
        desk, entries = Desk(raft), append(raft)

        desk.outbox.send_all([HEARTBEAT, entries, HEARTBEAT])

        assert desk.sent == [(Lane.BULK, entries), (Lane.CONTROL, HEARTBEAT), (Lane.CONTROL, HEARTBEAT)]
        assert len(desk.frames) == 2

    play(history)


def test_a_frame_holds_so_many_messages_and_no_more() -> None:
    def history(raft: Raft) -> None:
        desk = Desk(raft)

        desk.outbox.send_all([HEARTBEAT] * (MESSAGES_IN_FRAME_MAX + 1))

        assert [len(frame.messages) for frame in desk.frames] == [MESSAGES_IN_FRAME_MAX, 1]

    play(history)


def test_word_of_a_commit_waits_but_not_for_long() -> None:
    async def history(raft: Raft) -> None:
        desk = Desk(raft)

        desk.outbox.send_all([notice(raft)])

        assert desk.sent == []
        await until(lambda: desk.messages == [notice(raft)])

    play(history)


def test_one_timer_serves_all_words_of_commits_and_none_leaves_with_the_time_of_one_before(loop: FakeLoop) -> None:
    raft = leader()
    desk = Desk(raft)

    desk.outbox.send_all([notice(raft)])
    loop.now = COMMIT_NOTICE_SECONDS / 2
    desk.outbox.send_all([append(raft)])  # the first went with these
    desk.outbox.send_all([notice(raft)])
    assert len(loop.armed) == 1

    loop.now = COMMIT_NOTICE_SECONDS
    loop.fire()
    assert desk.messages == [append(raft)]  # its time is not up
    assert [seconds for seconds, _ in loop.armed] == [pytest.approx(COMMIT_NOTICE_SECONDS / 2)]

    loop.now = 1.5 * COMMIT_NOTICE_SECONDS
    loop.fire()
    assert desk.messages == [append(raft), notice(raft)]
    assert loop.armed == []


def test_a_timer_that_fires_a_little_early_is_not_set_again(loop: FakeLoop) -> None:
    raft = leader()
    desk = Desk(raft)

    desk.outbox.send_all([notice(raft)])
    loop.now = COMMIT_NOTICE_SECONDS - EARLY_SECONDS / 2
    loop.fire()

    assert (desk.messages, loop.armed) == ([notice(raft)], [])


def test_word_of_a_commit_goes_with_entries() -> None:
    def history(raft: Raft) -> None:
        desk, entries = Desk(raft), append(raft)

        desk.outbox.send_all([notice(raft), entries, ANSWER])

        assert desk.messages == [entries, ANSWER]

    play(history)


def test_word_of_a_commit_goes_before_the_answer_to_a_reader() -> None:
    def history(raft: Raft) -> None:
        desk = Desk(raft)

        desk.outbox.send_all([notice(raft), HEARTBEAT, ANSWER])

        assert desk.messages == [notice(raft), HEARTBEAT, ANSWER]

    play(history)


def test_word_of_a_commit_does_not_wait_while_a_membership_change_is_under_way() -> None:
    def history(raft: Raft) -> None:
        desk = Desk(raft, may_change=False)

        desk.outbox.send_all([notice(raft)])

        assert desk.messages == [notice(raft)]

    play(history)


def test_forgotten_notices_are_not_said_and_a_closed_outbox_says_none() -> None:
    async def history(raft: Raft) -> None:
        forgetful, closed, other = Desk(raft), Desk(raft), Desk(raft)
        for desk in (forgetful, closed, other):
            desk.outbox.send_all([notice(raft)])

        forgetful.outbox.forget_notices()
        closed.outbox.close()

        await until(lambda: bool(other.sent))  # its timer is the last of the three
        assert (forgetful.sent, closed.sent) == ([], [])

    play(history)


def test_the_core_hears_of_an_append_that_could_not_be_sent() -> None:
    def history(raft: Raft) -> None:
        desk = Desk(raft, is_heard=False)

        desk.outbox.send_all([append(raft)])

        assert raft.tracker.progress[2].state is ProgressState.PROBE

    play(history)
