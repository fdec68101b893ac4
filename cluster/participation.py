"""One node's part in a cluster, from the moment it has an identity until it stops: the parts, put together.

    transport ─▶ links ─▶ driver ─▶ writer, state machine
                   │         ▲
       roster, asks, snapshots, members, upkeep, ticker

It builds them, passes on what one tells another, hands leadership over, and ends every task that it began. What each does
is in its own file; `node.py` says what all of this is to the rooms above.
"""

import asyncio
import contextlib
import datetime as dt
import logging
import random
from collections.abc import Callable
from typing import Final

from msgspec import structs

from conclave.cluster.asking import Asks
from conclave.cluster.certificates import is_authority_key, new_authority, new_private_key, new_request, sign_request
from conclave.cluster.driver import Driver
from conclave.cluster.errors import DiskFailed, NoQuorum, NotAlone, NotLeader, Unreachable
from conclave.cluster.finding import Finding
from conclave.cluster.frames import Announce, ChunkRequest, Lane, Service
from conclave.cluster.installing import install, written
from conclave.cluster.links import Handler, Links
from conclave.cluster.members import Members
from conclave.cluster.membership import Identity, MembershipRecord, decode_record, encode_identity
from conclave.cluster.persistence import SaveIdentity, Writer
from conclave.cluster.raft import AppendJob
from conclave.cluster.renewal import Issued, Renewal
from conclave.cluster.replica import AutopilotRules, Standing, StateMachine
from conclave.cluster.roster import Roster
from conclave.cluster.surroundings import Surroundings
from conclave.cluster.timing import Ticker, Timing
from conclave.cluster.transfer import RunInThread, SnapshotReceiver, SnapshotSender, TransferFailed
from conclave.cluster.transport import Transport
from conclave.cluster.upkeep import SUCCESSOR_CONTACT_SECONDS_MAX, Upkeep
from conclave.storage.log import LogStore
from conclave.storage.state import StateStore

log = logging.getLogger(__name__)

HAND_OVER_TRIES: Final = 2
SOURCE_LOST_SECONDS_MAX: Final = 1.0
"""How long the sender of a snapshot may be unconnected before its taker looks for another."""
MEMBERSHIP_SECONDS_MAX: Final = 12.0
"""How long the next leader may take to remove the one before."""
MEMBERSHIP_RETRY_SECONDS: Final = 0.02


class Participation:
    """The parts of a node that is a member.

    Args:
        identity: who this node is; a member.
        timing: durations.
        rules: of autopilot.
        trailing_entries: how many entries are kept for peers that were away.
        transport: the way to the peers; closed with this.
        log, state, machine, writer: what this node holds; they outlive this.
        run_in_thread: runs what waits for the disk.
        announcement: what this node says about itself: id, addresses, version, whether it is sealed.
        answer: answers questions for the vault.
        authority_key: the cluster authority's private key, PEM; None while this node is sealed.
        validity: of members' certificates.
        surroundings: time and randomness.

    Raises:
        CorruptLog: log and state do not fit each other; nothing has been started.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        timing: Timing,
        rules: AutopilotRules,
        trailing_entries: int,
        transport: Transport,
        log: LogStore,
        state: StateStore,
        machine: StateMachine,
        writer: Writer,
        run_in_thread: RunInThread,
        announcement: Callable[[], Announce],
        answer: Handler,
        authority_key: Callable[[], bytes | None],
        validity: dt.timedelta,
        surroundings: Surroundings,
    ) -> None:
        self.identity = identity
        self.transport = transport
        self._timing = timing
        self._state = state
        self._machine = machine
        self._writer = writer
        self._announcement = announcement
        self._clock = surroundings.clock
        self._utc_now = surroundings.utc_now
        self._validity = validity
        self._install_task: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._seed = decode_record(identity.seed)
        self.roster = Roster(identity.raft_id, rules)
        self.sender = SnapshotSender(state, run_in_thread, self._clock, surroundings.random_bytes)
        self.receiver = SnapshotReceiver(state, self._send_question, run_in_thread)
        source = random.Random(surroundings.random_bytes(16))
        self._session = source.randrange(1, 2**63)
        self._began_with_index = log.last_index
        self.asks = Asks(lambda peer, frame: transport.send(peer, Lane.BULK, frame), source.randrange(2**62))
        self.driver = Driver(
            raft_id=identity.raft_id,
            timing=timing,
            log=log,
            machine=machine,
            writer=writer,
            send=lambda peer, lane, frame: self.links.send(peer, lane, frame),  # noqa: PLW0108  # links come later
            take_snapshot=lambda index: self.sender.take(index_min=index),
            observer=self,
            clock=self._clock,
            random=source,
        )
        self.links = Links(
            identity.raft_id,
            transport=transport,
            roster=self.roster,
            driver=self.driver,
            asks=self.asks,
            sender=self.sender,
            receiver=self.receiver,
            handlers={
                Service.APPLICATION: answer,
                Service.MEMBERSHIP: self._answer_removal,
                Service.DEMOTION: self._answer_demotion,
                Service.CERTIFICATE: lambda body, asker: self._renewal.answer(body, asker),  # noqa: PLW0108  # made below
            },
            announcement=self.announcement,
            clock=self._clock,
        )
        self.members = Members(
            lambda: self.identity, self.driver, self.roster, validity=validity, surroundings=surroundings
        )
        self.finding = Finding(
            lambda: self.identity,
            self.links,
            address=lambda: self._announcement().cluster_address,
            takes_part=lambda: not self.identity.is_removed and not self.driver.is_halted,
            surroundings=surroundings,
        )
        self._renewal = Renewal(
            lambda: self.identity,
            record=lambda: self.driver.record,
            authority_key=authority_key,
            ask=lambda body, seconds: self.ask(Service.CERTIFICATE, body, timeout_seconds=seconds),
            adopt=self._adopt,
            validity=validity,
            clock=self._clock,
            utc_now=surroundings.utc_now,
        )
        self._ticker = Ticker(timing.tick_seconds, self.driver.tick, self._clock)
        self._upkeep = Upkeep(
            driver=self.driver,
            links=self.links,
            members=self.members,
            renewal=self._renewal,
            roster=self.roster,
            sender=self.sender,
            writer=writer,
            log=log,
            machine=machine,
            announcement=self.announcement,
            trailing_entries=trailing_entries,
            clock=self._clock,
            utc_now=surroundings.utc_now,
        )

    async def start(self) -> None:
        """Begin to take part."""
        # The members first: whoever connects is judged by them.
        self.roster.set_record(self._effective(self.driver.record))
        self.roster.announced(self.identity.raft_id, self.announcement())
        await self.transport.start(self.links)
        self.membership_changed(self.driver.record)
        self._ticker.start()
        self._upkeep.start()
        self.driver.schedule()

    async def stop(self) -> None:
        """Take part no more. Leadership is not handed over: `step_down` does that, before."""
        self._ticker.stop()
        await self._upkeep.stop()
        self.links.announce()  # so that the peers know how far this node was when it comes back
        self.driver.close()
        self.receiver.close()
        if self._install_task is not None:
            self._install_task.cancel()
            await asyncio.gather(self._install_task, return_exceptions=True)
        await self.asks.close()
        await (self._closing or self.transport.close())
        await self.sender.close()

    def announcement(self) -> Announce:
        """Return what this node says about itself, with how far its log is."""
        last = self.driver.last_entry
        return structs.replace(
            self._announcement(),
            applied_index=self.driver.applied_index,
            last_index=last.index,
            last_term=last.term,
            session=self._session,
            began_with_index=self._began_with_index,
        )

    # -- handing over --

    async def step_down(self) -> None:
        """Hand leadership to the best peer; give it up if none takes it. Nothing to do for a node that does not lead."""
        driver = self.driver
        if not driver.is_leader:
            return
        successors = self.roster.successors(
            driver.matches(), now=self._clock(), contact_seconds_max=SUCCESSOR_CONTACT_SECONDS_MAX
        )
        for successor in successors[:HAND_OVER_TRIES]:
            if await self._hands_over_to(successor):
                break
        driver.resign()
        await driver.watch.until(
            lambda: driver.leader not in {0, self.identity.raft_id},
            timeout_seconds=2 * self._timing.election_seconds,
        )

    async def _hands_over_to(self, successor: int) -> bool:
        driver = self.driver
        driver.transfer(successor)
        # The core gives a transfer up by itself after T.
        await driver.watch.until(
            lambda: not (driver.is_leader and driver.is_handing_over),
            timeout_seconds=2 * self._timing.election_seconds,
        )
        return not driver.is_leader

    async def remove(self, node_id: str) -> bool:
        """Remove a member. If it is this node, the next leader does it."""
        if not self._is_for_next_leader(node_id):
            return await self.members.remove(node_id)
        self.members.check_is_dispensable(node_id, "be removed")
        await self._have_done(Service.MEMBERSHIP, node_id)
        return True

    async def demote(self, node_id: str) -> bool:
        """Take a member's vote. If it is this node, the next leader does it."""
        if not self._is_for_next_leader(node_id):
            return await self.members.demote(node_id)
        self.members.check_is_dispensable(node_id, "lose its vote")
        await self._have_done(Service.DEMOTION, node_id)
        return True

    def _is_for_next_leader(self, node_id: str) -> bool:
        member = self.driver.record.named(node_id)
        if member is None or member.raft_id != self.identity.raft_id or self.driver.is_only_voter:
            return False
        if not self.driver.is_leader:
            raise NotLeader("this node does not lead")
        return True

    async def _have_done(self, service: Service, node_id: str) -> None:
        """Hand leadership over, and have the next leader change what this node is."""
        await self.step_down()
        try:
            async with asyncio.timeout(MEMBERSHIP_SECONDS_MAX):
                await self._ask_next_leader(service, node_id)
        except TimeoutError:
            raise NoQuorum("the next leader has not confirmed the change in time; it may still happen") from None

    async def _ask_next_leader(self, service: Service, node_id: str) -> None:
        # The next leader answers nothing before it has applied everything; and its answer may come too late, when this
        # node has been told already what it is. Asking again is safe.
        while self.driver.standing is not Standing.REMOVED:
            with contextlib.suppress(NotLeader, Unreachable):
                await self.ask(service, node_id.encode(), timeout_seconds=MEMBERSHIP_SECONDS_MAX)
                return
            await asyncio.sleep(MEMBERSHIP_RETRY_SECONDS)

    async def _answer_removal(self, body: bytes, asker: str) -> bytes:
        """Remove a node that has handed leadership over; only itself."""
        if body.decode() == asker:
            await self.members.remove(asker)
        return b""

    async def _answer_demotion(self, body: bytes, asker: str) -> bytes:
        """Take the vote of a node that has handed leadership over; only its own."""
        if body.decode() == asker:
            await self.members.demote(asker)
        return b""

    async def ask(self, service: Service, body: bytes, *, timeout_seconds: float) -> bytes:
        """Ask the leader; see `replica.Peers.ask_leader`."""
        leader = self.driver.leader
        if leader in {0, self.identity.raft_id}:
            raise NotLeader("no other node is known to lead")
        return await self.asks.ask(leader, self.driver.term, service, body, timeout_seconds=timeout_seconds)

    # -- driver.Observer --

    def standing_changed(self, standing: Standing) -> None:
        """See `driver.Observer`."""
        if standing is Standing.REMOVED:
            self.identity = structs.replace(self.identity, is_removed=True)
            self._writer.submit(SaveIdentity(encode_identity(self.identity)), lambda: None)
            self._ticker.stop()
            self.asks.give_up("this node has been removed")
            # Nobody listens to it any more: dialing on would only be refused, again and again.
            self._closing = asyncio.get_running_loop().create_task(self.transport.close(), name="close transport")

    def leader_changed(self, leader: int) -> None:
        """See `driver.Observer`."""
        if leader:
            self.asks.superseded(leader)

    def membership_changed(self, record: MembershipRecord) -> None:
        """See `driver.Observer`."""
        self.links.set_members(self._effective(record))

    def _effective(self, record: MembershipRecord) -> MembershipRecord:
        """Return whom to talk to: until the log has told of this node's admission, those its ticket named."""
        is_known = record.member(self.identity.raft_id) is not None or self.identity.raft_id in record.removed
        return record if is_known else self._seed

    def snapshot_received(self, job: AppendJob, source: int) -> None:
        """See `driver.Observer`."""
        self._install_task = asyncio.get_running_loop().create_task(self._install(job, source), name="install snapshot")

    # -- certificate --

    async def own_authority(self, key_pem: bytes) -> bytes:
        """Return the key of this node's authority, and make a new one if it is not `key_pem`; see `replica.Membership`."""
        identity, now = self.identity, self._utc_now()
        if is_authority_key(identity.authority_pem, key_pem):
            return key_pem
        if [member.raft_id for member in self.driver.record.members] != [identity.raft_id]:
            raise NotAlone("there are other members, who know another authority than the one whose key is at hand")
        authority_pem, authority_key_pem = new_authority(identity.cluster_id, now)
        private_key_pem = new_private_key()
        certificate_pem = sign_request(
            new_request(private_key_pem, identity.node_id),
            cluster_id=identity.cluster_id,
            raft_id=identity.raft_id,
            node_id=identity.node_id,
            authority_pem=authority_pem,
            authority_key_pem=authority_key_pem,
            now=now,
            validity=self._validity,
        )
        await self._adopt(Issued(certificate_pem, authority_pem), private_key_pem)
        if self.identity.authority_pem != authority_pem:
            raise DiskFailed("a snapshot is being installed, and nothing else can be kept meanwhile")
        log.info("made a new authority for this cluster")
        return authority_key_pem

    async def _adopt(self, issued: Issued, private_key_pem: bytes) -> None:
        """Keep a new certificate, then use it: what is used must be there after a restart."""
        if self._install_task is not None and not self._install_task.done():
            return  # its intent is in the identity record, and nothing else may be written there; renewal comes again
        changed = {
            "certificate_pem": issued.certificate_pem,
            "private_key_pem": private_key_pem,
            "authority_pem": issued.authority_pem,
        }
        self.identity = structs.replace(self.identity, **changed)
        await written(self._writer, SaveIdentity(encode_identity(self.identity)))
        self.transport.renew(**changed)

    # -- snapshots --

    def _send_question(self, peer: int, question: ChunkRequest) -> bool:
        return self.links.ask_for_chunk(peer, question)

    async def _install(self, job: AppendJob, source: int) -> None:
        snapshot = job.snapshot
        assert snapshot is not None, "the driver calls for nothing else"
        log.info("takes a snapshot", extra={"peer": source, "index": snapshot.meta.index})
        watching = asyncio.get_running_loop().create_task(self._watch_source(source), name="watch source")
        try:
            await self.receiver.fetch(source, snapshot)
            await install(
                snapshot.meta,
                job.hard_state,
                identity=self.identity,
                state=self._state,
                machine=self._machine,
                writer=self._writer,
                close_readers=self.sender.close,
            )
        except TransferFailed as error:
            log.warning("a snapshot is not to be had", extra={"peer": source, "reason": str(error)})
            self.driver.abandon_snapshot()
        except Exception as error:  # the edge of this task: what the state holds now is unknown
            log.exception("a snapshot could not be installed")
            self.driver.halt(f"a snapshot could not be installed: {error}")
        else:
            log.info("has installed a snapshot", extra={"index": snapshot.meta.index})
            self.driver.snapshot_installed()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _watch_source(self, source: int) -> None:
        """Give a fetch up once its source has been unconnected for too long."""
        lost_at: float | None = None
        while True:
            await asyncio.sleep(SOURCE_LOST_SECONDS_MAX / 10)
            if self.links.can_ask_for_chunks(source):
                lost_at = None
            elif lost_at is None:
                lost_at = self._clock()
            elif self._clock() - lost_at > SOURCE_LOST_SECONDS_MAX:
                self.receiver.give_up("the sender is gone")
