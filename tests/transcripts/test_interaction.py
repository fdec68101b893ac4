"""Whole clusters against the judge's transcripts: everything but the library's log lines."""

import re
from pathlib import Path

import pytest

from tests.transcripts.datadriven import files, read
from tests.transcripts.environment import Environment

FILES = files("interaction")
_LOG_LINE = re.compile(r"^\s*(DEBUG|INFO|WARN|ERROR) .*$")


def without_log(text: str) -> list[str]:
    lines = [line for line in text.split("\n") if line and not _LOG_LINE.match(line)]
    return [] if lines == ["ok"] else lines


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_cluster_does_what_the_judge_recorded(path: Path) -> None:
    environment = Environment()
    for case in read(path):
        quiet = environment.is_quiet
        printed = without_log(environment.run(case))
        if quiet or environment.is_quiet:
            continue

        assert printed == without_log(case.expected), case.place
