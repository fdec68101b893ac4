"""Coroutines that wait for what a turn of the loop may bring about, each with a bound on its patience."""

import asyncio
from collections.abc import Callable

from conclave.cluster.errors import ClusterError

Condition = Callable[[], bool]


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
