"""Frames from node to node over mutual TLS 1.3: who is connected to whom, and what happens when that breaks.

Each node dials every peer twice, for the two lanes: *control* for what must never wait (heartbeats, votes,
acknowledgements), *bulk* for what is large (entries, forwarded requests, snapshot chunks). A node sends on connections
that it dialed itself; only replies go back on the connection on which their question came. So no order holds between
lanes, and none is needed: Raft tolerates loss and reordering.

Rules enforced here:

* Both sides must have certificates of this cluster's authority; each certificate must name the node that speaks.
* A connection counts only after HELLO and WELCOME agreed about cluster, both nodes and their incarnations. A refusal is a
  typed frame, so that a removed node learns what it is; then the connection is closed.
* Of two connections that a peer has dialed for a lane the earlier is closed: what a process has left behind in its socket
  when it ended must not be heard behind what the next one says.
* What cannot be written is dropped and `send` returns False: buffers are bounded. Whoever sent it decides what that means.
* What is sent on one connection in one turn of the event loop goes out together: one TLS record, one system call.
* Reconnecting is tried after 20 ms, up to every second, with jitter.

`Transport` is the seam: `TlsTransport` here, `loopback.LoopbackTransport` in one process for tests and measurements.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol, cast

from msgspec import Struct

from conclave.cluster.certificates import load_into, peer_identity
from conclave.cluster.frames import (
    BULK_BYTES_MAX,
    CONTROL_BYTES_MAX,
    GREETING_BYTES_MAX,
    Decoder,
    Frame,
    FrameError,
    Hello,
    Lane,
    Refusal,
    Refused,
    Welcome,
    encode,
)

log = logging.getLogger(__name__)

CONTROL_BUFFER_BYTES_MAX: Final = 1024 * 1024
BULK_BUFFER_BYTES_MAX: Final = 64 * 1024 * 1024
"""More than one forwarded request of the largest size; entries are held back much earlier, by Raft's own window."""
RECONNECT_SECONDS_MIN: Final = 0.02
RECONNECT_SECONDS_MAX: Final = 1.0
HANDSHAKE_SECONDS_MAX: Final = 5.0
SHUTDOWN_SECONDS_MAX: Final = 1.0
"""How long the end of a connection may take in good order; then it is cut."""
INBOUND_CONNECTIONS_MAX: Final = 256
"""Connections accepted at once: an unauthenticated flood must not eat all descriptors."""
TCP_USER_TIMEOUT_MILLISECONDS: Final = 2000
"""Unacknowledged data for this long breaks a connection, so that a vanished machine is noticed."""

Reply = Callable[[Frame], bool]
"""Sends a frame back on the connection on which one came; False if that is gone."""


class Local(Struct, frozen=True):
    """Who this node is, on the wire."""

    cluster_id: str
    raft_id: int
    incarnation: bytes


class PeerAddress(Struct, frozen=True):
    """Where a peer listens, and which data directory is expected there."""

    host: str
    port: int
    incarnation: bytes


class Admittance(Struct, frozen=True):
    """What the node says about somebody who connects: welcome, or why not."""

    refusal: Refusal | None = None
    text: str = ""


class Receiver(Protocol):
    """Who hears what the transport hears. Every call comes on the event loop."""

    def admit(self, raft_id: int, incarnation: bytes) -> Admittance:
        """Judge an authenticated peer that has connected."""

    def frame_received(self, peer: int, frame: Frame, reply: Reply) -> None:
        """Take a frame from an admitted peer; `reply` sends one back on the same connection while that lasts."""

    def peer_connected(self, peer: int, lane: Lane) -> None:
        """Hear that this node can now send to a peer on a lane."""

    def peer_disconnected(self, peer: int, lane: Lane) -> None:
        """Hear that it cannot any more, or that the peer's process refused the connection."""

    def peer_refused(self, peer: int, refusal: Refusal, text: str) -> None:
        """Hear that a peer (authenticated as such) does not talk to this node."""


class Transport(Protocol):
    """The way to the peers."""

    async def start(self, receiver: Receiver) -> None:
        """Begin to accept and to dial."""

    def set_peers(self, peers: Mapping[int, PeerAddress]) -> None:
        """Say whom to be connected to, from now on."""

    def send(self, peer: int, lane: Lane, frame: Frame) -> bool:
        """Send a frame; False if it was dropped for want of a connection or of room."""

    def is_connected(self, peer: int, lane: Lane) -> bool:
        """Tell whether frames can be sent to a peer now."""

    def refuse(self, peer: int, refusal: Refusal, text: str) -> None:
        """Tell a peer, as far as it is connected, that it is not talked to any more, and close its connections."""

    def renew(self, *, certificate_pem: bytes, private_key_pem: bytes, authority_pem: bytes) -> None:
        """Use this certificate on every connection that begins from now on."""

    async def close(self) -> None:
        """Close every connection, after what has been written to it is sent as far as it can be."""


# -- one connection --


class _Connection(asyncio.Protocol):
    """What both sides have in common: frames in, frames out, a bound on what waits."""

    def __init__(self, connections: "set[_Connection]") -> None:
        self.connections = connections  # of this node: those that live
        self.closed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()  # whether it was ever open
        self.transport: asyncio.Transport | None = None
        self.decoder = Decoder(GREETING_BYTES_MAX)
        self.peer = 0
        self.lane = Lane.CONTROL
        self.is_open = False  # greeted both ways
        self.outgoing: list[bytes] = []  # written at the end of this turn of the loop
        self.outgoing_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.connections.add(self)
        configure_socket(self.transport)
        try:
            self.cluster_id, self.peer = peer_identity(self.transport.get_extra_info("ssl_object"))
        except ValueError as error:
            self.refuse(Refusal.MALFORMED, str(error))
            return
        self.greeted()

    def greeted(self) -> None:
        """Hear that the certificates were exchanged."""
        raise NotImplementedError

    def frame(self, frame: Frame) -> None:
        """Take the next frame."""
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        self.decoder.feed(data)
        try:
            while (frame := self.decoder.next()) is not None:
                if self.transport is None or self.transport.is_closing():
                    return
                self.frame(frame)
        except FrameError as error:
            log.warning("closed a connection", extra={"peer": self.peer, "reason": str(error)})
            self.refuse(Refusal.MALFORMED, str(error))

    def open(self, lane: Lane) -> None:
        """Count the connection from now on."""
        self.lane = lane
        self.is_open = True
        self.decoder.limit_bytes = CONTROL_BYTES_MAX if lane is Lane.CONTROL else BULK_BYTES_MAX

    def send(self, frame: Frame) -> bool:
        """Write a frame if there is room for it."""
        if self.transport is None or self.transport.is_closing():
            return False
        limit = CONTROL_BUFFER_BYTES_MAX if self.lane is Lane.CONTROL else BULK_BUFFER_BYTES_MAX
        if self.transport.get_write_buffer_size() + self.outgoing_bytes > limit:
            return False
        if not self.outgoing:
            asyncio.get_running_loop().call_soon(self.flush)
        encoded = encode(frame)
        self.outgoing.append(encoded)
        self.outgoing_bytes += len(encoded)
        return True

    def flush(self) -> None:
        """Write what was sent in this turn."""
        outgoing, self.outgoing, self.outgoing_bytes = self.outgoing, [], 0
        if outgoing and self.transport is not None and not self.transport.is_closing():
            self.transport.write(outgoing[0] if len(outgoing) == 1 else b"".join(outgoing))

    def close(self) -> None:
        """Close, after what has been sent is written."""
        self.flush()
        if self.transport is not None:
            self.transport.close()

    def refuse(self, refusal: Refusal, text: str) -> None:
        """Say why, and close."""
        self.send(Refused(refusal, text))
        self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.connections.discard(self)
        if not self.closed.done():
            self.closed.set_result(self.is_open)
        self.is_open = False
        self.transport = None


def configure_socket(transport: asyncio.Transport) -> None:
    """Send small frames at once, and notice a peer that has vanished."""
    plain = transport.get_extra_info("socket")
    if plain is None or plain.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TCP_USER_TIMEOUT_MILLISECONDS)


class _Inbound(_Connection):
    """A connection that a peer dialed: it speaks, this node only replies."""

    def __init__(self, owner: "TlsTransport") -> None:
        super().__init__(owner.connections)
        self.owner = owner

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if len(self.owner.inbound) >= INBOUND_CONNECTIONS_MAX:
            transport.close()
            return
        self.owner.inbound.add(self)
        super().connection_made(transport)

    def greeted(self) -> None:
        self.deadline = asyncio.get_running_loop().call_later(HANDSHAKE_SECONDS_MAX, self._expire)

    def _expire(self) -> None:
        if not self.is_open:
            self.refuse(Refusal.MALFORMED, "no HELLO in time")

    def frame(self, frame: Frame) -> None:
        if self.is_open:
            self.owner.receiver.frame_received(self.peer, frame, self.send)
            return
        if not isinstance(frame, Hello):
            raise FrameError("the first frame must be HELLO")
        admittance = self.judge(frame)
        if admittance.refusal is not None:
            log.info("refused a peer", extra={"peer": self.peer, "reason": admittance.text})
            self.refuse(admittance.refusal, admittance.text)
            return
        self.deadline.cancel()
        self.owner.close_earlier(self.peer, frame.lane)
        self.open(frame.lane)
        self.owner.is_there(self.peer)
        self.send(Welcome(self.owner.local.raft_id, self.owner.local.incarnation))

    def judge(self, hello: Hello) -> Admittance:
        """Compare what a peer says with what its certificate says and with what this node is."""
        local = self.owner.local
        if hello.cluster_id != local.cluster_id or self.cluster_id != local.cluster_id:
            return Admittance(Refusal.WRONG_CLUSTER, "this node belongs to another cluster")
        if hello.source != self.peer:
            return Admittance(Refusal.WRONG_NODE, "the certificate names another node than the HELLO")
        if hello.to != local.raft_id:
            return Admittance(Refusal.WRONG_NODE, "another node is expected at this address")
        return self.owner.receiver.admit(self.peer, hello.incarnation)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.owner.inbound.discard(self)
        if hasattr(self, "deadline"):
            self.deadline.cancel()


class _Outbound(_Connection):
    """A connection that this node dialed: it sends here, and takes replies."""

    def __init__(self, owner: "TlsTransport", to: int, lane: Lane, incarnation: bytes) -> None:
        super().__init__(owner.connections)
        self.owner = owner
        self.expected = to
        self.lane = lane
        self.incarnation = incarnation

    def greeted(self) -> None:
        local = self.owner.local
        if self.cluster_id != local.cluster_id or self.peer != self.expected:
            log.warning("another node answers at a peer's address", extra={"peer": self.expected})
            self.refuse(Refusal.WRONG_NODE, "another node is expected at this address")
            return
        self.send(Hello(local.cluster_id, local.raft_id, self.expected, self.lane, local.incarnation))
        # A peer that vanishes now leaves nothing unacknowledged here, by which the kernel would notice.
        self.deadline = asyncio.get_running_loop().call_later(HANDSHAKE_SECONDS_MAX, self._expire)

    def _expire(self) -> None:
        if not self.is_open:
            log.info("a peer sent no WELCOME in time", extra={"peer": self.expected})
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if hasattr(self, "deadline"):
            self.deadline.cancel()

    def frame(self, frame: Frame) -> None:
        if isinstance(frame, Refused):
            self.owner.receiver.peer_refused(self.peer, frame.code, frame.text)
            self.close()
        elif self.is_open:
            self.owner.receiver.frame_received(self.peer, frame, self.send)
        elif isinstance(frame, Welcome):
            if frame.source != self.expected or frame.incarnation != self.incarnation:
                raise FrameError("the peer's data directory is not the one that joined")
            self.open(self.lane)
            self.owner.opened(self)
        else:
            raise FrameError("the first frame must be WELCOME")


# -- all connections of one node --


class TlsTransport:
    """A `Transport` over sockets.

    Args:
        local: who this node is.
        listener: a bound, listening socket; closed with the transport.
        server, client: TLS contexts of the two sides.
        random: 0.0 to 1.0, for the jitter of reconnecting.
    """

    def __init__(
        self,
        local: Local,
        listener: socket.socket,
        *,
        server: ssl.SSLContext,
        client: ssl.SSLContext,
        random: Callable[[], float],
    ) -> None:
        self.local = local
        self.inbound: set[_Inbound] = set()
        self.connections: set[_Connection] = set()
        self._listener = listener
        self._server_context = server
        self._client_context = client
        self._random = random
        self._receiver: Receiver | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._greeting: dict[asyncio.Task[None], socket.socket] = {}  # connections that are not encrypted yet
        self._peers: dict[int, PeerAddress] = {}
        self._dialers: dict[tuple[int, Lane], asyncio.Task[None]] = {}
        self._awake: dict[tuple[int, Lane], asyncio.Event] = {}
        self._open: dict[tuple[int, Lane], _Outbound] = {}

    @property
    def receiver(self) -> Receiver:
        """Who hears what comes."""
        assert self._receiver is not None, "start() comes first"
        return self._receiver

    async def start(self, receiver: Receiver) -> None:
        """See `Transport`."""
        self._receiver = receiver
        self._listener.setblocking(False)
        self._accepting = asyncio.get_running_loop().create_task(self._accept(), name="accept")

    def set_peers(self, peers: Mapping[int, PeerAddress]) -> None:
        """See `Transport`."""
        for key in list(self._dialers):
            if self._peers.get(key[0]) != peers.get(key[0]):
                self._dialers.pop(key).cancel()
                self._awake.pop(key, None)
        self._peers = dict(peers)
        loop = asyncio.get_running_loop()
        for peer, address in self._peers.items():
            for lane in Lane:
                if (peer, lane) not in self._dialers:
                    self._dialers[peer, lane] = loop.create_task(self._dial(peer, lane, address), name="dial")

    def send(self, peer: int, lane: Lane, frame: Frame) -> bool:
        """See `Transport`."""
        connection = self._open.get((peer, lane))
        return connection is not None and connection.send(frame)

    def is_connected(self, peer: int, lane: Lane) -> bool:
        """See `Transport`."""
        return (peer, lane) in self._open

    def refuse(self, peer: int, refusal: Refusal, text: str) -> None:
        """See `Transport`."""
        for connection in [connection for connection in self.inbound if connection.peer == peer]:
            connection.refuse(refusal, text)

    def renew(self, *, certificate_pem: bytes, private_key_pem: bytes, authority_pem: bytes) -> None:
        """See `Transport`."""
        for context in (self._server_context, self._client_context):
            load_into(
                context, certificate_pem=certificate_pem, private_key_pem=private_key_pem, authority_pem=authority_pem
            )

    def is_there(self, peer: int) -> None:
        """Hear that a peer has dialed this node: it is there, so the next attempt to dial it need not wait."""
        for lane in Lane:
            if (peer, lane) in self._awake:
                self._awake[peer, lane].set()

    def close_earlier(self, peer: int, lane: Lane) -> None:
        """Close what a peer dialed before it dialed again: what still comes there may be of an earlier life of it."""
        for connection in [c for c in self.inbound if c.is_open and (c.peer, c.lane) == (peer, lane)]:
            connection.close()

    def opened(self, connection: _Outbound) -> None:
        """Hear that a dialed connection is greeted."""
        self._open[connection.expected, connection.lane] = connection
        self.receiver.peer_connected(connection.expected, connection.lane)

    async def close(self) -> None:
        """See `Transport`."""
        dialers = list(self._dialers.values())
        self._dialers.clear()
        for task in dialers:
            task.cancel()
        await asyncio.gather(*dialers, return_exceptions=True)
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
        self._listener.close()
        await self._end_greetings()
        await self._close_connections()

    async def _accept(self) -> None:
        """Take in one connection after the other; none waits for another's handshake."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(self._listener)
            except OSError as error:  # no descriptors left, or the dialer has gone already
                log.warning("cannot take a connection", extra={"reason": str(error)})
                await asyncio.sleep(RECONNECT_SECONDS_MIN)
                continue
            greeting = loop.create_task(self._greet(accepted), name="greet")
            self._greeting[greeting] = accepted
            greeting.add_done_callback(self._greeting.pop)

    async def _greet(self, accepted: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: _Inbound(self),
                accepted,
                ssl=self._server_context,
                ssl_handshake_timeout=HANDSHAKE_SECONDS_MAX,
                ssl_shutdown_timeout=SHUTDOWN_SECONDS_MAX,
            )
        except (OSError, ssl.SSLError) as error:
            log.debug("a connection came to nothing", extra={"reason": str(error)})

    async def _end_greetings(self) -> None:
        """Cut off who is still at the handshake, and wait until that is noticed."""
        for accepted in self._greeting.values():
            with contextlib.suppress(OSError):
                accepted.shutdown(socket.SHUT_RDWR)
        if self._greeting:
            await asyncio.wait(list(self._greeting), timeout=SHUTDOWN_SECONDS_MAX)

    async def _close_connections(self) -> None:
        """Wait for the end of every connection: one that outlives the event loop ends with an error."""
        connections = list(self.connections)
        for connection in connections:
            connection.close()
        if not await _all_closed(connections):
            for connection in connections:
                if connection.transport is not None:
                    connection.transport.abort()
            await _all_closed(connections)

    async def _dial(self, peer: int, lane: Lane, address: PeerAddress) -> None:
        """Keep one connection to a peer, for as long as this task lives."""
        pause = RECONNECT_SECONDS_MIN
        awake = self._awake[peer, lane] = asyncio.Event()
        while True:
            connection: _Outbound | None = None
            was_open = False
            try:
                # The kernel goes on for minutes with an address that swallows everything, at longer and longer intervals.
                async with asyncio.timeout(HANDSHAKE_SECONDS_MAX):
                    _, connection = await asyncio.get_running_loop().create_connection(
                        lambda: _Outbound(self, peer, lane, address.incarnation),
                        address.host,
                        address.port,
                        ssl=self._client_context,
                        ssl_handshake_timeout=HANDSHAKE_SECONDS_MAX,
                        ssl_shutdown_timeout=SHUTDOWN_SECONDS_MAX,
                    )
                was_open = await asyncio.shield(connection.closed)
            except (OSError, ssl.SSLError, asyncio.IncompleteReadError, ValueError) as error:
                # ValueError: of a name that can be none, which is looked up no further.
                log.debug("cannot connect", extra={"peer": peer, "reason": str(error)})
                if isinstance(error, ConnectionRefusedError):
                    self.receiver.peer_disconnected(peer, lane)
            finally:
                self._forget(connection, peer, lane)
            pause = RECONNECT_SECONDS_MIN if was_open else min(RECONNECT_SECONDS_MAX, 2 * pause)
            awake.clear()  # what was heard of the peer before the connection ended says nothing now
            await asyncio.sleep(RECONNECT_SECONDS_MIN)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause * self._random()):
                    await awake.wait()

    def _forget(self, connection: _Outbound | None, peer: int, lane: Lane) -> None:
        if connection is None:
            return
        connection.close()
        if self._open.get((peer, lane)) is connection:
            del self._open[peer, lane]
            self.receiver.peer_disconnected(peer, lane)


async def _all_closed(connections: Iterable[_Connection]) -> bool:
    """Wait until connections are closed, for as long as that may take; tell whether they are."""
    closed = [connection.closed for connection in connections]
    if closed:
        await asyncio.wait(closed, timeout=SHUTDOWN_SECONDS_MAX)
    return all(each.done() for each in closed)


def listen(address: tuple[str, int]) -> socket.socket:
    """Return a socket that listens at an address; port 0 takes a free one.

    Raises:
        OSError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
