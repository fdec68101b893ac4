"""The seam between HTTP and the vault: who answers requests, and how a coroutine waits for an answer."""

import asyncio
import os
from collections.abc import Callable
from typing import Protocol

from conclave.core.contract import Request, Response
from conclave.core.outcomes import Outcome


class Handler(Protocol):
    """Whoever answers requests: `core.vault.Vault`, or a fake in a test."""

    def handle(self, request: Request, done: Callable[[Outcome], None], /) -> None:
        """Answer a request: `done` gets its outcome exactly once, before this returns or later on the event loop."""


async def ask(handler: Handler, request: Request) -> Outcome:
    """Return the outcome of a request; cancelling the wait does not undo what the request does."""
    future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def done(outcome: Outcome) -> None:
        if not future.done():
            future.set_result(outcome)
        elif isinstance(outcome, Response) and outcome.download is not None:
            outcome.download.close()  # nobody waits for it any more

    handler.handle(request, done)
    return await future


def new_request_id() -> str:
    """Return 128 random bits in the spelling of a UUID."""
    text = os.urandom(16).hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
