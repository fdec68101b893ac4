"""What a run does to its cluster, and what is reported of it: for `python -m tests.processes`, and shorter for tests.

kills      any node, at any moment, is killed; writes go on, each time
failover   the leader is lost in seven ways, under a load that knows only the standbys
chaos      faults of every kind, drawn at random, until the time is up
steady     no fault, but other programs that want the cores: the leader stays, and every request is answered
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from msgspec import Struct

from tests.processes.chaos import RANDOM_FAULTS, Event, Run, Verdict
from tests.processes.faults import burning
from tests.processes.load import UNREACHED, places_of
from tests.processes.nodes import Node, wait_until

MOMENT_SECONDS_MAX: Final = 0.5
"""Faults come at any moment: so much later than the one before, at most."""

LOSSES: Final[tuple[Callable[[Run, Node], None], ...]] = (
    Run.kill,
    Run.freeze,
    Run.step_down,
    Run.terminate,
    Run.hang_disk,
    Run.fail_disk,
)
"""The ways in which a leader is lost, beside being cut off."""


class Bound(Struct, frozen=True):
    """The longest time, in seconds, that a plan of failovers lets pass between two accepted writes."""

    p50: float
    p99: float


BOUNDS: Final = {
    "kill": Bound(0.3, 0.5),
    "freeze": Bound(1.5, 1.5),
    "cut off": Bound(1.5, 1.5),
    "disk hangs": Bound(2.5, 2.5),
    "disk fails": Bound(2.5, 2.5),
    "step down": Bound(0.1, 0.1),
    "terminate": Bound(0.1, 0.1),
}
"""What a lost leader may cost, by the fault's name; each is a way in which `failover` loses one."""


class Spread(Struct, frozen=True):
    """How long something took, in seconds."""

    count: int
    p50: float
    p99: float
    max: float


def spread(seconds: Iterable[float]) -> Spread:
    """Return the middle, the 99th percentile (nearest rank) and the longest; zeros of nothing."""
    ranked = sorted(seconds)
    if not ranked:
        return Spread(0, 0.0, 0.0, 0.0)

    def at(part: float) -> float:
        return ranked[max(0, math.ceil(part * len(ranked)) - 1)]

    return Spread(len(ranked), at(0.5), at(0.99), ranked[-1])


# -- plans --


def kills(run: Run, rounds: int) -> None:
    """Kill any node at any moment; every fifth time it comes back sealed, and another one is killed."""
    for number in range(rounds):
        _wait_a_moment(run)
        if number % 5 == 4:
            run.leave_sealed()
        else:
            run.kill()


def failover(run: Run, rounds: int) -> None:
    """Lose the leader so many times, while clients ask only the nodes that do not lead.

    With wires it is cut off, without them it is lost in every other way: relays would delay the news of its end.
    """
    for _ in range(rounds):
        for lose in LOSSES if run.wires is None else (Run.cut_off,):
            leader = run.cluster.leader()
            run.load.only(places_of(run.others(leader)))
            _wait_a_moment(run)
            lose(run, leader)
            run.wait_whole()
    run.load.only(run.places)


def chaos(run: Run, seconds: float) -> None:
    """Draw faults until the time is up, each kind once before any comes again."""
    around = run.surroundings
    absent = {"" if around.small_disks else "fill-disk", "" if around.clocks else "jump-clock"}
    names = [name for name in RANDOM_FAULTS if name not in absent]
    ends_at, waiting = time.monotonic() + seconds, list[str]()
    while time.monotonic() < ends_at:
        if not waiting:
            waiting = run.chooser.sample(names, len(names))
        _wait_a_moment(run)
        RANDOM_FAULTS[waiting.pop()](run)


def steady(run: Run, seconds: float, burners: int) -> None:
    """Let the load go on for so long beside processes that do nothing but use the cores."""
    leader, term = run.cluster.leader().name, _term(run)
    with burning(burners):
        run.wait_accepted(time.monotonic() + seconds)
        # Who leads is asked while it is hard to go on leading.
        leader_now, term_now = run.cluster.leader().name, _term(run)
    if (leader, term) != (leader_now, term_now):
        run.complaints.append(f"{leader} led in term {term}, and {leader_now} leads in term {term_now}")
    failures, answers = run.load.history.failures, run.load.history.answers
    run.complaints += [f"a request at {moment.node} failed: {moment.what}" for moment in failures]
    run.complaints += [f"{answers[bad]} requests were {bad}" for bad in ("503", UNREACHED) if answers[bad]]
    run.notes.append(f"{burners} burners beside; {leader_now} led in term {term_now} to the end")


def _term(run: Run) -> int:
    """Return the term of the newest entry: whoever is elected writes one at once."""
    path = "sys/storage/raft/autopilot/state"

    def find() -> int:
        leader = run.cluster.leader()
        status, answer = leader.request("GET", path, token=run.cluster.token)
        return int(answer["data"]["servers"][leader.name]["last_term"]) if status == 200 else 0

    term: int = wait_until(find, "the leader tells its term")
    return term


def _wait_a_moment(run: Run) -> None:
    run.wait_accepted(time.monotonic() + run.chooser.uniform(0, MOMENT_SECONDS_MAX))


# -- reports --


class Measured(Struct, frozen=True):
    """A way to lose the leader: what clients felt of it, and what is the most that they may."""

    fault: str
    gap: Spread
    bound: Bound

    @property
    def missed(self) -> list[str]:
        """What is longer than it may be, or was never tried."""
        if not self.gap.count:
            return [f"{self.fault}: no leader was lost in this way"]
        pairs = ("p50", self.gap.p50, self.bound.p50), ("p99", self.gap.p99, self.bound.p99)
        return [
            f"{self.fault}: {name} {is_so:.3f} s, above {at_most} s"
            for name, is_so, at_most in pairs
            if is_so > at_most
        ]


class Report(Struct, frozen=True):
    """What is told of the runs of a plan.

    Attributes:
        faults: how often there was each of them.
        failovers: gaps of all losses of a leader, in the ways of `BOUNDS`.
        measured: each of these ways against its bound, if the plan is about that.
        wrong: everything that must not be; the checkers' complaints first.
    """

    plan: str
    seed: int
    faults: dict[str, int]
    operations: int
    accepted: int
    failovers: Spread
    measured: list[Measured]
    wrong: list[str]
    verdicts: list[Verdict]


def report(plan: str, seed: int, verdicts: list[Verdict]) -> Report:
    """Sum up the runs of a plan."""
    events = [event for verdict in verdicts for event in verdict.events]
    losses = [event for event in events if event.has_led and event.fault in BOUNDS]
    measured = [
        Measured(fault, spread(event.gap_seconds for event in losses if event.fault == fault), bound)
        for fault, bound in (BOUNDS.items() if plan == "failover" else ())
    ]
    return Report(
        plan,
        seed,
        dict(Counter(event.fault for event in events)),
        sum(verdict.operations for verdict in verdicts),
        sum(verdict.accepted for verdict in verdicts),
        spread(event.gap_seconds for event in losses),
        measured,
        [
            *(complaint for verdict in verdicts for complaint in verdict.complaints),
            *(missed for each in measured for missed in each.missed),
        ],
        verdicts,
    )


def describe(told: Report) -> str:
    """Return a report for people."""
    lines = [f"{told.plan}, seed {told.seed}", ""]
    for verdict in told.verdicts:
        answers = ", ".join(f"{count} times {status}" for status, count in sorted(verdict.answers.items()))
        lines += [
            f"{verdict.operations} operations on {verdict.keys} keys in {verdict.seconds:.0f} s",
            f"{verdict.accepted} writes accepted; answers: {answers}",
            *verdict.notes,
            "",
        ]
    lines += _table([event for verdict in told.verdicts for event in verdict.events])
    if told.failovers.count:
        gap = told.failovers
        lines.append(f"{gap.count} leaders lost: gap p50 {gap.p50:.3f} s, p99 {gap.p99:.3f} s, max {gap.max:.3f} s")
    for each in told.measured:
        lines.append(
            f"{each.fault}: p50 {each.gap.p50:.3f} s of {each.bound.p50} s, p99 {each.gap.p99:.3f} s of {each.bound.p99} s, "
            f"max {each.gap.max:.3f} s, {each.gap.count} times: {'missed' if each.missed else 'met'}"
        )
    lines += ["", *(f"WRONG: {complaint}" for complaint in told.wrong)]
    complaints = sum(len(verdict.complaints) for verdict in told.verdicts)
    lines.append("the history is right" if not complaints else f"{complaints} complaints")
    return "\n".join(lines) + "\n"


def _table(events: list[Event]) -> list[str]:
    if not events:
        return ["no faults"]
    lines = [f"{'fault':<20}{'node led':<10}{'times':>6}{'gap p50':>10}{'p99':>8}{'max':>8}{'failed':>8}"]
    for (fault, has_led), of_kind in sorted(_kinds(events).items()):
        gap = spread(event.gap_seconds for event in of_kind)
        failed = sum(len(event.failed) for event in of_kind)
        times = f"{gap.count:>6}{gap.p50:>10.3f}{gap.p99:>8.3f}{gap.max:>8.3f}"
        lines.append(f"{fault:<20}{'yes' if has_led else 'no':<10}{times}{failed:>8}")
    return [*lines, ""]


def _kinds(events: Iterable[Event]) -> dict[tuple[str, bool], list[Event]]:
    kinds: dict[tuple[str, bool], list[Event]] = {}
    for event in events:
        kinds.setdefault((event.fault, event.has_led), []).append(event)
    return kinds
