"""Timers that fire when a test says so."""

from collections.abc import Callable
from unittest import mock


class FakeLoop:
    """An event loop's timers and its clock, without the loop.

    Attributes:
        armed: for each timer after how many seconds, and what it calls.
        now: what `time` returns; the test sets it.
    """

    def __init__(self) -> None:
        self.armed: list[tuple[float, Callable[[], None]]] = []
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, callback: Callable[[], None]) -> mock.Mock:
        self.armed.append((seconds, callback))
        return mock.Mock()

    def fire(self) -> None:
        """Let the newest timer fire, whatever time it is."""
        _, callback = self.armed.pop()
        callback()
