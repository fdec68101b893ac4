"""Load on one node by `wrk`: so many connections, each with one request at a time, for so long.

wrk is written in C and uses a fraction of what a server does, which a load generator in Python would not. A script in its
own language (Lua) makes all of a request beforehand but the number in its path, which is drawn at random, and prints the
figures as JSON. wrk corrects its latencies for requests that it could not send while it waited (coordinated omission).
"""

import contextlib
import json
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

_SCRIPT: Final = """\
local kinds, order, step, tokens = {{}}, {{}}, 0, {{}}
local headers = {{ ["X-Vault-Token"] = "{token}", ["Content-Type"] = "application/json" {more_headers} }}
local function add(method, path, body, count, first, weight, in_turn)
  local made = wrk.format(method, "/v1/" .. path, headers, body)
  local from, to = string.find(made, "{{n}}", 1, true)
  local kind = {{ head = made, tail = nil, first = first, last = first + count - 1, at = in_turn and first }}
  if from then kind.head, kind.tail = string.sub(made, 1, from - 1), string.sub(made, to + 1) end
  kinds[#kinds + 1] = kind
  for _ = 1, weight do order[#order + 1] = #kinds end
end
function init(args)
{targets}
  step = math.random(#order)
end
function request()
  if #tokens > 0 then
    return wrk.format("POST", "/v1/auth/token/revoke-self", {{ ["X-Vault-Token"] = table.remove(tokens) }})
  end
  step = step % #order + 1
  local kind = kinds[order[step]]
  if kind.tail == nil then return kind.head end
  if not kind.at then return kind.head .. math.random(kind.first, kind.last) .. kind.tail end
  kind.at = kind.at < kind.last and kind.at + 1 or kind.first
  return kind.head .. kind.at .. kind.tail
end
{response}
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{{"requests":%d,"seconds":%f,"bad_status":%d,"failed":%d,"p50":%f,"p90":%f,"p99":%f,"p999":%f}}\\n',
    summary.requests, summary.duration / 1e6, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(99), latency:percentile(99.9)))
end
"""
_TAKE_TOKENS: Final = """\
function response(status, headers, body)
  local token = string.match(body, '"client_token":"([^"]+)"')
  if token then tokens[#tokens + 1] = token end
end
"""
_CLOSE: Final = ', ["Connection"] = "close"'


class LoadFailed(Exception):
    """The load could not be made, or was answered with errors."""


class Target(Struct, frozen=True):
    """What is asked.

    Attributes:
        path: below /v1/; "{n}" stands for a number from `first` to `first + count - 1`, drawn anew for each request.
        in_turn: the numbers come one after the other instead, round and round: each of them before any comes again.
        body: the JSON text of a write; empty for none.
        weight: how many of a round of requests, where several targets are asked in turns.
    """

    method: str
    path: str
    body: str = ""
    count: int = 1
    first: int = 0
    weight: int = 1
    in_turn: bool = False


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


class Way(Struct, frozen=True):
    """How it is asked.

    Attributes:
        keeps_alive: False opens a connection for each request.
        revokes: every token that an answer hands out revokes itself with a later request.
    """

    connections: int
    seconds: int
    keeps_alive: bool = True
    revokes: bool = False


class Running:
    """Load that is being made; `end` says what came of it."""

    def __init__(self, process: subprocess.Popen[str], what: str) -> None:
        self._process = process
        self._what = what

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
        return _understood(out, self._what)

    def kill(self) -> None:
        """End the load at once; it says nothing."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


@contextlib.contextmanager
def running(address: str, targets: Sequence[Target], way: Way, *, token: str) -> Iterator[Running]:
    """Load one node in the background, for as long as `way` says at most.

    Raises:
        LoadFailed: wrk is not installed.
    """
    if shutil.which("wrk") is None:
        raise LoadFailed("wrk is not installed: scripts/bench installs it")
    with tempfile.TemporaryDirectory(prefix="conclave-bench-") as folder:
        file = Path(folder) / "load.lua"
        file.write_text(_script(targets, way, token))
        process = subprocess.Popen(
            ["wrk", "-t1", f"-c{way.connections}", f"-d{way.seconds}s", "--timeout", "20s", "-s", str(file), address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        load = Running(process, f"{targets[0].method} {targets[0].path}")
        try:
            yield load
        finally:
            load.kill()


def run(address: str, targets: Sequence[Target], way: Way, *, token: str) -> Load:
    """Load one node and return what came of it.

    Raises:
        LoadFailed: wrk is not installed, or an answer was no success.
    """
    with running(address, targets, way, token=token) as load:
        return load.wait(way.seconds + 60)


def _understood(out: str, what: str) -> Load:
    figures = json.loads(out.splitlines()[-1])
    if figures["bad_status"] or figures["failed"]:
        raise LoadFailed(
            f"{what}: {figures['bad_status']} refused, {figures['failed']} failed of {figures['requests']}"
        )
    if not figures["requests"]:
        raise LoadFailed(f"{what}: nothing was answered")
    return Load(
        requests=figures["requests"],
        seconds=figures["seconds"],
        p50_ms=figures["p50"] / 1000,
        p90_ms=figures["p90"] / 1000,
        p99_ms=figures["p99"] / 1000,
        p999_ms=figures["p999"] / 1000,
    )


def _script(targets: Sequence[Target], way: Way, token: str) -> str:
    lines = [
        f"  add({json.dumps(target.method)}, {json.dumps(target.path)}, "
        f"{json.dumps(target.body) if target.body else 'nil'}, "
        f"{target.count}, {target.first}, {target.weight}, {json.dumps(target.in_turn)})"
        for target in targets
    ]
    return _SCRIPT.format(
        token=token,
        more_headers="" if way.keeps_alive else _CLOSE,
        targets="\n".join(lines),
        response=_TAKE_TOKENS if way.revokes else "",
    )
