"""The guard against slower layers: what it compares, and what it lets pass."""

import json
from pathlib import Path

import pytest

from bench.check import _compare, slower


def test_only_what_is_slower_by_more_than_the_tolerance_is_named() -> None:
    baseline = {"tree: get": 1.0, "tree: put": 2.0, "http: parse": 3.0}

    assert slower({"tree: get": 1.3, "tree: put": 3.2, "http: parse": 1.0}, baseline) == {"tree: put": 1.6}


def test_what_waits_for_a_disk_may_vary_more() -> None:
    baseline = {"log: append": 1.0, "commit: three nodes": 1.0}

    assert slower({"log: append": 1.9, "commit: three nodes": 2.5}, baseline) == {"commit: three nodes": 2.5}


def test_a_figure_without_a_baseline_is_no_failure() -> None:
    assert slower({"new": 9.0}, {"a": 1.0}) == {}


def test_the_exit_code_tells_of_a_slower_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "baseline.json"
    file.write_text(json.dumps({"barrier: seal": 1.0}))

    assert _compare({"barrier: seal": 1.1}, file) == 0
    assert _compare({"barrier: seal": 2.0}, file) == 1

    assert "2.0 times as slow" in capsys.readouterr().err
