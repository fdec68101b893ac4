"""Two ends over real TLS on loopback sockets: who is let in, who is refused and hears why, and what happens to frames."""

import asyncio
import datetime as dt
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from conclave.cluster import transport
from conclave.cluster.certificates import (
    client_context,
    new_authority,
    new_private_key,
    new_request,
    server_context,
    sign_request,
)
from conclave.cluster.frames import CONTROL_BYTES_MAX, Answer, Frame, Lane, Outcome, Refusal, Refused
from conclave.cluster.transport import Admittance, Local, PeerAddress, Reply, TlsTransport, listen

NOW = dt.datetime.now(dt.UTC)
WAIT_SECONDS = 10.0
AUTHORITIES = {name: new_authority(name, NOW) for name in ("c", "other")}


class End:
    """One node's transport, and all it has heard."""

    def __init__(
        self,
        raft_id: int,
        *,
        cluster_id: str = "c",
        authority: str = "c",
        named: int | None = None,
        port: int = 0,
        jitter: float = 0.0,
    ) -> None:
        authority_pem, authority_key_pem = AUTHORITIES[authority]
        key = new_private_key()
        certificate = sign_request(
            new_request(key, "n"),
            cluster_id=cluster_id,
            raft_id=raft_id if named is None else named,
            node_id="n",
            authority_pem=authority_pem,
            authority_key_pem=authority_key_pem,
            now=NOW,
        )
        pems = {"certificate_pem": certificate, "private_key_pem": key, "authority_pem": authority_pem}
        self.raft_id, self.incarnation = raft_id, bytes([raft_id]) * 16
        listener = listen(("127.0.0.1", port))
        self.port: int = listener.getsockname()[1]
        self.transport = TlsTransport(
            Local(cluster_id, raft_id, self.incarnation),
            listener,
            server=server_context(**pems),
            client=client_context(**pems),
            random=lambda: jitter,
        )
        self.removed: set[int] = set()
        self.frames: list[tuple[int, Frame]] = []
        self.connected: list[tuple[int, Lane]] = []
        self.disconnected: list[tuple[int, Lane]] = []
        self.refusals: list[tuple[int, Refusal]] = []
        self.change = asyncio.Event()

    def address(self) -> PeerAddress:
        return PeerAddress("127.0.0.1", self.port, self.incarnation)

    def dial(self, raft_id: int, address: PeerAddress) -> None:
        self.transport.set_peers({raft_id: address})

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while not condition():
                self.change.clear()
                await self.change.wait()

    def admit(self, raft_id: int, incarnation: bytes) -> Admittance:
        del incarnation
        return Admittance(Refusal.REMOVED, "removed") if raft_id in self.removed else Admittance()

    def frame_received(self, peer: int, frame: Frame, reply: Reply) -> None:
        self.frames.append((peer, frame))
        if isinstance(frame, Answer) and frame.request_id == 1:
            reply(Answer(2, Outcome.ANSWERED, b"reply"))
        self.change.set()

    def peer_connected(self, peer: int, lane: Lane) -> None:
        self.connected.append((peer, lane))
        self.change.set()

    def peer_disconnected(self, peer: int, lane: Lane) -> None:
        self.disconnected.append((peer, lane))
        self.change.set()

    def peer_refused(self, peer: int, refusal: Refusal, text: str) -> None:
        del text
        self.refusals.append((peer, refusal))
        self.change.set()


def play(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


async def started(*ends: End) -> None:
    for end in ends:
        await end.transport.start(end)


async def closed(*ends: End) -> None:
    for end in ends:
        await end.transport.close()


def test_frames_go_both_ways_on_both_lanes() -> None:
    async def scenario() -> None:
        one, two = End(1), End(2)
        await started(one, two)
        one.dial(2, two.address())
        await one.until(lambda: len(one.connected) == 2)

        assert one.transport.send(2, Lane.BULK, Answer(1, Outcome.ANSWERED, bytes(1_000_000)))
        await one.until(lambda: bool(one.frames))

        assert two.frames == [(1, Answer(1, Outcome.ANSWERED, bytes(1_000_000)))]
        assert one.frames == [(2, Answer(2, Outcome.ANSWERED, b"reply"))]
        await closed(one, two)

    play(scenario())


def test_what_one_turn_sends_on_a_connection_is_written_at_once_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        one, two = End(1), End(2)
        await started(one, two)
        one.dial(2, two.address())
        await one.until(lambda: (2, Lane.BULK) in one.connected)
        connection = one.transport._open[2, Lane.BULK]
        assert connection.transport is not None
        write, written = connection.transport.write, list[bytes]()

        def watch(data: Any) -> None:
            written.append(data)
            write(data)

        monkeypatch.setattr(connection.transport, "write", watch)
        frames = [Answer(number, Outcome.ANSWERED, b"x") for number in (5, 6, 7)]
        assert all(one.transport.send(2, Lane.BULK, frame) for frame in frames)
        assert written == []

        await two.until(lambda: len(two.frames) >= 3)

        assert [frame for _, frame in two.frames] == frames
        assert len(written) == 1
        await closed(one, two)

    play(scenario())


def test_nothing_is_sent_without_a_connection() -> None:
    async def scenario() -> None:
        one = End(1)
        await started(one)

        assert not one.transport.send(2, Lane.CONTROL, Answer(1, Outcome.ANSWERED))
        assert not one.transport.is_connected(2, Lane.CONTROL)
        await closed(one)

    play(scenario())


def test_a_removed_peer_hears_that_it_is_one() -> None:
    async def scenario() -> None:
        one, two = End(1), End(2)
        two.removed.add(1)
        await started(one, two)

        one.dial(2, two.address())
        await one.until(lambda: bool(one.refusals))

        assert (one.refusals[0], one.connected) == ((2, Refusal.REMOVED), [])
        await closed(one, two)

    play(scenario())


def test_a_peer_that_is_removed_while_connected_hears_it() -> None:
    async def scenario() -> None:
        one, two = End(1), End(2)
        await started(one, two)
        one.dial(2, two.address())
        await one.until(lambda: len(one.connected) == 2)

        two.removed.add(1)
        two.transport.refuse(1, Refusal.REMOVED, "removed")
        await one.until(lambda: len(one.refusals) >= 2 and len(one.disconnected) >= 2)

        assert not one.transport.is_connected(2, Lane.CONTROL)
        await closed(one, two)

    play(scenario())


@pytest.mark.parametrize(
    "stranger",
    [
        lambda: End(2, cluster_id="other", authority="other"),  # trusts and is trusted by nobody here
        lambda: End(2, cluster_id="other"),  # a certificate of ours that names another cluster
        lambda: End(3),  # another member listens at this address
        lambda: End(2, named=3),  # its certificate names another member than it says it is
    ],
)
def test_somebody_else_at_a_peer_s_address_is_no_peer(stranger: Callable[[], End]) -> None:
    async def scenario() -> None:
        one, other, peer = End(1), stranger(), End(4)
        await started(one, other, peer)

        one.transport.set_peers({2: PeerAddress("127.0.0.1", other.port, bytes([2]) * 16), 4: peer.address()})
        await one.until(lambda: len(one.connected) == 2)

        assert {raft_id for raft_id, _ in one.connected} == {4}
        assert not other.frames
        await closed(one, other, peer)

    play(scenario())


def test_a_peer_with_another_data_directory_is_no_peer() -> None:
    async def scenario() -> None:
        one, two = End(1), End(2)
        await started(one, two)

        one.dial(2, PeerAddress("127.0.0.1", two.port, b"x" * 16))
        await two.until(lambda: bool(two.frames))

        assert isinstance(two.frames[0][1], Refused)
        assert one.connected == []
        await closed(one, two)

    play(scenario())


def test_a_frame_too_long_for_its_lane_ends_the_connection() -> None:
    async def scenario() -> None:
        one, two = End(1), End(2)
        await started(one, two)
        one.dial(2, two.address())
        await one.until(lambda: len(one.connected) == 2)

        one.transport.send(2, Lane.CONTROL, Answer(5, Outcome.ANSWERED, bytes(CONTROL_BYTES_MAX + 1)))
        await one.until(lambda: (2, Lane.CONTROL) in one.disconnected)

        assert (two.frames, one.refusals) == ([], [(2, Refusal.MALFORMED)])
        await closed(one, two)

    play(scenario())


def test_a_peer_that_comes_back_is_connected_again() -> None:
    async def scenario() -> None:
        one, two = End(1), End(2)
        await started(one, two)
        one.dial(2, two.address())
        await one.until(lambda: len(one.connected) == 2)

        await two.transport.close()
        await one.until(lambda: len(one.disconnected) >= 2)
        again = End(2, port=two.port)
        await again.transport.start(again)
        await one.until(lambda: len(one.connected) == 4)

        assert one.transport.send(2, Lane.CONTROL, Answer(1, Outcome.ANSWERED))
        await closed(one, again)

    play(scenario())


def test_a_name_that_can_be_none_ends_no_dialer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        loop, asked = asyncio.get_running_loop(), []
        real = loop.create_connection

        async def create_connection(factory: Any, host: str, port: int, **more: Any) -> Any:
            asked.append(host)
            return await real(factory, "x" * 70 if len(asked) <= len(Lane) else host, port, **more)

        monkeypatch.setattr(loop, "create_connection", create_connection)
        one, two = End(1), End(2)
        await started(one, two)

        one.dial(2, two.address())

        await one.until(lambda: len(one.connected) == 2)
        assert len(asked) == 2 * len(Lane)
        await closed(one, two)

    play(scenario())


def test_a_peer_that_does_not_greet_back_is_dialed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    hellos: list[Frame] = []
    monkeypatch.setattr(transport, "HANDSHAKE_SECONDS_MAX", 0.5)

    async def scenario() -> None:
        one, two = End(1), End(2)
        await started(one, two)

        def hear(self: transport._Inbound, frame: Frame) -> None:
            self.is_open = True  # this side is content
            hellos.append(frame)
            one.change.set()

        monkeypatch.setattr(transport._Inbound, "frame", hear)
        one.dial(2, two.address())

        await one.until(lambda: len(hellos) > len(Lane))
        assert not one.connected
        await closed(one, two)

    play(scenario())


def test_an_address_that_swallows_everything_is_dialed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "HANDSHAKE_SECONDS_MAX", 0.1)

    async def scenario() -> None:
        one, two = End(1), End(2)
        await started(one, two)
        loop = asyncio.get_running_loop()
        connect = loop.create_connection
        swallowed: list[Any] = []

        async def swallow_first(*arguments: Any, **options: Any) -> Any:
            if len(swallowed) < len(Lane):
                swallowed.append(arguments)
                await asyncio.Event().wait()
            monkeypatch.setattr(transport, "HANDSHAKE_SECONDS_MAX", 5.0)
            return await connect(*arguments, **options)

        monkeypatch.setattr(loop, "create_connection", swallow_first)
        one.dial(2, two.address())

        await one.until(lambda: len(one.connected) == len(Lane))
        await closed(one, two)

    play(scenario())


def test_what_a_peer_has_dialed_before_is_closed_when_it_dials_again() -> None:
    async def scenario() -> None:
        ended, again, two = End(1), End(1), End(2)
        await started(ended, again, two)
        ended.dial(2, two.address())
        await ended.until(lambda: len(ended.connected) == 2)

        again.dial(2, two.address())
        await again.until(lambda: len(again.connected) == 2)

        await ended.until(lambda: set(ended.disconnected) == {(2, Lane.CONTROL), (2, Lane.BULK)})
        await closed(ended, again, two)

    play(scenario())


def test_a_peer_that_dials_is_dialed_back_at_once() -> None:
    async def scenario() -> None:
        one, gone = End(1, jitter=1e6), End(2)
        await started(one, gone)
        await closed(gone)
        one.dial(2, gone.address())
        await one.until(lambda: len(one.disconnected) == len(Lane))  # nobody is there, and it would wait for hours

        two = End(2, port=gone.port)
        await started(two)
        two.dial(1, one.address())
        await one.until(lambda: len(one.connected) == len(Lane))

        await closed(one, two)

    play(scenario())


@pytest.mark.parametrize("turns", range(5))
def test_a_dialer_ends_even_when_its_peer_has_just_come(turns: int) -> None:
    async def scenario() -> None:
        one, gone = End(1, jitter=1e6), End(2)
        await started(one, gone)
        await closed(gone)
        one.dial(2, gone.address())
        await one.until(lambda: len(one.disconnected) == len(Lane))

        one.transport.is_there(2)
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(WAIT_SECONDS):
            await closed(one)

    play(scenario())


def test_no_connection_outlives_its_transport() -> None:
    async def scenario() -> None:
        one, two = End(1), End(2)
        await started(one, two)
        one.dial(2, two.address())
        two.dial(1, one.address())
        await one.until(lambda: len(one.connected) == 2)
        await two.until(lambda: len(two.connected) == 2)
        connections = list(one.transport.connections)

        await one.transport.close()

        assert len(connections) == 4
        assert [connection.transport for connection in connections] == [None] * 4
        await closed(two)

    play(scenario())


def test_who_is_still_at_the_handshake_is_cut_off_when_the_transport_closes() -> None:
    async def scenario() -> None:
        two = End(2)
        await started(two)
        reader, writer = await asyncio.open_connection("127.0.0.1", two.port)
        while not two.transport._greeting:  # noqa: ASYNC110  (it is not told when it begins)
            await asyncio.sleep(0)

        await two.transport.close()

        assert await asyncio.wait_for(reader.read(), WAIT_SECONDS) == b""
        assert not two.transport._greeting
        writer.close()

    play(scenario())


def test_a_client_without_a_certificate_gets_nowhere() -> None:
    async def scenario() -> None:
        two = End(2)
        await started(two)

        reader, writer = await asyncio.open_connection("127.0.0.1", two.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n" * 10)
        answer = b""
        with suppress(ConnectionError):
            answer = await asyncio.wait_for(reader.read(), WAIT_SECONDS)
        writer.close()

        assert (b"HTTP" in answer, two.frames, two.transport.inbound) == (False, [], set())
        await closed(two)

    play(scenario())
