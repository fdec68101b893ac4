"""Three thousand malformed requests to an active, a standby and a sealed node, and junk to their cluster ports.

Whatever comes: no 5xx but a 503, no hang, no traceback in any log, nothing secret in any log or answer, and the nodes go on.
"""

import random
import socket
from pathlib import Path
from typing import Final

from tests.processes.nodes import Cluster, Node, started, wait_until

REQUESTS_OF_A_NODE: Final = 1000
JUNK_OF_A_PORT: Final = 100
ANSWER_SECONDS_MAX: Final = 10.0
CANARY: Final = "canary-in-a-malformed-request"
PATHS: Final = (
    "sys/health", "sys/mounts", "sys/init", "sys/unseal", "sys/policies/acl/p", "sys/leases/lookup", "sys/wrapping/wrap",
    "secret/data/a", "secret/metadata/a", "secret/config", "auth/token/create", "auth/token/lookup", "cubbyhole/a",
    "identity/entity", "sys/internal/ui/mounts", "sys/capabilities-self", "sys/storage/raft/join", "nowhere/at/all",
)  # fmt: skip
ODD_PARTS: Final = (
    "/..", "/.", "//", "/%2e%2e", "/%2f", "/%00", "/\u00e9", "/%ff", "/%", "/%zz", "/" + "a" * 9000, "/a b", "?list=maybe",
    "?version=x", "?" + "&".join(f"q{number}=1" for number in range(200)), "#x", "/a\tb", "/" * 50,
)  # fmt: skip
METHODS: Final = ("GET", "POST", "PUT", "DELETE", "LIST", "PATCH", "HEAD", "OPTIONS", "TRACE", "get", "FROB")
HEADERS: Final = (
    "X-Vault-Wrap-TTL: soon", "X-Vault-Wrap-TTL: -1", "X-Vault-Namespace: a/b", "X-Vault-Index: !!", "X-Vault-Forward: x",
    "Authorization: Bearer", "Authorization: Basic eA==", "Content-Type: text/plain", "X-Vault-Token: \u00e9",
    "X: " + "y" * 9000, "Content-Type: application/merge-patch+json", "Expect: 100-continue", "Connection: close, close",
)  # fmt: skip
BODIES: Final = (
    "", "{", "[]", "null", "1", '"text"', "{}", '{"data": 5}', '{"data": {"a": 1e999}}', '{"ttl": "soon"}', '{"key": {}}',
    '{"policies": 7}', '{"a": "\\ud800"}', "{'a': 1}", '{"a": 1, "a": 2}', '{"path": ["a"], "token": []}', "\0\0", "\u00e9",
    "[" * 5000, '{"a":' * 3000, '{"data": "' + "x" * 100_000 + '"}', '{"num_uses": 123456789012345678901234567890}',
)  # fmt: skip


def request_of(chooser: random.Random, token: str) -> bytes:
    """Return a request with something wrong in one or more of its parts."""
    path = "/v1/" + chooser.choice(PATHS) + (chooser.choice(ODD_PARTS) if chooser.random() < 0.6 else "")
    body = chooser.choice(BODIES).encode("utf-8", "surrogatepass")
    lines = [f"{chooser.choice(METHODS)} {path} HTTP/1.1", "Host: a", *chooser.sample(HEADERS, chooser.randrange(3))]
    if chooser.random() < 0.7:
        lines.append(f"X-Vault-Token: {token}")
    lines.append(f"X-Canary: {CANARY}")
    length = str(len(body))
    lengths = chooser.choices([[length], [length, length + "0"], [], ["x"], ["-1"]], [80, 5, 5, 5, 5])[0]
    lines += [f"Content-Length: {each}" for each in lengths]
    sent = "\r\n".join([*lines, "", ""]).encode("utf-8") + body
    if chooser.random() < 0.1:  # another one, in the same breath
        sent += b"GET /v1/sys/seal-status HTTP/1.1\r\nHost: a\r\n\r\n"
    return sent[: chooser.randrange(len(sent))] if chooser.random() < 0.05 else sent


def exchange(port: int, sent: bytes) -> bytes:
    """Send bytes, say that no more come, and return all that comes back.

    Raises:
        TimeoutError: the node neither answers nor closes.
    """
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS_MAX) as client:
        try:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            while piece := client.recv(65536):
                received += piece
        except (ConnectionError, BrokenPipeError):
            pass  # refused while it was still being sent
    return received


def statuses(received: bytes) -> list[int]:
    return [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:] if part[:3].isdigit()]


def is_allowed(status: int) -> bool:
    return status < 500 or status == 503


def check_requests(node: Node, seed: int, token: str, secrets: tuple[bytes, ...]) -> None:
    chooser = random.Random(seed)
    answered = 0
    for _ in range(REQUESTS_OF_A_NODE):
        sent = request_of(chooser, token)
        received = exchange(node.api_port, sent)

        assert all(is_allowed(status) for status in statuses(received)), (node.name, sent[:400], received[:400])
        answered += bool(statuses(received))
        assert b"Traceback" not in received, sent[:400]
        assert not any(secret in received for secret in secrets), (sent[:400], received[:400])
    assert answered > 0.8 * REQUESTS_OF_A_NODE, "what is cut short alone is not answered"


def check_junk(node: Node, seed: int) -> None:
    """Send bytes to the cluster port that are no TLS, or hardly: it closes."""
    chooser = random.Random(seed)
    hello = bytes.fromhex("160301020001000001fc0303")
    for _ in range(JUNK_OF_A_PORT):
        junk = chooser.randbytes(chooser.randrange(1, 3000))
        exchange(node.cluster_port, chooser.choice([junk, hello + junk, b"GET / HTTP/1.1\r\n\r\n", b""]))


def left_sealed(cluster: Cluster) -> Node:
    node = cluster.standbys()[0]
    node.end()
    node.start()
    wait_until(lambda: node.health() == 503, f"{node.name} is sealed")
    return node


def test_no_malformed_request_does_any_harm(tmp_path: Path) -> None:
    with started(tmp_path) as cluster:
        assert cluster.write(cluster.leader(), "kept", value=CANARY + "-value")[0] == 200
        status, made = cluster.leader().request(
            "POST", "auth/token/create", {"policies": ["default"], "ttl": "1h"}, cluster.token
        )
        assert status == 200, made
        token = made["auth"]["client_token"]
        sealed = left_sealed(cluster)
        leader = cluster.leader()
        standby = next(node for node in cluster.nodes if node not in (leader, sealed))
        secrets = tuple(each.encode() for each in (cluster.token, cluster.key, token, CANARY))

        for seed, node in enumerate((leader, standby, sealed)):
            check_requests(node, seed, token, secrets)
            check_junk(node, seed)

        cluster.unseal(sealed)
        for node in cluster.nodes:
            assert cluster.read(node, "kept") == {"value": CANARY + "-value"}
            log = node.log.read_bytes()
            assert b"Traceback" not in log
            assert not any(secret in log for secret in secrets)
