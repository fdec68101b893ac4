"""Every route that is declared: none is answered without a token that may, and none without a record of it.

The routes are taken from the declarations, so that a new one is covered by being declared. What is open to everybody is
listed here by hand: opening another path means changing this list.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from conclave.core.contract import Declaration, Engine, Operation, Response
from conclave.core.errors import PermissionDenied
from conclave.core.system import System
from conclave.engines import REGISTRY as ENGINES
from conclave.methods import REGISTRY as METHODS
from tests.clients import Client, client
from tests.fakes import request_for

MOUNTS: Final[dict[str, type[Engine]]] = {
    "sys/": System,
    "cubbyhole/": ENGINES["cubbyhole"],
    "identity/": ENGINES["identity"],
    "secret/": ENGINES["kv-v2"],
    "kv/": ENGINES["kv"],
    "transit/": ENGINES["transit"],
    "auth/token/": METHODS["token"],
    "auth/approle/": METHODS["approle"],
    "auth/userpass/": METHODS["userpass"],
}
OPEN: Final = {
    "auth/approle/login",
    "auth/userpass/login/{username}",
    "sys/decode-token",
    "sys/generate-root",
    "sys/generate-root/attempt",
    "sys/generate-root/update",
    "sys/health",
    "sys/init",
    "sys/internal/help/{path...}",
    "sys/internal/specs/openapi",
    "sys/internal/ui/mounts",
    "sys/internal/ui/mounts/{path...}",
    "sys/leader",
    "sys/rekey/init",
    "sys/rekey/update",
    "sys/rekey/verify",
    "sys/seal-status",
    "sys/storage/raft/bootstrap/address",
    "sys/storage/raft/bootstrap/answer",
    "sys/storage/raft/bootstrap/challenge",
    "sys/storage/raft/join",
    "sys/unseal",
    "sys/wrapping/lookup",
}
"""What takes no token; each checks for itself what its caller knows: a share, a password, a token in its body."""
SAY_THAT_IT_WRAPS_NOTHING: Final = {"update sys/wrapping/rewrap", "update sys/wrapping/unwrap"}
"""These refuse an unknown token in words of their own: clients tell by them that something was unwrapped before."""
NOT_ASKED_OF_ONE_NODE: Final = {"sys/seal", "sys/step-down"}
"""After these the vault of a test answers nothing more."""


def routes(mount: str) -> Iterator[tuple[Declaration, str]]:
    """Yield what is declared at a mount, and a path that each is asked by."""
    for declared in MOUNTS[mount].declarations():
        filled = "/".join("x" if part.startswith("{") else part for part in declared.pattern.split("/"))
        yield declared, mount + filled


def ask(vault: Client, declared: Declaration, path: str, token: str, request_id: str = "") -> Any:
    """Return the outcome of a request without fields."""
    more = {"content_type": "application/merge-patch+json"} if declared.operation is Operation.PATCH else {}
    fields: dict[str, Any] | None = {} if declared.operation in (Operation.UPDATE, Operation.PATCH) else None
    request = request_for(declared.operation, path, fields, token=token, **more)
    request.id = request_id or request.id
    return vault.send(request)


def with_every_mount(vault: Client) -> None:
    vault.write("sys/mounts/kv", {"type": "kv"})
    vault.write("sys/mounts/transit", {"type": "transit"})
    vault.write("sys/auth/approle", {"type": "approle"})
    vault.write("sys/auth/userpass", {"type": "userpass"})


def test_the_mounts_of_these_tests_are_all_that_there_are() -> None:
    assert {*ENGINES.values(), *METHODS.values(), System} == set(MOUNTS.values())


def test_no_path_is_open_but_those_that_are_listed() -> None:
    found = {
        mount + declared.pattern for mount in MOUNTS for declared, _ in routes(mount) if not declared.authenticated
    }

    assert found <= OPEN
    assert {path for path in OPEN if not path.startswith("sys/storage")} <= found


@pytest.mark.parametrize("mount", MOUNTS)
@pytest.mark.parametrize("kind", ["none", "unknown", "without rights", "ended"])
def test_a_token_that_may_not_is_refused_everywhere(mount: str, kind: str) -> None:
    with client() as vault:
        with_every_mount(vault)
        vault.write("sys/policies/acl/nothing", {"policy": 'path "nowhere" { capabilities = ["read"] }'})
        token = vault.new_token(policies=["nothing"], no_default_policy=True).client_token
        ended = vault.new_token(policies=["root"]).client_token
        vault.write("auth/token/revoke", {"token": ended})
        used = {"none": "", "unknown": "hvs.unknown", "without rights": token, "ended": ended}[kind]

        outcomes = {
            f"{declared.operation} {path}": ask(vault, declared, path, used)
            for declared, path in routes(mount)
            if declared.authenticated
        }

    answered = {name for name, outcome in outcomes.items() if not isinstance(outcome, PermissionDenied)}
    assert answered <= SAY_THAT_IT_WRAPS_NOTHING
    assert not any(isinstance(outcome, Response) for outcome in outcomes.values())


@pytest.mark.parametrize("mount", MOUNTS)
def test_a_path_that_needs_sudo_is_refused_without_it(mount: str) -> None:
    with client() as vault:
        with_every_mount(vault)
        allowed = '["create", "read", "update", "patch", "delete", "list"]'
        vault.write("sys/policies/acl/no-sudo", {"policy": f'path "*" {{ capabilities = {allowed} }}'})
        token = vault.new_token(policies=["no-sudo"]).client_token

        answered = {
            f"{declared.operation} {path}"
            for declared, path in routes(mount)
            if declared.sudo and not isinstance(ask(vault, declared, path, token), PermissionDenied)
        }

    assert answered == set()


@pytest.mark.parametrize("mount", MOUNTS)
def test_every_request_and_every_answer_is_recorded(mount: str, tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    asked: dict[str, Any] = {}
    with client() as vault:
        with_every_mount(vault)
        vault.write("sys/audit/file", {"type": "file", "options": {"file_path": str(log)}})
        for number, (declared, path) in enumerate(routes(mount)):
            if (
                declared.while_sealed
                or path in NOT_ASKED_OF_ONE_NODE
                or (declared.is_local and not declared.authenticated)
            ):
                continue  # a sealed node could not record them either
            token = vault.new_token(policies=["root"]).client_token
            asked[f"ask-{number}"] = (declared.operation, path)
            ask(vault, declared, path, token, f"ask-{number}")

    recorded = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    for kind in ("request", "response"):
        found = {record["request"]["id"] for record in recorded if record["type"] == kind}
        assert [asked[each] for each in asked if each not in found] == [], kind
