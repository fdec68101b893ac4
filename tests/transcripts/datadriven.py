"""Reading transcript files: cases of a command, its input, and the output that is expected.

    command key=value key=(a,b)
    input lines
    ----
    expected output, up to an empty line

Lines that begin with `#` and empty lines between cases are skipped.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

ABSENT = "the judge etcd-io/raft is absent: set RAFT_TESTDATA to the testdata folders of a checkout of that repository"
_ARGUMENT = re.compile(r"([^\s=]+)(?:=(\([^)]*\)|\S*))?")


class Case(Struct, frozen=True):
    """One case. Arguments without a value have none; a list in parentheses has several."""

    file: str
    line: int
    command: str
    arguments: list[tuple[str, list[str]]]
    input: str
    expected: str

    def flag(self, name: str, default: str = "") -> str:
        """Return the only value of an argument."""
        for key, values in self.arguments:
            if key == name:
                return values[0] if values else "true"
        return default

    def values(self, name: str) -> list[str]:
        """Return all values of an argument."""
        return [value for key, values in self.arguments if key == name for value in values]

    @property
    def positional(self) -> list[str]:
        """Return the arguments without a value, in order."""
        return [key for key, values in self.arguments if not values]

    @property
    def place(self) -> str:
        """Return where the case stands."""
        return f"{self.file}:{self.line}"


def folder(name: str) -> Path | None:
    """Return a folder of the judge's files, or None where the judge is absent."""
    root = Path(os.environ.get("RAFT_TESTDATA", Path(__file__).parents[3] / "shared" / "raft-testdata"))
    return root / name if (root / name).is_dir() else None


def files(name: str) -> list[Path]:
    """Return the judge's files of one kind; none where the judge is absent."""
    found = folder(name)
    return sorted(found.glob("*.txt")) if found else []


def read(path: Path) -> Iterator[Case]:
    """Yield the cases of a file."""
    lines = path.read_text().split("\n")
    at = 0
    while at < len(lines):
        if not lines[at].strip() or lines[at].startswith("#"):
            at += 1
            continue
        start, command = at + 1, lines[at]
        end = lines.index("----", at)
        body = "\n".join(lines[at + 1 : end])
        at = end + 1
        expected = []
        while at < len(lines) and lines[at] != "":
            expected.append(lines[at])
            at += 1
        name, _, rest = command.partition(" ")
        yield Case(path.name, start, name, list(_arguments(rest)), body, "\n".join(expected))


def _arguments(text: str) -> Iterator[tuple[str, list[str]]]:
    for key, value in _ARGUMENT.findall(re.sub(r",\s+", ",", text)):
        if value.startswith("("):
            yield key, [part.strip() for part in value[1:-1].split(",") if part.strip()]
        else:
            yield key, [value] if value else []
