"""conclave/recover.py: an operator is told what a recovery keeps, decides and loses before it does anything."""

import re
from collections.abc import Sequence

import pytest

from conclave.cluster.membership import Identity, Member, MembershipRecord, change_for, encode_identity, encode_record
from conclave.cluster.raft import ConfChangeKind, ConfState, EntryKind, encode_conf_change
from conclave.recover import recover_stores
from conclave.storage.log import EntryTuple
from conclave.storage.memory import MemoryLog, MemoryState
from conclave.storage.state import Applied

TERM = 3
APPLIED_INDEX = 10
MEMBERS = tuple(Member(number, name, f"{name}:8201", "", bytes(16)) for number, name in enumerate("abc", 1))


def write(index: int) -> EntryTuple:
    """Return an entry without effect: what writes hold, nobody reads before they are applied."""
    return (TERM, index, int(EntryKind.NORMAL), b"")


def removal(index: int, member: Member) -> EntryTuple:
    """Return an entry that removes a member."""
    kind, data = encode_conf_change(change_for(ConfChangeKind.REMOVE, member))
    return (TERM, index, int(kind), data)


def survivor(
    members: Sequence[Member], commit_index: int, entries: Sequence[EntryTuple]
) -> tuple[MemoryLog, MemoryState]:
    """Return the stores of "a" with these entries behind those that its state holds."""
    log, state = MemoryLog(), MemoryState()
    voters = tuple(member.raft_id for member in members)
    record = MembershipRecord(conf_state=ConfState(voters), members=tuple(members))
    log.set_identity(encode_identity(Identity(1, bytes(16), "a", "cluster", 1)))
    log.reset(APPLIED_INDEX, TERM, (TERM, 1, commit_index))
    log.append(None, entries)
    state.flush({}, Applied(APPLIED_INDEX, TERM, 1, encode_record(record)))
    state.refresh()
    return log, state


def told(members: Sequence[Member], commit_index: int, entries: Sequence[EntryTuple]) -> dict[str, str]:
    """Return what the dry run says that -apply would do, by the names of its rows."""
    shown = recover_stores(*survivor(members, commit_index, entries), is_dry=True)
    lines = re.sub(r"\n {17}", " ", shown.partition("With -apply\n")[2].partition("\n\n")[0]).splitlines()
    return {name: text.strip() for name, text in (line.strip().split(" ", 1) for line in lines)}


def test_the_dry_run_names_the_members_that_would_be_removed() -> None:
    assert told(MEMBERS, 10, [])["Removed"] == "b, c: refused from then on"


def test_the_dry_run_says_how_far_nothing_can_be_lost() -> None:
    shown = told(MEMBERS, 11, [write(11), write(12), write(13)])

    assert shown["Kept"] == "everything up to index 11, which this node knows to be committed"


def test_the_dry_run_counts_the_entries_that_would_be_committed_without_being_known_to_be() -> None:
    shown = told(MEMBERS, 11, [write(11), write(12), write(13)])

    assert shown["Committed"].startswith("2 entries (12 to 13) that this log holds")
    assert "behind index 13 and only removed members hold" in shown["Lost"]
    assert "of a later term in the place of 12 to 13" in shown["Lost"]


def test_the_dry_run_tells_membership_changes_that_would_be_committed() -> None:
    shown = told(MEMBERS, 11, [write(11), removal(12, MEMBERS[2])])

    assert shown["Committed"].startswith("1 entry (12, 1 of the membership) that")


def test_the_dry_run_names_also_those_whose_removal_would_be_committed() -> None:
    # As a recovery leaves it that is broken off before the state has it.
    shown = told(MEMBERS, 11, [write(11), removal(12, MEMBERS[1]), removal(13, MEMBERS[2])])

    assert shown["Removed"] == "b, c: refused from then on"
    assert "only removed members hold" in shown["Lost"]


def test_a_membership_change_that_is_known_to_be_committed_is_not_told() -> None:
    assert told(MEMBERS, 12, [removal(11, MEMBERS[2]), write(12)])["Committed"] == "nothing else: this log ends there"


def test_the_dry_run_on_a_log_that_is_committed_to_its_end_leaves_nothing_in_doubt_but_what_others_hold() -> None:
    shown = told(MEMBERS, 12, [write(11), write(12)])

    assert shown["Committed"] == "nothing else: this log ends there"
    assert shown["Lost"] == (
        "what was acknowledged behind index 12 and only removed members hold. How much that is cannot be seen from here"
    )


def test_an_only_member_loses_nothing_by_a_recovery() -> None:
    shown = told(MEMBERS[:1], 10, [])

    assert shown["Removed"] == "nobody: this node is the only member"
    assert shown["Lost"] == "nothing by this"


@pytest.mark.parametrize(
    "wanted", ["Nothing has been changed", "highest last term and, among those, the highest last index"]
)
def test_the_dry_run_says_how_survivors_are_compared(wanted: str) -> None:
    assert wanted in recover_stores(*survivor(MEMBERS, 10, []), is_dry=True)


def test_the_dry_run_writes_nothing() -> None:
    log, state = survivor(MEMBERS, 11, [write(11), write(12)])

    recover_stores(log, state, is_dry=True)

    assert (log.last_index, log.hard_state) == (12, (TERM, 1, 11))
    assert state.applied == (APPLIED_INDEX, TERM)


def test_what_the_dry_run_told_is_what_happens() -> None:
    log, state = survivor(MEMBERS, 11, [write(11), write(12)])

    recover_stores(log, state, is_dry=False)

    assert log.last_index == 14  # with two removals
    assert "Removed       nobody" in recover_stores(log, state, is_dry=True)
