"""A server that answers what a test tells it to, and a way to run a command line against it."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from conclave.cli.main import main


class Seen(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: Any


class FakeServer:
    """Answers by "METHOD /v1/path"; a list of answers is used up one by one, the last one stays."""

    def __init__(self) -> None:
        self.answers: dict[str, list[tuple[int, Any, dict[str, str]]]] = {}
        self.seen: list[Seen] = []
        handler = type("Handler", (_Handler,), {"fake": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, request: str, status: int = 200, body: Any = None, **headers: str) -> None:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers.setdefault(request, []).append((status, body, sent))

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    fake: FakeServer

    def _handle(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            body = json.loads(raw) if raw else None
        except ValueError:
            body = raw
        self.fake.seen.append(Seen(self.command, self.path, dict(self.headers.items()), body))
        known = self.fake.answers.get(f"{self.command} {self.path}")
        status, answer, headers = (
            (404, {"errors": []}, {}) if not known else known.pop(0) if len(known) > 1 else known[0]
        )
        content = b"" if answer is None else answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = _handle  # noqa: N815 -- the names that http.server calls

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the name of the base class
        """Say nothing."""


class Run(NamedTuple):
    code: int
    out: str
    err: str


class Shell:
    """Runs command lines as a shell would, with a home of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, home: Path, server: FakeServer) -> None:
        self._monkeypatch = monkeypatch
        self.home = home
        self.server = server
        for name in ("ADDR", "TOKEN", "NAMESPACE", "FORMAT", "WRAP_TTL", "MAX_RETRIES", "CLIENT_TIMEOUT"):
            for prefix in ("BAO_", "VAULT_"):
                monkeypatch.delenv(prefix + name, raising=False)
        self.set(HOME=str(home), BAO_ADDR=server.address, BAO_TOKEN="hvs.test")

    def set(self, **variables: str) -> None:
        for name, value in variables.items():
            self._monkeypatch.setenv(name, value)

    def __call__(self, *words: str, stdin: str = "") -> Run:
        out, err = StringIO(), StringIO()
        self._monkeypatch.setattr("sys.stdin", StringIO(stdin))
        self._monkeypatch.setattr("sys.stdout", out)
        self._monkeypatch.setattr("sys.stderr", err)
        code = main(words)
        return Run(code, out.getvalue(), err.getvalue())


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    yield fake
    fake.close()


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: FakeServer) -> Shell:
    return Shell(monkeypatch, tmp_path, server)
