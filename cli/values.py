r"""Data from the command line: K=V pairs, files and stdin.

`a=b` is the text "b"; `a=@file` the content of a file, `a=-` that of stdin; `a=\\@x` the text "@x". `@file` and `-` alone
are a JSON object each, whose entries count as if they had been given. A key that comes again makes a list of its values.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from conclave.cli.document import parse_json
from conclave.cli.errors import UsageError


def parse_data(words: Sequence[str], stdin: IO[str]) -> dict[str, Any]:
    """Read K=V arguments.

    Raises:
        UsageError: one is no pair, a file cannot be read, or what should be JSON is not.
    """
    data: dict[str, Any] = {}
    for word in words:
        try:
            for key, value in _entries(word, stdin):
                data[key] = _joined(data[key], value) if key in data else value
        except ValueError as error:
            raise UsageError(f'Failed to parse K=V data: invalid key/value pair "{word}": {error}') from error
    return data


def parse_params(words: Sequence[str], stdin: IO[str]) -> dict[str, str | list[str]]:
    """Read K=V arguments that become a query: all values are texts."""
    data = parse_data(words, stdin)
    return {key: [str(v) for v in value] if isinstance(value, list) else str(value) for key, value in data.items()}


def _entries(word: str, stdin: IO[str]) -> list[tuple[str, Any]]:
    if word == "-":
        return list(_object(stdin.read()).items())
    if word.startswith("@"):
        return list(_object(_file(word[1:], "")).items())
    key, has_value, value = word.partition("=")
    if not has_value:
        raise ValueError("format must be key=value")
    if value == "-":
        return [(key, stdin.read())]
    if value.startswith("@"):
        return [(key, _file(value[1:], "error reading file: "))]
    return [(key, value[1:] if value.startswith("\\@") else value)]


def _joined(before: Any, value: Any) -> list[Any]:
    return [*(before if isinstance(before, list) else [before]), value]


def _object(text: str) -> dict[str, Any]:
    value = parse_json(text)
    if not isinstance(value, dict):
        raise ValueError("it must be a JSON object")  # noqa: TRY004 -- a refused input, reported by the caller
    return value


def _file(name: str, prefix: str) -> str:
    try:
        return Path(name).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{prefix}open {name}: {(error.strerror or 'cannot be read').lower()}") from error


def text_or_file(word: str, stdin: IO[str]) -> str:
    """Return an argument, or stdin for "-", or a file's content for "@file"."""
    try:
        if word == "-":
            return stdin.read()
        return _file(word[1:], "") if word.startswith("@") else word
    except ValueError as error:
        raise UsageError(str(error)) from error
