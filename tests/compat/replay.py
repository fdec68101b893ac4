"""The same requests to a real server and to ours: every difference in the answers is listed with its reason, or fails.

    python -m tests.compat.replay

Two clusters of three nodes are started beside each other and play `requests.txt` step by step. Status, headers that
clients read, and bodies are compared after ids, times, tokens and addresses have been made neutral (masks.py). The list
of what may differ is the table under "Differences by request" in docs/compatibility.md; a row that matches nothing any
more fails too, so that the list stays true, unless its reason begins with "Sometimes:".
"""

import argparse
import base64
import json
import re
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from tests.compat.masks import Masks, differences
from tests.compat.stand import Answer, Stand, started

HERE: Final = Path(__file__).parent
LISTED: Final = HERE.parent.parent / "docs" / "compatibility.md"
PORT: Final = 27050
HEADERS: Final = (
    "content-type",
    "cache-control",
    "strict-transport-security",
    "location",
    "retry-after",
    "content-length",
)
"""`content-length` only of answers without a body."""

_STEP = re.compile(r"(?P<method>[A-Z]+) (?P<node>[abcl]) (?P<path>\S+)(?: @(?P<token>\S+))?(?P<rest>.*)")
_HEADER = re.compile(r"-H '([^:]+): ?([^']*)'")
_PLACE = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_ROW = re.compile(r"\| `(?P<request>[^`]+)` \| `(?P<where>[^`]+)` \| (?P<reason>.+) \|")


class Step(Struct, frozen=True):
    """One request, or one wait (its `method` is then "wait", and its `path` says for what)."""

    section: str
    method: str
    node: str
    path: str
    token: str = "root"
    headers: tuple[tuple[str, str], ...] = ()
    body: str | None = None
    saves: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """How docs/compatibility.md names it."""
        return f"{self.method} {self.path}"


class Listed(Struct):
    """A difference that is meant, or that is theirs."""

    request: str
    where: str
    reason: str
    is_used: bool = False

    @property
    def is_sure(self) -> bool:
        """Whether it shows in every run."""
        return not self.reason.startswith("Sometimes:")


def parse_steps(text: str) -> Iterator[Step]:
    """Yield the steps of a file; its first lines explain the notation.

    Raises:
        ValueError: a line is none of what the notation knows.
    """
    section, step = "", None
    for line in text.splitlines():
        if line.startswith("  save "):
            assert step is not None, line
            _, name, where = line.split()
            step = Step(**{**_fields(step), "saves": (*step.saves, (name, where))})
            continue
        if step is not None:
            yield step
            step = None
        if line.startswith("== "):
            section = line[3:]
        elif line.startswith("wait "):
            _, what, node, *path = line.split()
            step = Step(section, "wait", node, " ".join([what, *path]))
        elif line and not line.startswith("#"):
            step = _parse_request(section, line)
    if step is not None:
        yield step


def _fields(step: Step) -> dict[str, Any]:
    return {name: getattr(step, name) for name in step.__struct_fields__}


def _parse_request(section: str, line: str) -> Step:
    head, has_body, body = line.partition(" -d")
    found = _STEP.fullmatch(head)
    if found is None:
        raise ValueError(f"not a request: {line}")
    return Step(
        section,
        found["method"],
        found["node"],
        found["path"],
        token=found["token"] or "root",
        headers=tuple(_HEADER.findall(found["rest"])),
        body=body.removeprefix(" ") if has_body else None,
    )


def parse_listed(document: str) -> list[Listed]:
    """Return the rows of the table of differences."""
    return [
        Listed(row["request"], row["where"], row["reason"]) for row in map(_ROW.fullmatch, document.splitlines()) if row
    ]


class Player:
    """Plays steps on one cluster, and remembers what they saved."""

    def __init__(self, stand: Stand) -> None:
        self._stand = stand
        self._known: dict[str, str] = {"leader": stand.address("a"), "none": "", "root": ""}
        self.masks = Masks(_addresses(stand))

    def play(self, step: Step) -> Answer | None:
        """Return the answer; None for a wait."""
        if step.method == "wait":
            what, _, path = step.path.partition(" ")
            self._stand.wait(what, step.node, path, self._known["root"])
            return None
        headers = {name: self._fill(value) for name, value in step.headers}
        token = self._known.get(step.token) if step.token in self._known else self._fill(step.token)
        if token:
            headers["X-Vault-Token"] = token
        path = self._fill(step.path)
        answer = self._stand.ask(
            step.method,
            self._stand.leader() if step.node == "l" else step.node,
            path if path.startswith("/") else f"/v1/{path}",
            headers,
            None if step.body is None else self._fill(step.body).encode(),
        )
        for name, where in step.saves:
            self._known[name] = self._value(answer, where)
        if "cluster_id" in (known := answer.json() or {}):
            far = json.dumps({"cluster": known["cluster_id"], "value": "9999999"}, separators=(",", ":"))
            self._known["far_index"] = base64.b64encode(far.encode()).decode()
        return answer

    def _fill(self, text: str) -> str:
        return _PLACE.sub(lambda place: self._known[place[1]], text)

    def _value(self, answer: Answer, where: str) -> str:
        """Return what stands at a place of an answer; an empty text if there is nothing, so that the steps go on."""
        value = answer.json()
        for part in where.split("."):
            if isinstance(value, list) and len(value) > int(part):
                value = value[int(part)]
            elif isinstance(value, dict):
                value = value.get(part)
            else:
                return ""
        return str(value or "")


def _addresses(stand: Stand) -> dict[str, str]:
    named = {}
    for node, port in stand.ports.items():
        named[f"127.0.0.1:{port}"] = f"<api {node}>"
        named[f"127.0.0.1:{port + 1}"] = f"<cluster {node}>"
    return named


def view(answer: Answer, masks: Masks) -> dict[str, Any]:
    """Return what is compared of an answer."""
    headers = {name: answer.headers.get(name) for name in HEADERS if name != "content-length" or not answer.body}
    body = answer.json()
    return {
        "status": answer.status,
        "headers": masks.neutral(headers),
        "body": masks.neutral(body if body is not None else answer.body.decode(errors="replace")),
    }


def replay(theirs: Player, ours: Player, listed: list[Listed], *, shows_all: bool, shows_steps: bool) -> int:
    """Play every step on both; print what differs without being listed, and return how often that was."""
    found = played = 0
    for step in parse_steps((HERE / "requests.txt").read_text(encoding="utf-8")):
        there, here = theirs.play(step), ours.play(step)
        if there is None or here is None:
            continue
        played += 1
        if shows_steps:
            sys.stdout.write(f"{there.status} {here.status} {step.node} {step.name}\n")
        for where, expected, got in differences(view(there, theirs.masks), view(here, ours.masks)):
            rows = [each for each in listed if fnmatchcase(step.name, each.request) and fnmatchcase(where, each.where)]
            for row in rows[:1]:
                row.is_used = True
            if not rows or shows_all:
                found += not rows
                sys.stdout.write(
                    f"[{step.section}] {step.name} {step.body or ''}\n  {where}\n  - {expected}\n  + {got}\n"
                )
    for row in listed:
        if row.is_sure and not row.is_used:
            found += 1
            sys.stdout.write(f"docs/compatibility.md lists a difference that there is not: {row.request} {row.where}\n")
    sys.stdout.write(f"{played} requests, {found} differences that are not listed\n")
    return found


def main() -> int:
    """Start both clusters, and compare; 1 if something differs that is not listed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=PORT, help="the first of twelve loopback ports")
    parser.add_argument("--all", action="store_true", help="show listed differences too")
    parser.add_argument("--steps", action="store_true", help="show each request with both statuses")
    arguments = parser.parse_args()
    bao = Path(sysconfig.get_path("scripts")) / "bao"
    listed = parse_listed(LISTED.read_text(encoding="utf-8"))
    with (
        tempfile.TemporaryDirectory(prefix="replay-") as folder,
        started([bao, "server"], Path(folder) / "theirs", arguments.port) as theirs,
        started([sys.executable, "-m", "conclave", "server"], Path(folder) / "ours", arguments.port + 6) as ours,
    ):
        found = replay(Player(theirs), Player(ours), listed, shows_all=arguments.all, shows_steps=arguments.steps)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
