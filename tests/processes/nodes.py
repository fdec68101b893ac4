"""Starting real nodes on free loopback ports, talking HTTP to them, and stopping them whatever happens."""

import contextlib
import http.client
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

WAIT_SECONDS_MAX = 30.0
POLL_SECONDS = 0.01
PORT_MIN, PORTS_MIN = 25_000, 4_000
"""Where the ports begin that are told, and how many there are at least; below are those of benchmarks."""
WORKERS_MAX = 8
"""How many workers of pytest are told different ones."""
CONFIG = """\
storage "raft" {{
  path    = "{folder}/data-{name}"
  node_id = "{name}"
}}
listener "tcp" {{
  address         = "127.0.0.1:{api_port}"
  cluster_address = "127.0.0.1:{cluster_port}"
  tls_disable     = true
}}
api_addr     = "http://127.0.0.1:{api_port}"
cluster_addr = "https://127.0.0.1:{known_port}"
unsafe_allow_api_audit_creation = true
"""


def conclave(*arguments: str) -> list[str]:
    """Return the command that runs ours, with every warning an error."""
    return [sys.executable, "-W", "error", "-m", "conclave", *arguments]


def free_ports(count: int) -> list[int]:
    """Return ports that nobody uses at this moment, nor is likely to before they are.

    None of those that the system gives to outgoing connections, none that this process was told before, and none that
    another worker of pytest would be told.
    """
    found: list[int] = []
    while len(found) < count:
        port = next(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
    return found


def _own_ports() -> Iterator[int]:
    outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS_MAX
    mine = list(range(PORT_MIN + worker, max(outgoing, PORT_MIN + PORTS_MIN), WORKERS_MAX))
    begin = random.SystemRandom().randrange(len(mine))  # a run before this one may have left ports behind
    return itertools.cycle(mine[begin:] + mine[:begin])


_PORTS = _own_ports()


def wait_until(condition: Callable[[], Any], what: str, seconds_max: float = WAIT_SECONDS_MAX) -> Any:
    """Poll until a condition holds, and return what it gave."""
    deadline = time.monotonic() + seconds_max
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{seconds_max} s passed before {what}"
        time.sleep(POLL_SECONDS)  # another process: there is nothing else to wait on


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: Any = None, token: str = ""
) -> tuple[int, Any]:
    """Send one request on a connection and close that; status 0 means that nobody answered."""
    try:
        headers = {"X-Vault-Token": token} if token else {}
        connection.request(method, f"/v1/{path}", None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None
    except (OSError, http.client.HTTPException):
        return 0, None
    finally:
        connection.close()


class Node:
    """One node.

    Args:
        folder: for its configuration, log and data.
        name: its id in the cluster.
        known_port: the cluster port that it names to its peers, if something stands between them and the node.
        more_environment: variables for its process beside our own.
    """

    def __init__(
        self, folder: Path, name: str, *, known_port: int = 0, more_environment: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.name = name
        self.api_port, self.cluster_port = free_ports(2)
        self.config = folder / f"{name}.hcl"
        self.config.write_text(
            CONFIG.format(
                folder=folder,
                name=name,
                api_port=self.api_port,
                cluster_port=self.cluster_port,
                known_port=known_port or self.cluster_port,
            )
        )
        self.log = folder / f"{name}.log"
        self.more_environment = more_environment or {}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def data(self) -> Path:
        return self.folder / f"data-{self.name}"

    def start(self, umask: int = 0o022) -> None:
        """Start the process and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                conclave("server", f"-config={self.config}"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.more_environment},
                umask=umask,
                start_new_session=True,
            )
        wait_until(self._answers, f"{self.name} answers:\n{self.log.read_text()}")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        return self.request("GET", "sys/seal-status")[0] == 200

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
        return self.process.wait(WAIT_SECONDS_MAX)

    def request(
        self, method: str, path: str, body: Any = None, token: str = "", seconds_max: float = 20
    ) -> tuple[int, Any]:
        """Send one request; status 0 means that nobody answered."""
        connection = http.client.HTTPConnection("127.0.0.1", self.api_port, timeout=seconds_max)
        return ask(connection, method, path, body, token)

    def health(self) -> int:
        return self.request("GET", "sys/health", seconds_max=2)[0]


class Cluster:
    """Three nodes, unsealed, with kv-v2 at secret/."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes = [Node(folder, name) for name in ("a", "b", "c")]
        self.key = self.token = ""

    def start(self, umask: int = 0o022) -> None:
        for node in self.nodes:
            node.start(umask)
        first, *others = self.nodes
        self.initialize()
        for node in others:
            self.join(node, first)
        wait_until(lambda: self.voters() == len(self.nodes), "all nodes vote")
        status, answer = first.request(
            "POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}}, self.token
        )
        assert status == 204, answer

    def initialize(self) -> None:
        """Make the first node, which has been started, a cluster of its own, unsealed."""
        first = self.nodes[0]
        status, made = first.request("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        assert status == 200, made
        self.key, self.token = made["keys_base64"][0], made["root_token"]
        self.unseal(first)

    def unseal(self, node: Node) -> None:
        node.request("PUT", "sys/unseal", {"key": self.key})
        wait_until(lambda: node.request("GET", "sys/health?standbyok=true")[0] == 200, f"{node.name} is unsealed")

    def join(self, node: Node, through: Node) -> None:
        """Let a new node become a member, and unseal it."""
        status, answer = node.request("PUT", "sys/storage/raft/join", {"leader_api_addr": through.address})
        assert status == 200, answer
        self.unseal(node)

    def voters(self) -> int:
        status, answer = self.nodes[0].request("GET", "sys/storage/raft/configuration", token=self.token)
        return sum(each["voter"] for each in answer["data"]["config"]["servers"]) if status == 200 else 0

    def leader(self) -> Node:
        found: Node = wait_until(
            lambda: next((node for node in self.alive() if node.health() == 200), None), "somebody leads"
        )
        return found

    def standbys(self) -> list[Node]:
        leader = self.leader()
        return [node for node in self.alive() if node is not leader]

    def alive(self) -> list[Node]:
        return [node for node in self.nodes if node.process is not None and node.process.poll() is None]

    def write(self, node: Node, path: str, **data: Any) -> tuple[int, Any]:
        return node.request("POST", f"secret/data/{path}", {"data": data}, self.token)

    def read(self, node: Node, path: str) -> Any:
        status, answer = node.request("GET", f"secret/data/{path}", token=self.token)
        assert status == 200, answer
        return answer["data"]["data"]

    def stop(self) -> None:
        for node in self.nodes:
            if node.process is not None:
                node.end()


@contextlib.contextmanager
def started(folder: Path, umask: int = 0o022) -> Iterator[Cluster]:
    """Yield a running cluster and end it."""
    cluster = Cluster(folder)
    try:
        cluster.start(umask)
        yield cluster
    finally:
        cluster.stop()


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return an environment for a client that a developer's own settings do not reach."""
    return {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(home), "NO_COLOR": "1", **more}
