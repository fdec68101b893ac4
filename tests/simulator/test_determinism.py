"""The same seed is the same history, bit by bit: in one process, in another one, and whatever the hashes of strings are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulator.play import play

SEEDS = (3, 7, 11)
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_played_twice_is_the_same_history(seed: int) -> None:
    assert play(seed) == play(seed)


@pytest.mark.parametrize("hash_seed", ["1", "4711"])
def test_a_seed_is_the_same_history_in_another_process(hash_seed: str) -> None:
    script = f"from tests.simulator.play import play; print(*(play(seed).hash for seed in {SEEDS}))"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}

    printed = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout

    assert printed.split() == [str(play(seed).hash) for seed in SEEDS]


def test_different_seeds_are_different_histories() -> None:
    assert len({play(seed).hash for seed in SEEDS}) == len(SEEDS)


def test_the_trace_changes_nothing_and_tells_everything() -> None:
    lines: list[str] = []

    outcome = play(SEEDS[0], trace=lines.append)

    assert outcome == play(SEEDS[0])
    assert len(lines) == sum(outcome.happened.values())
