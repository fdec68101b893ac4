"""The clock by which leases end, when somebody sets the machine's."""

import pytest

from conclave.core.clock import WalkingClock
from tests.fakes import START_NS

HOUR_NS = 3600 * 10**9


class Machine:
    """A wall clock that can be set, and one that cannot."""

    def __init__(self) -> None:
        self.wall_ns = START_NS
        self.steady_ns = 7
        self.reached_ns = 0
        self.clock = WalkingClock(lambda: self.wall_ns, lambda: self.steady_ns, lambda: self.reached_ns)

    def pass_time(self, nanoseconds: int) -> None:
        self.wall_ns += nanoseconds
        self.steady_ns += nanoseconds


def test_a_clock_that_nobody_sets_is_the_wall_clock() -> None:
    machine = Machine()

    machine.pass_time(HOUR_NS)

    assert machine.clock.now_ns() == START_NS + HOUR_NS


@pytest.mark.parametrize("jump_ns", [5 * HOUR_NS, -5 * HOUR_NS])
def test_a_jump_changes_nothing_in_the_moment_when_it_happens(jump_ns: int) -> None:
    machine = Machine()

    machine.wall_ns += jump_ns

    assert machine.clock.now_ns() == START_NS


@pytest.mark.parametrize(("jump_ns", "walked_ns"), [(5 * HOUR_NS, HOUR_NS // 10), (-5 * HOUR_NS, -HOUR_NS // 10)])
def test_a_jump_is_walked_by_a_tenth_of_what_passes(jump_ns: int, walked_ns: int) -> None:
    machine = Machine()

    machine.wall_ns += jump_ns
    machine.pass_time(HOUR_NS)

    assert machine.clock.now_ns() == START_NS + HOUR_NS + walked_ns


@pytest.mark.parametrize("jump_ns", [5 * HOUR_NS, -5 * HOUR_NS])
def test_the_wall_clock_is_reached_in_the_end(jump_ns: int) -> None:
    machine = Machine()

    machine.wall_ns += jump_ns
    machine.pass_time(60 * HOUR_NS)

    assert machine.clock.now_ns() == machine.wall_ns


def test_time_never_goes_back_however_often_it_is_asked_for() -> None:
    machine = Machine()
    machine.wall_ns -= HOUR_NS
    told = []

    for step_ns in (0, 1, 9, 10, 11, 1000):
        machine.pass_time(step_ns)
        told.append(machine.clock.now_ns())

    assert told == sorted(told)


def test_where_the_log_is_ahead_time_goes_on_from_there() -> None:
    machine = Machine()
    machine.reached_ns = START_NS + 5 * HOUR_NS

    told = [machine.clock.now_ns()]
    machine.pass_time(HOUR_NS)
    told.append(machine.clock.now_ns())

    assert told == [machine.reached_ns, machine.reached_ns + HOUR_NS - HOUR_NS // 10]


def test_a_clock_that_was_right_only_after_the_start_lets_time_pass() -> None:
    machine = Machine()
    machine.reached_ns = START_NS + 400_000 * HOUR_NS
    machine.clock.now_ns()

    machine.wall_ns = machine.reached_ns
    machine.pass_time(HOUR_NS)

    assert machine.clock.now_ns() == machine.wall_ns


def test_a_jump_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine()

    machine.wall_ns += 5 * HOUR_NS
    for _ in range(3):
        machine.clock.now_ns()

    assert [record.getMessage() for record in caplog.records] == [
        "the wall clock is far from the time that tokens end by; it is followed slowly"
    ]
