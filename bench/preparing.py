"""What a cluster needs before operations are measured on it: mounts, credentials, secrets."""

import json
import math
from enum import Enum
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from bench import load
from bench.load import Target, Way
from bench.nodes import Cluster

VALUE: Final = "x" * 100
_PASSWORD: Final = "correct horse battery staple"  # noqa: S105  # it guards nothing
WRITE_BODY: Final = json.dumps({"data": {"password": VALUE, "username": "bench"}})
SIZES: Final = (1024, 65_536)
APPROLE: Final = "{approle}"
USERPASS: Final = "{userpass}"
"""Bodies that the preparation fills in."""
FEW: Final = 1000
MANY: Final = 100_000
"""Secrets below few/ and many/."""
TEN: Final = "ten"
TEN_THOUSAND: Final = "ten-thousand"
"""Places with so many names."""
FILL_CONNECTIONS: Final = 128
FILL_SECONDS: Final = 5
FILL_FIRST: Final = 500
FILL_AT_ONCE_MAX: Final = 10_000
FILL_SHARE: Final = 0.7
"""How much of what a round of filling has written the next one is given to write, so that it gets round."""


class Setting(Enum):
    """How a cluster is set up."""

    PLAIN = "plain"
    TLS = "TLS"
    AUDIT = "audited"
    STOCKED = "with many secrets"


class Prepared(Struct, frozen=True):
    """What a cluster was prepared with: tokens by the name of who has it, bodies by their placeholders."""

    tokens: dict[str, str]
    bodies: dict[str, str]


def prepare(cluster: Cluster, setting: Setting) -> Prepared:
    """Give a cluster what the operations need."""
    enable(cluster)
    cluster.request("POST", "sys/mounts/transit", {"type": "transit"})
    for method in ("approle", "userpass"):
        cluster.request("POST", f"sys/auth/{method}", {"type": method})
    policy = 'path "secret/*" { capabilities = ["read", "list", "create", "update"] }'
    cluster.request("PUT", "sys/policies/acl/bench", {"policy": policy})
    for size in SIZES:
        cluster.request("POST", f"secret/data/sized/{size}", {"data": {"k": "x" * size}})
    fill(cluster, "few", FEW)
    fill(cluster, TEN, 10)
    if setting is Setting.STOCKED:
        fill(cluster, "many", MANY)
        fill(cluster, TEN_THOUSAND, 10_000)
    until_done(cluster, "POST", "transit/keys/bench", {})
    cluster.request("POST", "transit/keys/signer", {"type": "ed25519"})
    cluster.request("POST", "auth/userpass/users/bench", {"password": _PASSWORD, "token_policies": ["bench"]})
    cluster.request("POST", "auth/approle/role/bench", {"token_policies": ["bench"], "token_ttl": "1h"})
    role_id = cluster.request("GET", "auth/approle/role/bench/role-id").json()["data"]["role_id"]
    secret_id = cluster.request("POST", "auth/approle/role/bench/secret-id", {}).json()["data"]["secret_id"]
    created = cluster.request("POST", "auth/token/create", {"policies": ["bench"], "ttl": "2h"}).json()
    if setting is Setting.AUDIT:
        _audit(cluster, cluster.folder / "audit.log")
    return Prepared(
        {"root": cluster.root_token, "service": created["auth"]["client_token"], "": ""},
        {
            APPROLE: json.dumps({"role_id": role_id, "secret_id": secret_id}),
            USERPASS: json.dumps({"password": _PASSWORD}),
        },
    )


def enable(cluster: Cluster) -> None:
    """Mount the key-value engine, and wait until it takes writes."""
    cluster.request("POST", "sys/mounts/secret", {"type": "kv-v2"})
    until_done(cluster, "POST", "secret/data/ready", {"data": {"k": VALUE}})


def _audit(cluster: Cluster, file: Path) -> None:
    cluster.request("PUT", "sys/audit/file", {"type": "file", "options": {"file_path": str(file)}})


def until_done(cluster: Cluster, method: str, path: str, fields: Any) -> None:
    """Repeat a request until a mount that was just made is ready for it."""

    def is_done() -> bool:
        return cluster.leader.request(method, path, fields, token=cluster.root_token).status < 400

    cluster.wait(path, is_done)


def fill(cluster: Cluster, place: str, count: int, *, held: int = 0, body: str = WRITE_BODY) -> None:
    """Write secrets 0 to `count - 1` below a place, of which `held` are there already, each of them once at least."""
    chunk = FILL_FIRST
    while held < count:
        chunk = min(chunk, FILL_AT_ONCE_MAX, count - held)
        done = load.run(
            cluster.leader.address,
            [Target("POST", f"secret/data/{place}/{{n}}", body, count=chunk, first=held, in_turn=True)],
            Way(FILL_CONNECTIONS, FILL_SECONDS if chunk > FILL_FIRST else math.ceil(FILL_SECONDS / 3)),
            token=cluster.root_token,
        )
        if done.requests >= chunk + FILL_CONNECTIONS:  # it went round, and further than what its end has cut off
            held += chunk
        chunk = max(1, int(done.requests * FILL_SHARE))
