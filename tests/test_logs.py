"""conclave/logs.py: one event, one line."""

import io
import json
import logging
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conclave.logs import JsonFormatter, TextFormatter, configure, set_level


def record(message: str, **extra: object) -> logging.LogRecord:
    logger = logging.getLogger("conclave.core.vault")
    made = logger.makeRecord(logger.name, logging.INFO, "", 0, message, (), None, extra=extra)
    made.created = 1_769_860_800.125
    return made


@pytest.fixture
def _root_logger() -> Iterator[None]:
    """Take off again what a test has put on the root logger."""
    root = logging.getLogger()
    level = root.level
    yield
    for handler in root.handlers[:]:
        if isinstance(handler.formatter, TextFormatter | JsonFormatter):
            root.removeHandler(handler)
            handler.close()
    root.setLevel(level)


def test_a_line_for_people_has_time_level_module_message_and_fields() -> None:
    line = TextFormatter().format(record("became leader", raft_term=3, why="no leader"))

    assert line == '2026-01-31T12:00:00.125Z [INFO]  core.vault: became leader: raft_term=3 why="no leader"'


def test_an_object_for_machines_has_the_same() -> None:
    line = JsonFormatter().format(record("became leader", raft_term=3))

    assert json.loads(line) == {
        "@level": "info",
        "@message": "became leader",
        "@module": "core.vault",
        "@timestamp": "2026-01-31T12:00:00.125000Z",
        "raft_term": 3,
    }


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_no_value_can_begin_a_line_of_its_own(formatter: logging.Formatter) -> None:
    line = formatter.format(record("one\ntwo", value="three\r\nfour"))

    assert "\n" not in line
    assert "\r" not in line


def test_a_traceback_follows_its_line_indented() -> None:
    made = record("a request failed")
    try:
        int("broken")
    except ValueError:
        made.exc_info = sys.exc_info()

    lines = TextFormatter().format(made).splitlines()

    assert len(lines) > 1
    assert all(line.startswith("  ") for line in lines[1:])


@pytest.mark.usefixtures("_root_logger")
def test_the_log_file_is_private_whatever_its_mode_was(tmp_path: Path) -> None:
    file = tmp_path / "conclave.log"
    file.touch(mode=0o644)

    configure("info", "json", str(file))
    logging.getLogger("conclave.test").info("hello")

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text())["@message"] == "hello"


@pytest.mark.usefixtures("_root_logger")
def test_the_level_can_be_changed_while_running(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure("warn", "standard")
    logging.getLogger("conclave.test").info("unheard")

    set_level("debug")
    logging.getLogger("conclave.test").debug("heard")

    assert re.findall(r"test: (\w+)", stream.getvalue()) == ["heard"]
