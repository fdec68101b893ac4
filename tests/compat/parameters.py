"""Random conditions on parameters, asked of the real server and of `core.acl`: nothing is allowed here that it refuses.

    python -m tests.compat.parameters --sets 4000 --seed 1

It starts `bao server -dev`, writes one or two policies with `allowed_parameters`, `denied_parameters` and
`required_parameters` a set, makes a token of them, and writes random bodies with it. Where we are the stricter side is
counted, not shown: a denied value is compared here as text, so that no spelling of it slips through. Not asked for are
numbers as allowed values, which the real server never finds equal to a number in JSON, and names that differ in case
alone, of which it takes any one.
"""

import argparse
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from random import Random
from typing import Any, Final

from conclave.core.acl import Acl
from conclave.core.contract import Operation
from conclave.core.policies import parse_policy
from tests.compat.policies import DIFFERENCES_MAX, Server, started_server

BODIES_EACH: Final = 12
_NAMES: Final = ("A", "b", "*", "ab", "c")
_VALUES: Final = ("1", "1*", "*", "x", "*x", "*x*", "", "true")
_FIELDS: Final = ("a", "A", "b", "ab", "c", "d")
_SENT: Final[tuple[Any, ...]] = (
    "1", "11", "x", "ax", "xa", "", "true", 1, 2, 1.5, True, False, None, ["1"], ["1", "x"], [], {"k": "1"}, {},
)  # fmt: skip


def random_policy(random: Random) -> str:
    """Return a rule for one path with some conditions."""
    conditions = []
    for name in ("allowed_parameters", "denied_parameters"):
        if random.random() < 0.5:
            chosen = random.sample(_NAMES, random.randint(1, 3))
            lists = "\n".join(f'"{each}" = {json.dumps(_values(random))}' for each in chosen)
            conditions.append(f"{name} = {{\n{lists}\n}}")
    if random.random() < 0.25:
        conditions.append(f"required_parameters = {json.dumps(random.sample(('a', 'b', 'A'), random.randint(1, 2)))}")
    return 'path "kv/p" {\ncapabilities = ["create", "update"]\n' + "\n".join(conditions) + "\n}"


def _values(random: Random) -> list[str]:
    return [random.choice(_VALUES) for _ in range(random.randint(0, 3))]


def is_allowed_there(server: Server, body: dict[str, Any], token: str) -> bool:
    """Whether the real server lets a token write a body."""
    request = urllib.request.Request(
        f"{server.address}/v1/kv/p", data=json.dumps(body).encode(), method="PUT", headers={"X-Vault-Token": token}
    )
    try:
        with urllib.request.urlopen(request, timeout=30):
            return True
    except urllib.error.HTTPError as error:
        return error.code != 403


def compare(server: Server, random: Random) -> Iterator[tuple[bool, str]]:
    """Yield each difference of a random set: whether we are the side that allows it, and a text that shows it."""
    documents = [random_policy(random) for _ in range(random.randint(1, 2))]
    for number, document in enumerate(documents):
        status, answer = server.ask("PUT", f"sys/policies/acl/p{number}", {"policy": document})
        assert status < 300, answer
    names = [f"p{number}" for number in range(len(documents))]
    _, made = server.ask("POST", "auth/token/create", {"policies": names, "no_default_policy": True})
    acl = Acl.compile([parse_policy(name, document) for name, document in zip(names, documents, strict=True)])
    for _ in range(BODIES_EACH):
        body = {name: random.choice(_SENT) for name in random.sample(_FIELDS, random.randint(0, 3))}
        there = is_allowed_there(server, body, made["auth"]["client_token"])
        here = acl.check("kv/p", Operation.UPDATE, parameters=partial(dict, body), exists=lambda: True)
        if there != here:
            yield here, "\n".join([*documents, f"  {json.dumps(body)} is allowed {'here' if here else 'there'} alone"])


def main() -> int:
    """Compare as many sets as are asked for; 1 if anything was allowed here alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--port", type=int, default=21320)
    arguments = parser.parse_args()
    looser = stricter = 0
    with started_server(arguments.port) as server:
        server.ask("POST", "sys/mounts/kv", {"type": "kv"})
        for number in range(arguments.sets):
            for is_looser, text in compare(server, Random(f"{arguments.seed}-{number}")):
                looser += is_looser
                stricter += not is_looser
                if is_looser:
                    sys.stdout.write(f"set {number}:\n{text}\n")
            if looser >= DIFFERENCES_MAX:
                break
    sys.stdout.write(f"{number + 1} sets: {looser} bodies allowed here alone, {stricter} there alone\n")
    return 1 if looser else 0


if __name__ == "__main__":
    sys.exit(main())
