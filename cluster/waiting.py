"""Coroutines that wait, with a bound on their patience: for what a turn may bring about; without one: for a thread's work."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from conclave.cluster.errors import ClusterError

Condition = Callable[[], bool]
T = TypeVar("T")


class Watch:
    """Who waits for which condition. Whoever changes what conditions look at calls `look` afterwards."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Condition, asyncio.Future[None]]] = []

    async def until(self, condition: Condition, *, timeout_seconds: float) -> bool:
        """Wait until a condition holds; return False if it did not in time.

        Raises:
            ClusterError: what `close` was given.
        """
        if condition():
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((condition, future))
        try:
            async with asyncio.timeout(timeout_seconds):
                await future
        except TimeoutError:
            return False
        finally:
            self._waiting = [waiting for waiting in self._waiting if waiting[1] is not future]
        return True

    def look(self) -> None:
        """Wake those whose condition holds now."""
        for condition, future in self._waiting:
            if not future.done() and condition():
                future.set_result(None)

    def close(self, error: ClusterError) -> None:
        """End every wait with an error."""
        for _, future in self._waiting:
            if not future.done():
                future.set_exception(error)


async def to_the_end(work: Awaitable[T]) -> T:
    """Await work in a thread; if this task is cancelled meanwhile, wait all the same: what the thread uses must stay."""
    running = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # looked at, so that nobody logs it as lost
        raise
