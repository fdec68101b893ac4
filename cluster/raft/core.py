"""The Raft core: one object that is told what happened and says what is to be done.

`Raft` holds the state, sorts what comes in (`step`: the term gate, then the role's own rules) and hands out what is to be
done (`ready`). What a role does with a message is in `follower`, `candidate` and `leader`; the log in `log`, reads in
`reads`. The package's docstring has the driver's duties.

The order of the term gate is part of the algorithm; each step of `_accept_term` says why it stands where it does.
Source: Ongaro's dissertation, chapters 3, 4, 6 and 10; the semantics of etcd's Raft library.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

from conclave.cluster.raft import candidate, confchange, follower, leader
from conclave.cluster.raft.config import RaftConfig
from conclave.cluster.raft.errors import CorruptLog, MalformedMessage, UnknownPeer
from conclave.cluster.raft.log import RaftLog, total_size
from conclave.cluster.raft.messages import (
    NO_NODE,
    ConfChange,
    ConfChangeV2,
    ConfState,
    Entry,
    HardState,
    Message,
    MessageKind,
    encode_conf_change,
)
from conclave.cluster.raft.progress import Progress
from conclave.cluster.raft.reads import Reads
from conclave.cluster.raft.ready import (
    AppendJob,
    ApplyJob,
    BecameCandidate,
    BecameFollower,
    BecameLeader,
    BecamePreCandidate,
    ConfigurationSwitched,
    Event,
    MessageIgnored,
    PeerStatus,
    ReadState,
    Ready,
    Role,
    SoftState,
    Status,
    VoteGranted,
    VoteRefused,
)
from conclave.cluster.raft.storage import LogStorage
from conclave.cluster.raft.tracker import Configuration, Tracker

HASTY_CAMPAIGNS = 3
"""How many campaigns a node whose leader is gone, or silent for T, begins or repeats after L to 2L instead of T to 2T."""

_VOTES = (MessageKind.VOTE, MessageKind.PRE_VOTE)
_FROM_LEADER = (MessageKind.APPEND, MessageKind.HEARTBEAT, MessageKind.SNAPSHOT)
_PROMISES = (
    MessageKind.APPEND_RESPONSE,
    MessageKind.VOTE_RESPONSE,
    MessageKind.PRE_VOTE_RESPONSE,
    MessageKind.VOTE,  # it promises that this node stands in this term with this log, and with no other
)
_WITHOUT_TERM = (MessageKind.PROPOSE, MessageKind.READ_INDEX)
_ANSWERS_TO_LEADER = (MessageKind.APPEND_RESPONSE, MessageKind.HEARTBEAT_RESPONSE)
_ANSWERS = (*_ANSWERS_TO_LEADER, MessageKind.VOTE_RESPONSE, MessageKind.PRE_VOTE_RESPONSE)


class RandomSource(Protocol):
    """Where randomised timeouts come from; `random.Random` is one."""

    def randrange(self, stop: int, /) -> int:
        """Return a number in [0, stop)."""


class Raft:
    """One member of a Raft cluster, without clock, disk or network.

    Args:
        config: settings; `config.id` is this member.
        storage: what is stored; read only.
        random: for election timeouts.

    Raises:
        CorruptLog: the stored hard state speaks of entries that the stored log lacks.
    """

    def __init__(self, config: RaftConfig, storage: LogStorage, random: RandomSource) -> None:
        self.config = config
        self.id = config.id
        self.role = Role.FOLLOWER
        self.leader = NO_NODE
        self.transferee = NO_NODE
        self.pending_conf_index = 0
        self.uncommitted_bytes = 0
        self.election_elapsed = 0
        self.heartbeat_elapsed = 0
        self.handicap_ticks = 0
        self.heartbeat_sequence = 0
        self.randomized_election_ticks = config.election_ticks
        self.has_sent_timeout_now = False
        self._hasty_campaigns = 0
        self._promise_ticks = config.startup_promise_ticks
        self._lease_ticks = config.lease_ticks if config.lease_ticks is not None else config.election_ticks
        self._random = random
        self._messages: list[Message] = []
        self._promises: list[Message] = []
        self._read_states: list[ReadState] = []
        self._events: list[Event] = []
        limit = config.max_committed_bytes_per_ready
        self.log = RaftLog(
            storage,
            config.max_size_per_message if limit is None else limit,
            apply_unstable=config.synchronous_storage,
        )
        self.tracker = Tracker(config.max_inflight_messages, config.max_inflight_bytes)
        self.reads = Reads()
        hard_state, conf_state = storage.initial_state()
        self.term, self.vote = hard_state.term, hard_state.vote
        self._restore_log(hard_state)
        self.restore_configuration(conf_state)
        self._handed_hard_state = self._hard_state()
        self.become_follower(self.term, NO_NODE)
        self._handed_soft_state = self._soft_state()

    def _restore_log(self, hard_state: HardState) -> None:
        log = self.log
        if not log.committed <= hard_state.commit <= log.last_index() and hard_state != HardState():
            raise CorruptLog(
                f"the hard state's commit index {hard_state.commit} is outside the stored log "
                f"{log.committed}..{log.last_index()}: acknowledged entries were lost"
            )
        log.committed = max(log.committed, hard_state.commit)
        if self.config.applied:
            log.applied_to(self.config.applied, 0)

    # -- what can be asked --

    @property
    def commit_index(self) -> int:
        """The highest index known to be committed."""
        return self.log.committed

    @property
    def applied_index(self) -> int:
        """The highest index that the driver has reported as applied."""
        return self.log.applied

    @property
    def last_index(self) -> int:
        """The highest index in the log."""
        return self.log.last_index()

    @property
    def conf_state(self) -> ConfState:
        """The configuration in force."""
        return self.tracker.conf_state

    @property
    def confirmed_sequence(self) -> int:
        """The newest heartbeat of this term that a quorum has acknowledged; 0 if there is none, or no leadership."""
        if self.role is not Role.LEADER:
            return 0
        return self.reads.confirmed(self.tracker, self.id, self.heartbeat_sequence)

    @property
    def lease_usable(self) -> bool:
        """Whether a lease drawn from `confirmed_sequence` may stand for a quorum's word.

        Not before the first commit of the own term, and never again in a term in which a transfer's TIMEOUT_NOW was sent:
        the target may win before the lease would have run out.
        """
        return self.role is Role.LEADER and not self.has_sent_timeout_now and self.has_committed_own_term()

    def has_committed_own_term(self) -> bool:
        """Whether an entry of the present term is committed."""
        return self.log.matches(self.log.committed, self.term)

    def status(self) -> Status:
        """Return a picture of this core."""
        peers: tuple[PeerStatus, ...] = ()
        if self.role is Role.LEADER:
            peers = tuple(self._peer_status(peer, progress) for peer, progress in self.tracker.progress.items())
        return Status(
            id=self.id,
            term=self.term,
            vote=self.vote,
            role=self.role,
            leader=self.leader,
            commit=self.log.committed,
            applied=self.log.applied,
            last_index=self.log.last_index(),
            transferee=self.transferee,
            conf_state=self.tracker.conf_state,
            peers=peers,
        )

    def _peer_status(self, peer: int, progress: Progress) -> PeerStatus:
        return PeerStatus(
            id=peer,
            match=progress.match,
            next=progress.next,
            state=progress.state.value,
            is_learner=self.tracker.is_learner(peer),
            recently_active=progress.recently_active,
            is_paused=progress.is_paused,
            pending_snapshot=progress.pending_snapshot,
            inflight=len(progress.inflights),
        )

    # -- what can be told --

    def step(self, message: Message) -> None:
        """Take in one message of a peer, or of this node's own storage.

        Raises:
            UnknownPeer: an answer of somebody who is no member.
            MalformedMessage: it contradicts itself, or is for somebody else. Nothing has changed.
        """
        self._validate(message)
        kind = message.kind
        if kind is MessageKind.STORAGE_APPLY_RESPONSE:
            self._applied(message)
        elif kind is MessageKind.STORAGE_APPEND_RESPONSE:
            self._appended(message)
        elif not self._accept_term(message):
            return
        elif kind in _VOTES:
            follower.answer_vote(self, message)
        else:
            _STEP[self.role](self, message)

    def _validate(self, message: Message) -> None:
        if message.to != self.id:
            raise MalformedMessage(f"a message for {message.to} came to {self.id}")
        if (
            message.kind in _ANSWERS_TO_LEADER
            and message.source not in self.tracker.progress
            and message.source != self.id
        ):
            raise UnknownPeer(f"{message.source} answers, but is no member")
        entries = message.entries
        if message.kind is MessageKind.APPEND and entries:
            if entries[0].index != message.index + 1 or entries[0].term < message.log_term:
                raise MalformedMessage("the entries do not follow the entry before them")
            if any(b.index != a.index + 1 or b.term < a.term for a, b in pairwise(entries)):
                raise MalformedMessage("the entries do not follow each other")
            if entries[-1].term > message.term:
                raise MalformedMessage("an entry is of a later term than its sender")

    def _accept_term(self, message: Message) -> bool:
        """Compare terms; return whether the message is to be looked at any further."""
        kind = message.kind
        if message.term == 0:
            if kind not in _WITHOUT_TERM and kind is not MessageKind.TRANSFER_LEADER:
                raise MalformedMessage(f"{kind.name} without a term")
            return True
        if message.term > self.term:
            return self._accept_higher_term(message)
        if message.term < self.term:
            self._answer_lower_term(message)
            return False
        return True

    def _accept_higher_term(self, message: Message) -> bool:
        kind = message.kind
        if kind in _VOTES and not message.forced and self.has_promised:
            # The promise comes before the term: a node that cannot win must not even raise terms.
            self.ignored(message, "promised the leader not to vote")
            return False
        if kind is MessageKind.PRE_VOTE or (kind is MessageKind.PRE_VOTE_RESPONSE and not message.reject):
            return True  # a pre-vote is about a term that nobody is in yet
        self.become_follower(message.term, message.source if kind in _FROM_LEADER else NO_NODE)
        return True

    def _answer_lower_term(self, message: Message) -> None:
        kind = message.kind
        if kind in (MessageKind.HEARTBEAT, MessageKind.APPEND) and (self.config.check_quorum or self.config.pre_vote):
            # Our term tells an old leader that it is one, and frees us if our term got stuck above everybody's.
            self.send(Message(MessageKind.APPEND_RESPONSE, message.source, self.id))
        elif kind is MessageKind.PRE_VOTE:
            # Silence would let two nodes of different terms wait for each other for ever.
            self._events.append(VoteRefused(message.source, message.term, pre_vote=True))
            follower.send_vote_answer(self, message, self.term, granted=False)
        else:
            self.ignored(message, "of an earlier term")

    @property
    def has_promised(self) -> bool:
        """Whether this node still owes a leader (or, after a start, one it may have forgotten) not to help another.

        The promise has a clock of its own: a later term, learnt from a third node, makes this one forget who leads, but
        the leader of the earlier term may still lean on what it was promised. A leader helps nobody until CheckQuorum
        deposes it, or a peer that can be heard but cannot hear would take its place again and again.
        """
        return self._promise_ticks > 0 or (self.role is Role.LEADER and self.config.check_quorum)

    def promise(self) -> None:
        """Promise a leader that was just heard not to help another for L."""
        if self.config.check_quorum:
            self._promise_ticks = max(self._promise_ticks, self._lease_ticks)

    def tick(self) -> None:
        """Let one tick pass."""
        if self._promise_ticks > 0:
            self._promise_ticks -= 1
        if self.role is Role.LEADER:
            leader.tick(self)
            return
        self.election_elapsed += 1
        if self.is_promotable() and self.election_elapsed >= self.randomized_election_ticks + self.handicap_ticks:
            self.election_elapsed = 0
            candidate.hup(self)

    def propose(self, datas: Sequence[bytes]) -> tuple[int, int]:
        """Append normal entries, all or none; return the term and the first index.

        A follower that forwards proposals sends them on and returns index 0: their place is not known here.

        Raises:
            ProposalDropped: nothing was appended.
        """
        return self.term, self._propose([Entry(0, 0, data=data) for data in datas])

    def propose_conf_change(self, change: ConfChange | ConfChangeV2) -> int:
        """Append a membership change; return its index (0 if it was forwarded).

        A change that may not be made now is appended as an empty entry, so that its index is taken nevertheless; an
        event says so.

        Raises:
            ProposalDropped: nothing was appended.
        """
        kind, data = encode_conf_change(change)
        return self._propose([Entry(0, 0, kind, data)])

    def _propose(self, entries: list[Entry]) -> int:
        if self.role is Role.FOLLOWER and self.leader != NO_NODE and not self.config.disable_proposal_forwarding:
            self.send(Message(MessageKind.PROPOSE, self.leader, self.id, entries=tuple(entries)))
            return 0
        return leader.propose(self, entries)

    def apply_conf_change(self, change: ConfChange | ConfChangeV2) -> ConfState:
        """Put a committed membership change into force and return the configuration.

        Raises:
            ConfChangeError: the change is impossible from the configuration in force; nothing has changed.
        """
        changes = ConfChangeV2((change,)) if isinstance(change, ConfChange) else change
        tracker = self.tracker
        changer = confchange.Changer(tracker.configuration, tracker.progress, self._new_member)
        return self._switch(*changer.apply(changes))

    def restore_configuration(self, conf_state: ConfState) -> None:
        """Put a stored configuration into force, with nothing known of its members."""
        self._switch(*confchange.restore(conf_state, self._new_member))

    def _new_member(self) -> Progress:
        # Active from the start: it could not have answered yet, and CheckQuorum must not count that against it.
        return self.tracker.new_progress(max(self.log.last_index(), 1), recently_active=True)

    def _switch(self, configuration: Configuration, progress: dict[int, Progress]) -> ConfState:
        self.tracker.install(configuration, progress)
        self._events.append(ConfigurationSwitched(self.tracker.conf_state))
        if self.role is Role.LEADER:
            leader.configuration_switched(self)
        return self.tracker.conf_state

    def read_index(self, context: int) -> None:
        """Ask how far the state must be applied to be fresh; answered in `Ready.reads`, or never (ask again).

        Args:
            context: the caller's number; comes back with the answer.
        """
        if self.role is Role.LEADER:
            leader.read_index(self, Message(MessageKind.READ_INDEX, self.id, self.id, sequence=context))
        elif self.leader == NO_NODE:
            self._events.append(MessageIgnored(MessageKind.READ_INDEX, self.id, "no leader to ask"))
        else:
            self.send(Message(MessageKind.READ_INDEX, self.leader, self.id, sequence=context))

    def transfer_leader(self, to: int) -> None:
        """Hand leadership over: bring `to` up to date, then let it campaign; given up after an election timeout."""
        message = Message(MessageKind.TRANSFER_LEADER, self.id, to)
        if self.role is Role.LEADER:
            leader.transfer(self, message)
        elif self.leader != NO_NODE:
            self.send(Message(MessageKind.TRANSFER_LEADER, self.leader, to))

    def campaign(self) -> None:
        """Stand for election now (with a pre-vote, if these are on)."""
        candidate.hup(self)

    def forget_leader(self) -> None:
        """Forget who leads, so that this node may vote at once; the caller knows that the leader is gone."""
        if self.role is not Role.FOLLOWER or self.leader == NO_NODE:
            return
        if self.config.read_only is self.config.read_only.LEASE:
            self._events.append(MessageIgnored(None, self.id, "lease reads lean on the leader being remembered"))
            return
        self.leader = NO_NODE
        self._promise_ticks = 0

    def report_unreachable(self, peer: int) -> None:
        """Say that a message to a peer could not be sent."""
        if self.role is Role.LEADER:
            leader.unreachable(self, peer)

    def report_snapshot(self, peer: int, ok: bool) -> None:
        """Say whether a peer has got the snapshot it was to be sent."""
        if self.role is Role.LEADER:
            leader.snapshot_done(self, peer, ok=ok)

    def leader_connection_lost(self) -> None:
        """Say that the connection to the leader broke: campaign as soon as the promise L has passed, not only after T."""
        if self.role is Role.FOLLOWER:
            self._hasty_campaigns = HASTY_CAMPAIGNS
            own_turn = self._lease_ticks + self._draw_turn()
            self.randomized_election_ticks = min(self.randomized_election_ticks, own_turn)

    def resign(self) -> None:
        """Give up leadership and say so: the lease is over, and the others need not wait to elect another."""
        if self.role is not Role.LEADER:
            return
        for peer in self.tracker.members:
            if peer != self.id:
                self.send(Message(MessageKind.RESIGNED, peer, self.id))
        self.become_follower(self.term, NO_NODE)

    def resigned(self) -> None:
        """Take in that the leader has resigned: it is owed nothing any more, and somebody should campaign soon."""
        self._hasty_campaigns = HASTY_CAMPAIGNS
        self.randomized_election_ticks = self._draw_turn()
        self.leader = NO_NODE
        self._promise_ticks = 0
        self.election_elapsed = 0

    def _draw_turn(self) -> int:
        """Draw after how many ticks this node campaigns when all hear at once that the leader is gone: in turns.

        Those who campaign in the same moment vote for themselves only, and then nobody leads before T.
        """
        rivals = [voter for voter in self.tracker.voters if voter != self.leader]
        turn = rivals.index(self.id) if self.id in rivals else 0
        turn_ticks = max(1, self._lease_ticks // 4)
        return 1 + turn * turn_ticks + self._random.randrange(max(1, turn_ticks // 2))

    # -- changing role --

    def become_follower(self, term: int, leader_id: int) -> None:
        """Follow `leader_id` (0: nobody known) in `term`. The vote is kept unless the term is a new one."""
        if leader_id != NO_NODE:
            self._hasty_campaigns = 0
        self._reset(term)
        self.role = Role.FOLLOWER
        self.leader = leader_id
        self._events.append(BecameFollower(term, leader_id))

    def become_pre_candidate(self) -> None:
        """Ask for pre-votes; term and vote stay as they are."""
        assert self.role is not Role.LEADER, "a leader does not campaign"
        self.tracker.votes.clear()
        if self.leader != NO_NODE:  # T has passed without its word; if votes are split now, it need not pass again
            self._hasty_campaigns = HASTY_CAMPAIGNS
        self._hasty_campaigns = max(0, self._hasty_campaigns - 1)
        if self.role is Role.PRE_CANDIDATE and self.randomized_election_ticks < self.config.election_ticks:
            self.draw_election_timeout()  # nobody has answered: this node's turn was for the first attempt
        self.role = Role.PRE_CANDIDATE
        # Or this node's own promise would refuse the others' pre-votes: whoever campaigns has given it up.
        self.leader = NO_NODE
        self._promise_ticks = 0
        self._events.append(BecamePreCandidate(self.term))

    def become_candidate(self) -> None:
        """Open a new term with a vote for this node."""
        assert self.role is not Role.LEADER, "a leader does not campaign"
        hasty_campaigns, self._hasty_campaigns = self._hasty_campaigns, 0
        self._reset(self.term + 1)  # with a timeout of T: votes are on their way, and a slow disk may hold up its own
        self._hasty_campaigns = hasty_campaigns
        self.vote = self.id
        self.role = Role.CANDIDATE
        self._events.append(BecameCandidate(self.term))

    def become_leader(self) -> None:
        """Lead this term; its first entry is an empty one."""
        assert self.role is Role.CANDIDATE, "only a candidate wins"
        self._hasty_campaigns = 0
        self._reset(self.term)
        self.role = Role.LEADER
        self.leader = self.id
        own = self.tracker.progress[self.id]
        own.become_replicate()
        own.recently_active = True
        # Whatever change the log's tail may hold has to be applied before another is proposed.
        self.pending_conf_index = self.log.last_index()
        self._events.append(BecameLeader(self.term))
        accepted = leader.append(self, [Entry(0, 0)])
        assert accepted, "an empty entry is never refused"

    def _reset(self, term: int) -> None:
        if self.term != term:
            self.term = term
            self.vote = NO_NODE
        self.leader = NO_NODE
        self.election_elapsed = 0
        self.heartbeat_elapsed = 0
        self.draw_election_timeout()
        self.transferee = NO_NODE
        self.tracker.votes.clear()
        self.pending_conf_index = 0
        self.uncommitted_bytes = 0
        self.heartbeat_sequence = 0
        self.has_sent_timeout_now = False
        self.reads.reset()
        self.tracker.reset_progress(self.log.last_index() + 1)
        if self.id in self.tracker.progress:
            self.tracker.progress[self.id].match = self.log.last_index()

    def draw_election_timeout(self) -> None:
        """Draw this role's election timeout, uniform in [T, 2T); in [L, 2L) while the leader is known to be gone."""
        shortest = self._lease_ticks if self._hasty_campaigns else self.config.election_ticks
        self.randomized_election_ticks = shortest + self._random.randrange(shortest)

    def votes_split(self) -> None:
        """Take in that votes are split: whoever knows why there is an election tries again soon."""
        if self._hasty_campaigns:
            self.draw_election_timeout()

    def end_haste(self) -> None:
        """Wait for T from now on: the leader is there after all, or another has this node's vote and leads in a moment."""
        if self._hasty_campaigns or self.randomized_election_ticks < self.config.election_ticks:
            self._hasty_campaigns = 0
            self.draw_election_timeout()

    def is_promotable(self) -> bool:
        """Whether this node could lead: a voter that is not waiting for a snapshot."""
        is_voter = self.id in self.tracker.progress and not self.tracker.is_learner(self.id)
        return is_voter and self.log.unstable.next_snapshot() is None and self.log.unstable.snapshot is None

    # -- sending --

    def send(self, message: Message) -> None:
        """Put a message into the box it belongs to, with this node's term unless it carries one (or none)."""
        if message.term == 0 and message.kind not in _WITHOUT_TERM:
            assert message.kind not in (*_VOTES, MessageKind.VOTE_RESPONSE, MessageKind.PRE_VOTE_RESPONSE), "no term"
            message = Message(
                message.kind,
                message.to,
                message.source,
                self.term,
                message.log_term,
                message.index,
                message.commit,
                message.entries,
                message.reject,
                message.reject_hint,
                message.sequence,
                message.forced,
                message.snapshot,
                message.commit_term,
            )
        # Answers promise durability, so they leave only after all that was to be written before them; refusals, too.
        is_early = message.kind is MessageKind.VOTE and self.config.asks_for_votes_early
        (self._promises if message.kind in _PROMISES and not is_early else self._messages).append(message)

    def ignored(self, message: Message, reason: str) -> None:
        """Note that a message had no effect."""
        self._events.append(MessageIgnored(message.kind, message.source, reason))

    def note(self, event: Event) -> None:
        """Note what happened."""
        self._events.append(event)

    def note_vote(self, message: Message, *, granted: bool) -> None:
        """Note how a candidate was answered."""
        kind = VoteGranted if granted else VoteRefused
        self._events.append(kind(message.source, message.term, message.kind is MessageKind.PRE_VOTE))

    def answer_read(self, request: Message, index: int) -> None:
        """Give a read its index: to this node's caller, or to the follower that asked."""
        if request.source == self.id:
            self._read_states.append(ReadState(index, request.sequence))
        else:
            self.send(
                Message(
                    MessageKind.READ_INDEX_RESPONSE, request.source, self.id, index=index, sequence=request.sequence
                )
            )

    def read_answered(self, index: int, context: int) -> None:
        """Take in the leader's answer to a read of this node."""
        self._read_states.append(ReadState(index, context))

    # -- what the storage answers --

    def _appended(self, message: Message) -> None:
        """Entries and snapshot are durable. In a later term the entries may have been replaced meanwhile (ABA)."""
        log = self.log
        if message.index and message.term == self.term:
            log.unstable.stable_to(message.index, message.log_term)
        if message.snapshot is not None:
            index = message.snapshot.meta.index
            log.unstable.stable_snapshot_to(index)
            if index > log.applied:
                log.applied_to(index, 0)

    def _applied(self, message: Message) -> None:
        entries = message.entries
        if not entries:
            return
        index = max(entries[-1].index, self.log.applied)
        self.log.applied_to(index, total_size(entries))
        if self.role is Role.LEADER:
            leader.applied(self, entries)

    # -- handing out --

    def _soft_state(self) -> SoftState:
        return SoftState(self.leader, self.role)

    def _hard_state(self) -> HardState:
        return HardState(self.term, self.vote, self.log.committed)

    def has_ready(self) -> bool:
        """Tell whether `ready` has anything to say."""
        unstable = self.log.unstable
        return bool(
            self._messages
            or self._promises
            or self._read_states
            or unstable.next_entries()
            or unstable.next_snapshot() is not None
            or self.log.has_next_committed_entries()
            or self._hard_state() != self._handed_hard_state
            or self._soft_state() != self._handed_soft_state
        )

    def ready(self) -> Ready:
        """Return, once, everything that is to be done. The next call returns what came up since."""
        soft = self._soft_state()
        append = self._append_job()
        ready = Ready(
            soft=None if soft == self._handed_soft_state else soft,
            messages=self._messages,
            append=append,
            apply=self._apply_job(),
            reads=self._read_states,
            events=self._events,
        )
        self._handed_soft_state = soft
        self._messages, self._promises, self._read_states, self._events = [], [], [], []
        return ready

    def _append_job(self) -> AppendJob | None:
        unstable = self.log.unstable
        entries, snapshot = tuple(unstable.next_entries()), unstable.next_snapshot()
        hard_state, handed = self._hard_state(), self._handed_hard_state
        responses = tuple(self._promises)
        if not entries and snapshot is None and hard_state == handed and not responses:
            return None
        if unstable.entries or unstable.snapshot is not None:
            responses += (self._append_response(snapshot is not None),)
        must_sync = (
            bool(entries) or snapshot is not None or (hard_state.term, hard_state.vote) != (handed.term, handed.vote)
        )
        unstable.accept_in_progress()
        self._handed_hard_state = hard_state
        return AppendJob(hard_state, entries, snapshot, responses, must_sync)

    def _append_response(self, with_snapshot: bool) -> Message:
        """Return what the storage answers: the last entry of the whole log at this moment, and the present term."""
        log = self.log
        last = log.last_index() if log.unstable.entries else 0
        return Message(
            MessageKind.STORAGE_APPEND_RESPONSE,
            self.id,
            self.id,
            self.term,
            log_term=log.term(last) if last else 0,
            index=last,
            snapshot=log.unstable.snapshot if with_snapshot else None,
        )

    def _apply_job(self) -> ApplyJob | None:
        entries = tuple(self.log.next_committed_entries())
        if not entries:
            return None
        self.log.accept_applying(entries)
        return ApplyJob(entries, (Message(MessageKind.STORAGE_APPLY_RESPONSE, self.id, self.id, entries=entries),))


_STEP = {
    Role.FOLLOWER: follower.step,
    Role.PRE_CANDIDATE: candidate.step,
    Role.CANDIDATE: candidate.step,
    Role.LEADER: leader.step,
}
