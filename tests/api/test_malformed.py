"""What is no HTTP, or hardly: a clean refusal or a closed connection, never a 5xx, a hang or a traceback."""

import logging
from collections.abc import Callable
from typing import Any

import pytest

HOST = b"Host: a\r\n"

BROKEN = {
    "garbage": b"\x00\x01\x02\xff\r\n\r\n",
    "tls hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,
    "http 0.9": b"GET /v1/sys/health\r\n\r\n",
    "http 3": b"GET /v1/sys/health HTTP/3.0\r\n\r\n",
    "negative length": b"POST /v1/x HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n",
    "length in words": b"POST /v1/x HTTP/1.1\r\n" + HOST + b"Content-Length: ten\r\n\r\n",
    "two lengths": b"POST /v1/x HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunked": b"POST /v1/x HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bad chunk": b"POST /v1/x HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
    "long line": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "many headers": b"GET /v1/x HTTP/1.1\r\n" + HOST + b"".join(b"X-%d: y\r\n" % i for i in range(20_000)) + b"\r\n",
    "huge header": b"GET /v1/x HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 2_000_000 + b"\r\n\r\n",
    "header without a colon": b"GET /v1/x HTTP/1.1\r\n" + HOST + b"broken\r\n\r\n",
    "bare line feeds": b"GET /v1/x HTTP/1.1\nHost: a\n\n",
    "space in the path": b"GET /v1/sys/he alth HTTP/1.1\r\n" + HOST + b"\r\n",
    "absolute form": b"GET http://evil/v1/x HTTP/1.1\r\n" + HOST + b"\r\n",
    "no slash": b"GET v1/x HTTP/1.1\r\n" + HOST + b"\r\n",
    "connect": b"CONNECT a:1 HTTP/1.1\r\n" + HOST + b"\r\n",
    "odd method": b"FROB /v1/x HTTP/1.1\r\n" + HOST + b"\r\n",
    "upgrade to h2c": b"GET /v1/x HTTP/1.1\r\n" + HOST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMA\r\n\r\n",
    "h2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "folded header": b"GET /v1/x HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n",
    "nul in a header": b"GET /v1/x HTTP/1.1\r\n" + HOST + b"X: a\x00b\r\n\r\n",
    "path in raw UTF-8, chunked": "GET /v1/é HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".encode(),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_http_gets_a_clean_end(serve: Callable[..., Any], caplog: pytest.LogCaptureFixture, name: str) -> None:
    async def scenario(served: Any) -> tuple[bytes, bytes]:
        async with served.connect() as client:
            client.send(BROKEN[name])
            client.writer.write_eof()
            try:
                answer = await client.rest()
            except ConnectionError:
                answer = b""
        async with served.connect() as client:
            client.send(b"GET /v1/x HTTP/1.1\r\nHost: a\r\n\r\n")
            return answer, await client.receive()

    with caplog.at_level(logging.DEBUG):
        answer, afterwards = serve(scenario)

    assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 2", b"HTTP/1.1 3"))
    assert afterwards.startswith(b"HTTP/1.1 200 ")
    assert not [record for record in caplog.records if record.exc_info]


def test_broken_bytes_behind_a_request_do_not_answer_in_its_place(serve: Callable[..., Any]) -> None:
    async def scenario(served: Any) -> bytes:
        served.vault.is_late = True
        async with served.connect() as client:
            client.send(b"GET /v1/x HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, x\r\n\r\n\x00\x01garbage\r\n\r\n")
            return bytes(await client.receive())

    assert serve(scenario).startswith(b"HTTP/1.1 200 ")


def test_half_sent_requests_stop_nobody(serve: Callable[..., Any]) -> None:
    async def scenario(served: Any) -> bytes:
        async with served.connect() as half, served.connect() as whole:
            half.send(b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
            whole.send(b"GET /v1/x HTTP/1.1\r\nHost: a\r\n\r\n")
            return bytes(await whole.receive())

    assert serve(scenario).startswith(b"HTTP/1.1 200 ")


def test_a_request_that_never_ends_is_ended(serve: Callable[..., Any]) -> None:
    async def scenario(served: Any) -> bytes:
        async with served.connect() as client:
            client.send(b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
            (connection,) = await _connections(served)
            await served.until(lambda: connection._received)
            for _ in range(31):
                connection.sweep()
            return bytes(await client.rest())

    assert serve(scenario).startswith(b"HTTP/1.1 408 ")


def test_an_answer_that_takes_too_long_is_not_waited_for(serve: Callable[..., Any]) -> None:
    async def scenario(served: Any) -> bytes:
        served.vault.holds = True
        async with served.connect() as client:
            client.send(b"GET /v1/x HTTP/1.1\r\nHost: a\r\n\r\n")
            (connection,) = await _connections(served)
            await served.until(lambda: served.vault.waiting)
            for _ in range(4):
                connection.sweep()
            return bytes(await client.receive())

    answer = serve(scenario, max_request_duration_seconds=3)

    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"no answer within 3 seconds" in answer


async def _connections(served: Any) -> Any:
    shared = served.listeners._listeners[0]._shared
    await served.until(lambda: shared.connections)
    return list(shared.connections)
