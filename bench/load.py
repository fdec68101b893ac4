"""Load on one node by `wrk`: so many connections, each with one request at a time, for so long.

wrk is written in C and uses a fraction of what a server does, which a load generator in Python would not. A script in its
own language (Lua) makes the requests beforehand, so that their making costs nothing, and prints the figures as JSON.
"""

import contextlib
import json
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

PREPARED_REQUESTS_MAX: Final = 10_000
_SCRIPT: Final = """\
local requests, next_request = {{}}, 0
function init(args)
  local headers = {{ ["X-Vault-Token"] = "{token}", ["Content-Type"] = "application/json" }}
  for i = 1, {count} do
    local path = string.gsub("/v1/{path}", "{{n}}", tostring({first} + i - 1))
    requests[i] = wrk.format("{method}", path, headers, {body})
  end
  next_request = math.random({count})
end
function request()
  next_request = next_request % {count} + 1
  return requests[next_request]
end
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{{"requests":%d,"seconds":%f,"bad_status":%d,"failed":%d,"p50":%f,"p90":%f,"p99":%f,"p999":%f}}\\n',
    summary.requests, summary.duration / 1e6, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(99), latency:percentile(99.9)))
end
"""


class LoadFailed(Exception):
    """The load could not be made, or was answered with errors."""


class Target(Struct, frozen=True):
    """What is asked.

    Attributes:
        path: below /v1/; "{n}" stands for a number from `first` to `first + count - 1`.
        body: the JSON text of a write; empty for none.
    """

    method: str
    path: str
    body: str = ""
    count: int = 1
    first: int = 0


class Load(Struct, frozen=True):
    """What came of it; latencies in milliseconds."""

    requests: int
    seconds: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


class Running:
    """Load that is being made; `end` says what came of it."""

    def __init__(self, process: subprocess.Popen[str], target: Target) -> None:
        self._process = process
        self._target = target

    def end(self, seconds_max: float = 30) -> Load:
        """Stop the load, unless it has stopped by itself, and return what came of it.

        Raises:
            LoadFailed: an answer was no success.
        """
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        return self.wait(seconds_max)

    def wait(self, seconds_max: float) -> Load:
        """Wait until the load stops by itself, and return what came of it.

        Raises:
            LoadFailed: an answer was no success.
        """
        out, errors = self._process.communicate(timeout=seconds_max)
        if self._process.returncode != 0:
            raise LoadFailed(f"wrk: {errors or out}")
        return _understood(out, self._target)

    def kill(self) -> None:
        """End the load at once; it says nothing."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


@contextlib.contextmanager
def running(address: str, target: Target, *, connections: int, seconds: int, token: str) -> Iterator[Running]:
    """Load one node in the background, for so long at most.

    Raises:
        LoadFailed: wrk is not installed.
    """
    if shutil.which("wrk") is None:
        raise LoadFailed("wrk is not installed: scripts/bench installs it")
    count = min(target.count, PREPARED_REQUESTS_MAX)
    body = json.dumps(target.body) if target.body else "nil"
    script = _SCRIPT.format(
        token=token, path=target.path, method=target.method, body=body, count=count, first=target.first
    )
    with tempfile.TemporaryDirectory(prefix="conclave-bench-") as folder:
        file = Path(folder) / "load.lua"
        file.write_text(script)
        process = subprocess.Popen(
            ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(file), address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        load = Running(process, target)
        try:
            yield load
        finally:
            load.kill()


def run(address: str, target: Target, *, connections: int, seconds: int, token: str) -> Load:
    """Load one node and return what came of it.

    Raises:
        LoadFailed: wrk is not installed, or an answer was no success.
    """
    with running(address, target, connections=connections, seconds=seconds, token=token) as load:
        return load.wait(seconds + 30)


def _understood(out: str, target: Target) -> Load:
    figures = json.loads(out.splitlines()[-1])
    if figures["bad_status"] or figures["failed"]:
        raise LoadFailed(
            f"{target.method} {target.path}: {figures['bad_status']} refused, {figures['failed']} failed "
            f"of {figures['requests']}"
        )
    return Load(
        requests=figures["requests"],
        seconds=figures["seconds"],
        p50_ms=figures["p50"] / 1000,
        p90_ms=figures["p90"] / 1000,
        p99_ms=figures["p99"] / 1000,
        p999_ms=figures["p999"] / 1000,
    )
