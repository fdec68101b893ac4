"""Bodies that are streams: a download piece by piece, an upload of any length, and what is left when one breaks off."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from conclave.api import app
from conclave.core.contract import Response
from conclave.core.errors import InternalError, InvalidRequest, PermissionDenied, RequestError
from tests.api.conftest import Served

GET = b"GET /v1/sys/storage/raft/snapshot HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /v1/sys/storage/raft/snapshot HTTP/1.1\r\nHost: a\r\n"
LAST_CHUNK = b"0\r\n\r\n"


class FakeDownload:
    """So many pieces, some empty ones before them; then an error, if there is one."""

    def __init__(self, pieces: int, error: RequestError | None = None, *, empty: int = 0) -> None:
        self._pieces = pieces
        self._empty = empty
        self._error = error
        self.sent = 0
        self.is_closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self._empty):
            await asyncio.sleep(0)
            self.sent += 1
            yield b""
        for number in range(self._pieces):
            await asyncio.sleep(0)
            self.sent += 1
            yield bytes([number % 256]) * 1000
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self.is_closed = True


def body_of(answer: bytes) -> bytes:
    """Return what a chunked answer holds."""
    rest, body = answer.partition(b"\r\n\r\n")[2], b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        body, rest = body + rest[:length], rest[length + 2 :]
    return body


def test_a_download_is_sent_piece_by_piece_and_closed(serve: Callable[..., Any]) -> None:
    download = FakeDownload(300, empty=3)

    async def scenario(served: Served) -> bytes:
        served.vault.answer = lambda _: Response(download=download)
        async with served.connect() as client:
            client.send(GET.replace(b"Host: a\r\n", b"Host: a\r\nConnection: close\r\n"))
            return await client.rest()

    answer = serve(scenario)

    head = answer.partition(b"\r\n\r\n")[0].lower()
    assert head.startswith(b"http/1.1 200 ok\r\n")
    for header in (
        b"content-type: application/gzip",
        b"content-disposition: attachment",
        b"transfer-encoding: chunked",
    ):
        assert header in head
    assert body_of(answer) == b"".join(bytes([number % 256]) * 1000 for number in range(300))
    assert download.is_closed


def test_a_download_that_fails_ends_without_its_last_chunk(serve: Callable[..., Any]) -> None:
    download = FakeDownload(3, InternalError("the state cannot be read"))

    async def scenario(served: Served) -> bytes:
        served.vault.answer = lambda _: Response(download=download)
        async with served.connect() as client:
            client.send(GET)
            return await client.rest()

    answer = serve(scenario)

    assert not answer.endswith(LAST_CHUNK)
    assert download.is_closed


@pytest.mark.parametrize(("pieces", "empty"), [(1_000_000, 0), (0, 1_000_000)])
def test_a_download_ends_when_its_client_is_gone(serve: Callable[..., Any], pieces: int, empty: int) -> None:
    download = FakeDownload(pieces, empty=empty)

    async def scenario(served: Served) -> None:
        served.vault.answer = lambda _: Response(download=download)
        async with served.connect() as client:
            client.send(GET)
            await served.until(lambda: download.sent > 3)
            client.reset()
            await served.until(lambda: download.is_closed)

    serve(scenario)

    assert download.sent < 1_000_000


def test_a_client_that_does_not_read_is_left(serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "SEND_SECONDS_MAX", 0.05)
    download = FakeDownload(1_000_000)

    async def scenario(served: Served) -> None:
        served.vault.answer = lambda _: Response(download=download)
        async with served.connect() as client:
            client.send(GET)
            await served.until(lambda: download.is_closed)

    serve(scenario)

    assert download.sent < 1_000_000


async def upload_begun(served: Served) -> AsyncIterator[bytes]:
    """Return the body that the vault is handed with the one request under way."""
    await served.until(lambda: served.vault.waiting)
    upload = served.vault.requests[0].upload
    assert upload is not None
    return upload


def test_an_upload_may_be_longer_than_any_other_body(serve: Callable[..., Any]) -> None:
    async def scenario(served: Served) -> tuple[int, bytes]:
        served.vault.holds = True
        async with served.connect() as client:
            client.send(POST + b"Content-Length: 100000\r\n\r\n" + b"x" * 100)
            upload = await upload_begun(served)
            first = await anext(upload)
            client.send(b"x" * (100_000 - 100))
            length = len(first) + sum([len(piece) async for piece in upload])
            served.vault.waiting[0](Response())
            return length, await client.receive()

    length, answer = serve(scenario, max_request_size=1000)

    assert length == 100_000
    assert answer.startswith(b"HTTP/1.1 204 ")


def test_a_chunked_upload_is_read_to_its_end(serve: Callable[..., Any]) -> None:
    async def scenario(served: Served) -> bytes:
        served.vault.holds = True
        async with served.connect() as client:
            client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")
            upload = await upload_begun(served)
            content = b"".join([piece async for piece in upload])
            served.vault.waiting[0](Response())
            await client.receive()
            return content

    assert serve(scenario) == b"abcdefg"


def test_an_upload_that_breaks_off_is_a_refusal_to_whoever_reads_it(serve: Callable[..., Any]) -> None:
    async def scenario(served: Served) -> None:
        served.vault.holds = True
        async with served.connect() as client:
            client.send(POST + b"Content-Length: 100000\r\n\r\nabc")
            upload = await upload_begun(served)
            await anext(upload)
            client.reset()
            with pytest.raises(InvalidRequest):
                await anext(upload)

    serve(scenario)


def test_an_upload_that_is_refused_is_not_waited_for(serve: Callable[..., Any]) -> None:
    async def scenario(served: Served) -> bytes:
        served.vault.answer = lambda _: PermissionDenied("permission denied")
        async with served.connect() as client:
            client.send(POST + b"Content-Length: 100000\r\n\r\n" + b"x" * 10)
            return await client.receive()

    answer = serve(scenario)

    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"permission denied" in answer
