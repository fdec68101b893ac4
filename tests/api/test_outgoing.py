"""Answers that leave together, in order, and before anything else happens to their connection."""

import asyncio
from collections.abc import Callable
from typing import Any

from conclave.api.outgoing import BYTES_MAX, Outgoing
from conclave.core.contract import Response

READ = b"GET /v1/secret/data/%b HTTP/1.1\r\nHost: a\r\n\r\n"
SLOW = b"GET /v1/secret/data/%b HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, x\r\n\r\n"
LAST = b"GET /v1/secret/data/%b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class Wire(asyncio.Transport):
    """A connection that notes in a common list what is written to it."""

    def __init__(self, name: str, written: list[tuple[str, bytes]]) -> None:
        super().__init__()
        self._name = name
        self._written = written
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._written.append((self._name, bytes(data)))

    def is_closing(self) -> bool:
        return self.is_closed


class Broken(asyncio.Transport):
    """A connection that nothing can be written to."""

    is_aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        raise RuntimeError(f"{len(data)} bytes too many")

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


def in_turns(*turns: Callable[[Outgoing, asyncio.AbstractEventLoop], None]) -> None:
    """Do one thing a turn of an event loop, all with the same answers that wait."""

    async def play() -> None:
        outgoing, loop = Outgoing(), asyncio.get_running_loop()
        for turn in turns:
            turn(outgoing, loop)
            await asyncio.sleep(0)

    asyncio.run(play())


def test_the_answers_of_a_turn_leave_when_it_ends_in_their_order() -> None:
    written: list[tuple[str, bytes]] = []
    a, b = Wire("a", written), Wire("b", written)

    def busy(outgoing: Outgoing, loop: asyncio.AbstractEventLoop) -> None:
        written.clear()
        before = len(written)
        outgoing.write(a, b"1", loop)
        outgoing.write(b, b"2", loop)
        outgoing.write(a, b"3", loop)
        assert len(written) - before <= 1, "all but the first of the first turn wait for its end"

    def busy_again(outgoing: Outgoing, loop: asyncio.AbstractEventLoop) -> None:
        assert written == [("a", b"1"), ("b", b"2"), ("a", b"3")]
        written.clear()
        busy(outgoing, loop)
        assert not written, "where the turn before had several answers, all wait"

    def look(_outgoing: Outgoing, _loop: asyncio.AbstractEventLoop) -> None:
        assert written == [("a", b"1"), ("b", b"2"), ("a", b"3")]

    in_turns(busy, busy_again, look)


def test_an_answer_leaves_at_once_where_turns_have_one_each() -> None:
    written: list[tuple[str, bytes]] = []
    a = Wire("a", written)

    def one(outgoing: Outgoing, loop: asyncio.AbstractEventLoop) -> None:
        before = len(written)
        outgoing.write(a, b"1", loop)
        assert len(written) == before + 1

    def many(outgoing: Outgoing, loop: asyncio.AbstractEventLoop) -> None:
        for _ in range(3):
            outgoing.write(a, b"1", loop)

    def first_after_many(outgoing: Outgoing, loop: asyncio.AbstractEventLoop) -> None:
        before = len(written)
        outgoing.write(a, b"1", loop)
        assert len(written) == before

    in_turns(one, one, many, first_after_many, one)
    assert len(written) == 7


def test_much_leaves_before_the_turn_ends() -> None:
    written: list[tuple[str, bytes]] = []
    a = Wire("a", written)

    def much(outgoing: Outgoing, loop: asyncio.AbstractEventLoop) -> None:
        outgoing.write(a, b"1", loop)
        outgoing.write(a, b"2", loop)
        outgoing.write(a, bytes(BYTES_MAX), loop)
        assert [data for _, data in written] == [b"1", b"2", bytes(BYTES_MAX)]

    in_turns(much)
    assert len(written) == 3


def test_a_connection_that_was_closed_meanwhile_is_sent_nothing_and_the_others_their_answers() -> None:
    written: list[tuple[str, bytes]] = []
    a, b = Wire("a", written), Wire("b", written)

    def close_one(outgoing: Outgoing, loop: asyncio.AbstractEventLoop) -> None:
        outgoing.write(b, b"1", loop)
        outgoing.write(a, b"2", loop)
        outgoing.write(b, b"3", loop)
        a.is_closed = True

    in_turns(close_one)
    assert written == [("b", b"1"), ("b", b"3")]


def test_a_connection_that_fails_costs_the_others_nothing() -> None:
    written: list[tuple[str, bytes]] = []
    a, b, broken = Wire("a", written), Wire("b", written), Broken()

    def answer_all(outgoing: Outgoing, loop: asyncio.AbstractEventLoop) -> None:
        for wire in (a, broken, b):
            outgoing.write(wire, b"1", loop)

    in_turns(answer_all)
    assert written == [("a", b"1"), ("b", b"1")]
    assert broken.is_aborted


def test_answers_of_both_lanes_on_one_connection_keep_their_order(serve: Callable[..., Any]) -> None:
    async def scenario(served: Any) -> list[bytes]:
        async with served.connect() as client:
            client.send(b"".join(kind % b"%d" % n for n, kind in enumerate([READ, READ, SLOW, READ, SLOW, SLOW, READ])))
            return [await client.receive() for _ in range(7)]

    for number, answer in enumerate(serve(scenario)):
        assert b'"path":"secret/data/%d"' % number in answer


def test_what_was_answered_is_sent_before_the_connection_closes(serve: Callable[..., Any]) -> None:
    async def scenario(served: Any) -> None:
        async with served.connect() as client:
            client.send(READ % b"0" + READ % b"1" + LAST % b"2")
            assert (await client.rest()).count(b"HTTP/1.1 200") == 3

    serve(scenario)


def test_what_was_answered_is_sent_before_a_half_closed_connection_closes(serve: Callable[..., Any]) -> None:
    async def scenario(served: Any) -> None:
        async with served.connect() as client:
            served.vault.holds = True
            client.send(READ % b"0" + READ % b"1")
            client.writer.write_eof()
            await served.until(lambda: served.vault.waiting)
            served.vault.holds = False
            served.vault.waiting.pop()(served.vault.answer(served.vault.requests[0]))
            assert (await client.rest()).count(b"HTTP/1.1 200") == 2

    serve(scenario)


def test_a_client_that_closes_its_half_and_reads_late_gets_every_answer(serve: Callable[..., Any]) -> None:
    async def scenario(served: Any) -> None:
        large = Response({"value": "x" * 400_000})
        served.vault.answer = lambda _: large
        async with served.connect() as client:
            served.vault.holds = True
            client.send(b"".join(READ % b"%d" % n for n in range(40)))
            await served.until(lambda: served.vault.waiting)
            client.writer.write_eof()
            connection = next(iter(served.listeners._listeners[0]._shared.connections))
            await served.until(lambda: connection._is_half_closed)
            served.vault.holds = False
            served.vault.waiting.pop()(large)
            assert connection.flow.write_paused, "it has more to answer than the client takes"
            assert (await client.rest()).count(b"HTTP/1.1 200") == 40

    serve(scenario)


def test_what_is_answered_in_the_turn_in_which_a_client_closes_its_half_is_sent(serve: Callable[..., Any]) -> None:
    async def scenario(served: Any) -> None:
        async with served.connect() as busy, served.connect() as client:
            for _ in range(2):  # turns have several answers from now on
                busy.send(b"".join(READ % b"%d" % n for n in range(3)))
                for _ in range(3):
                    await busy.receive()
            client.send(READ % b"0")
            client.writer.write_eof()
            assert (await client.rest()).count(b"HTTP/1.1 200") == 1

    serve(scenario)


def test_what_was_answered_is_sent_when_the_server_stops_in_the_same_turn(serve: Callable[..., Any]) -> None:
    async def scenario(served: Any) -> list[bytes]:
        served.vault.holds = True
        async with served.connect() as one, served.connect() as other:
            one.send(READ % b"0")
            other.send(READ % b"1")
            await served.until(lambda: len(served.vault.waiting) == 2)
            for done, request in zip(served.vault.waiting, served.vault.requests, strict=True):
                done(served.vault.answer(request))
            await served.listeners.stop()
            return [await one.rest(), await other.rest()]

    for answer in serve(scenario):
        assert answer.startswith(b"HTTP/1.1 200")
