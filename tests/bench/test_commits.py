"""The smallest of the measured clusters works: what is proposed is committed by other processes."""

import asyncio

import pytest

from bench import commits


def test_entries_are_committed_on_three_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "REPETITIONS", 2)
    monkeypatch.setattr(commits, "SECONDS", 0.05)

    figure = asyncio.run(commits.in_three_processes(4))

    assert figure.name == "three processes, 4 at a time, each entry"
    assert figure.microseconds > 0
