"""Patterns mean the same to every Python that the package takes."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("api", "bench", "cli", "cluster", "conclave", "core", "engines", "methods", "storage")
_POSSESSIVE_GROUP = re.compile(r"(?<![\\(])\)(?:[*+?]|\{[\d,]+\})\+")


def has_possessive_group(text: str) -> bool:
    return _POSSESSIVE_GROUP.search(text) is not None


def strings(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Constant(value=str(text)):
                yield text
            case ast.Constant(value=bytes(text)):
                yield text.decode("latin-1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("((?:(?!{{|}}).)*+)", True),
        ("(ab){2,3}+", True),
        ("(ab)*", False),
        (r"[a-z]*+\)*+", False),
        ("[!$&'()*+,;=]", False),
    ],
)
def test_possessive_groups_are_recognised(text: str, expected: bool) -> None:
    assert has_possessive_group(text) is expected


@pytest.mark.parametrize("room", ROOMS)
def test_no_group_has_a_possessive_quantifier(room: str) -> None:
    """Up to Python 3.11.4 such a group does not match what it must (gh-106052)."""
    found = [
        (str(path.relative_to(ROOT)), text)
        for path in sorted((ROOT / room).rglob("*.py"))
        for text in strings(path.read_text())
        if has_possessive_group(text)
    ]

    assert found == []
