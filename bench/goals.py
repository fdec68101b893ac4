"""What is wanted of Conclave beside OpenBao, in one run on one machine: the figures that `docs/performance.md` is judged by.

A goal is a factor by which Conclave is to be better: more requests a second, or less time, processor or disk a request. A
ceiling is what a figure of Conclave alone may be at most.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from bench.growth import FEWEST_BESIDE
from bench.stress_report import Check, held_to

RATE: Final = "rate"
FIGURES: Final = {
    RATE: "requests/s",
    "cpu_microseconds": "CPU of all nodes a request",
    "p50_ms": "p50",
    "p99_ms": "p99",
    "written_bytes": "bytes written a request",
}


class Goal(Struct, frozen=True):
    """How many times better one figure of an operation is to be."""

    operation: str
    figure: str
    factor: float


GOALS: Final = (
    Goal("kv-v2 read, leader", RATE, 4),
    Goal("kv-v2 read, leader", "cpu_microseconds", 7),
    Goal("kv-v2 read, standby", RATE, 3),
    Goal("token lookup-self", RATE, 3),
    Goal("kv-v2 write, 1 connection", "p50_ms", 2.5),
    Goal("kv-v2 write, 16 connections", RATE, 4),
    Goal("kv-v2 write, 16 connections", "cpu_microseconds", 6),
    Goal("kv-v2 write, 64 connections", RATE, 5),
    Goal("kv-v2 write, 64 connections", "cpu_microseconds", 6),
    Goal("kv-v2 write, 64 connections", "written_bytes", 3),
    Goal("kv-v2 write through a standby", RATE, 4),
    Goal("token create", RATE, 10),
    Goal("approle login", RATE, 10),
    Goal("transit encrypt", RATE, 3),
    Goal("kv-v2 read beside 64 writers", "p99_ms", 2),
    Goal("kv-v2 read beside snapshots", "p99_ms", 2),
)


class Judged(Struct, frozen=True):
    """A goal, and how many times better the figure is."""

    goal: Goal
    ours: float
    theirs: float

    @property
    def factor(self) -> float:
        """How many times better ours is."""
        return self.ours / self.theirs if self.goal.figure == RATE else self.theirs / self.ours

    @property
    def is_met(self) -> bool:
        """Whether that is enough."""
        return self.factor >= self.goal.factor


def judge(ours: Mapping[str, Mapping[str, Any]], theirs: Mapping[str, Mapping[str, Any]]) -> Iterable[Judged]:
    """Hold what was measured, by the operations' names, to the goals; what was not measured is left out."""
    for goal in GOALS:
        own, other = (each.get(goal.operation, {}).get(goal.figure) for each in (ours, theirs))
        if own and other:
            yield Judged(goal, own, other)


IDLE_MEGABYTES_MAX: Final = 60.0
GROWN_READ_MAX: Final = 1.3
FEW_SECRETS: Final = 1_000
MANY_SECRETS: Final = 1_000_000


def hold(idle: Sequence[Mapping[str, Any]], secrets: Mapping[int, Mapping[str, float]]) -> Iterable[Check]:
    """Hold figures to their ceilings; what was not measured is left out.

    Args:
        idle: what nodes use that are asked nothing, by `program`.
        secrets: the figures of growth by the number of secrets.
    """
    for each in idle:
        if each["program"] == "conclave":
            megabytes = each["resident_bytes"] / 1e6
            yield held_to("a node that is asked nothing", "memory", megabytes, IDLE_MEGABYTES_MAX, "MB")
    grown = secrets.get(MANY_SECRETS, {})
    if min(secrets, default=0) == FEW_SECRETS and FEWEST_BESIDE in grown:
        what, beside = f"kv-v2 read, {MANY_SECRETS:,} secrets", f"p50 beside {FEW_SECRETS:,}"
        yield held_to(what, beside, grown["read p50, ms"] / grown[FEWEST_BESIDE], GROWN_READ_MAX, "times")
