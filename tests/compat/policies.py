"""Random policies, asked of the real server and of `core.acl`: both must grant the same at every path.

    python -m tests.compat.policies --sets 5000 --seed 1

It starts `bao server -dev` on a loopback port, writes one to three policies a set, makes a token of them, and compares
`sys/capabilities` for paths that are near the rules with `Acl.capabilities` here. Each difference is printed with the
policies that show it; the exit code is 1 if there was any.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

from conclave.core.acl import Acl
from conclave.core.errors import InvalidRequest
from conclave.core.policies import parse_policy

ROOT_TOKEN: Final = "compat-root"
START_SECONDS_MAX: Final = 20.0
DIFFERENCES_MAX: Final = 20
"""After so many differences it is time to look at them."""
PATHS_EACH: Final = 16

_SEGMENTS: Final = ("a", "b", "ab", "abc", "c", "data", "+", "+", "a+", "+b", "a*b", "*")
_PLAIN: Final = ("a", "b", "ab", "abc", "c", "data", "x", "a+", "a*b", "+")
_CAPABILITIES: Final = ("create", "read", "update", "patch", "delete", "list", "sudo", "scan")
_LEGACY: Final = ("read", "write", "sudo", "deny")


class Server:
    """A real server in development mode."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        """Return status and JSON body of a request with the root token."""
        request = urllib.request.Request(
            f"{self.address}/v1/{path}",
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"X-Vault-Token": ROOT_TOKEN},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        return status, json.loads(text) if text else None


@contextlib.contextmanager
def started_server(port: int) -> Iterator[Server]:
    """Yield a running server that keeps nothing."""
    bao = Path(sysconfig.get_path("scripts")) / "bao"
    with tempfile.TemporaryDirectory() as home:
        process = subprocess.Popen(
            [
                bao,
                "server",
                "-dev",
                "-dev-no-store-token",
                f"-dev-root-token-id={ROOT_TOKEN}",
                f"-dev-listen-address=127.0.0.1:{port}",
            ],
            env={"HOME": home},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        server = Server(f"http://127.0.0.1:{port}")
        try:
            _wait(server)
            yield server
        finally:
            process.terminate()
            process.wait()


def _wait(server: Server) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if server.ask("GET", "sys/health")[0] == 200:
                return
        time.sleep(0.05)
    raise TimeoutError(f"the server did not answer within {START_SECONDS_MAX} s")


# -- what is compared --


def random_rule_path(random: Random) -> str:
    """Return a rule's path, as odd as the language allows."""
    path = "/".join(random.choice(_SEGMENTS) for _ in range(random.randint(1, 4)))
    path += random.choice(("", "", "", "*", "*", "/*", "/", "/+", "/+/*", "*"))
    return ("/" if random.random() < 0.05 else "") + path


def random_policy(random: Random, paths: list[str]) -> str:
    """Return a document of one to four rules; their paths are added to `paths`."""
    rules = []
    for _ in range(random.randint(1, 4)):
        path = random.choice(paths) if paths and random.random() < 0.2 else random_rule_path(random)
        paths.append(path)
        if random.random() < 0.1:
            rules.append(f'path "{path}" {{ policy = "{random.choice(_LEGACY)}" }}')
            continue
        chosen = random.sample(_CAPABILITIES, random.randint(0, 4))
        if random.random() < 0.1:
            chosen.append("deny")
        rules.append(f'path "{path}" {{ capabilities = {json.dumps(chosen)} }}')
    return "\n".join(rules)


def random_question(random: Random, paths: list[str]) -> str:
    """Return a path to ask for, mostly near one of the rules."""
    if random.random() < 0.2:
        return "/".join(random.choice(_PLAIN) for _ in range(random.randint(1, 5)))
    segments = [
        random.choice(_PLAIN) if "+" in segment or "*" in segment else segment
        for segment in random.choice(paths).strip("/").split("/")
    ]
    if random.random() < 0.3:
        segments.append(random.choice(_PLAIN))
    if random.random() < 0.15 and len(segments) > 1:
        segments.pop()
    return "/".join(segments) + random.choice(("", "", "", "/", "b"))


def compare(server: Server, random: Random, number: int) -> Iterator[str]:
    """Yield the differences of one random set of policies."""
    paths: list[str] = []
    documents = {f"set{number}-{each}": random_policy(random, paths) for each in range(random.randint(1, 3))}
    policies = []
    for name, text in documents.items():
        status, answer = server.ask("PUT", f"sys/policies/acl/{name}", {"policy": text})
        refusal = _refusal(name, text)
        if (status < 300) != (refusal is None):
            yield f"{text}\n  accepted there: {status} {answer}; here: {refusal or 'accepted'}"
        if status < 300 and refusal is None:
            policies.append(parse_policy(name, text))
    if not policies:
        return
    names = [policy.name for policy in policies]
    _, made = server.ask("POST", "auth/token/create", {"policies": names, "no_default_policy": True, "ttl": "1h"})
    questions = sorted({random_question(random, paths) for _ in range(PATHS_EACH)})
    _, there = server.ask("POST", "sys/capabilities", {"token": made["auth"]["client_token"], "paths": questions})
    acl = Acl.compile(policies)
    for question in questions:
        here = acl.capabilities(question.removeprefix("/"))
        if there["data"][question] != here:
            shown = "\n".join(documents[name] for name in names)
            yield f"{shown}\n  at {question!r} there: {there['data'][question]}; here: {here}"
    for name in names:
        server.ask("DELETE", f"sys/policies/acl/{name}")


def _refusal(name: str, text: str) -> str | None:
    try:
        parse_policy(name, text)
    except InvalidRequest as error:
        return str(error)
    return None


def main() -> int:
    """Compare as many sets as are asked for; 1 if there was a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--port", type=int, default=21310)
    arguments = parser.parse_args()
    found = 0
    with started_server(arguments.port) as server:
        for number in range(arguments.sets):
            for difference in compare(server, Random(f"{arguments.seed}-{number}"), number):
                found += 1
                sys.stdout.write(f"set {number}:\n{difference}\n")
            if found >= DIFFERENCES_MAX:
                break
    sys.stdout.write(f"{number + 1} sets, {found} differences\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
