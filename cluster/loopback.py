"""A transport within one process: for tests, measurements, and nodes that share an event loop.

Frames are encoded and decoded as on the wire, so what passes here passes there. Links can be cut, one way or both, and
a node can be taken off the network and put back.
"""

import asyncio
from collections.abc import Mapping

from conclave.cluster.frames import BULK_BYTES_MAX, Decoder, Frame, Lane, Refusal, encode
from conclave.cluster.transport import Local, PeerAddress, Receiver


class LoopbackNetwork:
    """What connects the transports of one process.

    Args:
        latency_seconds: how long a frame travels.
    """

    def __init__(self, latency_seconds: float = 0.0) -> None:
        self.latency_seconds = latency_seconds
        self.nodes: dict[int, LoopbackTransport] = {}
        self._cut: set[tuple[int, int]] = set()

    def cut(self, source: int, to: int) -> None:
        """Lose everything from one node to another, silently, as a firewall does."""
        self._cut.add((source, to))

    def isolate(self, raft_id: int) -> None:
        """Cut a node off in both directions."""
        for other in self.nodes:
            if other != raft_id:
                self.cut(raft_id, other)
                self.cut(other, raft_id)

    def heal(self) -> None:
        """Undo every cut."""
        self._cut.clear()

    def is_cut(self, source: int, to: int) -> bool:
        """Tell whether frames get lost on this way."""
        return (source, to) in self._cut

    def attach(self, transport: "LoopbackTransport") -> None:
        """Connect a node to all who want it as their peer, and it to them."""
        self.nodes[transport.local.raft_id] = transport
        for other in self.nodes.values():
            other.connect()

    def detach(self, transport: "LoopbackTransport") -> None:
        """Break all connections of a node, as the end of its process does."""
        if self.nodes.get(transport.local.raft_id) is transport:
            del self.nodes[transport.local.raft_id]
            for other in list(self.nodes.values()):
                other.disconnect(transport.local.raft_id)


class LoopbackTransport:
    """A `Transport` on a `LoopbackNetwork`."""

    def __init__(self, local: Local, network: LoopbackNetwork) -> None:
        self.local = local
        self.receiver: Receiver | None = None
        self._network = network
        self._peers: dict[int, PeerAddress] = {}
        self._connected: set[int] = set()

    async def start(self, receiver: Receiver) -> None:
        """See `Transport`."""
        self.receiver = receiver
        self._network.attach(self)

    def set_peers(self, peers: Mapping[int, PeerAddress]) -> None:
        """See `Transport`."""
        for gone in self._connected - set(peers):
            self.disconnect(gone)
        self._peers = dict(peers)
        self.connect()

    def send(self, peer: int, lane: Lane, frame: Frame) -> bool:
        """See `Transport`."""
        del lane
        if peer not in self._connected:
            return False
        self.carry(peer, frame)
        return True

    def is_connected(self, peer: int, lane: Lane) -> bool:
        """See `Transport`."""
        del lane
        return peer in self._connected

    def refuse(self, peer: int, refusal: Refusal, text: str) -> None:
        """See `Transport`."""
        other = self._network.nodes.get(peer)
        if other is not None and other.receiver is not None and not self._network.is_cut(self.local.raft_id, peer):
            asyncio.get_running_loop().call_soon(other.hear_refusal, self.local.raft_id, refusal, text)

    def renew(self, *, certificate_pem: bytes, private_key_pem: bytes, authority_pem: bytes) -> None:
        """See `Transport`. Nobody asks for a certificate here."""

    async def close(self) -> None:
        """See `Transport`."""
        self._network.detach(self)
        self._connected.clear()
        self.receiver = None

    # -- what the network and the other side call --

    def connect(self) -> None:
        """Connect to all wanted peers that are there and take this node."""
        for peer, address in self._peers.items():
            other = self._network.nodes.get(peer)
            if peer in self._connected or other is None or other.receiver is None or self.receiver is None:
                continue
            if other.local.incarnation != address.incarnation or self._network.is_cut(self.local.raft_id, peer):
                continue
            admittance = other.receiver.admit(self.local.raft_id, self.local.incarnation)
            if admittance.refusal is not None:
                asyncio.get_running_loop().call_soon(self.hear_refusal, peer, admittance.refusal, admittance.text)
                continue
            self._connected.add(peer)
            for lane in Lane:
                self.receiver.peer_connected(peer, lane)

    def disconnect(self, peer: int) -> None:
        """Break the connection to a peer."""
        if peer in self._connected:
            self._connected.remove(peer)
            for lane in Lane:
                if self.receiver is not None:
                    self.receiver.peer_disconnected(peer, lane)

    def carry(self, to: int, frame: Frame) -> bool:
        """Put a frame on its way; False if nobody is there any more. What a cut swallows looks sent."""
        if to not in self._network.nodes:
            return False
        if not self._network.is_cut(self.local.raft_id, to):
            loop = asyncio.get_running_loop()
            loop.call_later(self._network.latency_seconds, self._deliver, to, encode(frame))
        return True

    def hear_refusal(self, peer: int, refusal: Refusal, text: str) -> None:
        """Pass a refusal on."""
        if self.receiver is not None:
            self.receiver.peer_refused(peer, refusal, text)

    def _deliver(self, to: int, data: bytes) -> None:
        other = self._network.nodes.get(to)
        if other is None or other.receiver is None:
            return
        decoder = Decoder(BULK_BYTES_MAX)
        decoder.feed(data)
        frame = decoder.next()
        assert frame is not None, "a frame arrives whole"
        other.receiver.frame_received(self.local.raft_id, frame, lambda answer: other.carry(self.local.raft_id, answer))
