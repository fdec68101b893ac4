"""Reads that wait for a leader's word: all that come while a round is under way share the next one.

A round is one read index asked of the core, which asks the leader, which asks a quorum. One round is outstanding and one
is forming, so any number of reads costs two round trips at most. A round that got no answer (a lost message, a new
leader) is asked again under a new number; an answer to any of its numbers serves it, since each was asked after its
reads had come.

Numbers start at a random place: an answer to a question of an earlier life of this node must not answer one of this life.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from conclave.cluster.errors import ClusterError

RETRY_SECONDS: Final = 0.1


class _Round:
    """Reads that are answered together."""

    __slots__ = ("asked_at", "contexts", "waiting")

    def __init__(self, waiting: list[asyncio.Future[int]]) -> None:
        self.waiting = waiting
        self.contexts: set[int] = set()
        self.asked_at = 0.0


class ReadRounds:
    """The rounds of one node.

    Args:
        ask: asks the core for a read index under a number.
        clock: seconds, monotone.
        first_context: the first number; random.
    """

    def __init__(self, ask: Callable[[int], None], clock: Callable[[], float], first_context: int) -> None:
        self._ask = ask
        self._clock = clock
        self._context = first_context
        self._forming: list[asyncio.Future[int]] = []
        self._outstanding: _Round | None = None

    def join(self) -> asyncio.Future[int]:
        """Wait with the next round; the result is the index up to which the state must be applied."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._forming.append(future)
        return future

    def advance(self) -> None:
        """Start the round that has formed, if none is outstanding."""
        if self._outstanding is None and self._forming:
            self._outstanding = _Round(self._forming)
            self._forming = []
            self._send(self._outstanding)

    def answered(self, context: int, index: int) -> None:
        """Take in an answer of the core."""
        outstanding = self._outstanding
        if outstanding is None or context not in outstanding.contexts:
            return
        self._outstanding = None
        _resolve(outstanding.waiting, index)
        self.advance()

    def ask_again(self, *, at_once: bool) -> None:
        """Repeat a question that may have been lost: after a while, or at once because there is a new leader."""
        outstanding = self._outstanding
        if outstanding is None:
            return
        outstanding.waiting = [future for future in outstanding.waiting if not future.done()]
        if not outstanding.waiting:
            self._outstanding = None  # all of them gave up
            self.advance()
        elif at_once or self._clock() - outstanding.asked_at >= RETRY_SECONDS:
            self._send(outstanding)

    def close(self, error: ClusterError) -> None:
        """End every wait with an error."""
        outstanding = [] if self._outstanding is None else self._outstanding.waiting
        for future in (*outstanding, *self._forming):
            if not future.done():
                future.set_exception(error)
        self._outstanding, self._forming = None, []

    def _send(self, question: _Round) -> None:
        self._context += 1
        question.contexts.add(self._context)
        question.asked_at = self._clock()
        self._ask(self._context)


def _resolve(waiting: Iterable[asyncio.Future[int]], index: int) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(index)
