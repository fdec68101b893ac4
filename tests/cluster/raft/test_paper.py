"""The paper, section by section (Ongaro and Ousterhout, "In search of an understandable consensus algorithm", extended).

Each test's name begins with the section whose rule it plays.
"""

import pytest

from conclave.cluster.raft import Entry, HardState, Message, MessageKind, Role
from tests.cluster.raft.harness import BASE_INDEX, ELECTION_TICKS, HEARTBEAT_TICKS, Cluster, give_log


@pytest.fixture
def trio() -> Cluster:
    """Three members as in the paper: without pre-vote and without CheckQuorum."""
    return Cluster(pre_vote=False, check_quorum=False)


def roles(cluster: Cluster) -> list[Role]:
    return [member.raft.role for member in cluster.members.values()]


# -- 5.1: basics --


@pytest.mark.parametrize("kind", [MessageKind.APPEND, MessageKind.HEARTBEAT, MessageKind.VOTE])
@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.CANDIDATE, Role.LEADER])
def test_5_1_a_higher_term_makes_anybody_a_follower_of_that_term(trio: Cluster, kind: MessageKind, role: Role) -> None:
    if role is Role.CANDIDATE:
        trio[1].campaign()
        trio.take()
    elif role is Role.LEADER:
        trio.elect(1)

    trio.deliver(Message(kind, 1, 2, 9))

    assert trio.role(1) is Role.FOLLOWER
    assert trio[1].term == 9


def test_5_1_a_request_of_an_earlier_term_changes_nothing(trio: Cluster) -> None:
    trio.elect(1)
    before = trio[2].last_index

    trio.deliver(Message(MessageKind.APPEND, 2, 3, 1, 1, BASE_INDEX, entries=(Entry(1, BASE_INDEX + 1, data=b"x"),)))

    assert trio[2].last_index == before
    assert trio[2].leader == 1


# -- 5.2: leader election --


def test_5_2_everybody_starts_as_a_follower(trio: Cluster) -> None:
    assert roles(trio) == [Role.FOLLOWER] * 3


def test_5_2_a_leader_sends_heartbeats_to_all_followers(trio: Cluster) -> None:
    trio.elect(1)

    trio.tick(HEARTBEAT_TICKS, 1)

    assert [m.to for m in trio.take(MessageKind.HEARTBEAT)] == [2, 3]


@pytest.mark.parametrize("from_role", [Role.FOLLOWER, Role.CANDIDATE])
def test_5_2_a_silent_election_timeout_opens_a_new_term_with_a_vote_for_oneself(trio: Cluster, from_role: Role) -> None:
    rounds = 1 if from_role is Role.FOLLOWER else 2
    for _ in range(rounds):
        trio.take()
        trio.tick(ELECTION_TICKS, 1)

    assert trio.role(1) is Role.CANDIDATE
    assert trio[1].term == 1 + rounds
    assert trio[1].vote == 1
    assert [(m.to, m.term) for m in trio.take(MessageKind.VOTE)] == [(2, 1 + rounds), (3, 1 + rounds)]


@pytest.mark.parametrize(
    ("voters", "granted", "refused", "expected"),
    [
        (1, 0, 0, Role.LEADER),
        (3, 1, 0, Role.LEADER),
        (3, 0, 1, Role.CANDIDATE),
        (3, 0, 2, Role.FOLLOWER),
        (5, 2, 0, Role.LEADER),
        (5, 2, 2, Role.LEADER),
        (5, 1, 2, Role.CANDIDATE),
        (5, 1, 3, Role.FOLLOWER),
        (5, 0, 0, Role.CANDIDATE),
    ],
)
def test_5_2_a_majority_of_votes_decides(voters: int, granted: int, refused: int, expected: Role) -> None:
    cluster = Cluster(voters, pre_vote=False, check_quorum=False)
    cluster[1].campaign()
    cluster.take()

    for voter in range(2, 2 + granted + refused):
        cluster.deliver(Message(MessageKind.VOTE_RESPONSE, 1, voter, cluster[1].term, reject=voter >= 2 + granted))

    assert cluster.role(1) is expected


def test_5_2_a_follower_votes_for_the_first_who_asks(trio: Cluster) -> None:
    trio.deliver(Message(MessageKind.VOTE, 1, 2, 5, log_term=1, index=BASE_INDEX))
    trio.deliver(Message(MessageKind.VOTE, 1, 3, 5, log_term=1, index=BASE_INDEX))
    trio.deliver(Message(MessageKind.VOTE, 1, 2, 5, log_term=1, index=BASE_INDEX))

    answers = trio.take(MessageKind.VOTE_RESPONSE)
    assert [(answer.to, answer.reject) for answer in answers] == [(2, False), (3, True), (2, False)]


@pytest.mark.parametrize("term", [2, 7])
def test_5_2_a_candidate_that_hears_of_a_leader_follows_it(trio: Cluster, term: int) -> None:
    trio[1].campaign()
    assert trio[1].term == 2

    trio.deliver(Message(MessageKind.APPEND, 1, 2, term, 1, BASE_INDEX))

    assert (trio.role(1), trio[1].term, trio[1].leader) == (Role.FOLLOWER, term, 2)


def test_5_2_election_timeouts_differ_so_that_votes_are_rarely_split() -> None:
    class Counting:
        def __init__(self) -> None:
            self.next = 0

        def randrange(self, stop: int, /) -> int:
            self.next += 1
            return self.next % stop

    cluster = Cluster()
    cluster[1]._random = Counting()
    drawn = set()
    for _ in range(ELECTION_TICKS):
        cluster[1].draw_election_timeout()
        drawn.add(cluster[1].randomized_election_ticks)

    assert drawn == set(range(ELECTION_TICKS, 2 * ELECTION_TICKS))


# -- 5.3: log replication --


def test_5_3_a_leader_appends_a_proposal_and_sends_it_with_what_stands_before_it(trio: Cluster) -> None:
    trio.elect(1)
    index = trio.propose(1, b"x")

    appends = trio.take(MessageKind.APPEND)
    assert [(m.to, m.index, m.log_term) for m in appends] == [(2, index - 1, 2), (3, index - 1, 2)]
    assert all(m.entries == (Entry(2, index, data=b"x"),) for m in appends)


def test_5_3_an_entry_is_committed_when_a_majority_has_stored_it(trio: Cluster) -> None:
    trio.elect(1)
    index = trio.propose(1, b"x")
    trio.deliver(*trio.take(MessageKind.APPEND, to=2))
    assert trio[1].commit_index == index - 1

    trio.deliver(*trio.take(MessageKind.APPEND_RESPONSE, to=1))

    assert trio[1].commit_index == index
    assert trio.members[1].values == [b"x"]


@pytest.mark.parametrize(
    ("voters", "answers", "commits"), [(1, 0, True), (3, 0, False), (3, 1, True), (5, 1, False), (5, 2, True)]
)
def test_5_3_the_majority_includes_the_leader(voters: int, answers: int, commits: bool) -> None:
    cluster = Cluster(voters, pre_vote=False, check_quorum=False)
    cluster.elect(1)
    index = cluster.propose(1, b"x")
    for follower in range(2, 2 + answers):
        cluster.deliver(Message(MessageKind.APPEND_RESPONSE, 1, follower, cluster[1].term, index=index))

    assert (cluster[1].commit_index == index) is commits


def test_5_3_a_commit_covers_the_entries_of_earlier_leaders(trio: Cluster) -> None:
    give_log(trio.members[1], 2, 2)
    trio.elect(1)

    assert trio[1].commit_index == trio[1].last_index == BASE_INDEX + 3


def test_5_3_followers_apply_what_the_leader_says_is_committed_in_order(trio: Cluster) -> None:
    trio.elect(1)
    trio.propose(1, b"a")
    trio.propose(1, b"b", b"c")
    trio.settle()

    assert [trio.members[i].values for i in (1, 2, 3)] == [[b"a", b"b", b"c"]] * 3


@pytest.mark.parametrize(("index", "log_term"), [(BASE_INDEX + 9, 2), (BASE_INDEX + 2, 9)])
def test_5_3_an_append_behind_an_entry_that_is_missing_is_refused(trio: Cluster, index: int, log_term: int) -> None:
    give_log(trio.members[2], 2, 2)

    trio.deliver(Message(MessageKind.APPEND, 2, 1, 9, log_term, index))

    (answer,) = trio.take(MessageKind.APPEND_RESPONSE)
    assert answer.reject
    assert answer.index == index
    assert answer.reject_hint == BASE_INDEX + 2


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        ([], [2, 2, 3]),  # missing entries are sent
        ([2], [2, 2, 3]),
        ([2, 2, 3, 3], [2, 2, 3]),  # entries beyond the leader's are cut where they conflict
        ([2, 2, 2, 2], [2, 2, 3]),  # and so are those of an earlier term
    ],
)
def test_5_3_a_leader_brings_followers_logs_in_line_with_its_own(
    trio: Cluster, theirs: list[int], expected: list[int]
) -> None:
    give_log(trio.members[1], 2, 2, 3, term=4)
    give_log(trio.members[2], *theirs, term=4)
    trio.elect(1)

    terms = [term for _, term in trio.members[2].log]
    assert terms[:-1] == expected
    assert trio.members[2].log == trio.members[1].log


# -- 5.4: safety --


@pytest.mark.parametrize(
    ("ours", "theirs", "granted"),
    [
        ([2], [2], True),
        ([2], [2, 2], True),
        ([2], [3], True),
        ([2, 2], [3], True),
        ([2, 2], [2], False),
        ([3], [2], False),
        ([3], [2, 2, 2], False),
    ],
)
def test_5_4_1_nobody_votes_for_a_log_that_lacks_something(
    trio: Cluster, ours: list[int], theirs: list[int], granted: bool
) -> None:
    give_log(trio.members[1], *ours)

    trio.deliver(Message(MessageKind.VOTE, 1, 2, 9, log_term=theirs[-1], index=BASE_INDEX + len(theirs)))

    (answer,) = trio.take(MessageKind.VOTE_RESPONSE)
    assert answer.reject is not granted


def test_5_4_2_only_entries_of_the_own_term_are_committed_by_counting(trio: Cluster) -> None:
    give_log(trio.members[1], 2, 3, term=3)
    trio[1].campaign()
    trio.settle(lambda m: m.kind is MessageKind.APPEND)
    assert trio.role(1) is Role.LEADER

    for index in (BASE_INDEX + 1, BASE_INDEX + 2):
        trio.deliver(Message(MessageKind.APPEND_RESPONSE, 1, 2, 4, index=index))
        assert trio[1].commit_index == BASE_INDEX

    trio.deliver(Message(MessageKind.APPEND_RESPONSE, 1, 2, 4, index=BASE_INDEX + 3))
    assert trio[1].commit_index == BASE_INDEX + 3


# -- 5.5: crashes --


def test_5_5_a_request_that_comes_twice_changes_nothing_the_second_time(trio: Cluster) -> None:
    trio.elect(1)
    trio.propose(1, b"x")
    appends = trio.take(MessageKind.APPEND, to=2)
    trio.deliver(*appends)
    before = (trio.members[2].log, trio[2].commit_index)

    trio.deliver(*appends)

    assert (trio.members[2].log, trio[2].commit_index) == before
    first, second = trio.take(MessageKind.APPEND_RESPONSE, to=1)
    assert first == second


def test_5_5_a_restarted_node_knows_its_term_its_vote_and_its_log(trio: Cluster) -> None:
    trio.elect(1)
    trio.propose(1, b"x")
    trio.settle()
    log = trio.members[2].log

    trio.members[2].restart()

    assert trio.members[2].storage.initial_state()[0] == HardState(2, 1, trio[1].commit_index)
    assert (trio[2].term, trio[2].vote, trio.members[2].log) == (2, 1, log)


# -- 8: clients --


def test_8_a_new_leader_begins_its_term_with_an_empty_entry(trio: Cluster) -> None:
    trio.elect(1)

    assert trio.members[1].applied == [Entry(2, BASE_INDEX + 1)]
