"""The docs say what the code does: reference pages are made from it, and what the prose names exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec import Struct, structs

from conclave.cli import REGISTRY as COMMANDS
from conclave.config import Listener, RaftStorage, RetryJoin, ServerConfig, Telemetry
from conclave.core.metrics import Metrics, prometheus_name
from conclave.engines import REGISTRY as ENGINES
from conclave.methods import REGISTRY as METHODS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


BUGS = {**{str(number): "consensus.md" for number in range(1, 31)}, **{f"B{n}": "raft-bugs.md" for n in range(1, 68)}}
"""The bugs of others that are known, and the page that says what holds each of them."""


def headings(page: str) -> set[str]:
    return set(re.findall(r"^#+ (.+)$", (DOCS / page).read_text(), re.MULTILINE))


def test_the_reference_pages_are_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "reference.py", "--check"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_configuration_key_has_a_heading() -> None:
    blocks: dict[str, type[Struct]] = {
        "": ServerConfig,
        "storage.": RaftStorage,
        "storage.retry_join.": RetryJoin,
        "listener.": Listener,
        "telemetry.": Telemetry,
    }
    keys = {f"`{prefix}{field.encode_name}`" for prefix, kind in blocks.items() for field in structs.fields(kind)}

    assert keys <= headings("configuration.md")


def test_every_command_has_a_heading() -> None:
    assert {f"conclave {name}" for name in COMMANDS} <= headings("cli.md")


def test_every_example_of_a_command_is_a_block() -> None:
    outside = re.sub(r"^```.*?^```$", "", (DOCS / "cli.md").read_text(), flags=re.MULTILINE | re.DOTALL)

    assert re.findall(r"^ *\$ .*$", outside, re.MULTILINE) == []


def test_every_family_of_routes_has_a_heading() -> None:
    assert {"sys/", *ENGINES, *(f"auth/{name}" for name in METHODS)} <= headings("api.md")


def test_every_metric_has_a_heading() -> None:
    assert {f"`{prometheus_name(metric.name)}`" for metric in Metrics()} <= headings("metrics.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    named = re.findall(
        r"`((?:api|cli|cluster|conclave|core|engines|methods|scripts|storage|tests)/[\w./-]*)`", page.read_text()
    )

    assert [name for name in named if not (ROOT / name).exists()] == []


def bugs(page: str) -> dict[str, str]:
    """Return the last column of the tables of bugs in a page, by their numbers."""
    return dict(re.findall(r"^\| (B?\d+) \|.*\| ([^|]+) \|$", (DOCS / page).read_text(), re.MULTILINE))


def names_in_tests() -> set[str]:
    """Return the names of all tests, histories, broken rules and transcripts."""
    tests = ROOT / "tests"
    found = {name for file in tests.rglob("*.py") for name in re.findall(r"def (\w+)\(", file.read_text())}
    return found | {file.name for file in (tests / "transcripts").glob("*.txt")}


def test_every_bug_of_others_has_a_row() -> None:
    rows = {number: page for page in set(BUGS.values()) for number in bugs(page)}

    assert rows == BUGS


def test_whatever_is_said_to_hold_a_bug_exists() -> None:
    names = names_in_tests()
    held = {
        number: re.findall(r"`([^`]+)`", cell) for page in set(BUGS.values()) for number, cell in bugs(page).items()
    }
    claims = [(number, claim) for number, claims in held.items() for claim in claims if "/" not in claim]
    starts = [(number, claim.removesuffix("…")) for number, claim in claims if claim.endswith("…")]

    assert [number for number, claims in held.items() if not claims] == []
    assert [claim for claim in claims if not claim[1].endswith("…") and claim[1] not in names] == []
    assert [start for start in starts if not any(name.startswith(start[1]) for name in names)] == []


def test_every_test_of_a_bug_is_named_in_its_row() -> None:
    rows = {number: cell for page in set(BUGS.values()) for number, cell in bugs(page).items()}
    numbers = {found[1] for name in names_in_tests() if (found := re.match(r"test_bug_(b?\d+)_", name))}

    assert [number for number in sorted(numbers) if f"`test_bug_{number}_…`" not in rows.get(number.upper(), "")] == []


def test_every_decision_is_in_the_index() -> None:
    index = (ROOT / "mkdocs.yml").read_text()

    assert [page.name for page in sorted((DOCS / "adr").glob("*.md")) if f"adr/{page.name}" not in index] == []


def test_the_readme_names_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text()

    assert all(command in readme for command in ("make demo", "make test", "make demo-stop"))
