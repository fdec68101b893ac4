"""The slow lane: a Starlette application that answers whatever the fast lane leaves to it, by the same functions.

Large bodies, chunked ones, odd headers, paths outside `/v1/`. What is asked and what is answered is decided by
`fastlane.py` and `envelope.py`, as in the fast lane; here is only how bytes come and go by ASGI.

A body that is a stream (a snapshot file) is handed on piece by piece, both ways, and never held as a whole; it takes as
long as it takes, but a client that does not read for `SEND_SECONDS_MAX` is left.
"""

import asyncio
import datetime as dt
import logging
from collections.abc import AsyncIterator
from typing import Final

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from conclave.api import envelope, exposition
from conclave.api.envelope import Answer
from conclave.api.fastlane import (
    METRICS_PATH,
    STREAMED_PATHS,
    body_too_large,
    is_special,
    request_of,
    take_body,
    terms_of,
)
from conclave.api.handler import ask, new_request_id
from conclave.api.protocol import Shared, too_late
from conclave.core.contract import Download, Operation, Request, Response
from conclave.core.errors import InvalidRequest, RequestError
from conclave.core.outcomes import Outcome

log = logging.getLogger(__name__)

SEND_SECONDS_MAX: Final = 60.0
"""How long a client may take over one piece of a download; the state that it is read from cannot wait for ever."""

_REMOTE_UNKNOWN: Final = ("", 0)
HELP_PREFIX: Final = "sys/internal/help/"
"""Where the vault answers `GET <path>?help=1`."""


class VaultEndpoint:
    """The ASGI endpoint of all paths.

    Args:
        shared: who answers, and the listener's bounds.
    """

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        http_request = HttpRequest(scope, receive)
        try:
            answer = await self._answer(http_request)
        except ClientDisconnect:
            return
        if isinstance(answer, Answer):
            await _send(answer, send, has_body=http_request.method != "HEAD")
        else:
            await _send_pieces(answer, http_request, send)

    async def _answer(self, http_request: HttpRequest) -> Answer | Download:
        headers: dict[bytes, bytes] = {}
        for name, value in http_request.scope["headers"]:
            headers.setdefault(name, value)
        client = http_request.client
        try:
            request = request_of(
                http_request.method.encode(),
                http_request.scope["raw_path"],
                http_request.scope["query_string"],
                terms_of(headers),
                request_id=new_request_id(),
                remote=(client.host, client.port) if client is not None else _REMOTE_UNKNOWN,
            )
            if request.path in STREAMED_PATHS and "help" not in request.query:
                return await self._stream(http_request, request)
            take_body(request, await self._body(http_request))
        except RequestError as error:
            return envelope.refusal(error)
        if request.path == METRICS_PATH and is_special(request):
            return await self._metrics(request)
        if request.operation is Operation.READ and "help" in request.query:
            request.path = HELP_PREFIX + request.path
            del request.query["help"]
        return envelope.answer(request, await self._ask(request))

    async def _ask(self, request: Request) -> Outcome:
        seconds_max = self._shared.request_seconds_max
        try:
            async with asyncio.timeout(seconds_max):
                return await ask(self._shared.handler, request)
        except TimeoutError:
            return too_late(seconds_max)

    async def _stream(self, http_request: HttpRequest, request: Request) -> Answer | Download:
        """Answer a request whose body, or whose answer's body, is a stream."""
        if request.operation is Operation.UPDATE:
            request.upload = _pieces(http_request)
        outcome = await ask(self._shared.handler, request)
        if isinstance(outcome, Response) and outcome.download is not None:
            return outcome.download
        return envelope.answer(request, outcome)

    async def _metrics(self, request: Request) -> Answer:
        """Return this node's metrics to whoever may read them: the vault is asked for the permission only."""
        is_allowed = self._shared.has_open_metrics and request.operation is Operation.READ
        outcome = Response() if is_allowed else await self._ask(request)
        if isinstance(outcome, RequestError):
            return envelope.refusal(outcome)
        if request.query.get("format") != "prometheus":
            now = dt.datetime.now(dt.UTC)
            return Answer(200, exposition.as_json(self._shared.metrics, f"{now:%Y-%m-%d %H:%M:%S} +0000 UTC"))
        if not self._shared.has_prometheus:
            return Answer(400, b"prometheus is not enabled", b"text/plain")
        return Answer(200, exposition.prometheus(self._shared.metrics), exposition.PROMETHEUS_TYPE.encode())

    async def _body(self, http_request: HttpRequest) -> bytes:
        """Return the whole body.

        Raises:
            TooLarge: it exceeds the listener's bound; no more of it is read than that.
        """
        chunks: list[bytes] = []
        length = 0
        async for chunk in http_request.stream():
            length += len(chunk)
            if length > self._shared.request_bytes_max:
                raise body_too_large()
            chunks.append(chunk)
        return b"".join(chunks)


async def _pieces(http_request: HttpRequest) -> AsyncIterator[bytes]:
    """Iterate over a body as it comes."""
    try:
        async for piece in http_request.stream():
            yield piece
    except ClientDisconnect:
        raise InvalidRequest("the upload broke off") from None


async def _send_pieces(download: Download, http_request: HttpRequest, send: Send) -> None:
    """Send a file. What breaks off is seen to be incomplete, for its last, empty piece is missing."""
    headers = [*envelope.CONSTANT_HEADERS, *envelope.DOWNLOAD_HEADERS]
    try:
        async with asyncio.timeout(SEND_SECONDS_MAX):
            await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for piece in download:
            if await http_request.is_disconnected():
                return
            async with asyncio.timeout(SEND_SECONDS_MAX):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    except TimeoutError:
        log.warning("a client takes too long over a download and is left")
    except RequestError as error:
        log.warning("a download broke off", extra={"reason": str(error)})
    finally:
        download.close()


async def _send(answer: Answer, send: Send, *, has_body: bool) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": list(envelope.headers_of(answer))})
    await send({"type": "http.response.body", "body": answer.body if has_body else b""})


def new_app(shared: Shared) -> Starlette:
    """Return the application of one listener."""
    return Starlette(routes=[Route("/{path:path}", endpoint=VaultEndpoint(shared))])
