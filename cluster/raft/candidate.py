"""Standing for election: the pre-vote (dissertation, section 9.6), the vote, and what comes meanwhile.

Rules kept here: nobody campaigns over a committed membership change that it has not applied, nor within its own promise
to a leader, unless that leader asks for it; a candidate asks for votes when its term, its own vote and its log are durable,
not before, and counts its own only then (it is a message to itself, in the same box); the first answer of a peer counts.

A candidate that asks earlier and crashes has forgotten the term. It may stand in it once more, with a shorter log, and count
a vote that was given to the longer one; or win it twice, and write other entries under the same index and term.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from conclave.cluster.raft import follower, leader
from conclave.cluster.raft.messages import NO_NODE, Message, MessageKind
from conclave.cluster.raft.quorum import VoteResult
from conclave.cluster.raft.ready import MessageIgnored, Role

if TYPE_CHECKING:
    from conclave.cluster.raft.core import Raft


def hup(raft: Raft, *, transfer: bool = False) -> None:
    """Begin an election, if this node may."""
    if raft.role is Role.LEADER:
        raft.note(MessageIgnored(None, raft.id, "it leads already"))
    elif not raft.is_promotable():
        raft.note(MessageIgnored(None, raft.id, "it cannot lead"))
    elif not transfer and _owes_silence(raft):
        raft.note(MessageIgnored(None, raft.id, "promised the leader not to campaign"))
    elif raft.log.has_unapplied_conf_change():
        raft.note(MessageIgnored(None, raft.id, "a committed membership change waits to be applied"))
    elif transfer or not raft.config.pre_vote:
        _campaign(raft, transfer=transfer)
    else:
        _pre_campaign(raft)


def _owes_silence(raft: Raft) -> bool:
    """Whether a leader's lease may lean on this node's standing still; without a time L of its own, none does."""
    return raft.config.lease_ticks is not None and raft.has_promised and not raft.tracker.is_singleton


def _pre_campaign(raft: Raft) -> None:
    raft.become_pre_candidate()
    _ask(raft, MessageKind.PRE_VOTE, raft.term + 1, forced=False)


def _campaign(raft: Raft, *, transfer: bool) -> None:
    raft.become_candidate()
    _ask(raft, MessageKind.VOTE, raft.term, forced=transfer)


def _ask(raft: Raft, kind: MessageKind, term: int, *, forced: bool) -> None:
    """Ask all voters, in order of their ids; this node's own vote waits for the disk like any other."""
    answer = MessageKind.VOTE_RESPONSE if kind is MessageKind.VOTE else MessageKind.PRE_VOTE_RESPONSE
    log = raft.log
    index, log_term = log.last_index(), log.last_term()
    commit, commit_term = log.committed, log.term(log.committed)
    for voter in raft.tracker.voters:
        if voter == raft.id:
            raft.send(Message(answer, voter, raft.id, term))
        else:
            raft.send(
                Message(
                    kind,
                    voter,
                    raft.id,
                    term,
                    log_term=log_term,
                    index=index,
                    commit=commit,
                    commit_term=commit_term,
                    forced=forced,
                )
            )


def step(raft: Raft, message: Message) -> None:
    """Take in one message of the present term (or of the next, for a granted pre-vote)."""
    kind = message.kind
    if kind in (MessageKind.APPEND, MessageKind.HEARTBEAT, MessageKind.SNAPSHOT):
        # Somebody has won this term.
        raft.become_follower(message.term, message.source)
        follower.step(raft, message)
    elif kind is _awaited(raft):
        _count(raft, message)
    else:
        raft.ignored(message, "not for a candidate")


def _awaited(raft: Raft) -> MessageKind:
    is_pre = raft.role is Role.PRE_CANDIDATE
    return MessageKind.PRE_VOTE_RESPONSE if is_pre else MessageKind.VOTE_RESPONSE


def _count(raft: Raft, message: Message) -> None:
    follower.learn_commit(raft, message)
    if raft.role is Role.FOLLOWER:
        return
    raft.tracker.record_vote(message.source, not message.reject)
    if raft.role is Role.CANDIDATE:
        if message.source == raft.id:
            raft.election_elapsed = 0  # only now the others are asked, and their disks have T as this one had
        if raft.tracker.is_split():
            raft.votes_split()
    result = raft.tracker.vote_result()
    if result is VoteResult.LOST:
        raft.become_follower(raft.term, NO_NODE)
    elif result is VoteResult.WON:
        if raft.role is Role.PRE_CANDIDATE:
            _campaign(raft, transfer=False)
        else:
            raft.become_leader()
            leader.broadcast_append(raft)
