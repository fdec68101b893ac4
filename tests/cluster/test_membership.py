"""The membership record and the identity: their bytes, and what a change makes of a record."""

import pytest
from msgspec import structs

from conclave.cluster.membership import (
    REMOVED_IDS_MAX,
    Identity,
    Member,
    MembershipRecord,
    apply_change,
    change_for,
    decode_identity,
    decode_record,
    encode_identity,
    encode_record,
    majority_is_among,
)
from conclave.cluster.raft import ConfChange, ConfChangeKind, ConfChangeV2, ConfState

A = Member(1, "a", "x:1", "http://x:2", b"i" * 16)
B = Member(2, "b", "y:1", "http://y:2", b"j" * 16, may_vote=False)
ONE = MembershipRecord(conf_state=ConfState(voters=(1,)), members=(A,))
TWO = MembershipRecord(conf_state=ConfState(voters=(1,), learners=(2,)), members=(A, B))


def test_a_record_has_this_layout() -> None:
    assert encode_record(structs.replace(ONE, removed=(9,))).hex() == (
        "9401959101909090c2919601a161a3783a31aa687474703a2f2f783a32c410" + "69" * 16 + "c3" + "9109"
    )


def test_an_identity_has_this_layout() -> None:
    assert encode_identity(Identity(1, b"i", "a", "c", 5, b"p", b"q", b"r", b"s", True, (6, 7))).hex() == (
        "9b01c40169a161a16305" + "c40170c40171c40172c40173" + "c3" + "920607"
    )


def test_a_record_is_read_as_it_was_written() -> None:
    assert decode_record(encode_record(TWO)) == TWO
    assert decode_record(b"") == MembershipRecord()


def test_an_identity_is_read_as_it_was_written() -> None:
    identity = Identity(1, b"i" * 16, "a", "c", 5)

    assert decode_identity(encode_identity(identity)) == identity


@pytest.mark.parametrize("damaged", [b"\xc1", b"\x90\x90", b"\x91\xa1\xff"])
def test_damage_is_a_value_error(damaged: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode_record(damaged)
    with pytest.raises(ValueError, match=r".+"):
        decode_identity(damaged)


def test_a_newer_version_is_named() -> None:
    with pytest.raises(ValueError, match="newer version"):
        decode_record(encode_record(structs.replace(ONE, version=2)))
    with pytest.raises(ValueError, match="newer version"):
        decode_identity(encode_identity(Identity(2, b"i" * 16, "a")))


def test_an_added_member_comes_from_its_entry() -> None:
    after = apply_change(ONE, change_for(ConfChangeKind.ADD_LEARNER, B), TWO.conf_state)

    assert after == TWO


def test_a_changed_address_replaces_the_member() -> None:
    moved = structs.replace(A, cluster_address="z:9")

    after = apply_change(ONE, change_for(ConfChangeKind.UPDATE, moved), ONE.conf_state)

    assert after.members == (moved,)


def test_a_removed_member_is_remembered_by_its_id() -> None:
    after = apply_change(TWO, change_for(ConfChangeKind.REMOVE, B), ONE.conf_state)

    assert after == structs.replace(ONE, removed=(2,))


def test_removing_nobody_is_not_remembered() -> None:
    after = apply_change(ONE, change_for(ConfChangeKind.REMOVE, B), ONE.conf_state)

    assert after == ONE


def test_only_so_many_removed_ids_are_remembered() -> None:
    full = structs.replace(TWO, removed=tuple(range(1000, 1000 + REMOVED_IDS_MAX)))

    after = apply_change(full, change_for(ConfChangeKind.REMOVE, B), ONE.conf_state)

    assert after.removed == (*range(1001, 1000 + REMOVED_IDS_MAX), 2)


def test_a_change_without_a_member_changes_the_configuration_only() -> None:
    change = ConfChangeV2((ConfChange(ConfChangeKind.ADD_VOTER, 2),))

    after = apply_change(TWO, change, ConfState(voters=(1, 2)))

    assert (after.members, after.conf_state.voters) == (TWO.members, (1, 2))


def test_members_are_found_by_id_and_by_name() -> None:
    assert (TWO.member(2), TWO.named("b"), TWO.member(9), TWO.named("z")) == (B, B, None, None)


def test_both_halves_of_a_joint_configuration_vote() -> None:
    record = MembershipRecord(conf_state=ConfState(voters=(1,), voters_outgoing=(2,), learners=(3,)))

    assert [record.is_voter(raft_id) for raft_id in (1, 2, 3)] == [True, True, False]


@pytest.mark.parametrize(
    ("voters", "reachable", "expected"),
    [((1, 2, 3), (1, 2), True), ((1, 2, 3), (1, 9), False), ((1, 2), (1,), False), ((1,), (1,), True), ((), (), False)],
)
def test_a_majority_is_more_than_half(voters: tuple[int, ...], reachable: tuple[int, ...], expected: bool) -> None:
    assert majority_is_among(voters, reachable) is expected
