"""Wires between the nodes of a cluster, that can be cut or slow: a relay before the cluster port of each.

`Wires` is what a run holds. The relays are a process of their own (`python -m tests.processes.wires`), since in the clients'
process they would wait for the same interpreter lock, and elections would fail that no cut wire has made fail. It inherits
the listening sockets, and obeys one JSON array a line: a command and its arguments, answered by an empty line.

Who opened a connection is looked up in /proc, so that each way between two nodes can be cut alone. What is sent on a cut
way is held and comes late, as TCP would have it, or never if the connection breaks first.
"""

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import uvloop
from msgspec import Struct

from tests.processes.nodes import Node

CHUNK_BYTES: Final = 64 * 1024

Way = tuple[str, str]
"""From one node to another, by name."""


class Wires:
    """The relays of a cluster, from `with` to the end of its block.

    Args:
        names: of the nodes. `ports` has the cluster port that each is to be known by.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._sockets = {name: _listening() for name in names}
        self.ports: dict[str, int] = {name: each.getsockname()[1] for name, each in self._sockets.items()}

    def __enter__(self) -> Self:
        descriptors = {name: each.fileno() for name, each in self._sockets.items()}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, json.dumps(descriptors)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=descriptors.values(),
            start_new_session=True,
        )
        for each in self._sockets.values():
            each.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process:  # which closes its input, and so ends it
            pass
        assert self._process.returncode == 0, "the relays have failed"

    def connect(self, nodes: Iterable[Node]) -> None:
        """Say where what comes for a node is to go. Until then nobody can connect."""
        self._tell("connect", {node.name: (str(node.config), node.cluster_port) for node in nodes})

    def cut(self, *ways: Way) -> None:
        """Hold everything that is sent on these ways."""
        self._tell("cut", ways)

    def delay(self, seconds: float, *ways: Way) -> None:
        """Let everything that is sent on these ways come so much later."""
        self._tell("delay", seconds, ways)

    def heal(self) -> None:
        """Let everything through at once again."""
        self._tell("heal")

    def _tell(self, command: str, *arguments: Any) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([command, *arguments]) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "\n", "the relays have failed"


def both_ways(one: str, *others: str) -> list[Way]:
    """Return the ways between one node and others."""
    return [way for other in others for way in ((one, other), (other, one))]


def _listening() -> socket.socket:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    return listening


# -- the process --


class _End(Struct, frozen=True):
    """Where a node is: the configuration that its process was started with, and the port that it listens on."""

    config: str
    port: int


class Relays:
    """The relays, on the event loop of their process."""

    def __init__(self, sockets: dict[str, socket.socket]) -> None:
        self._sockets = sockets
        self._known_ports = {name: each.getsockname()[1] for name, each in sockets.items()}
        self._ends: dict[str, _End] = {}
        self._cut: set[Way] = set()
        self._delay_seconds: dict[Way, float] = {}
        self._changed = asyncio.Event()
        self._relays: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Relay, and obey, until there are no more commands."""
        commands = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        while line := await commands.readline():
            command, *arguments = json.loads(line)
            await self._obey(command, arguments)
            sys.stdout.write("\n")
            sys.stdout.flush()

    async def _obey(self, command: str, arguments: list[Any]) -> None:
        match command, arguments:
            case "connect", [ends]:
                self._ends = {name: _End(config, port) for name, (config, port) in ends.items()}
                for name, listening in self._sockets.items():
                    await asyncio.start_server(self._accepts(name), sock=listening)
            case "cut", [ways]:
                self._cut.update((one, other) for one, other in ways)
            case "delay", [seconds, ways]:
                self._delay_seconds.update(((one, other), seconds) for one, other in ways)
            case "heal", []:
                self._cut.clear()
                self._delay_seconds.clear()
                self._changed.set()
                self._changed.clear()
            case _:
                raise ValueError(f"no such command: {command}")

    def _accepts(self, target: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            relay = asyncio.get_running_loop().create_task(self._relay(target, reader, writer))
            self._relays.add(relay)
            relay.add_done_callback(self._relays.discard)

        return accept

    async def _relay(self, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what both sides send, until one of them has ended."""
        source = _opener(writer.get_extra_info("peername")[1], self._known_ports[target], self._ends)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._ends[target].port)
        except OSError:
            writer.transport.abort()
            return
        pumps = [
            asyncio.create_task(self._pump(reader, far_writer, (source, target))),
            asyncio.create_task(self._pump(far_reader, writer, (target, source))),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        writer.transport.abort()
        far_writer.transport.abort()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                if way in self._delay_seconds:
                    await asyncio.sleep(self._delay_seconds[way])
                while way in self._cut:
                    await self._changed.wait()
                writer.write(data)
                await writer.drain()
        while way in self._cut:
            await self._changed.wait()  # nor does the end of a connection pass


def _opener(port: int, remote_port: int, ends: dict[str, _End]) -> str:
    """Return the name of the node that has opened a connection between two loopback ports; empty if it is none of these."""
    wanted = f"0100007F:{port:04X}", f"0100007F:{remote_port:04X}"
    lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    inode = next((fields[9] for fields in lines if (fields[1], fields[2]) == wanted), "")
    names = {f"-config={end.config}".encode(): name for name, end in ends.items()}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            name = next((names[each] for each in arguments if each in names), "")
            if name and _holds(process, inode):
                return name
    return ""


def _holds(process: Path, inode: str) -> bool:
    for file in (process / "fd").iterdir():
        with contextlib.suppress(OSError):
            if str(file.readlink()) == f"socket:[{inode}]":
                return True
    return False


if __name__ == "__main__":
    inherited = {name: socket.socket(fileno=descriptor) for name, descriptor in json.loads(sys.argv[1]).items()}
    uvloop.run(Relays(inherited).run())
