"""Questions from node to node: answered at most once, and unknown where nobody can say."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from conclave.cluster.asking import Asks
from conclave.cluster.errors import NotLeader, Unreachable
from conclave.cluster.frames import Answer, Forward, Frame, Outcome, Service

LEADER, OTHER = 1, 2


class Wire:
    """Takes what is sent; the test answers."""

    def __init__(self, *, is_connected: bool = True) -> None:
        self.sent: list[Forward] = []
        self.is_connected = is_connected
        self.asks = Asks(self.send, first_id=100)

    def send(self, peer: int, frame: Frame) -> bool:
        del peer
        assert isinstance(frame, Forward)
        self.sent.append(frame)
        return self.is_connected

    async def ask(self, event: Callable[[int], object], *, timeout_seconds: float = 10.0) -> bytes:
        """Ask the leader; once the question has left, let `event` happen with its number."""
        asking = asyncio.ensure_future(
            self.asks.ask(LEADER, 3, Service.APPLICATION, b"q", timeout_seconds=timeout_seconds)
        )
        asyncio.get_running_loop().call_soon(lambda: event(self.sent[0].request_id))
        return await asking


def ask(event: Callable[[Asks, int], object], *, timeout_seconds: float = 10.0) -> bytes:
    async def scenario() -> bytes:
        wire = Wire()
        return await wire.ask(lambda number: event(wire.asks, number), timeout_seconds=timeout_seconds)

    return asyncio.run(scenario())


def test_an_answer_reaches_whoever_asked() -> None:
    assert ask(lambda asks, number: asks.answered(LEADER, Answer(number, Outcome.ANSWERED, b"a"))) == b"a"


def test_a_node_that_does_not_lead_says_so() -> None:
    with pytest.raises(NotLeader):
        ask(lambda asks, number: asks.answered(LEADER, Answer(number, Outcome.NOT_LEADER)))


def test_a_failed_answer_leaves_the_outcome_unknown() -> None:
    with pytest.raises(Unreachable):
        ask(lambda asks, number: asks.answered(LEADER, Answer(number, Outcome.FAILED)))


def test_a_broken_connection_leaves_the_outcome_unknown() -> None:
    with pytest.raises(Unreachable, match="connection"):
        ask(lambda asks, _: asks.broken(LEADER))


def test_a_new_leader_leaves_the_outcome_unknown() -> None:
    with pytest.raises(Unreachable, match="another node leads"):
        ask(lambda asks, _: asks.superseded(OTHER))


def test_no_answer_in_time_leaves_the_outcome_unknown() -> None:
    with pytest.raises(Unreachable, match="in time"):
        ask(lambda *_: None, timeout_seconds=0.001)


def test_an_answer_of_another_peer_counts_for_nothing() -> None:
    with pytest.raises(Unreachable, match="in time"):
        ask(
            lambda asks, number: asks.answered(OTHER, Answer(number, Outcome.ANSWERED, b"forged")),
            timeout_seconds=0.001,
        )


def test_what_could_not_be_sent_was_not_asked() -> None:
    async def scenario() -> None:
        wire = Wire(is_connected=False)
        await wire.asks.ask(LEADER, 3, Service.APPLICATION, b"q", timeout_seconds=1.0)

    with pytest.raises(NotLeader):
        asyncio.run(scenario())


def served(answer: Callable[[bytes], Awaitable[bytes]] | None) -> list[Frame]:
    async def scenario() -> list[Frame]:
        replies: list[Frame] = []

        def reply(frame: Frame) -> bool:
            replies.append(frame)
            return True

        asks = Asks(lambda *_: True, first_id=0)
        asks.serve(Forward(7, 3, Service.APPLICATION, b"q"), reply, answer)
        await asyncio.gather(*asks._serving)
        return replies

    return asyncio.run(scenario())


async def echo(body: bytes) -> bytes:
    return b"re: " + body


async def fail(body: bytes) -> bytes:
    raise RuntimeError(body.decode())


def test_a_question_is_answered_by_its_handler() -> None:
    assert served(echo) == [Answer(7, Outcome.ANSWERED, b"re: q")]


def test_a_handler_that_fails_is_an_unknown_outcome() -> None:
    assert served(fail) == [Answer(7, Outcome.FAILED)]


def test_a_question_to_no_leader_is_not_looked_at() -> None:
    assert served(None) == [Answer(7, Outcome.NOT_LEADER)]
