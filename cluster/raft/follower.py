"""What a follower does with a message; and what every role does with a request for its vote.

Rules kept here: a vote goes to one candidate a term, and only to one whose log lacks nothing of ours (dissertation,
section 3.6.1); an append changes the log only where it conflicts; what is older than the commit index is answered with
the commit index, never refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from conclave.cluster.raft import candidate
from conclave.cluster.raft.messages import NO_NODE, Message, MessageKind, Snapshot
from conclave.cluster.raft.ready import Role

if TYPE_CHECKING:
    from conclave.cluster.raft.core import Raft

_VOTE_ANSWER = {
    MessageKind.VOTE: MessageKind.VOTE_RESPONSE,
    MessageKind.PRE_VOTE: MessageKind.PRE_VOTE_RESPONSE,
}


def answer_vote(raft: Raft, message: Message) -> None:
    """Grant or refuse a vote or pre-vote. Learners answer, too: they may have been promoted without knowing it yet."""
    is_pre_vote = message.kind is MessageKind.PRE_VOTE
    may_vote = (
        raft.vote == message.source
        or (raft.vote == NO_NODE and raft.leader == NO_NODE and (message.forced or not raft.has_promised))
        or (is_pre_vote and message.term > raft.term)
    )
    granted = may_vote and raft.log.is_up_to_date(message.index, message.log_term)
    raft.note_vote(message, granted=granted)
    # A granted pre-vote answers with the term that was asked about, or the candidate would take it for an old one.
    send_vote_answer(raft, message, message.term if granted else raft.term, granted=granted)
    if granted and not is_pre_vote:
        raft.election_elapsed = 0
        raft.vote = message.source
        raft.end_haste()
    learn_commit(raft, message)


def send_vote_answer(raft: Raft, message: Message, term: int, *, granted: bool) -> None:
    """Answer a request for a vote, and tell how far this node knows the log to be committed."""
    commit = raft.log.committed
    raft.send(
        Message(
            _VOTE_ANSWER[message.kind],
            message.source,
            raft.id,
            term,
            commit=commit,
            reject=not granted,
            commit_term=raft.log.term(commit),
        )
    )


def learn_commit(raft: Raft, message: Message) -> None:
    """Take over what another node knows to be committed, if it is in this log.

    Without a leader nobody else would tell. A member that does not know that a change is committed may need votes of the
    configuration before it, which nobody gives any more: the others have gone on, and wait for this node in turn.
    """
    log = raft.log
    is_news = message.commit > log.committed and log.matches(message.commit, message.commit_term)
    if not is_news or raft.role is Role.LEADER:
        return
    log.commit_to(message.commit)
    if raft.role is not Role.FOLLOWER and log.has_unapplied_conf_change():
        raft.become_follower(raft.term, NO_NODE)  # another configuration decides than the one that was asked


def step(raft: Raft, message: Message) -> None:
    """Take in one message of the present term."""
    kind = message.kind
    if kind is MessageKind.APPEND:
        _hear_leader(raft, message)
        handle_append(raft, message)
    elif kind is MessageKind.HEARTBEAT:
        _hear_leader(raft, message)
        handle_heartbeat(raft, message)
    elif kind is MessageKind.SNAPSHOT:
        _hear_leader(raft, message)
        handle_snapshot(raft, message)
    elif kind is MessageKind.TIMEOUT_NOW:
        # The leader asked for it: no pre-vote, and nobody's promise to that leader stands against it.
        candidate.hup(raft, transfer=True)
    elif kind is MessageKind.READ_INDEX_RESPONSE:
        raft.read_answered(message.index, message.sequence)
    elif kind is MessageKind.RESIGNED and message.source == raft.leader:
        raft.resigned()
    elif kind is MessageKind.TRANSFER_LEADER and raft.leader != NO_NODE:
        raft.send(Message(kind, raft.leader, message.source))
    else:
        raft.ignored(message, "not for a follower")


def _hear_leader(raft: Raft, message: Message) -> None:
    raft.election_elapsed = 0
    raft.promise()
    raft.leader = message.source
    raft.end_haste()


def handle_append(raft: Raft, message: Message) -> None:
    """Take over entries, or say where the logs may still match."""
    log = raft.log
    if message.index < log.committed:
        _answer(raft, message, index=log.committed)
        return
    last = log.maybe_append(message.index, message.log_term, message.entries, message.commit)
    if last is not None:
        _answer(raft, message, index=last)
        return
    hint, hint_term = log.find_conflict_by_term(min(message.index, log.last_index()), message.log_term)
    raft.send(
        Message(
            MessageKind.APPEND_RESPONSE,
            message.source,
            raft.id,
            index=message.index,
            reject=True,
            reject_hint=hint,
            log_term=hint_term,
        )
    )


def handle_heartbeat(raft: Raft, message: Message) -> None:
    """Take over the commit index (which the leader knows this node to have) and echo the heartbeat's number."""
    raft.log.commit_to(message.commit)
    raft.send(Message(MessageKind.HEARTBEAT_RESPONSE, message.source, raft.id, sequence=message.sequence))


def handle_snapshot(raft: Raft, message: Message) -> None:
    """Begin anew behind a snapshot, unless this node has all of it."""
    snapshot = message.snapshot
    if snapshot is not None and _restore(raft, snapshot):
        _answer(raft, message, index=raft.log.last_index())
    else:
        _answer(raft, message, index=raft.log.committed)


def _restore(raft: Raft, snapshot: Snapshot) -> bool:
    meta, log = snapshot.meta, raft.log
    if meta.index <= log.committed or raft.role is not Role.FOLLOWER:
        return False
    state = meta.conf_state
    if raft.id not in (*state.voters, *state.learners, *state.voters_outgoing):
        return False  # a snapshot in which this node does not exist is not for it
    if log.matches(meta.index, meta.term):
        log.commit_to(meta.index)
        return False
    log.restore(snapshot)
    raft.restore_configuration(state)
    raft.tracker.reset_progress(log.last_index() + 1)
    raft.tracker.progress[raft.id].match = log.last_index()
    return True


def _answer(raft: Raft, message: Message, *, index: int) -> None:
    raft.send(Message(MessageKind.APPEND_RESPONSE, message.source, raft.id, index=index))
