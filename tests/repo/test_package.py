"""Rooms are top-level folders, bound into one package by links, and imported through it only (docs/adr/0002)."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = frozenset({"api", "cli", "cluster", "core", "engines", "methods", "storage"})
IMPORT_EVERYTHING = """\
import importlib, pkgutil, sys
import conclave
for module in pkgutil.walk_packages(conclave.__path__, "conclave."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(" ".join(sorted(sys.modules)))
"""


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_each_room_is_a_folder_and_a_link_to_it() -> None:
    links = {entry.name: entry.readlink() for entry in (ROOT / "conclave").iterdir() if entry.is_symlink()}

    assert links == {room: Path("..") / room for room in ROOMS}
    assert all((ROOT / room / "__init__.py").is_file() for room in ROOMS)


def test_the_lists_of_rooms_agree(project: dict[str, Any]) -> None:
    tools = project["tool"]

    assert set(tools["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]) == ROOMS
    assert set(tools["coverage"]["run"]["source"]) == ROOMS
    layers = next(c for c in tools["importlinter"]["contracts"] if c["type"] == "layers")["layers"]
    named = {part.strip().removeprefix("conclave.") for layer in layers for part in layer.split("|")}
    assert named == ROOMS | {"server", "recover"}


def test_every_module_can_be_imported_and_no_room_by_its_bare_name() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_EVERYTHING],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={"PATH": os.environ["PATH"]},
    )

    assert done.stderr == ""
    assert not ROOMS & set(done.stdout.split())


def test_no_module_is_named_like_one_that_a_reader_would_expect_to_be_the_standard_library() -> None:
    names = {file.stem for room in ROOMS for file in (ROOT / room).rglob("*.py")}

    assert not names & {"secrets", "token", "types", "http", "logging", "queue", "platform", "select", "signal"}


def test_every_room_says_what_it_holds() -> None:
    for room in ROOMS:
        first = (ROOT / room / "__init__.py").read_text().lstrip()

        assert first.startswith('"""'), f"{room}/__init__.py has no docstring"
