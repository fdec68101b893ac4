"""What a run does to its cluster, and what is reported of it: for `python -m tests.processes`, and shorter for tests.

kills      any node, at any moment, is killed; writes go on, each time
failover   the leader is lost in five ways, under a load that knows only the standbys
chaos      faults of every kind, drawn at random, until the time is up
"""

import math
import time
from collections.abc import Callable, Iterable
from typing import Final

from msgspec import Struct

from tests.processes.chaos import RANDOM_FAULTS, Event, Run, Verdict
from tests.processes.load import places_of
from tests.processes.nodes import Node

MOMENT_SECONDS_MAX: Final = 0.5
"""Faults come at any moment: so much later than the one before, at most."""

LOSSES: Final[tuple[Callable[[Run, Node], None], ...]] = (Run.kill, Run.freeze, Run.step_down, Run.terminate)
"""The ways in which a leader is lost, beside being cut off."""


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
    names = [name for name in RANDOM_FAULTS if run.disks or name != "fill-disk"]
    ends_at, waiting = time.monotonic() + seconds, list[str]()
    while time.monotonic() < ends_at:
        if not waiting:
            waiting = run.chooser.sample(names, len(names))
        _wait_a_moment(run)
        RANDOM_FAULTS[waiting.pop()](run)


def _wait_a_moment(run: Run) -> None:
    run.wait_accepted(time.monotonic() + run.chooser.uniform(0, MOMENT_SECONDS_MAX))


# -- reports --


def describe(verdict: Verdict) -> str:
    """Return a report for people."""
    answers = ", ".join(f"{count} times {status}" for status, count in sorted(verdict.answers.items()))
    lines = [
        f"{verdict.operations} operations on {verdict.keys} keys in {verdict.seconds:.0f} s",
        f"{verdict.accepted} writes accepted; answers: {answers}",
        "",
        f"{'fault':<20}{'node led':<10}{'times':>6}{'gap p50':>10}{'p99':>8}{'max':>8}{'failed':>8}",
    ]
    for (fault, has_led), events in sorted(_kinds(verdict.events).items()):
        gap = spread(event.gap_seconds for event in events)
        failed = sum(len(event.failed) for event in events)
        times = f"{gap.count:>6}{gap.p50:>10.3f}{gap.p99:>8.3f}{gap.max:>8.3f}"
        lines.append(f"{fault:<20}{'yes' if has_led else 'no':<10}{times}{failed:>8}")
    lines += ["", *(f"WRONG: {complaint}" for complaint in verdict.complaints)]
    lines.append("the history is right" if not verdict.complaints else f"{len(verdict.complaints)} complaints")
    return "\n".join(lines) + "\n"


def _kinds(events: Iterable[Event]) -> dict[tuple[str, bool], list[Event]]:
    kinds: dict[tuple[str, bool], list[Event]] = {}
    for event in events:
        kinds.setdefault((event.fault, event.has_led), []).append(event)
    return kinds
