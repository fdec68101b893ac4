"""What a node knows of the others."""

import pytest

from conclave.cluster.frames import Announce
from conclave.cluster.membership import Member, MembershipRecord
from conclave.cluster.raft import ConfState
from conclave.cluster.replica import AutopilotRules
from conclave.cluster.roster import Roster

RECORD = MembershipRecord(
    conf_state=ConfState(voters=(1, 2, 3), learners=(4,)),
    members=tuple(Member(i, name, f"10.0.0.{i}:8201", "", bytes(16)) for i, name in enumerate("zyxw", 1)),
)


def announce(node_id: str, *, is_sealed: bool | None = False, address: str = "", is_damaged: bool = False) -> Announce:
    return Announce(node_id, address, f"http://{node_id}", "0.1.0", node_id, is_sealed, 0, 90, 3, is_damaged=is_damaged)


def roster() -> Roster:
    found = Roster(1, AutopilotRules())
    found.set_record(RECORD)
    return found


def test_members_come_in_order_of_their_names() -> None:
    assert [peer.node_id for peer in roster().peers(1, 0.0)] == ["w", "x", "y", "z"]


def test_a_member_that_was_never_heard_is_not_healthy() -> None:
    found = roster()

    found.assess({}, 100, now=10.0, wall_clock_ns=1)

    peers = {peer.raft_id: peer for peer in found.peers(1, 10.0)}
    assert peers[2].last_contact_seconds is None
    assert not peers[2].is_healthy
    assert peers[1].last_contact_seconds == 0.0


def test_a_member_that_is_heard_and_keeps_up_is_healthy_since_then() -> None:
    found = roster()
    found.heard(2, 10.0)
    assert [peer.raft_id for peer in found.assess({1: 100, 2: 100}, 100, now=10.0, wall_clock_ns=5)] == [1, 2]
    found.heard(2, 12.0)

    assert found.assess({1: 100, 2: 100}, 100, now=12.5, wall_clock_ns=6) == []

    peer = found.peer(2, 1, 12.5)
    assert peer is not None
    assert (peer.is_healthy, peer.stable_since_ns, peer.last_contact_seconds) == (True, 5, 0.5)
    observation = next(o for o in found.observations(12.5) if o.raft_id == 2)
    assert observation.healthy_seconds == 2.5


def test_somebody_who_is_no_member_is_not_heard() -> None:
    assert not roster().heard(9, 1.0)


def test_a_removed_member_is_forgotten() -> None:
    found = roster()
    found.heard(4, 1.0)

    found.set_record(MembershipRecord(conf_state=ConfState((1, 2, 3)), members=RECORD.members[:3], removed=(4,)))

    assert not found.heard(4, 2.0)
    assert found.peer(4, 1, 2.0) is None


def test_the_best_successor_is_unsealed_and_has_the_newest_log() -> None:
    found = roster()
    for raft_id, name in ((2, "y"), (3, "x"), (4, "w")):
        found.heard(raft_id, 10.0)
        found.announced(raft_id, announce(name))

    assert found.successors({2: 80, 3: 90, 4: 95}, now=10.1, contact_seconds_max=1.0) == [3, 2]


def test_a_sealed_or_silent_node_is_no_successor() -> None:
    found = roster()
    found.heard(2, 10.0)
    found.announced(2, announce("y", is_sealed=True))
    found.heard(3, 5.0)
    found.announced(3, announce("x"))

    assert found.successors({2: 80, 3: 90}, now=10.1, contact_seconds_max=1.0) == []


def test_whoever_has_not_answered_this_leader_yet_is_no_successor() -> None:
    found = roster()
    for raft_id in (2, 3):
        found.heard(raft_id, 10.0)
        found.announced(raft_id, announce("n"))

    assert found.successors({2: 0, 3: 80}, now=10.1, contact_seconds_max=1.0) == [3]


def test_a_node_that_did_not_say_whether_it_is_sealed_comes_last_and_never_for_a_sealed_leader() -> None:
    found = roster()
    for raft_id, sealed in ((2, None), (3, False)):
        found.heard(raft_id, 10.0)
        found.announced(raft_id, announce("n", is_sealed=sealed))

    assert found.successors({2: 90, 3: 80}, now=10.0, contact_seconds_max=1.0) == [3, 2]
    assert found.unsealed_successors({2: 90, 3: 80}, now=10.0, contact_seconds_max=1.0) == [3]


def test_a_damaged_node_comes_before_one_that_may_be_sealed_and_serves_in_the_place_of_a_sealed_leader() -> None:
    found = roster()
    for raft_id, sealed, is_damaged in ((2, None, False), (3, False, True)):
        found.heard(raft_id, 10.0)
        found.announced(raft_id, announce("n", is_sealed=sealed, is_damaged=is_damaged))

    assert found.successors({2: 90, 3: 85}, now=10.0, contact_seconds_max=1.0) == [3, 2]
    assert found.unsealed_successors({2: 90, 3: 85}, now=10.0, contact_seconds_max=1.0) == [3]


def test_whoever_is_damaged_or_far_behind_does_not_relieve_a_damaged_leader() -> None:
    found = roster()
    for raft_id, is_damaged in ((2, True), (3, False)):
        found.heard(raft_id, 10.0)
        found.announced(raft_id, announce("n", is_damaged=is_damaged))

    def whole_with(match: int) -> list[int]:
        matches = {2: 9000, 3: match}
        found.assess(matches, 9000, now=10.0, wall_clock_ns=0)
        return list(found.whole_successors(matches, now=10.0, contact_seconds_max=1.0))

    assert whole_with(10) == []
    assert whole_with(8900) == [3]


def test_an_address_that_differs_from_the_record_is_to_be_recorded() -> None:
    found = roster()
    found.announced(2, announce("y", address="10.9.9.9:8201"))

    assert found.changed_member() == Member(2, "y", "10.9.9.9:8201", "http://y", bytes(16))


def test_what_is_recorded_already_is_no_change() -> None:
    found = roster()
    found.announced(2, Announce("y", "10.0.0.2:8201", "", "", "", None, 0, 0, 0))

    assert found.changed_member() is None


def silence(found: Roster, raft_id: int, now: float) -> float:
    return next(seen.silent_seconds for seen in found.observations(now) if seen.raft_id == raft_id)


def test_silence_counts_from_when_this_node_came_to_lead() -> None:
    found = roster()
    found.heard(2, 10.0)
    found.watch(50.0, leads=False)
    assert silence(found, 2, 60.0) == 0.0

    for second in range(100, 105):
        found.watch(float(second), leads=True)

    assert silence(found, 2, 104.0) == 4.0
    found.heard(2, 103.0)
    assert silence(found, 2, 104.0) == 1.0


def test_a_leader_that_looked_away_counts_silence_anew() -> None:
    found = roster()
    found.watch(100.0, leads=True)

    found.watch(90_000.0, leads=True)

    assert silence(found, 2, 90_001.0) == 1.0


def test_members_heard_of_lately_can_be_reached_and_so_can_this_node() -> None:
    found = roster()
    found.heard(2, 10.0)
    found.heard(3, 1.0)

    assert found.reachable(11.5) == [1, 2]


@pytest.mark.parametrize(
    ("session", "began_with_index", "expected"),
    [(8, 89, True), (8, 90, False), (8, 500, False), (7, 0, False), (0, 0, False)],
)
def test_who_begins_anew_before_what_it_had_applied_runs_on_an_older_copy(
    session: int, began_with_index: int, expected: bool
) -> None:
    found = roster()
    found.announced(2, Announce("y", "", "", "", "", False, 90, 95, 3, 7, 0))

    found.announced(2, Announce("y", "", "", "", "", False, 0, 0, 0, session, began_with_index))

    assert found.is_older_copy(2) is expected


def test_where_a_member_says_that_it_is_counts_for_more_than_what_others_say() -> None:
    found = roster()
    found.may_be_at(2, "10.1.0.2:8201")
    assert found.address_of(RECORD.members[1]) == "10.1.0.2:8201"
    assert found.heard_addresses() == {}
    found.is_at(2, "10.2.0.2:8201")

    found.may_be_at(2, "10.1.0.2:8201")

    assert found.address_of(RECORD.members[1]) == "10.2.0.2:8201"
    assert found.heard_addresses() == {2: "10.2.0.2:8201"}


def test_what_a_member_said_last_counts() -> None:
    found = roster()
    found.announced(2, announce("y", address="10.1.0.2:8201"))
    found.is_at(2, "10.2.0.2:8201")
    assert found.address_of(RECORD.members[1]) == "10.2.0.2:8201"

    found.announced(2, announce("y", address="10.3.0.2:8201"))

    assert found.address_of(RECORD.members[1]) == "10.3.0.2:8201"


def test_only_what_a_member_says_over_its_connection_is_recorded() -> None:
    found = roster()

    found.is_at(2, "10.2.0.2:8201")
    found.may_be_at(3, "10.2.0.3:8201")

    assert found.changed_member() is None
