"""Connections as TCP makes them: nothing is lost singly or overtakes within one, but they hang, break and come back.

Each node dials each peer once a lane; replies come back on the connection of their question. What is sent while a way is
cut waits; if it waits too long the connection breaks, as by TCP_USER_TIMEOUT, and the dialer tries again. The end of a
process breaks its connections at once; the end of a machine does not say a word.

Frames are encoded and decoded as on the wire. The rules of connecting are those of `cluster/transport.py`.
"""

import asyncio
import contextlib
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from random import Random
from typing import Final

from conclave.cluster.frames import BULK_BYTES_MAX, Answer, Decoder, Forward, Frame, Lane, Refusal, encode
from conclave.cluster.transport import HANDSHAKE_SECONDS_MAX, Local, PeerAddress, Receiver
from tests.simulator.nodes.faults import Faults
from tests.simulator.nodes.loop import Process, VirtualLoop

HANG_SECONDS_MAX: Final = 2.0
"""As TCP_USER_TIMEOUT_MILLISECONDS."""
RETRANSMIT_SECONDS_MAX: Final = 0.3
"""How long after a way is open again what was held up there arrives, at most."""
RECONNECT_SECONDS_MIN: Final = 0.02
RECONNECT_SECONDS_MAX: Final = 1.0
BUFFERED_FRAMES_MAX: Final = 2000

Note = Callable[[str, str], None]


class Network:
    """What connects the machines: ways between names, which can be cut, one direction at a time.

    Args:
        loop: time.
        random: decides how long everything takes.
        faults: what may go wrong.
        note: is told what happens.
    """

    def __init__(self, loop: VirtualLoop, random: Random, faults: Faults, note: Note) -> None:
        self.loop = loop
        self.random = random
        self.faults = faults
        self.note = note
        self.listening: dict[str, SimulatedTransport] = {}
        self.slow: dict[tuple[str, str], float] = {}
        self.names: dict[str, str] = {}  # of machines, by the addresses of their nodes
        self.off: set[str] = set()
        self.connections: list[_Connection] = []
        self._cut: set[tuple[str, str]] = set()

    def cut(self, source: str, to: str) -> None:
        """Let nothing pass from one machine to another."""
        self._cut.add((source, to))

    def mend(self, source: str, to: str) -> None:
        """Let everything pass again."""
        self._cut.discard((source, to))
        self.slow.pop((source, to), None)

    def heal(self) -> None:
        """Mend every way."""
        self._cut.clear()
        self.slow.clear()
        self.faults = Faults()

    def is_cut(self, source: str, to: str) -> bool:
        """Tell whether nothing passes."""
        return (source, to) in self._cut or source in self.off or to in self.off

    def break_between(self, one: str, other: str) -> None:
        """Break every connection between two machines."""
        for connection in [c for c in self.connections if {c.dialer.name, c.acceptor.name} == {one, other}]:
            connection.close()

    def delay_seconds(self, source: str, to: str) -> float:
        """Return how long the next frame travels."""
        faults, random = self.faults, self.random
        seconds = random.uniform(0.0001, faults.latency_seconds_max)
        if random.random() < faults.heavy_delay:
            seconds += random.uniform(0.0, 0.5)
        return seconds + self.slow.get((source, to), 0.0)


class _Way:
    """One direction of a connection: frames arrive in their order, or never."""

    def __init__(self, connection: "_Connection", source: "SimulatedTransport", to: "SimulatedTransport") -> None:
        self._connection = connection
        self._source = source
        self._to = to
        self._queue: deque[tuple[float, Callable[[], None]]] = deque()
        self._arrives_at = 0.0
        self._stalled_since: float | None = None

    def send(self, deliver: Callable[[], None]) -> bool:
        """Put something on its way; False if the buffer is full."""
        network = self._source.network
        if len(self._queue) >= BUFFERED_FRAMES_MAX:
            return False
        now = network.loop.world_time()
        delay = network.delay_seconds(self._source.name, self._to.name)
        self._arrives_at = max(self._arrives_at, now + delay)
        self._queue.append((self._arrives_at, deliver))
        if len(self._queue) == 1:
            network.loop.in_world(self._arrives_at - now, self._pump)
        return True

    def _pump(self) -> None:
        network = self._source.network
        if self._connection.is_closed:
            return
        now = network.loop.world_time()
        if network.is_cut(self._source.name, self._to.name):
            if self._stalled_since is None:
                self._stalled_since = now
            if now - self._stalled_since > HANG_SECONDS_MAX:
                self._connection.close()
            else:
                network.loop.in_world(network.random.uniform(0.02, RETRANSMIT_SECONDS_MAX), self._pump)
            return
        self._stalled_since = None
        if self._to.process.is_dead:
            self._connection.close()
            return
        while self._queue and self._queue[0][0] <= now + 1e-9:
            self._to.process.post(self._queue.popleft()[1])
        if self._queue:
            network.loop.in_world(self._queue[0][0] - now, self._pump)


class _Connection:
    """One connection, dialed by one side; it is open for a side once that has heard of it."""

    def __init__(self, dialer: "SimulatedTransport", acceptor: "SimulatedTransport", lane: Lane) -> None:
        self.dialer = dialer
        self.acceptor = acceptor
        self.lane = lane
        self.is_open = False  # at some time, for its dialer
        self.is_closed = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.forth = _Way(self, dialer, acceptor)
        self.back = _Way(self, acceptor, dialer)
        dialer.network.connections.append(self)

    async def was_open_until_its_end(self) -> bool:
        """Wait for its end; one that is not greeted in time ends."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HANDSHAKE_SECONDS_MAX):
                await asyncio.shield(self.closed)
        if not self.is_open:
            self.close()
        await asyncio.shield(self.closed)
        return self.is_open

    def close(self) -> None:
        """End it for both sides, whoever ends it."""
        if self.is_closed:
            return
        self.is_closed = True
        self.dialer.network.connections.remove(self)
        self.dialer.process.post(self._dialer_hears)

    def _dialer_hears(self) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    def greet(self) -> None:
        """Say who dials."""
        self.forth.send(self._accept)

    def _accept(self) -> None:
        receiver = self.acceptor.receiver
        if self.is_closed or receiver is None:
            self.close()
            return
        local = self.dialer.local
        admittance = receiver.admit(local.raft_id, local.incarnation)
        if admittance.refusal is not None:
            self.refuse(admittance.refusal, admittance.text)
        else:
            self._close_earlier()
            self.acceptor.is_there(local.raft_id)
            self.back.send(lambda: self.dialer.opened(self))

    def _close_earlier(self) -> None:
        mine = (self.dialer.local.raft_id, self.acceptor, self.lane)
        for other in list(self.dialer.network.connections):
            if other is not self and (other.dialer.local.raft_id, other.acceptor, other.lane) == mine:
                other.close()

    def refuse(self, refusal: Refusal, text: str) -> None:
        """Tell the dialer that it is not talked to, and close."""
        self.back.send(lambda: self._refused(refusal, text))

    def _refused(self, refusal: Refusal, text: str) -> None:
        if not self.is_closed and self.dialer.receiver is not None:
            self.dialer.receiver.peer_refused(self.acceptor.local.raft_id, refusal, text)
        self.close()

    def send_forth(self, frame: Frame) -> bool:
        """Send from the dialer."""
        return self._send(self.forth, self.dialer, self.acceptor, frame)

    def send_back(self, frame: Frame) -> bool:
        """Send a reply."""
        return self._send(self.back, self.acceptor, self.dialer, frame)

    def _send(self, way: _Way, source: "SimulatedTransport", to: "SimulatedTransport", frame: Frame) -> bool:
        if self.is_closed or source.process.is_dead:
            return False
        data = encode(frame)
        return way.send(lambda: self._deliver(data, source, to))

    def _deliver(self, data: bytes, source: "SimulatedTransport", to: "SimulatedTransport") -> None:
        if self.is_closed or to.receiver is None:
            return
        decoder = Decoder(BULK_BYTES_MAX)
        decoder.feed(data)
        frame = decoder.next()
        assert frame is not None, "a frame arrives whole"
        # Certificates are the one thing that no seed decides; they travel in these.
        content = 0 if isinstance(frame, Forward | Answer) else zlib.crc32(data)
        to.network.note(type(frame).__name__, f"{source.name} to {to.name} {content:08x}")
        to.receiver.frame_received(
            source.local.raft_id, frame, self.send_back if to is self.acceptor else self.send_forth
        )


class SimulatedTransport:
    """A `Transport` between simulated machines.

    Args:
        local: who this node is.
        name: of its machine.
        address: where it listens.
        process: it belongs to.
        network: connects it.
    """

    def __init__(self, local: Local, name: str, address: str, process: Process, network: Network) -> None:
        self.local = local
        self.name = name
        self.process = process
        self.network = network
        self.receiver: Receiver | None = None
        self._address = address
        self._peers: dict[int, PeerAddress] = {}
        self._dialers: dict[tuple[int, Lane], asyncio.Task[None]] = {}
        self._awake: dict[tuple[int, Lane], asyncio.Event] = {}
        self._open: dict[tuple[int, Lane], _Connection] = {}

    async def start(self, receiver: Receiver) -> None:
        """See `Transport`."""
        self.receiver = receiver
        self.network.listening[self._address] = self

    def set_peers(self, peers: Mapping[int, PeerAddress]) -> None:
        """See `Transport`."""
        for key in list(self._dialers):
            if self._peers.get(key[0]) != peers.get(key[0]):
                self._dialers.pop(key).cancel()
                self._awake.pop(key, None)
        self._peers = dict(peers)
        for peer, address in self._peers.items():
            for lane in Lane:
                if (peer, lane) not in self._dialers:
                    dialing = self._dial(peer, lane, address)
                    self._dialers[peer, lane] = asyncio.get_running_loop().create_task(dialing, name="dial")

    def send(self, peer: int, lane: Lane, frame: Frame) -> bool:
        """See `Transport`."""
        connection = self._open.get((peer, lane))
        return connection is not None and connection.send_forth(frame)

    def is_connected(self, peer: int, lane: Lane) -> bool:
        """See `Transport`."""
        return (peer, lane) in self._open

    def refuse(self, peer: int, refusal: Refusal, text: str) -> None:
        """See `Transport`."""
        for connection in self.network.connections:
            if connection.acceptor is self and connection.dialer.local.raft_id == peer:
                connection.refuse(refusal, text)

    def renew(self, *, certificate_pem: bytes, private_key_pem: bytes, authority_pem: bytes) -> None:
        """See `Transport`. Nobody asks for a certificate here."""

    async def close(self) -> None:
        """See `Transport`."""
        dialers = list(self._dialers.values())
        self._dialers.clear()
        for task in dialers:
            task.cancel()
        await asyncio.gather(*dialers, return_exceptions=True)
        self.end()

    def end(self) -> None:
        """Let go of everything, as the end of a process does."""
        self.receiver = None
        if self.network.listening.get(self._address) is self:
            del self.network.listening[self._address]
        for connection in list(self.network.connections):
            if self in (connection.dialer, connection.acceptor) and not self.network.is_cut(
                connection.dialer.name, connection.acceptor.name
            ):
                connection.close()

    def is_there(self, peer: int) -> None:
        """Hear that a peer has dialed this node."""
        for lane in Lane:
            if (peer, lane) in self._awake:
                self._awake[peer, lane].set()

    def opened(self, connection: _Connection) -> None:
        """Hear that a peer has accepted a connection."""
        peer = connection.acceptor.local.raft_id
        if connection.is_closed or self.receiver is None or (peer, connection.lane) not in self._dialers:
            connection.close()
            return
        connection.is_open = True
        self._open[peer, connection.lane] = connection
        self.receiver.peer_connected(peer, connection.lane)

    async def _dial(self, peer: int, lane: Lane, address: PeerAddress) -> None:
        """Keep one connection to a peer, for as long as this task lives."""
        network, where = self.network, f"{address.host}:{address.port}"
        awake = self._awake[peer, lane] = asyncio.Event()
        pause = RECONNECT_SECONDS_MIN
        while True:
            was_open = False
            connection: _Connection | None = None
            try:
                acceptor = await self._reach(where)
                if acceptor is None:
                    if self.receiver is not None:
                        self.receiver.peer_disconnected(peer, lane)
                elif acceptor.local.raft_id == peer and acceptor.local.incarnation == address.incarnation:
                    connection = _Connection(self, acceptor, lane)
                    connection.greet()
                    was_open = await connection.was_open_until_its_end()
            finally:
                self._forget(connection, peer, lane)
            pause = RECONNECT_SECONDS_MIN if was_open else min(RECONNECT_SECONDS_MAX, 2 * pause)
            awake.clear()
            await asyncio.sleep(RECONNECT_SECONDS_MIN)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause * network.random.random()):
                    await awake.wait()

    async def _reach(self, where: str) -> "SimulatedTransport | None":
        """Wait until somebody answers at an address; return None if the machine is there, but no process listens."""
        network = self.network
        to = network.names[where]
        while network.is_cut(self.name, to) or network.is_cut(to, self.name):  # noqa: ASYNC110  # as SYNs do
            await asyncio.sleep(network.random.uniform(0.1, RECONNECT_SECONDS_MAX))
        await asyncio.sleep(network.delay_seconds(self.name, to))
        return network.listening.get(where)

    def _forget(self, connection: _Connection | None, peer: int, lane: Lane) -> None:
        if connection is None:
            return
        connection.close()
        if self._open.get((peer, lane)) is connection:
            del self._open[peer, lane]
            if self.receiver is not None:
                self.receiver.peer_disconnected(peer, lane)
