"""The test of the tester: every broken rule must be noticed, by a history played by hand or within a number of seeds."""
# ruff: noqa: T201  (a command line prints)

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from statistics import median

from msgspec import Struct

from tests.simulator.disk_histories import DISK_HISTORIES
from tests.simulator.histories import HISTORIES
from tests.simulator.lease_histories import LEASE_HISTORIES
from tests.simulator.mutations import MUTATIONS, Mutation
from tests.simulator.play import SYMPTOMS, play

SEEDS_MAX = 500
"""A rule that can be broken for so many seeds without being noticed counts as not noticed."""
SEEDS_MAX_BESIDE_A_HISTORY = 50
STARTS = (1, 2_001, 4_001)
"""Where the search begins, several times, so that one lucky seed does not decide."""


class Notice(Struct, frozen=True):
    """How a broken rule was noticed.

    Attributes:
        history: the history that noticed it, if one did; empty otherwise.
        seeds: how many seeds it took from each start; None where they did not notice it.
        symptom: what the first of these seeds showed.
    """

    history: str
    seeds: tuple[int | None, ...]
    symptom: str

    @property
    def is_noticed(self) -> bool:
        """Whether a history noticed it, or seeds did from every start."""
        return bool(self.history) or None not in self.seeds


def seeds_until_noticed(mutation: Mutation, start: int, seeds_max: int) -> tuple[int | None, str]:
    """Return how many seeds it takes to notice a broken rule, and what they show; None if they do not notice it."""
    with mutation():
        for count, seed in enumerate(range(start, start + seeds_max), 1):
            outcome = play(seed)
            if outcome.failure:
                return count, outcome.failure.partition(": ")[2]
    return None, ""


def history_that_notices(mutation: Mutation) -> str:
    """Return the name of the first history that fails under a broken rule; empty if all pass."""
    histories = (*HISTORIES, *LEASE_HISTORIES, *DISK_HISTORIES)
    with mutation():
        return next((history.__name__ for history in histories if _fails(history)), "")


def _fails(history: Callable[[], None]) -> bool:
    try:
        history()
    except SYMPTOMS:
        return True
    return False


def judge(mutation: Mutation) -> Notice:
    """Break a rule and see how it is noticed; where a history notices it, seeds are tried for a while all the same."""
    history = history_that_notices(mutation)
    seeds_max = SEEDS_MAX_BESIDE_A_HISTORY if history else SEEDS_MAX
    found = [seeds_until_noticed(mutation, start, seeds_max) for start in STARTS]
    return Notice(history, tuple(count for count, _ in found), next((text for _, text in found if text), ""))


def _notices() -> Iterator[tuple[str, Notice]]:
    """Judge in several processes; a broken rule stays in the process that broke it."""
    with ProcessPoolExecutor() as pool:
        yield from zip(MUTATIONS, pool.map(_judge_named, MUTATIONS), strict=True)


def _judge_named(name: str) -> Notice:
    return judge(MUTATIONS[name])


def judge_all() -> int:
    """Break every rule, print how each was noticed, and return the exit status."""
    began = time.monotonic()
    counts: list[int] = []
    missed: list[str] = []
    print(f"{'broken rule':<45} {'seeds':<16} noticed by")
    for name, notice in _notices():
        if not notice.is_noticed:
            missed.append(name)
        counts += [count for count in notice.seeds if count is not None]
        seeds = " ".join("-" if count is None else str(count) for count in notice.seeds)
        ways = [f"history {notice.history}"] * bool(notice.history) + [notice.symptom] * bool(notice.symptom)
        print(f"{name:<45} {seeds:<16} {'; '.join(ways) or 'NOTHING'}", flush=True)
    print(
        f"{len(MUTATIONS) - len(missed)} of {len(MUTATIONS)} broken rules noticed; seeds needed: median "
        f"{median(counts):.0f}, at most {max(counts)}; {time.monotonic() - began:.0f} s"
    )
    return 1 if missed else 0
