"""An operation whose rounds are too far apart is measured again, and not told of if that does not help."""

from collections.abc import Iterator

import pytest

from bench.noise import TooNoisy
from bench.operations import ATTEMPTS_MAX, Measured, until_steady


def measured(spread: float) -> list[Measured]:
    return [Measured("kv-v2 read", "conclave", 1000.0, spread, 1.0, 1.0, 1.0, 1.0, None, None, None)]


def play(runs: Iterator[list[Measured]]) -> list[Measured]:
    return until_steady("health", lambda: next(runs), lambda _text: None)


def test_rounds_that_are_close_count() -> None:
    assert play(iter([measured(400.0)])) == measured(400.0)


def test_rounds_that_are_far_apart_are_played_again() -> None:
    assert play(iter([measured(900.0), measured(100.0)])) == measured(100.0)


def test_rounds_that_stay_far_apart_are_refused() -> None:
    with pytest.raises(TooNoisy, match="health"):
        play(iter([measured(900.0)] * ATTEMPTS_MAX))
