"""A listener on a free loopback port, with a handler that answers from a table, and clients that speak raw bytes."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

import pytest

from conclave.api.listener import Listeners, ListenerSettings
from conclave.core.contract import Request, Response
from conclave.core.errors import NotFound
from conclave.core.outcomes import Outcome

T = TypeVar("T")
READ_SECONDS_MAX = 10.0


class FakeVault:
    """Answers by a function, at once or on a later turn of the loop; keeps what it was asked."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answer: Callable[[Request], Outcome] = echo
        self.is_late = False
        self.waiting: list[Callable[[Outcome], None]] = []
        self.holds = False

    def handle(self, request: Request, done: Callable[[Outcome], None], /) -> None:
        self.requests.append(request)
        if self.holds:
            self.waiting.append(done)
        elif self.is_late:
            asyncio.get_running_loop().call_soon(done, self.answer(request))
        else:
            done(self.answer(request))


def echo(request: Request) -> Outcome:
    """Answer with what was asked."""
    if request.path.endswith("none"):
        return NotFound()
    request.id = "00000000-0000-0000-0000-000000000000"
    data = {
        "operation": request.operation.value,
        "path": request.path,
        "token": request.token,
        "body": request.body.decode("utf-8", "replace"),
        "query": request.query,
        "wrap": request.wrap_ttl_seconds,
    }
    return Response(data)


class Client:
    """One raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def receive(self, *, is_head: bool = False) -> bytes:
        """Return the bytes of one answer; what came before the connection ended, if it ended."""
        try:
            async with asyncio.timeout(READ_SECONDS_MAX):
                head = await self._reader.readuntil(b"\r\n\r\n")
                length = next((int(x[15:]) for x in head.lower().split(b"\r\n") if x.startswith(b"content-length:")), 0)
                return head + (b"" if is_head else await self._reader.readexactly(length))
        except asyncio.IncompleteReadError as error:
            return error.partial

    def reset(self) -> None:
        """End the connection as a crashed client does (RST); a FIN could be a client that still listens."""
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def rest(self) -> bytes:
        """Return everything until the server closes."""
        async with asyncio.timeout(READ_SECONDS_MAX):
            return await self._reader.read()


class Served:
    """A running listener."""

    def __init__(self, listeners: Listeners, vault: FakeVault) -> None:
        self.listeners = listeners
        self.vault = vault

    @staticmethod
    async def until(condition: Callable[[], object]) -> None:
        """Wait until a condition holds, a turn of the loop at a time."""
        async with asyncio.timeout(READ_SECONDS_MAX):
            while not condition():  # noqa: ASYNC110  (what is waited for belongs to the code under test)
                await asyncio.sleep(0)

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.listeners.ports[0])
        try:
            yield Client(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


Scenario = Callable[[Served], Coroutine[Any, Any, T]]


def serve(scenario: Scenario[T], **settings: Any) -> T:
    """Run a scenario against a listener with these settings."""

    async def run() -> T:
        vault = FakeVault()
        listeners = Listeners(vault, [ListenerSettings(address="127.0.0.1:0", tls_disable=True, **settings)])
        await listeners.start()
        try:
            return await scenario(Served(listeners, vault))
        finally:
            await listeners.stop()

    return asyncio.run(run())


@pytest.fixture(name="serve")
def serve_fixture() -> Callable[..., Any]:
    return serve
