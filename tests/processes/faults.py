"""What can fail nodes from outside: wires, disks that are full, hang or fail, clocks that jump, logs that rot, busy cores.

`Wires` is a relay before the cluster port of each node. Who opened a connection is looked up in /proc, so that each way
between two nodes can be cut alone. What is sent on a cut way is held and comes late, as TCP would have it, or never if the
connection breaks first.

`SickDisk` and `WallClock` are files that a node's process looks at: it has to be started with their `environment`.
"""

import asyncio
import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.processes.nodes import Node

CHUNK_BYTES: Final = 64 * 1024
LAST_TURNS: Final = 8
"""More turns of the loop than it takes from a connection's coming to its relay, or from the end of one to its socket's."""
PAGE_BYTES: Final = 4096
ROTTEN_BYTES: Final = 24
SMALL_DISK_BYTES: Final = 768 << 20
"""More than a node needs for half an hour under this load; what is left is in memory while the disk is full."""
BALLAST: Final = "ballast"
SICK_DISKS: Final = Path(__file__).parent / "sick_disks"
FAKETIME_PATTERNS: Final = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib*/faketime/libfaketime.so.1")
"""Where Debian and others put it."""

Way = tuple[str, str]
"""From one node to another, by name."""


class Wires:
    """The relays of a cluster, in a thread, from `with` to the end of its block.

    Args:
        names: of the nodes. `ports` has the cluster port that each is to be known by.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._sockets = {name: _listening() for name in names}
        self.ports: dict[str, int] = {name: each.getsockname()[1] for name, each in self._sockets.items()}
        self.nodes: list[Node] = []
        self._cut: set[Way] = set()
        self._delay_seconds: dict[Way, float] = {}
        self._changed = asyncio.Event()
        self._relays: set[asyncio.Task[None]] = set()
        self._accepted: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wires")

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self, *ways: Way) -> None:
        """Hold everything that is sent on these ways."""
        self._loop.call_soon_threadsafe(self._cut.update, ways)

    def delay(self, seconds: float, *ways: Way) -> None:
        """Let everything that is sent on these ways come so much later."""
        self._loop.call_soon_threadsafe(self._delay_seconds.update, dict.fromkeys(ways, seconds))

    def heal(self) -> None:
        """Let everything through at once again."""

        def mend() -> None:
            self._cut.clear()
            self._delay_seconds.clear()
            self._changed.set()
            self._changed.clear()

        self._loop.call_soon_threadsafe(mend)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _start(self) -> None:
        self._servers = [
            await asyncio.start_server(self._accepts(name), sock=listening) for name, listening in self._sockets.items()
        ]

    async def _stop(self) -> None:
        for server in self._servers:
            server.close()
        await _turns()
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)
        for writer in self._accepted:  # also those whose relay had not begun
            writer.transport.abort()
        await _turns()  # also what a relay was dialing when it was cancelled closes its socket a few turns later

    def _accepts(self, target: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            relay = self._loop.create_task(self._relay(target, reader, writer))
            self._relays.add(relay)
            self._accepted.add(writer)
            relay.add_done_callback(self._relays.discard)
            relay.add_done_callback(lambda _: self._accepted.discard(writer) if writer.is_closing() else None)

        return accept

    async def _relay(self, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what both sides send, until one of them has ended."""
        source = _opener(writer.get_extra_info("peername")[1], self.ports[target], self.nodes)
        node = next(node for node in self.nodes if node.name == target)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", node.cluster_port)
        except OSError:
            writer.transport.abort()
            return
        pumps = [
            self._loop.create_task(self._pump(reader, far_writer, (source, target))),
            self._loop.create_task(self._pump(far_reader, writer, (target, source))),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
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


async def _turns() -> None:
    for _ in range(LAST_TURNS):
        await asyncio.sleep(0)


def both_ways(one: str, *others: str) -> list[Way]:
    """Return the ways between one node and others."""
    return [way for other in others for way in ((one, other), (other, one))]


def _listening() -> socket.socket:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    return listening


def _opener(port: int, remote_port: int, nodes: Iterable[Node]) -> str:
    """Return the name of the node that has opened a connection between two loopback ports; empty if it is gone."""
    wanted = f"0100007F:{port:04X}", f"0100007F:{remote_port:04X}"
    lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    inode = next((fields[9] for fields in lines if (fields[1], fields[2]) == wanted), "")
    for node in nodes:
        if node.process is None:
            continue
        with contextlib.suppress(OSError):
            for file in Path(f"/proc/{node.process.pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(file.readlink()) == f"socket:[{inode}]":
                        return node.name
    return ""


class SmallDisk:
    """A file system of its own for a node's data, so that it can be full; root alone may make one.

    Raises:
        OSError: this user may not mount, or cannot here.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700)
        size = f"size={SMALL_DISK_BYTES},mode=0700"
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", size, "conclave-test", folder], capture_output=True, text=True, check=False
        )
        if mounted.returncode != 0:
            raise OSError(mounted.stderr.strip())

    def fill(self) -> None:
        """Leave no room."""
        with contextlib.suppress(OSError), (self.folder / BALLAST).open("ab", buffering=0) as ballast:
            while True:
                ballast.write(bytes(PAGE_BYTES))

    def free(self) -> None:
        """Give the room back."""
        (self.folder / BALLAST).unlink()

    def close(self) -> None:
        """Unmount it, whoever still has a file open."""
        subprocess.run(["umount", "--lazy", self.folder], check=True)


class SickDisk:
    """What makes the log's syncs of a node hang or fail (`sick_disks/sitecustomize.py`).

    Args:
        folder: for the files that say so; made here.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._hang = folder / "hang"
        self._fail = folder / "fail"
        before = os.environ.get("PYTHONPATH")
        path = f"{SICK_DISKS}:{before}" if before else str(SICK_DISKS)
        self.environment = {"PYTHONPATH": path, "CONCLAVE_TEST_DISK": str(folder)}

    def hang(self) -> None:
        """Let no sync end."""
        self._hang.touch()

    def fail(self) -> None:
        """Let every sync fail."""
        self._fail.touch()

    def heal(self) -> None:
        """Let every sync, those that hang among them, do what it should."""
        self._hang.unlink(missing_ok=True)
        self._fail.unlink(missing_ok=True)


class WallClock:
    """The wall clock of a node; clocks that count from some moment on are not touched (libfaketime's manual).

    Args:
        file: for what libfaketime adds to the time; made here.

    Raises:
        OSError: libfaketime is not installed.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.back()
        self.environment = {
            "LD_PRELOAD": str(libfaketime()),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # or waits for the interpreter's lock take their whole 5 ms
            "NO_FAKE_STAT": "1",
        }

    def jump(self, seconds: int) -> None:
        """Let the clock be ahead, or behind if negative, from now on."""
        draft = self._file.with_suffix(".new")
        draft.write_text(f"{seconds:+d}\n")
        draft.rename(self._file)  # the time is asked for while this is written

    def back(self) -> None:
        """Let the clock be right."""
        self.jump(0)


def libfaketime() -> Path:
    """Return the library that changes a process's clock.

    Raises:
        OSError: it is not installed.
    """
    found = [path for pattern in FAKETIME_PATTERNS for path in sorted(Path("/").glob(pattern.removeprefix("/")))]
    if not found:
        raise OSError("clocks jump by libfaketime, which is not installed (Debian: apt-get install libfaketime)")
    return found[0]


@contextlib.contextmanager
def burning(count: int) -> Iterator[None]:
    """Keep so many processes busy, at the priority of everybody else."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            burner = stack.enter_context(subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]))
            stack.callback(burner.kill)
        yield


def wipe(folder: Path) -> None:
    """Remove what a folder holds; the folder may be where a file system is mounted."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def rot(file: Path, chooser: random.Random) -> None:
    """Change some bytes of a file, anywhere."""
    size = file.stat().st_size
    with file.open("r+b") as opened:
        for place in chooser.sample(range(size), ROTTEN_BYTES):
            opened.seek(place)
            old = opened.read(1)
            opened.seek(place)
            opened.write(bytes([old[0] ^ 0xFF]))
