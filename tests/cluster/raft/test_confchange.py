"""Membership changes: whatever way they are made, the end is the same, and their rules hold on the way."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conclave.cluster.raft import (
    ConfChange,
    ConfChangeError,
    ConfChangeKind,
    ConfChangeTransition,
    ConfChangeV2,
    ConfState,
)
from conclave.cluster.raft.confchange import Changer, Members, check, restore
from conclave.cluster.raft.progress import Inflights, Progress
from conclave.cluster.raft.tracker import Configuration

kinds = st.sampled_from(list(ConfChangeKind))
changes = st.builds(ConfChange, kinds, st.integers(1, 7))
FIRST = ConfChange(ConfChangeKind.ADD_VOTER, 1)


def new_progress() -> Progress:
    return Progress(1, Inflights(1, 1))


def changer(members: Members) -> Changer:
    return Changer(*members, new_progress)


def nobody() -> Members:
    return Configuration(), {}


def simply(members: Members, steps: Sequence[ConfChange]) -> Members:
    """Make changes one by one, leaving out those that are refused."""
    for change in steps:
        try:
            members = changer(members).simple([change])
        except ConfChangeError:
            continue
    return members


def as_one(members: Members, steps: Sequence[ConfChange]) -> Members:
    """Make changes at once, through a joint configuration."""
    return changer(changer(members).enter_joint(steps, auto_leave=False)).leave_joint()


def keeps_a_voter(members: Members, steps: Sequence[ConfChange]) -> bool:
    """Tell whether no change on the way would remove the last voter."""
    for change in steps:
        try:
            members = changer(members).simple([change])
        except ConfChangeError:
            return False
    return True


@given(before=st.lists(changes, max_size=6), steps=st.lists(changes, min_size=1, max_size=6))
def test_changes_one_by_one_and_at_once_lead_to_the_same_members(
    before: list[ConfChange], steps: list[ConfChange]
) -> None:
    members = simply(nobody(), [FIRST, *before])
    if not keeps_a_voter(members, steps):
        return

    one_by_one, at_once = simply(members, steps), as_one(members, steps)

    assert one_by_one[0] == at_once[0]
    assert one_by_one[1].keys() == at_once[1].keys()


@given(before=st.lists(changes, max_size=6), steps=st.lists(changes, max_size=6), auto_leave=st.booleans())
def test_a_stored_configuration_is_restored_exactly(
    before: list[ConfChange], steps: list[ConfChange], auto_leave: bool
) -> None:
    members = simply(nobody(), [FIRST, *before])
    try:
        members = changer(members).enter_joint(steps, auto_leave=auto_leave)
    except ConfChangeError:
        return
    state = members[0].conf_state()

    configuration, progress = restore(state, new_progress)

    assert configuration == members[0]
    assert progress.keys() == members[1].keys()
    check(configuration, progress)


@given(before=st.lists(changes, max_size=6), steps=st.lists(changes, max_size=6))
def test_a_refused_change_changes_nothing(before: list[ConfChange], steps: list[ConfChange]) -> None:
    members = simply(nobody(), [FIRST, *before])
    configuration, progress = members[0], dict(members[1])
    try:
        changer(members).simple(steps)
    except ConfChangeError:
        assert members == (configuration, progress)


@given(before=st.lists(changes, max_size=8), change=changes)
def test_majorities_before_and_after_a_simple_change_meet(before: list[ConfChange], change: ConfChange) -> None:
    members = simply(nobody(), [FIRST, *before])
    after = simply(members, [change])
    old, new = members[0].incoming, after[0].incoming

    smallest = len(old) // 2 + 1 + len(new) // 2 + 1
    assert smallest > len(old | new)


def test_a_member_that_stays_keeps_its_progress_in_any_role() -> None:
    members = simply(nobody(), [FIRST, ConfChange(ConfChangeKind.ADD_VOTER, 2)])
    known = members[1][2]

    demoted = simply(members, [ConfChange(ConfChangeKind.ADD_LEARNER, 2)])
    promoted = simply(demoted, [ConfChange(ConfChangeKind.ADD_VOTER, 2)])

    assert demoted[1][2] is known
    assert promoted[1][2] is known


def test_a_voter_that_is_demoted_in_a_joint_change_votes_until_it_is_left() -> None:
    members = simply(nobody(), [FIRST, ConfChange(ConfChangeKind.ADD_VOTER, 2)])

    joint = changer(members).enter_joint([ConfChange(ConfChangeKind.ADD_LEARNER, 2)], auto_leave=True)
    assert joint[0].conf_state() == ConfState((1,), (1, 2), (), (2,), auto_leave=True)

    assert changer(joint).leave_joint()[0].conf_state() == ConfState((1,), (), (2,))


def test_the_last_voter_cannot_be_removed() -> None:
    members = simply(nobody(), [FIRST])

    with pytest.raises(ConfChangeError, match="removed all voters"):
        changer(members).simple([ConfChange(ConfChangeKind.REMOVE, 1)])


def test_a_change_of_nobody_changes_nothing() -> None:
    members = simply(nobody(), [FIRST])

    assert changer(members).simple([ConfChange(ConfChangeKind.REMOVE, 0)]) == members


@pytest.mark.parametrize(
    ("change", "is_joint"),
    [
        (ConfChangeV2((FIRST,)), False),
        (ConfChangeV2((FIRST, ConfChange(ConfChangeKind.ADD_VOTER, 2))), True),
        (ConfChangeV2((FIRST,), ConfChangeTransition.IMPLICIT), True),
        (ConfChangeV2((FIRST,), ConfChangeTransition.EXPLICIT), True),
    ],
)
def test_a_joint_configuration_is_entered_when_it_must_or_is_asked_for(change: ConfChangeV2, is_joint: bool) -> None:
    members = simply(nobody(), [ConfChange(ConfChangeKind.ADD_VOTER, 9)])

    assert changer(members).apply(change)[0].is_joint is is_joint


def test_a_joint_configuration_cannot_be_entered_twice_nor_left_from_outside() -> None:
    members = simply(nobody(), [FIRST])
    joint = changer(members).enter_joint([ConfChange(ConfChangeKind.ADD_VOTER, 2)], auto_leave=False)

    with pytest.raises(ConfChangeError, match="already joint"):
        changer(joint).enter_joint([], auto_leave=False)
    with pytest.raises(ConfChangeError, match="non-joint"):
        changer(members).leave_joint()
    with pytest.raises(ConfChangeError, match="simple config change in joint"):
        changer(joint).simple([FIRST])


def test_a_simple_change_alters_one_voter_at_most() -> None:
    members = simply(nobody(), [FIRST])

    with pytest.raises(ConfChangeError, match="more than one voter"):
        changer(members).simple([ConfChange(ConfChangeKind.ADD_VOTER, 2), ConfChange(ConfChangeKind.ADD_VOTER, 3)])
