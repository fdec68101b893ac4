"""What a node hears from its peers, sorted to whoever it concerns; and what it sends, to whom.

It knows each peer by its member record: where to dial, which data directory is expected, who is told that it has been
removed. Four things follow from the record being behind now and then:

* A peer that the record does not know, but whose certificate says that it was admitted, may connect; of what it says only
  Raft messages are looked at, and chunks of the snapshot that it was asked for: "servers process incoming RPC requests
  without consulting their current configurations" (Ongaro's dissertation, section 4.1), for otherwise a node that was away
  could not vote for one that came meanwhile.
* A peer that says it has another address is dialed there, before the log records it: recording it may take its vote.
  Nothing is risked: whoever answers must have the peer's certificate.
* A peer may also have said where it is over the API, signed (`finding.py`), and be dialed there at once.
* What is for a peer that cannot be dialed (it is not known, or has moved) goes back on the connection that it has dialed.
  So do the questions for its snapshot, which is how a node that was away comes to know it.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from conclave.cluster.asking import Asks
from conclave.cluster.driver import Driver
from conclave.cluster.errors import JoinRefused, StatementRefused
from conclave.cluster.frames import (
    Announce,
    Answer,
    ChunkReply,
    ChunkRequest,
    Forward,
    Frame,
    Lane,
    Messages,
    Refusal,
    Service,
)
from conclave.cluster.join import check_address
from conclave.cluster.membership import MembershipRecord
from conclave.cluster.raft import MessageKind
from conclave.cluster.replica import Standing
from conclave.cluster.roster import Roster
from conclave.cluster.transfer import SnapshotReceiver, SnapshotSender
from conclave.cluster.transport import Admittance, PeerAddress, Reply, Transport

log = logging.getLogger(__name__)

REMOVED_TEXT: Final = "this node has been removed from the cluster"
OLDER_COPY_TEXT: Final = (
    "this node runs on an older copy of its data folder, and what it had acknowledged since is lost to it; "
    "remove it from the cluster, wipe the folder, and let it join again"
)

Handler = Callable[[bytes, str], Awaitable[bytes]]


class Links:
    """The receiving side of one node's transport (`transport.Receiver`).

    Args:
        raft_id: this node.
        transport: the way to the peers; started and closed by its owner.
        roster: who is a member.
        driver: takes Raft messages.
        asks: takes answers, and serves questions.
        sender, receiver: of snapshots.
        handlers: what answers the questions of each service.
        announcement: what this node says about itself.
        clock: seconds, monotone.
    """

    def __init__(
        self,
        raft_id: int,
        *,
        transport: Transport,
        roster: Roster,
        driver: Driver,
        asks: Asks,
        sender: SnapshotSender,
        receiver: SnapshotReceiver,
        handlers: dict[Service, Handler],
        announcement: Callable[[], Announce],
        clock: Callable[[], float],
    ) -> None:
        self._raft_id = raft_id
        self._transport = transport
        self._roster = roster
        self._driver = driver
        self._asks = asks
        self._sender = sender
        self._receiver = receiver
        self._handlers = handlers
        self._announcement = announcement
        self._clock = clock
        self._refused: set[int] = set()
        self._back: dict[int, Reply] = {}
        self._back_to_offer: dict[int, Reply] = {}  # on bulk connections, where alone there is room for chunks

    # -- who belongs --

    def set_members(self, record: MembershipRecord) -> None:
        """Be connected to these members, and tell those that were removed."""
        self._roster.set_record(record)
        self._dial_members()
        for removed in set(record.removed) - self._refused:
            self._refused.add(removed)
            self._transport.refuse(removed, Refusal.REMOVED, REMOVED_TEXT)

    def _dial_members(self) -> None:
        peers: dict[int, PeerAddress] = {}
        for member in self._roster.record.members:
            if member.raft_id == self._raft_id:
                continue
            try:
                host, port = check_address(self._roster.address_of(member))
            except JoinRefused as error:
                log.warning("a member has no usable address", extra={"node_id": member.node_id, "reason": str(error)})
            else:
                peers[member.raft_id] = PeerAddress(host, port, member.incarnation)
        self._transport.set_peers(peers)

    def send(self, peer: int, lane: Lane, frame: Frame) -> bool:
        """Send a frame; False if it was dropped."""
        if self._transport.send(peer, lane, frame):
            return True
        back = self._back.get(peer) if lane is Lane.CONTROL else None
        if back is not None and back(frame):
            return True
        self._back.pop(peer, None)
        return False

    def ask_for_chunk(self, peer: int, question: ChunkRequest) -> bool:
        """Send a question about a snapshot to the peer that has offered it; False if it was dropped."""
        if self._transport.send(peer, Lane.BULK, question):
            return True
        back = self._back_to_offer.get(peer)
        if back is not None and back(question):
            return True
        self._back_to_offer.pop(peer, None)
        return False

    def can_ask_for_chunks(self, peer: int) -> bool:
        """Tell whether there is a way for such questions, as far as this node knows."""
        return self._transport.is_connected(peer, Lane.BULK) or peer in self._back_to_offer

    def announce(self) -> None:
        """Tell every peer about this node."""
        frame = self._announcement()
        self._roster.announced(self._raft_id, frame)
        for member in self._roster.record.members:
            if member.raft_id != self._raft_id:
                self._transport.send(member.raft_id, Lane.CONTROL, frame)

    # -- who was met elsewhere (`finding.py`) --

    def lacks_voters(self) -> bool:
        """Tell whether there is a voter that this node has not dialed, or not in vain."""
        record = self._roster.record
        voters = {*record.conf_state.voters, *record.conf_state.voters_outgoing} - {self._raft_id}
        return not all(self._transport.is_connected(voter, Lane.CONTROL) for voter in voters)

    def check_may_be_dialed(self, peer: int, incarnation: bytes) -> None:
        """See that somebody who was met is a peer of this node.

        Raises:
            StatementRefused: it is none.
        """
        admittance = self.admit(peer, incarnation)
        if admittance.refusal is not None:
            raise StatementRefused(admittance.text)
        if peer == self._raft_id:
            raise StatementRefused("this is the node itself")
        if self._roster.record.member(peer) is None:
            raise StatementRefused("this node does not know that member")

    def is_at(self, peer: int, address: str) -> None:
        """Dial a peer where it says that it is."""
        self._roster.is_at(peer, address)
        self._dial_members()

    def may_be_at(self, peer: int, address: str) -> None:
        """Dial a peer where another one has heard it to be, unless it was heard here."""
        self._roster.may_be_at(peer, address)
        self._dial_members()

    def heard_addresses(self, asker: int) -> tuple[tuple[int, str], ...]:
        """Return where the members are that were heard here, except this node and whoever asks."""
        heard = self._roster.heard_addresses()
        return tuple((raft_id, heard[raft_id]) for raft_id in sorted(heard.keys() - {self._raft_id, asker}))

    # -- transport.Receiver --

    def admit(self, raft_id: int, incarnation: bytes) -> Admittance:
        """See `transport.Receiver`."""
        record = self._roster.record
        if raft_id in record.removed:
            return Admittance(Refusal.REMOVED, REMOVED_TEXT)
        if self._roster.is_older_copy(raft_id):
            return Admittance(Refusal.OLDER_COPY, OLDER_COPY_TEXT)
        member = record.member(raft_id)
        if member is not None and member.incarnation != incarnation:
            return Admittance(Refusal.WRONG_INCARNATION, "the data directory is not the one that joined")
        return Admittance()

    def frame_received(self, peer: int, frame: Frame, reply: Reply) -> None:
        """See `transport.Receiver`."""
        if self._roster.is_older_copy(peer):
            return  # it may vote for nobody here: it has forgotten what it holds up
        is_member = self._roster.heard(peer, self._clock())
        if isinstance(frame, Messages):
            self._driver.receive(peer, frame.messages)
            if not self._transport.is_connected(peer, Lane.CONTROL):
                self._back[peer] = reply
            if any(message.kind is MessageKind.SNAPSHOT for message in frame.messages):
                self._back_to_offer = {peer: reply}
        elif isinstance(frame, ChunkReply):
            self._receiver.reply_received(peer, frame)  # which knows whom it has asked, member or not
        elif is_member:
            self._sort(peer, frame, reply)

    def _sort(self, peer: int, frame: Frame, reply: Reply) -> None:
        match frame:
            case Forward():
                self._asks.serve(frame, reply, self._answerer(peer, frame))
            case Answer():
                self._asks.answered(peer, frame)
            case Announce():
                self._announced(peer, frame)
            case ChunkRequest():
                self._chunk_requested(peer, frame, reply)
            case _:
                log.debug("a frame out of place", extra={"peer": peer})

    def _announced(self, peer: int, announce: Announce) -> None:
        member = self._roster.record.member(peer)
        assert member is not None, "only members are sorted"
        before = self._roster.address_of(member)
        self._roster.announced(peer, announce)
        if self._roster.is_older_copy(peer):
            log.critical("a member runs on an older copy of its data folder", extra={"node_id": member.node_id})
            self._back.pop(peer, None)
            self._transport.refuse(peer, Refusal.OLDER_COPY, OLDER_COPY_TEXT)
        elif self._roster.address_of(member) != before:
            self._dial_members()

    def peer_connected(self, peer: int, lane: Lane) -> None:
        """See `transport.Receiver`."""
        if lane is Lane.CONTROL:
            self._transport.send(peer, lane, self._announcement())

    def peer_disconnected(self, peer: int, lane: Lane) -> None:
        """See `transport.Receiver`."""
        if lane is Lane.BULK:
            self._asks.broken(peer)
        self._driver.peer_lost(peer)

    def peer_refused(self, peer: int, refusal: Refusal, text: str) -> None:
        """See `transport.Receiver`."""
        if refusal is Refusal.REMOVED:
            log.warning("a peer says that this node has been removed", extra={"peer": peer})
            self._driver.become_removed()
        elif refusal is Refusal.OLDER_COPY:
            log.critical("this node takes no part any more", extra={"peer": peer, "reason": text})
            self._driver.halt(text)
            self._driver.fault = text  # also where it has halted: that its log ends too early is but a consequence
        else:
            log.warning("a peer refuses this node", extra={"peer": peer, "refusal": refusal.name, "reason": text})

    # -- questions --

    def _answerer(self, peer: int, frame: Forward) -> Callable[[bytes], Awaitable[bytes]] | None:
        """Return what answers a question; None if this node does not lead the term that it was meant for."""
        driver = self._driver
        handler = self._handlers.get(frame.service)
        member = self._roster.record.member(peer)
        if driver.standing is not Standing.LEADER or frame.term != driver.term or handler is None or member is None:
            return None
        return lambda body: handler(body, member.node_id)

    def _chunk_requested(self, peer: int, frame: ChunkRequest, reply: Reply) -> None:
        def answered(chunk: ChunkReply) -> None:
            if not chunk.chunk:
                self._driver.snapshot_failed(peer)  # it will be offered another one
            reply(chunk)

        self._sender.requested(peer, frame, answered)
