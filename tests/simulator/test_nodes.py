"""Whole nodes: some seeds in every run, in portions that several processes can share; more by `make simulate SEEDS=10000`."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulator.nodes.faults import Faults
from tests.simulator.nodes.loop import Process, Stuck, VirtualLoop
from tests.simulator.nodes.mutations import MUTATIONS, seeds_until_noticed
from tests.simulator.nodes.play import play
from tests.simulator.nodes.world import faults_of

SEEDS = 24
PORTION_SEEDS = 4
SEED = 3
NOTICED_WITHIN_SEEDS_MAX = 10
NOTICED_SOON = (
    "answers_before_the_sync",
    "leads_before_everything_is_applied",
    "read_barrier_without_a_round",
    "read_before_it_is_applied",
    "snapshot_without_resetting_the_log",
)
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("first", range(1, SEEDS + 1, PORTION_SEEDS))
def test_whole_nodes_break_no_promise_in_any_seed(first: int) -> None:
    failures = [outcome.line for seed in range(first, first + PORTION_SEEDS) if (outcome := play(seed)).failure]

    assert not failures, "\n".join(failures)


def test_a_seed_is_the_same_history_in_another_process() -> None:
    script = f"from tests.simulator.nodes.play import play; print(play({SEED}, play_seconds=4).hash)"
    environment = {**os.environ, "PYTHONHASHSEED": "4711"}

    printed = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout

    assert printed.strip() == str(play(SEED, play_seconds=4).hash)


def test_the_trace_changes_nothing_and_tells_everything() -> None:
    lines: list[str] = []

    outcome = play(SEED, play_seconds=2, trace=lines.append)

    assert outcome == play(SEED, play_seconds=2)
    assert len(lines) == sum(outcome.happened.values()) - outcome.happened["snapshot"]


def test_some_seeds_of_whole_nodes_have_no_faults_and_some_have_all_kinds() -> None:
    drawn = [faults_of(seed) for seed in range(1, 301)]

    assert sum(faults.is_quiet for faults in drawn) >= 6
    for field in Faults.__struct_fields__:
        assert any(getattr(faults, field) != getattr(Faults(), field) for faults in drawn), field


@pytest.mark.parametrize("name", NOTICED_SOON)
def test_a_few_seeds_of_whole_nodes_notice_a_broken_rule(name: str) -> None:
    count, _ = seeds_until_noticed(MUTATIONS[name], seeds_max=NOTICED_WITHIN_SEEDS_MAX)

    assert count is not None


# -- the loop --


def test_time_passes_at_once_and_everybody_waiting_for_ever_is_an_error() -> None:
    loop = VirtualLoop()

    loop.run_until_complete(asyncio.sleep(3600))

    assert loop.world_time() == pytest.approx(3600)
    with pytest.raises(Stuck):
        loop.run_until_complete(loop.create_future())
    loop.close()


def test_a_frozen_process_does_what_has_become_due_when_it_goes_on_and_others_do_not_wait() -> None:
    loop = VirtualLoop()
    frozen, other = Process(loop), Process(loop)
    heard: list[tuple[str, float]] = []

    async def tell(name: str) -> None:
        for _ in range(2):
            await asyncio.sleep(1)
            heard.append((name, round(loop.world_time(), 6)))

    for name, process in (("frozen", frozen), ("other", other)):
        process.start(tell(name), name)
    loop.in_world(0.5, frozen.freeze)
    loop.in_world(5, frozen.thaw)

    loop.run_until_complete(asyncio.sleep(10))

    assert heard == [("other", 1), ("other", 2), ("frozen", 5), ("frozen", 6)]
    loop.close()


def test_a_fast_clock_makes_short_waits() -> None:
    loop = VirtualLoop()
    fast = Process(loop, rate=2.0, offset_seconds=100.0)

    async def wait() -> tuple[float, float]:
        await asyncio.sleep(1)
        return loop.time(), loop.world_time()

    assert loop.run_until_complete(fast.start(wait(), "wait")) == pytest.approx((101.0, 0.5))
    loop.close()


def test_a_dead_process_does_nothing_and_ends_quietly() -> None:
    loop = VirtualLoop()
    dead = Process(loop)
    ended: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.sleep(1)
            ended.append("done")
        finally:
            ended.append("finally")

    dead.start(wait(), "wait")
    loop.run_until_complete(asyncio.sleep(0))
    dead.kill()
    loop.run_until_complete(asyncio.sleep(5))
    assert ended == []

    loop.end([dead])

    assert ended == ["finally"]
