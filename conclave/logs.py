"""Log lines: one event a line, as text for people or as one JSON object for machines.

    2026-01-31T12:00:00.123Z [INFO]  core.vault: unsealed
    {"@level":"info","@message":"unsealed","@module":"core.vault","@timestamp":"2026-01-31T12:00:00.123456Z"}

What a call gives as `extra` follows the message as `key=value`, or stands beside it. Line breaks never come out as such,
so nobody can write a line of their own through a value. Nothing here filters secrets: whoever logs must not hand any in.

The two forms and the names of the JSON fields are Vault's, which log collectors know.
"""

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Final

PACKAGE: Final = "conclave."
_LEVELS: Final = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}
_NAMES: Final = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warn", logging.ERROR: "error"}
_STANDARD_ATTRIBUTES: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class TextFormatter(logging.Formatter):
    """Lines for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of one event; a traceback follows it, indented."""
        fields = "".join(f" {key}={_quoted(value)}" for key, value in _extra(record).items())
        level = f"[{_level(record).upper()}]"
        line = f"{_timestamp(record, digits=3)} {level:<7} {_module(record)}: {_one_line(record.getMessage())}"
        text = line + (":" + fields if fields else "")
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            text += "\n" + "\n".join("  " + each for each in trace.splitlines())
        return text


class JsonFormatter(logging.Formatter):
    """Objects for machines."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object of one event."""
        fields: dict[str, object] = {
            "@level": _level(record),
            "@message": record.getMessage(),
            "@module": _module(record),
            "@timestamp": _timestamp(record, digits=6),
        }
        fields |= _extra(record)
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":"), default=str)


def configure(level: str, form: str, file: str = "") -> None:
    """Send every log line to standard error, and to a file if one is named; once in the life of a process.

    Args:
        level: "trace" (the same as "debug"), "debug", "info", "warn" or "error".
        form: "standard" or "json".
        file: appended to, created with mode 0600; "" for none.

    Raises:
        OSError: the file cannot be opened.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if file:
        _make_private(Path(file))
        handlers.append(logging.FileHandler(file, encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
        logging.getLogger().addHandler(handler)
    set_level(level)


def set_level(level: str) -> None:
    """Change how much is logged."""
    logging.getLogger().setLevel(_LEVELS[level])
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def _make_private(file: Path) -> None:
    os.close(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600))
    file.chmod(0o600)


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in record.__dict__.items() if key not in _STANDARD_ATTRIBUTES}


def _level(record: logging.LogRecord) -> str:
    return _NAMES.get(record.levelno, record.levelname.lower())


def _module(record: logging.LogRecord) -> str:
    return record.name.removeprefix(PACKAGE)


def _timestamp(record: logging.LogRecord, *, digits: int) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.created % 1 * 10**digits):0{digits}}Z"


def _quoted(value: object) -> str:
    text = _one_line(str(value))
    return json.dumps(text, ensure_ascii=False) if not text or any(character in text for character in ' "=') else text


def _one_line(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n")
