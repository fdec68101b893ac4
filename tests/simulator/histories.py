"""Histories that random walks hardly ever find, played by hand (raft.md, rule 13 and section 4).

Each raises an AssertionError if the cluster breaks its promise. They are tests, and the first judges of a broken rule.
"""

from collections.abc import Callable
from typing import Final

from conclave.cluster.raft import (
    ConfChange,
    ConfChangeKind,
    ConfState,
    Entry,
    Message,
    MessageKind,
    Role,
    Snapshot,
    SnapshotMeta,
)
from conclave.cluster.raft.progress import ProgressState
from tests.cluster.raft.harness import (
    BASE_INDEX,
    ELECTION_TICKS,
    HEARTBEAT_TICKS,
    LEASE_TICKS,
    Cluster,
    give_log,
)


def removals_one_after_the_other() -> None:
    """Two members are removed, one knows of the first removal only as committed, and restarts without its leader.

    It must not win an election in the configuration before the first removal: the remaining leader decides alone by now.
    """
    cluster = Cluster(lease_ticks=LEASE_TICKS)
    cluster.elect(3)
    cluster[3].propose_conf_change(ConfChange(ConfChangeKind.REMOVE, 2))
    cluster.settle_without(2)
    cluster.members[1].is_slow_to_apply = True
    cluster[3].propose_conf_change(ConfChange(ConfChangeKind.REMOVE, 1))
    cluster.settle_without(2)
    decided = cluster.propose(3, b"decided alone")
    cluster.take()
    assert cluster[3].commit_index == decided

    cluster.members[1].restart()
    cluster.members[1].is_slow_to_apply = True
    cluster.tick(LEASE_TICKS, 2)
    cluster[1].campaign()
    cluster.settle_without(3)
    cluster.members[1].apply()
    cluster[1].campaign()
    cluster.settle_without(3)

    assert cluster[1].commit_index < decided, "two majorities have decided about one index"


def figure_eight() -> None:
    """A leader finds an entry of an earlier term on a majority: it may still be overwritten (the paper's figure 8).

    Member 5 holds an entry of term 3, which the leader of term 4 has never seen; it could still win term 5.
    """
    cluster = Cluster(5)
    old, own = BASE_INDEX + 1, BASE_INDEX + 2
    for member_id, terms in ((1, [2]), (2, [2]), (3, []), (4, []), (5, [3])):
        give_log(cluster.members[member_id], *terms, term=3)
    cluster[1].campaign()
    cluster.settle(lambda message: message.kind is MessageKind.APPEND or message.to == 5)
    assert cluster[1].role is Role.LEADER

    for follower in (2, 3):
        cluster.deliver(Message(MessageKind.APPEND_RESPONSE, 1, follower, 4, index=old))
    assert cluster[1].commit_index == BASE_INDEX, "an entry of an earlier term was committed by counting copies"

    for follower in (2, 3):
        cluster.deliver(Message(MessageKind.APPEND_RESPONSE, 1, follower, 4, index=own))
    assert cluster[1].commit_index == own, "an entry of the own term commits what stands before it"


def vote_across_a_crash() -> None:
    """A node grants its vote, crashes, and is asked by another candidate of the same term."""
    cluster = Cluster(pre_vote=False, check_quorum=False)
    cluster[1].campaign()
    cluster.deliver(*cluster.take(MessageKind.VOTE, to=3))
    granted = [vote for vote in cluster.take(MessageKind.VOTE_RESPONSE) if not vote.reject]
    assert [vote.to for vote in granted] == [1]

    cluster.members[3].restart()
    cluster[2].campaign()
    cluster.deliver(*cluster.take(MessageKind.VOTE, to=3, source=2))

    assert all(vote.reject for vote in cluster.take(MessageKind.VOTE_RESPONSE, source=3)), "two votes in one term"


def leading_before_the_term_is_durable() -> None:
    """A candidate has everybody's vote but its own, which its disk owes; it crashes, and wins the same term once more."""
    cluster = Cluster(pre_vote=False, check_quorum=False)
    cluster.members[1].disk_is_stuck = True
    cluster[1].campaign()
    cluster.deliver(*cluster.take(MessageKind.VOTE))
    cluster.deliver(*cluster.take(MessageKind.VOTE_RESPONSE))
    led_in = cluster[1].term if cluster[1].role is Role.LEADER else 0
    cluster.deliver(*cluster.take(MessageKind.APPEND, to=2))
    cluster.take()

    cluster.members[1].restart()
    cluster[1].campaign()
    cluster.settle()

    assert cluster[1].role is Role.LEADER, "it had the vote of a majority"
    assert cluster[1].term != led_in, "two leaders in one term"


def vote_for_a_log_that_is_forgotten() -> None:
    """A candidate stands with an entry that its disk owes, crashes, and stands in the same term once more without it.

    The entry is committed by the others, one of which votes for the longer log; that vote comes when it stands again.
    """
    cluster = Cluster(pre_vote=False, check_quorum=False)
    cluster.elect(3)
    cluster.members[1].disk_is_stuck = True
    decided = cluster.propose(3, b"decided without 1")
    cluster.settle(lambda message: message.source == 1)
    assert cluster[3].commit_index == decided
    cluster.take()
    cluster.members[2].disk_is_stuck = True
    cluster[1].campaign()
    cluster.deliver(*cluster.take(MessageKind.VOTE, to=2))
    cluster.take()

    cluster.members[1].restart()
    cluster[1].campaign()
    cluster.collect()
    cluster.members[2].disk_is_stuck = False
    cluster.members[2].write()
    cluster.deliver(*cluster.take(MessageKind.VOTE_RESPONSE, to=1))

    assert cluster[1].role is not Role.LEADER, "it lacks what is committed"


def vote_kept_on_stepping_down() -> None:
    """A candidate that hears of its term's leader steps down in the same term, and has voted all the same."""
    cluster = Cluster(pre_vote=False, check_quorum=False)
    cluster[1].campaign()
    cluster.take()
    term = cluster[1].term
    cluster.deliver(Message(MessageKind.HEARTBEAT, 1, 2, term))
    cluster[1].forget_leader()

    cluster.deliver(Message(MessageKind.VOTE, 1, 3, term, log_term=9, index=9))

    assert all(vote.reject for vote in cluster.take(MessageKind.VOTE_RESPONSE, to=3)), "two votes in one term"


def promise_outlives_the_term() -> None:
    """A follower answers its leader, then learns a later term from a third node, which asks for its vote at once."""
    cluster = Cluster(lease_ticks=LEASE_TICKS)
    cluster.elect(1)
    cluster.tick(2, 1)
    cluster.settle()
    log = cluster[3].log
    cluster.deliver(Message(MessageKind.PRE_VOTE_RESPONSE, 2, 3, 5, reject=True))

    cluster.deliver(Message(MessageKind.VOTE, 2, 3, 6, log_term=log.last_term(), index=log.last_index()))

    granted = [vote for vote in cluster.take(MessageKind.VOTE_RESPONSE, source=2) if not vote.reject]
    assert not granted, "the leader's lease was broken"


def storage_answers_for_what_it_no_longer_holds() -> None:
    """Entries are overwritten while their first write is under way; its answer must not vouch for the second (ABA)."""
    cluster = Cluster()
    member = cluster.members[1]
    member.disk_is_stuck = True

    def append(source: int, term: int, entry_term: int, value: bytes) -> None:
        entry = Entry(entry_term, BASE_INDEX + 1, data=value)
        cluster.deliver(Message(MessageKind.APPEND, 1, source, term, 1, BASE_INDEX, entries=(entry,)))

    append(2, 2, 2, b"first")
    append(3, 3, 3, b"other")
    append(2, 4, 2, b"first")
    member.write(1)

    assert cluster[1].log.unstable.entries, "the last write is still under way"


def commit_index_beyond_the_append() -> None:
    """An append confirms less than a follower's log holds; the rest of that log is of a leader that lost its office."""
    cluster = Cluster()
    follower = cluster.members[1]
    give_log(follower, 2, 2, 2)
    committed = BASE_INDEX + 3

    cluster.deliver(Message(MessageKind.APPEND, 1, 2, 3, 1, BASE_INDEX, committed, (Entry(2, BASE_INDEX + 1),)))

    assert cluster[1].commit_index == BASE_INDEX + 1, "entries were committed that the leader may not have"


def old_heartbeats_answered_late() -> None:
    """Answers to heartbeats reach a leader after it was replaced, and after it was asked to read (raft.md, rule 12)."""
    cluster = Cluster(lease_ticks=LEASE_TICKS)
    cluster.elect(1)
    for _ in range(3):
        cluster.tick(HEARTBEAT_TICKS, 1)
    cluster.deliver(*cluster.take(MessageKind.HEARTBEAT))
    late = cluster.take(MessageKind.HEARTBEAT_RESPONSE)
    cluster.tick(LEASE_TICKS, 2, 3)
    cluster[2].campaign()
    cluster.settle_without(1)
    cluster.propose(2, b"newer")
    cluster.settle_without(1)
    assert cluster.members[2].values == [b"newer"]

    cluster[1].read_index(1)
    cluster.deliver(*late)

    assert not cluster.members[1].reads, "a deposed leader answered a read"


def reads_before_the_first_commit() -> None:
    """A new leader is asked to read before it knows what its predecessor had acknowledged."""
    cluster = Cluster(lease_ticks=LEASE_TICKS)
    cluster.elect(1)
    acknowledged = cluster.propose(1, b"acknowledged")
    cluster.deliver(*cluster.take(MessageKind.APPEND))
    cluster.deliver(*cluster.take(MessageKind.APPEND_RESPONSE))
    cluster.take()
    assert cluster[1].commit_index == acknowledged
    cluster.tick(LEASE_TICKS, 2, 3)
    cluster[2].campaign()
    cluster.settle(lambda message: message.kind is MessageKind.APPEND or 1 in (message.to, message.source))
    assert cluster[2].role is Role.LEADER

    cluster[2].read_index(1)
    cluster.settle(lambda message: message.kind is MessageKind.APPEND or 1 in (message.to, message.source))

    assert all(read.index >= acknowledged for read in cluster.members[2].reads), "a read missed an acknowledged write"


def minority_behind_a_snapshot() -> None:
    """A follower gets a snapshot in which the cluster has grown from three members to five, and campaigns.

    One vote besides its own was enough before. If it still were, the other three could have another leader.
    """
    cluster = Cluster(pre_vote=False, check_quorum=False)
    grown = Snapshot(SnapshotMeta(BASE_INDEX + 5, 1, ConfState((1, 2, 3, 4, 5))))
    cluster.deliver(Message(MessageKind.SNAPSHOT, 3, 1, 1, snapshot=grown))

    cluster[3].campaign()
    cluster.settle_without(2)

    assert cluster[3].log.snapshot().meta.index == BASE_INDEX + 5
    assert cluster[3].role is not Role.LEADER, "two of five members made a leader"


def waiting_for_each_others_configuration() -> None:
    """A removal is committed, one member knows it, another one does not and has the longer log; their leader is gone.

    The second asks four members for their votes, of which one is gone and one removed; the first lacks its last entry. It
    must tell the second, with its vote, that three members decide by now, of which they are two.
    """
    cluster = Cluster(4, seed=1)
    cluster.elect(3)
    cluster[3].propose_conf_change(ConfChange(ConfChangeKind.REMOVE, 4))
    cluster.collect()
    removal = cluster[3].log.last_index()
    cluster.propose(3, b"for the second alone")
    appends = cluster.take(MessageKind.APPEND)
    cluster.deliver(*(each for each in appends if each.to == 2 or (each.to == 1 and each.index < removal)))
    accepted = cluster.take(MessageKind.APPEND_RESPONSE)
    cluster.deliver(*(each for each in accepted if each.index == removal))
    cluster.take()
    assert cluster[3].commit_index == removal
    cluster.tick(HEARTBEAT_TICKS, 3)
    cluster.deliver(*cluster.take(MessageKind.HEARTBEAT, to=1))
    assert (cluster[1].commit_index, cluster[2].commit_index) == (removal, BASE_INDEX + 1)
    assert cluster[2].log.last_index() > cluster[1].log.last_index()

    cluster.run(20 * ELECTION_TICKS, lambda message: not {message.to, message.source} <= {1, 2})

    assert Role.LEADER in (cluster.role(1), cluster.role(2)), "two of three members wait for ever"


def late_refusal() -> None:
    """A refusal comes twice, the second time when the follower has everything: nothing of that may be forgotten."""
    cluster = Cluster()
    give_log(cluster.members[1], 2, 2, 2)
    cluster[1].campaign()
    cluster.settle(lambda message: message.kind is MessageKind.APPEND_RESPONSE and message.source == 2)
    cluster.tick(HEARTBEAT_TICKS, 1)
    cluster.deliver(*cluster.take(MessageKind.HEARTBEAT, to=2))
    cluster.deliver(*cluster.take(MessageKind.HEARTBEAT_RESPONSE, source=2))
    cluster.deliver(*cluster.take(MessageKind.APPEND, to=2))
    refusals = cluster.take(MessageKind.APPEND_RESPONSE, source=2)
    assert refusals
    assert all(refusal.reject for refusal in refusals)
    cluster.deliver(*refusals)
    cluster.settle()
    known = cluster[1].log.last_index()
    assert cluster[1].tracker.progress[2].match == known

    cluster.deliver(*refusals)
    cluster.propose(1, b"next")

    assert cluster[1].tracker.progress[2].match == known, "what is known to be stored was forgotten"
    assert all(append.index >= known for append in cluster.take(MessageKind.APPEND, to=2)), "it is sent once more"


def snapshot_lost_on_the_way() -> None:
    """A snapshot does not arrive, and whoever carried it says so; the follower must get what it lacks all the same."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.propose(1, b"missed")
    cluster.settle_without(3)
    applied = cluster[1].applied_index
    cluster.members[1].storage.create_snapshot(applied, cluster[1].conf_state)
    cluster.members[1].storage.compact(applied)
    cluster.run(HEARTBEAT_TICKS, lambda message: message.kind is MessageKind.SNAPSHOT)
    cluster.propose(1, b"refused")
    cluster.settle(lambda message: message.kind is MessageKind.SNAPSHOT)
    assert cluster[1].tracker.progress[3].state is ProgressState.SNAPSHOT

    cluster[1].report_snapshot(3, ok=False)
    cluster.run(2 * HEARTBEAT_TICKS)

    assert cluster[3].commit_index == cluster[1].commit_index, "a follower waits for ever for a snapshot"


def stuck_in_a_later_term() -> None:
    """A member has come to a later term than its leader's, alone: it takes nothing from that leader, and wins no election.

    It must say so, so that all come to a later term together.
    """
    cluster = Cluster(seed=1, lease_ticks=LEASE_TICKS)
    cluster.elect(1)
    cluster.deliver(Message(MessageKind.PRE_VOTE_RESPONSE, 3, 2, 5, reject=True))
    assert (cluster[1].term, cluster[3].term) == (2, 5)
    decided = cluster.propose(1, b"for all")

    cluster.run(20 * ELECTION_TICKS)

    assert cluster[1].commit_index >= decided
    assert cluster[3].commit_index >= decided, "a member waits for ever in a term of its own"


HISTORIES: Final[tuple[Callable[[], None], ...]] = (
    removals_one_after_the_other,
    figure_eight,
    vote_across_a_crash,
    leading_before_the_term_is_durable,
    vote_for_a_log_that_is_forgotten,
    vote_kept_on_stepping_down,
    promise_outlives_the_term,
    storage_answers_for_what_it_no_longer_holds,
    commit_index_beyond_the_append,
    old_heartbeats_answered_late,
    reads_before_the_first_commit,
    minority_behind_a_snapshot,
    waiting_for_each_others_configuration,
    late_refusal,
    snapshot_lost_on_the_way,
    stuck_in_a_later_term,
)
