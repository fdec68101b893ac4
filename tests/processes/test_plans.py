"""What a report makes of what was measured."""

from tests.processes.chaos import Event, Verdict
from tests.processes.chaos_plans import BOUNDS, describe, report


def verdict(gaps: dict[str, float], *, has_led: bool = True) -> Verdict:
    events = [Event(fault, "a", has_led, 0.0, 9.0, gap, gap, []) for fault, gap in gaps.items()]
    return Verdict([], events, operations=10, accepted=5, keys=1, seconds=9.0, answers={"200": 10})


def test_every_way_to_lose_a_leader_is_held_to_its_bound() -> None:
    gaps = {fault: bound.p50 for fault, bound in BOUNDS.items()}

    assert report("failover", 1, [verdict(gaps)]).wrong == []
    assert report("failover", 1, [verdict({**gaps, "disk hangs": 2.6})]).wrong == [
        "disk hangs: p50 2.600 s, above 2.5 s",
        "disk hangs: p99 2.600 s, above 2.5 s",
    ]


def test_a_way_in_which_no_leader_was_lost_proves_nothing() -> None:
    gaps = {fault: bound.p50 for fault, bound in BOUNDS.items() if fault != "freeze"}

    told = report("failover", 1, [verdict(gaps), verdict({"freeze": 0.1}, has_led=False)])

    assert told.wrong == ["freeze: no leader was lost in this way"]


def test_only_failovers_are_held_to_bounds() -> None:
    assert report("chaos", 1, [verdict({"kill": 2.0})]).wrong == []


def test_a_report_says_how_often_there_was_each_fault_and_how_long_leaders_were_missed() -> None:
    told = report("chaos", 1, [verdict({"kill": 0.2}), verdict({"kill": 0.4, "delay": 3.0})])

    assert told.faults == {"kill": 2, "delay": 1}
    assert "2 leaders lost: gap p50 0.200 s, p99 0.400 s, max 0.400 s" in describe(told)
