"""Random operations on versioned secrets, played on the real server and on ours: both must answer the same to each.

    python -m tests.compat.versions --operations 3000 --seed 1

One node of each runs on loopback ports. Few names and small numbers are used, so that versions are pushed out,
deleted, brought back, destroyed and written under conditions again and again. What is compared is status and body, ids
and times made neutral (masks.py); the first difference ends it, for all that follows would differ too.
"""

import argparse
import json
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

from tests.compat.masks import Masks, differences
from tests.compat.stand import Answer, Stand, started

MOUNT: Final = "random"
MERGE_PATCH: Final = {"Content-Type": "application/merge-patch+json"}
_NAMES: Final = ("a", "b", "d/a", "d/b")
_MASKS: Final = Masks({})

Ask = tuple[str, str, Any]
"""Method, path below the mount, body or None."""


def _versions(random: Random) -> dict[str, Any]:
    return {"versions": [random.randint(-1, 8) for _ in range(random.randint(1, 2))]}


def _secret(random: Random) -> dict[str, Any]:
    return {random.choice("xy"): random.choice([1, "s", None, {"n": {"m": 1}}, [1]])}


def _settings(random: Random) -> dict[str, Any]:
    return random.choice(
        [
            {"max_versions": random.randint(0, 5)},
            {"cas_required": random.random() < 0.3},
            {"delete_version_after": random.choice(["0s", "1h", "2h"])},
        ]
    )


def _metadata(random: Random) -> dict[str, Any]:
    custom: dict[str, Any] = {"custom_metadata": random.choice([{}, {"a": "b"}, None])}
    return random.choice([_settings(random), custom, {}])


def _changed_metadata(random: Random) -> dict[str, Any]:
    return random.choice(
        [
            _settings(random),
            {"max_versions": None},
            {"custom_metadata": random.choice([{"a": None}, {"c": "d"}, None])},
        ]
    )


_OPERATIONS: Final[tuple[Callable[[Random, str], Ask], ...]] = (
    lambda random, name: ("POST", f"data/{name}", {"data": _secret(random)}),
    lambda random, name: ("PUT", f"data/{name}", {"data": _secret(random)}),
    lambda random, name: ("POST", f"data/{name}", {"data": {"x": 1}, "options": {"cas": random.randint(0, 5)}}),
    lambda random, name: (
        "PATCH",
        f"data/{name}",
        {"data": {random.choice("xy"): random.choice([None, 2, {"n": None}])}},
    ),
    lambda _, name: ("DELETE", f"data/{name}", None),
    lambda random, name: ("POST", f"delete/{name}", _versions(random)),
    lambda random, name: ("POST", f"undelete/{name}", _versions(random)),
    lambda random, name: ("PUT", f"destroy/{name}", _versions(random)),
    lambda random, name: ("POST", f"metadata/{name}", _metadata(random)),
    lambda random, name: ("PATCH", f"metadata/{name}", _changed_metadata(random)),
    lambda random, name: ("DELETE" if random.random() < 0.2 else "GET", f"metadata/{name}", None),
    lambda _, name: ("GET", f"data/{name}", None),
    lambda random, name: ("GET", f"data/{name}?version={random.randint(0, 8)}", None),
    lambda random, name: ("GET", f"subkeys/{name}?depth={random.randint(0, 2)}", None),
    lambda random, _: ("LIST", f"metadata/{random.choice(['', 'd', 'd/', 'zz'])}", None),
    lambda *_: ("LIST", "detailed-metadata/", None),
    lambda random, _: ("POST", "config", _settings(random)),
)


class Side:
    """One of the two: a cluster of which one node is used."""

    def __init__(self, stand: Stand) -> None:
        self._stand = stand
        made = stand.ask("PUT", "a", "/v1/sys/init", body=b'{"secret_shares":1,"secret_threshold":1}').json()
        self._token: str = made["root_token"]
        stand.ask("PUT", "a", "/v1/sys/unseal", body=json.dumps({"key": made["keys"][0]}).encode())
        stand.wait("active", "a", "", self._token)
        self.ask("POST", f"sys/mounts/{MOUNT}", {"type": "kv", "options": {"version": "2"}})
        stand.wait("answer", "a", f"{MOUNT}/config", self._token)

    def ask(self, method: str, path: str, body: Any) -> Answer:
        headers = {"X-Vault-Token": self._token} | (MERGE_PATCH if method == "PATCH" else {})
        return self._stand.ask(method, "a", f"/v1/{path}", headers, None if body is None else json.dumps(body).encode())


def compare(theirs: Side, ours: Side, random: Random, operations: int) -> bool:
    """Play operations until one is answered differently; return whether none was."""
    for number in range(operations):
        method, path, body = random.choice(_OPERATIONS)(random, random.choice(_NAMES))
        answers = [side.ask(method, f"{MOUNT}/{path}", body) for side in (theirs, ours)]
        there, here = ({"status": each.status, "body": _MASKS.neutral(each.json())} for each in answers)
        found = list(differences(there, here))
        if found:
            sys.stdout.write(f"operation {number}: {method} {path} {json.dumps(body)}\n")
            sys.stdout.writelines(f"  {where}\n  - {expected}\n  + {got}\n" for where, expected, got in found)
            return False
    sys.stdout.write(f"{operations} operations, all answered alike\n")
    return True


def main() -> int:
    """Start both, and compare; 1 if something was answered differently."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--port", type=int, default=21330, help="the first of twelve loopback ports")
    arguments = parser.parse_args()
    bao = Path(sysconfig.get_path("scripts")) / "bao"
    with (
        tempfile.TemporaryDirectory(prefix="versions-") as folder,
        started([bao, "server"], Path(folder) / "theirs", arguments.port) as theirs,
        started([sys.executable, "-m", "conclave", "server"], Path(folder) / "ours", arguments.port + 6) as ours,
    ):
        is_same = compare(Side(theirs), Side(ours), Random(arguments.seed), arguments.operations)
    return 0 if is_same else 1


if __name__ == "__main__":
    sys.exit(main())
