"""Ticks: at most one for each interval, never a burst, and each says how late it is."""

import asyncio

import pytest

from conclave.cluster.timing import Ticker, Timing, boot_seconds
from tests.cluster.fake_loop import FakeLoop


class Setting:
    """A ticker under a clock that the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.late: list[float] = []
        self.loop = FakeLoop()
        monkeypatch.setattr(asyncio, "get_running_loop", lambda: self.loop)
        self.ticker = Ticker(0.010, self.late.append, lambda: self.now)
        self.ticker.start()


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch) -> Setting:
    return Setting(monkeypatch)


def test_a_tick_comes_after_an_interval(setting: Setting) -> None:
    setting.now += 0.010

    setting.loop.fire()

    assert setting.late == [pytest.approx(0.0)]


def test_a_timer_that_is_early_is_no_tick(setting: Setting) -> None:
    setting.now += 0.004

    setting.loop.fire()

    assert setting.late == []
    assert setting.loop.armed[-1][0] == pytest.approx(0.006)


def test_a_long_pause_is_one_tick_that_says_how_late_it_is(setting: Setting) -> None:
    setting.now += 5.010

    setting.loop.fire()

    assert setting.late == [pytest.approx(5.0)]
    assert len(setting.loop.armed) == 1
    assert setting.loop.armed[0][0] == pytest.approx(0.010)


def test_a_stopped_ticker_leaves_no_timer(setting: Setting) -> None:
    setting.ticker.stop()
    setting.ticker.stop()


def test_the_lease_is_shorter_than_the_promise() -> None:
    timing = Timing()

    assert timing.lease_seconds == pytest.approx(0.170)
    assert timing.election_seconds == pytest.approx(0.5)
    assert timing.fence_seconds == pytest.approx(1.0)


def test_the_multiplier_scales_everything() -> None:
    timing = Timing(5.0)

    assert timing.tick_seconds == pytest.approx(0.05)
    assert timing.lease_seconds == pytest.approx(0.85)
    assert timing.fence_seconds == pytest.approx(5.0)


def test_the_clock_does_not_go_back() -> None:
    assert boot_seconds() <= boot_seconds()
