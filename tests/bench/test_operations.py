"""An operation whose rounds are too far apart is measured again, and not told of if that does not help."""

from collections.abc import Iterator

import pytest

from bench import operations
from bench.noise import TooNoisy
from bench.operations import ATTEMPTS_MAX, OPERATIONS, Measured, measure_until_steady


def measured(spread: float) -> list[Measured]:
    return [Measured("kv-v2 read", "conclave", 1000.0, spread, 1.0, 1.0, 1.0, 1.0, None, None, None)]


def play(monkeypatch: pytest.MonkeyPatch, runs: Iterator[list[Measured]]) -> list[Measured]:
    monkeypatch.setattr(operations, "measure", lambda *_args, **_options: next(runs))
    return measure_until_steady(OPERATIONS[0], [], rounds=5, seconds=1, report=lambda _text: None)


def test_rounds_that_are_close_count(monkeypatch: pytest.MonkeyPatch) -> None:
    assert play(monkeypatch, iter([measured(400.0)])) == measured(400.0)


def test_rounds_that_are_far_apart_are_played_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert play(monkeypatch, iter([measured(900.0), measured(100.0)])) == measured(100.0)


def test_rounds_that_stay_far_apart_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TooNoisy, match="health"):
        play(monkeypatch, iter([measured(900.0)] * ATTEMPTS_MAX))
