"""Clusters of three nodes of any server, started beside each other, and plain HTTP to them.

The configuration is one that Vault, OpenBao and Conclave read alike. Nothing here knows which of them it has started.
"""

import contextlib
import http.client
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NamedTuple

NODES: Final = ("a", "b", "c")
START_SECONDS_MAX: Final = 30.0
WAIT_SECONDS_MAX: Final = 60.0
"""A real server takes about ten seconds to make a voter of a joined node, and as long to replace a leader."""
POLL_SECONDS: Final = 0.05
REQUEST_SECONDS_MAX: Final = 60.0
LOG_CHARACTERS_SHOWN: Final = 2000

_CONFIG: Final = """\
disable_mlock = true
ui = false
unsafe_allow_api_audit_creation = true
storage "raft" {{
  path    = "{folder}/data-{name}"
  node_id = "{name}1"
}}
listener "tcp" {{
  address                                  = "127.0.0.1:{api_port}"
  cluster_address                          = "127.0.0.1:{cluster_port}"
  tls_disable                              = true
  disable_unauthed_rekey_endpoints         = false
  disable_unauthed_generate_root_endpoints = false
}}
api_addr     = "http://127.0.0.1:{api_port}"
cluster_addr = "https://127.0.0.1:{cluster_port}"
"""


class Answer(NamedTuple):
    """What came back: header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as plain values; None if it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class Stand:
    """A running cluster; node `a` has `port` as its API port, and each other two more than the one before."""

    def __init__(self, command: Sequence[str | Path], folder: Path, port: int) -> None:
        self._command = command
        self._folder = folder
        self.ports: dict[str, int] = {name: port + 2 * number for number, name in enumerate(NODES)}
        self._processes: list[subprocess.Popen[bytes]] = []

    def address(self, node: str) -> str:
        """Return where the API of a node is."""
        return f"http://127.0.0.1:{self.ports[node]}"

    def start(self) -> None:
        """Start all nodes, and wait until each answers."""
        for name, port in self.ports.items():
            (self._folder / f"data-{name}").mkdir()
            config = self._folder / f"{name}.hcl"
            config.write_text(
                _CONFIG.format(folder=self._folder, name=name, api_port=port, cluster_port=port + 1), encoding="utf-8"
            )
            with (self._folder / f"{name}.log").open("wb") as log:
                self._processes.append(
                    subprocess.Popen(
                        [*self._command, f"-config={config}"],
                        cwd=self._folder,
                        env={"HOME": str(self._folder), "PATH": os.environ["PATH"]},
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                    )
                )
        for name in NODES:
            self._wait(partial(self._answers, name), f"{name} answers")

    def _answers(self, node: str) -> bool:
        return self.ask("GET", node, "/v1/sys/seal-status").status == HTTPStatus.OK

    def stop(self) -> None:
        """End all nodes."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait()

    def ask(
        self, method: str, node: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        """Send one request to a node; the path goes out as it is.

        Raises:
            OSError: the node does not answer.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[node], timeout=REQUEST_SECONDS_MAX)
        try:
            connection.request(method, path, body=body, headers=dict(headers or {}))
            response = connection.getresponse()
            return Answer(
                response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
            )
        finally:
            connection.close()

    def leader(self) -> str:
        """Return which node is active.

        Raises:
            StopIteration: none is.
        """
        return next(node for node in NODES if self.ask("GET", node, "/v1/sys/health").status == HTTPStatus.OK)

    def wait(self, what: str, node: str, path: str, token: str) -> None:
        """Wait until a node is `active` or `standby`, the cluster has three `voters` or a `leader`, or a path an `answer`.

        Raises:
            TimeoutError: it did not come about.
        """
        authorised = {"X-Vault-Token": token}

        def holds() -> bool:
            match what:
                case "active":
                    return self.ask("GET", node, "/v1/sys/health").status == HTTPStatus.OK
                case "standby":
                    return self.ask("GET", node, "/v1/sys/health").status == HTTPStatus.TOO_MANY_REQUESTS
                case "leader":
                    return any(self.ask("GET", each, "/v1/sys/health").status == HTTPStatus.OK for each in NODES)
                case "answer":
                    return self.ask("GET", node, f"/v1/{path}", authorised).status == HTTPStatus.OK
                case "voters":
                    answer = self.ask("GET", node, "/v1/sys/storage/raft/configuration", authorised).json()
                    return [each["voter"] for each in answer["data"]["config"]["servers"]] == [True] * len(NODES)
                case _:
                    raise ValueError(f"nothing to wait for is called {what!r}")

        self._wait(holds, f"{what} {node} {path}")

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + max(START_SECONDS_MAX, WAIT_SECONDS_MAX)
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if condition():
                    return
            time.sleep(POLL_SECONDS)  # other processes: there is nothing else to wait on
        logs = "".join(
            (self._folder / f"{name}.log").read_text(encoding="utf-8")[-LOG_CHARACTERS_SHOWN:] for name in NODES
        )
        raise TimeoutError(f"waited in vain: {what}\n{logs}")


@contextlib.contextmanager
def started(command: Sequence[str | Path], folder: Path, port: int) -> Iterator[Stand]:
    """Yield a running cluster that is stopped in any case."""
    folder.mkdir()
    stand = Stand(command, folder, port)
    try:
        stand.start()
        yield stand
    finally:
        stand.stop()
