"""A machine that does other work is noticed."""

import pytest

from bench import noise


def ticks_of(monkeypatch: pytest.MonkeyPatch, *looks: tuple[int, int, int]) -> None:
    """Let each look at the machine find these ticks: idle, stolen, all."""
    found = iter(looks)
    monkeypatch.setattr(noise, "_times", lambda: next(found))
    monkeypatch.setattr(noise, "LOOK_SECONDS", 0)


def test_a_quiet_machine_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks_of(monkeypatch, (1000, 0, 2000), (1195, 0, 2200))

    noise.demand_quiet()


def test_a_busy_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks_of(monkeypatch, (1000, 0, 2000), (1100, 0, 2200))

    with pytest.raises(noise.TooNoisy, match="50% of this machine"):
        noise.demand_quiet()


def test_time_that_went_to_others_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks_of(monkeypatch, (0, 0, 1000), (500, 100, 2000))

    assert noise.Watch().stolen_share == pytest.approx(0.1)
