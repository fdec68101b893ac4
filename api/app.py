"""The slow lane: a Starlette application that answers whatever the fast lane leaves to it, by the same functions.

Large bodies, chunked ones, odd headers, paths outside `/v1/`. What is asked and what is answered is decided by
`fastlane.py` and `envelope.py`, as in the fast lane; here is only how bytes come and go by ASGI.
"""

import asyncio
from typing import Final

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from conclave.api import envelope
from conclave.api.envelope import Answer
from conclave.api.fastlane import body_too_large, request_of, take_body, terms_of
from conclave.api.handler import ask, new_request_id
from conclave.api.protocol import Shared, too_late
from conclave.core.errors import RequestError

_REMOTE_UNKNOWN: Final = ("", 0)


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
        await _send(answer, send, has_body=http_request.method != "HEAD")

    async def _answer(self, http_request: HttpRequest) -> Answer:
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
            take_body(request, await self._body(http_request))
        except RequestError as error:
            return envelope.refusal(error)
        seconds_max = self._shared.request_seconds_max
        try:
            async with asyncio.timeout(seconds_max):
                outcome = await ask(self._shared.handler, request)
        except TimeoutError:
            outcome = too_late(seconds_max)
        return envelope.answer(request, outcome)

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


async def _send(answer: Answer, send: Send, *, has_body: bool) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": list(envelope.headers_of(answer))})
    await send({"type": "http.response.body", "body": answer.body if has_body else b""})


def new_app(shared: Shared) -> Starlette:
    """Return the application of one listener."""
    return Starlette(routes=[Route("/{path:path}", endpoint=VaultEndpoint(shared))])
