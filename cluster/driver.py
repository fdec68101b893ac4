"""The turn loop around one Raft core: collect what came in, step the core, do what it wants; once a turn.

    proposals, messages, durable writes, ticks ─▶ turn: propose ▸ step ▸ ready ─▶ send ▸ write ▸ apply ▸ answer reads

Rules enforced here, beside the driver's duties in the docstring of `cluster.raft`:

* All proposals of a turn are appended and sent as one batch (group commit), before anything else is stepped: so their
  indexes are known when they are made. Where several come at a time, a turn begins only when a look at the sockets has
  brought no more of them: what is on its way already joins the batch. Everything else in the turn waits for that, too; so
  it does not look once 5 ms have passed, as they have where many other requests are looked at.
* A proposal is taken only while the standing is LEADER: this node leads, has applied everything of earlier terms, and is
  not handing over. The standing comes back within a term only when everything proposed before has been applied.
* A read of own state needs the lease, and everything committed to be applied: a follower may have shown it already.
* A follower's question for a read index is answered from the lease, if this node has it: whoever wins later had to wait
  for its end. Without, a round of heartbeats answers it.
* A disk that owes an answer for too long, or has no room, ends leadership; one that failed ends this node's part in the
  cluster (`halt`), and `fault` says why. So does a log that contradicts what this node has promised.
* If a snapshot that was offered cannot be had, the core begins anew from the disk, as after a crash.

Here is when; how is said in `proposals`, `outbox` (send), `append_jobs` (write), `applied` (apply), `reads` and `lease`. It
knows no addresses, no TLS and no files: it sends by `send`, writes by a `Writer`, and tells an `Observer`.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from conclave.cluster.append_jobs import AppendJobs
from conclave.cluster.applied import AppliedLog, removes
from conclave.cluster.compaction import TRAILING_BYTES, TRAILING_ENTRIES
from conclave.cluster.core_settings import core_settings
from conclave.cluster.errors import NoQuorum, NotLeader
from conclave.cluster.lease import Lease
from conclave.cluster.membership import MembershipRecord
from conclave.cluster.outbox import Outbox, Send
from conclave.cluster.persistence import DurableLog, Writer, newest_sizes
from conclave.cluster.proposals import Proposals
from conclave.cluster.raft import (
    NO_NODE,
    AppendJob,
    ApplyJob,
    BecameFollower,
    BecameLeader,
    ConfChangeV2,
    CorruptLog,
    Event,
    Message,
    MessageKind,
    ProposalDropped,
    Raft,
    RandomSource,
    Ready,
    Role,
    Snapshot,
    SnapshotTemporarilyUnavailable,
    SoftState,
    StepError,
)
from conclave.cluster.reads import ReadRounds
from conclave.cluster.replica import Standing, StateMachine, Ticket
from conclave.cluster.timing import ELECTION_TICKS, Timing
from conclave.cluster.waiting import Watch
from conclave.storage.log import LogStore

log = logging.getLogger(__name__)

LOOKS_MAX: Final = 2
LOOK_SECONDS_MAX: Final = 0.005
"""How often a turn waits for the event loop to look for further proposals, and for how long it goes on with that."""
READ_SECONDS_MAX: Final = 2.0
"""How long a read waits for a leader's word before its client hears that there is none."""

_FROM_NETWORK: Final = frozenset(MessageKind) - {
    MessageKind.STORAGE_APPEND_RESPONSE,
    MessageKind.STORAGE_APPLY_RESPONSE,
    MessageKind.PROPOSE,  # requests are forwarded above the log
    MessageKind.TRANSFER_LEADER,  # only a node itself gives its leadership away
}


class Observer(Protocol):
    """Who hears what becomes of this node's part in the cluster; every call comes in the middle of a turn."""

    def standing_changed(self, standing: Standing) -> None:
        """Hear that this node has become what it was not before; the state machine has been told."""

    def leader_changed(self, leader: int) -> None:
        """Hear who leads now; 0: nobody that is known."""

    def membership_changed(self, record: MembershipRecord) -> None:
        """Hear who belongs to the cluster from now on."""

    def snapshot_received(self, job: AppendJob, source: int) -> None:
        """Install a snapshot that `source` offers, then call `snapshot_installed`, or `abandon_snapshot`."""


class Driver:
    """One node's part in the log. Every method runs on the event loop; none raises what a peer or the disk has caused.

    Args:
        raft_id: this node.
        timing: durations.
        log: read here; written by `writer` only.
        machine: hears of committed entries.
        writer: makes the log durable.
        send: sends a frame to a peer; False if it was dropped.
        take_snapshot: returns a snapshot that can be sent now; given the lowest index that is of use.
        observer: hears of changes.
        clock: seconds, monotone, also while the machine sleeps.
        random: for timeouts and the numbers of reads.

    Raises:
        CorruptLog: the log and the state do not fit each other, or what this node has promised.

    Attributes:
        standing: what this node is.
        fault: why it does not lead or take part; empty if it does.
    """

    def __init__(
        self,
        *,
        raft_id: int,
        timing: Timing,
        log: LogStore,
        machine: StateMachine,
        writer: Writer,
        send: Send,
        take_snapshot: Callable[[int], Snapshot],
        observer: Observer,
        clock: Callable[[], float],
        random: RandomSource,
    ) -> None:
        self.standing = Standing.FOLLOWER
        self.fault = ""
        self.is_halted = False
        self.watch = Watch()
        self._raft_id = raft_id
        self._timing = timing
        self._log = log
        self._machine = machine
        self._writer = writer
        self._take_snapshot = take_snapshot
        self._observer = observer
        self._clock = clock
        self._random = random
        self._lease = Lease(timing.lease_seconds)
        self._rounds = ReadRounds(self._ask_read_index, clock, random.randrange(2**62))
        self._loop = asyncio.get_running_loop()
        self._is_scheduled = False
        self._looks = 0
        self._scheduled_seconds = 0.0  # when
        self._has_disk_stalled = False
        self._leading_term = 0
        self._standing_term = 0
        self._outbox = Outbox(lambda: self._raft, send, lambda: self.may_change)
        self._jobs = AppendJobs(writer, snapshot_offered=self._snapshot_offered, durable=self._durable)
        for index, size in newest_sizes(log, entries_max=TRAILING_ENTRIES, bytes_max=TRAILING_BYTES):
            self._jobs.trail.appended(index, (size,))
        self._applied = AppliedLog(raft_id, machine, self._change_applied)
        self._begin()

    def _begin(self) -> None:
        """Build the core from what is durable."""
        self._applied.begin(self._log)
        self._jobs.begin()
        self._outbox.forget_notices()
        self._inbox: list[Message] = []
        self._snapshot_source = NO_NODE
        storage = DurableLog(self._log, self.record.conf_state, self._applied.index, self._snapshot)
        self._raft = Raft(core_settings(self._raft_id, self._applied.index), storage, self._random)
        self._proposals = Proposals(self._raft)

    def _snapshot(self) -> Snapshot:
        # A state that lacks the newest member is not asked for: as long as it was on offer, no newer one would be opened.
        snapshot = self._take_snapshot(max(self._log.first_index - 1, self._applied.last_addition))
        state = snapshot.meta.conf_state
        known = {*state.voters, *state.learners, *state.voters_outgoing}
        if not known.issuperset(self._raft.tracker.members):
            # Whoever is to be sent it would refuse a state in which it does not exist.
            raise SnapshotTemporarilyUnavailable("the newest durable state does not know every member yet")
        return snapshot

    # -- what can be asked --

    @property
    def term(self) -> int:
        """The current Raft term."""
        return self._raft.term

    @property
    def leader(self) -> int:
        """Who leads; 0: nobody that is known."""
        return self._raft.leader

    @property
    def is_leader(self) -> bool:
        """Whether this node leads, ready to serve or not."""
        return self._raft.role is Role.LEADER

    @property
    def is_handing_over(self) -> bool:
        """Whether a transfer of leadership is under way."""
        return self._raft.transferee != NO_NODE

    @property
    def commit_index(self) -> int:
        """The commit index as this node knows it."""
        return self._raft.commit_index

    @property
    def applied_index(self) -> int:
        """The last entry that the state machine has taken."""
        return self._applied.index

    @property
    def record(self) -> MembershipRecord:
        """Who belongs to the cluster, by what has been applied."""
        return self._applied.record

    @property
    def last_entry(self) -> Ticket:
        """Where this node's log ends."""
        return Ticket(self._raft.log.last_term(), self._raft.last_index)

    @property
    def trail_first(self) -> int:
        """Where the newest entries begin that are kept for peers that were away for a moment; see `compaction.Trail`."""
        return self._jobs.trail.first

    @property
    def cap_first(self) -> int:
        """Where the newest entries begin that are kept at most; see `compaction.Trail`."""
        return self._jobs.trail.cap

    @property
    def is_only_voter(self) -> bool:
        """Whether this node decides alone."""
        return self.record.conf_state.voters == (self._raft_id,)

    def matches(self) -> dict[int, int]:
        """Return how far each member's log is known to be; empty if this node does not lead."""
        if self._raft.role is not Role.LEADER:
            return {}
        return {peer: progress.match for peer, progress in self._raft.tracker.progress.items()}

    def active_matches(self) -> list[int]:
        """Return how far the log of each other member is that was heard of lately."""
        if self._raft.role is not Role.LEADER:
            return []
        members = self._raft.tracker.progress.items()
        return [progress.match for peer, progress in members if peer != self._raft_id and progress.recently_active]

    def peers_in_snapshot(self) -> list[int]:
        """Return the members that are being sent a snapshot."""
        if self._raft.role is not Role.LEADER:
            return []
        return [peer for peer, progress in self._raft.tracker.progress.items() if progress.pending_snapshot]

    def has_lease(self) -> bool:
        """Tell whether what this node has applied is all that anybody has been told of; see `Replica.has_lease`."""
        return self._applied.index >= self._raft.log.committed and self._is_sole_leader()

    def _is_sole_leader(self) -> bool:
        """Tell whether nobody else can lead at this moment, so that nothing is committed that this node does not know."""
        raft = self._raft
        return (
            self.standing is Standing.LEADER
            and not raft.has_sent_timeout_now
            and (self._clock() < self._lease.until or raft.tracker.is_singleton)
        )

    # -- proposing --

    def propose(self, data: bytes) -> Ticket:
        """Queue an entry for this turn's batch; see `Replica.propose`."""
        if self.standing is not Standing.LEADER:
            raise NotLeader("this node does not lead")
        ticket = self._proposals.add(data, self._applied.index)
        self.schedule()
        return ticket

    def propose_change(self, change: ConfChangeV2) -> Ticket:
        """Append a membership change.

        Raises:
            NotLeader: this node does not lead; nothing was proposed.
        """
        if self.standing is not Standing.LEADER:
            raise NotLeader("this node does not lead")
        self._proposals.flush()
        try:
            index = self._raft.propose_conf_change(change)
        except ProposalDropped as dropped:
            raise NotLeader(str(dropped)) from dropped
        self.schedule()
        return Ticket(self._raft.term, index)

    @property
    def may_change(self) -> bool:
        """Whether a membership change may be proposed: none is under way."""
        return self._raft.pending_conf_index <= self._applied.index

    def has_changed(self, ticket: Ticket) -> bool:
        """Tell whether the membership change proposed under a ticket has been applied."""
        return ticket == self._applied.last_change

    # -- reading --

    async def read_barrier(self) -> int:
        """Wait until the state is as new as anything that was acknowledged; see `Replica.read_barrier`."""
        if self.has_lease():
            return self._applied.index
        if self.is_halted:
            raise NoQuorum("this node takes no part in the cluster")
        try:
            async with asyncio.timeout(READ_SECONDS_MAX):
                answer = self._rounds.join()
                self.schedule()
                index = await answer
                await self.watch.until(lambda: self._applied.index >= index, timeout_seconds=READ_SECONDS_MAX)
        except TimeoutError:
            raise NoQuorum("no leader has confirmed in time") from None
        return self._applied.index

    def _ask_read_index(self, context: int) -> None:
        self._raft.read_index(context)

    # -- leadership --

    def transfer(self, to: int) -> None:
        """Begin to hand leadership to a voter. Proposals are refused until it leads, or has failed to."""
        self._proposals.flush()
        self._raft.transfer_leader(to)
        self._settle_standing()
        self.schedule()

    def resign(self) -> None:
        """Give up leadership, and say so: the lease is over."""
        self._proposals.flush()
        self._raft.resign()
        self._settle_standing()
        self.schedule()

    def peer_lost(self, peer: int) -> None:
        """Take in that a peer's connection broke or was refused: its process may be gone."""
        if peer == self._raft.leader:
            self._raft.leader_connection_lost()
        self._raft.report_unreachable(peer)
        self.snapshot_failed(peer)

    def snapshot_failed(self, peer: int) -> None:
        """Take in that a peer will not get the snapshot that it was offered."""
        self._raft.report_snapshot(peer, ok=False)
        self.schedule()

    # -- time and messages --

    def tick(self, late_seconds: float) -> None:
        """Let one tick pass, that comes so much later than planned."""
        if self.is_halted:
            return
        raft = self._raft
        is_stalled = late_seconds > self._timing.election_seconds / 2
        if is_stalled:
            # This node's own stall is no evidence against the leader: what it said meanwhile is still to be read.
            raft.handicap_ticks = ELECTION_TICKS
            log.warning("the event loop was busy for too long", extra={"late_seconds": round(late_seconds, 3)})
        elif raft.election_elapsed == 0:
            raft.handicap_ticks = 0  # the leader was heard, or there is a new one
        raft.tick()
        if self.is_only_voter and raft.leader == NO_NODE and raft.role is Role.FOLLOWER:
            raft.campaign()  # alone, it need not wait for anybody to be heard; only for its disk, once it stands
        self._rounds.ask_again(at_once=False)
        if not is_stalled:
            self._watch_disk()
        if self.fault and self.is_leader:
            self.resign()  # its vote may have been the last thing that its disk took
        self.schedule()

    def receive(self, peer: int, messages: Iterable[Message]) -> None:
        """Take in what a peer says; what it may not say, or says for somebody else, is dropped."""
        if not self.is_halted:
            self._inbox += [m for m in messages if m.source == peer and m.kind in _FROM_NETWORK]
            self.schedule()

    def schedule(self) -> None:
        """Have a turn, after everything that is already waiting on the event loop."""
        if not self._is_scheduled and not self.is_halted:
            self._is_scheduled = True
            self._scheduled_seconds = self._clock()
            self._loop.call_soon(self._turn)

    # -- one turn --

    def _turn(self) -> None:
        if self._may_look() and self._proposals.look():
            self._looks += 1
            self._loop.call_soon(self._turn)
            return
        self._is_scheduled = False
        self._looks = 0
        if self.is_halted:
            return
        try:
            self._proposals.flush()
            self._step_received()
            self._rounds.advance()
            self._perform(self._raft.ready())
            self._settle_standing()
        except CorruptLog as error:
            log.critical("the log contradicts what this node has promised", extra={"reason": str(error)})
            self.halt(f"the log is damaged: {error}")
        except Exception as error:  # the edge of the loop: a node that cannot go on must say so, not hang
            log.exception("this node cannot go on")
            self.halt(f"cannot go on: {error}")
        else:
            if self._proposals or self._inbox or self._raft.has_ready():
                self.schedule()
        self.watch.look()

    def _may_look(self) -> bool:
        """Tell whether the turn may be put off."""
        is_late = self._clock() - self._scheduled_seconds > LOOK_SECONDS_MAX
        return self._looks < LOOKS_MAX and not is_late and not self.is_halted

    def _step_received(self) -> None:
        received, self._inbox = self._inbox, []
        raft = self._raft
        has_heard_back = False
        for message in received:
            if message.kind is MessageKind.HEARTBEAT_RESPONSE:
                has_heard_back = True
            elif message.kind is MessageKind.SNAPSHOT:
                self._snapshot_source = message.source
            elif message.kind is MessageKind.READ_INDEX and self._is_sole_leader():
                raft.answer_read(message, raft.log.committed)
                continue
            try:
                raft.step(message)
            except StepError as error:
                log.debug("dropped a message", extra={"peer": message.source, "reason": str(error)})
        if has_heard_back and raft.role is Role.LEADER and raft.term == self._leading_term:
            self._lease.confirmed(raft.confirmed_sequence)

    def _perform(self, ready: Ready) -> None:
        for event in ready.events:
            self._log_event(event)
        if ready.soft is not None:
            self._soft_changed(ready.soft)
        raft = self._raft
        if raft.role is Role.LEADER:
            if raft.term != self._leading_term:
                self._leading_term = raft.term
                self._lease.reset()
            # Before they leave, so that a lease counts from too early rather than too late.
            self._lease.sent(raft.heartbeat_sequence, self._clock())
        self._outbox.send_all(ready.messages)
        if ready.append is not None:
            self._jobs.add(ready.append)
        if ready.apply is not None:
            self._apply(ready.apply)
        for read in ready.reads:
            self._rounds.answered(read.context, read.index)

    def _soft_changed(self, soft: SoftState) -> None:
        if soft.role is not Role.LEADER:
            self._outbox.forget_notices()
            self._lease.reset()
            self._settle_standing()  # before anything that another leader has decided is applied
        self._observer.leader_changed(soft.leader)
        if soft.leader != NO_NODE:
            self._rounds.ask_again(at_once=True)

    @staticmethod
    def _log_event(event: Event) -> None:
        if isinstance(event, BecameLeader):
            log.info("leads", extra={"raft_term": event.term})
        elif isinstance(event, BecameFollower) and event.leader != NO_NODE:
            log.debug("follows", extra={"raft_term": event.term, "leader": event.leader})

    # -- what was written --

    def _durable(self, responses: Sequence[Message]) -> None:
        """Let out what promised that a job, and all before it, would be durable."""
        if self.is_halted:
            return
        own = [message for message in responses if message.to == self._raft_id]
        if len(own) < len(responses):
            self._outbox.send_all([message for message in responses if message.to != self._raft_id])
        self._inbox += own
        self.schedule()

    def _snapshot_offered(self, job: AppendJob) -> None:
        self._observer.snapshot_received(job, self._snapshot_source)

    def snapshot_installed(self) -> None:
        """Go on behind a snapshot that has replaced log and state."""
        assert self._jobs.is_installing, "no snapshot was being installed"
        self._applied.reload()
        self._observer.membership_changed(self.record)
        self._jobs.resume()

    def abandon_snapshot(self) -> None:
        """Begin anew from the disk, since a snapshot is not to be had: nothing was promised since it was offered."""
        self._jobs.call_behind_all(self._begin_anew)

    def _begin_anew(self) -> None:
        if not self.is_halted:
            self._begin()
            self._settle_standing()
            self.schedule()

    # -- what was committed --

    def _apply(self, job: ApplyJob) -> None:
        self._applied.apply(self._raft, job.entries)
        # Answers may have led to proposals, whose indexes are given: before the core adds any of its own.
        self._proposals.flush()
        for response in job.responses:
            self._raft.step(response)

    def _change_applied(self, change: ConfChangeV2) -> None:
        self._lease.void(self._raft.heartbeat_sequence)
        self._observer.membership_changed(self.record)
        if removes(change, self._raft_id):
            self.become_removed()

    # -- standing --

    def _settle_standing(self) -> None:
        """Tell the state machine what this node is, if that is not what it was."""
        raft = self._raft
        may_lead = raft.role is Role.LEADER and raft.transferee == NO_NODE and not self.fault and not self.is_halted
        if self.standing is Standing.REMOVED or (self.standing is Standing.FOLLOWER and not may_lead):
            return
        if self.standing is Standing.LEADER and not (may_lead and raft.term == self._standing_term):
            self._change_standing(Standing.FOLLOWER)
        if (
            self.standing is Standing.FOLLOWER
            and may_lead
            and self._applied.term == raft.term
            and self._applied.index == raft.last_index
        ):
            self._change_standing(Standing.LEADER)

    def _change_standing(self, standing: Standing) -> None:
        self.standing, self._standing_term = standing, self._raft.term
        self._machine.standing_changed(standing, self._raft.term)
        self._observer.standing_changed(standing)

    # -- the disk, and the end --

    def _watch_disk(self) -> None:
        pending = self._writer.oldest_pending_seconds(self._clock())
        if pending > self._timing.fence_seconds:
            if not self.fault:
                log.error("the disk does not answer", extra={"seconds": round(pending, 1)})
                self._has_disk_stalled = True
                self.fault = "the disk has owed an answer for too long"
                self.resign()
        elif self._has_disk_stalled:
            log.info("the disk answers again")
            self._has_disk_stalled = False
            self.fault = ""

    def disk_failed(self, text: str, is_final: bool) -> None:
        """Take in what the writer says: no room, or room again (no text), or that it has failed for good."""
        if is_final:
            log.critical("the disk failed", extra={"reason": text})
            self.halt(text)
        elif text:
            log.error("the disk is full", extra={"reason": text})
            self.fault = text
            self.resign()
        else:
            log.info("the disk has room again")
            self.fault = ""
            self.schedule()

    def become_removed(self) -> None:
        """Take no part any more: this node has been removed."""
        if self.standing is not Standing.REMOVED:
            self.halt("this node has been removed from the cluster")
            self._change_standing(Standing.REMOVED)

    def halt(self, fault: str) -> None:
        """End this node's part in the cluster: say that it leads no more, and do nothing from now on."""
        if self.is_halted:
            return
        self.fault = fault
        self._raft.resign()
        self._outbox.send_all([m for m in self._raft.ready().messages if m.kind is MessageKind.RESIGNED])
        self.is_halted = True
        self._outbox.close()
        self._settle_standing()
        self._end_waiting(fault)

    def close(self) -> None:
        """Do nothing from now on; everybody who waits hears of it."""
        self.is_halted = True
        self._outbox.close()
        self._end_waiting("this node is stopping")

    def _end_waiting(self, text: str) -> None:
        self._rounds.close(NoQuorum(text))
        self.watch.close(NotLeader(text))
