"""The judge of histories finds what it is there to find."""

import pytest

from tests.processes.history import History, judge
from tests.simulator.linearizability import UNKNOWN, Kind, Operation

KEY = "k"


def history(*writes: str, unheard: str = "") -> History:
    """Return one in which writes were acknowledged one after the other; one more may have been sent."""
    made = History()
    for number, value in enumerate(writes):
        made.wrote(Operation(KEY, Kind.WRITE, number, number + 0.5, value), number + 1)
    if unheard:
        made.operations.append(Operation(KEY, Kind.WRITE, 0, UNKNOWN, unheard))
    return made


def test_what_happened_as_it_was_answered_is_right() -> None:
    assert judge(history("one", "two"), {KEY: ["one", "two"]}) == []


@pytest.mark.parametrize("versions", [["one"], ["one", "unheard"]])
def test_a_write_that_nobody_heard_of_may_have_happened_or_not(versions: list[str]) -> None:
    assert judge(history("one", unheard="unheard"), {KEY: versions}) == []


@pytest.mark.parametrize("versions", [[], ["one"], ["two", "one"]])
def test_a_lost_write_is_found(versions: list[str]) -> None:
    assert any("was acknowledged" in complaint for complaint in judge(history("one", "two"), {KEY: versions}))


def test_a_write_that_happened_twice_is_found() -> None:
    complaints = judge(history("one", unheard="twice"), {KEY: ["one", "twice", "twice"]})

    assert complaints == ["k: twice happened 2 times"]


def test_a_value_that_nobody_sent_is_found() -> None:
    assert judge(history("one"), {KEY: ["one", "strange"]}) == ["k: strange was never sent"]


def test_a_node_that_shows_what_is_old_is_found() -> None:
    made = history("one", "two")
    made.operations.append(Operation(KEY, Kind.READ, 5, 6, "one"))

    (complaint,) = judge(made, {KEY: ["one", "two"]})

    assert complaint.startswith("NotLinearizable")


def test_the_longest_pause_counts_its_ends() -> None:
    made = history("one", "two", "three")

    assert made.pause(0.0, 6.0) == 3.5
    assert made.pause(0.5, 2.5) == 1.0
