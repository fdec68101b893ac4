"""Answers that leave together: when everything is looked at that had arrived when the first of them was made.

A client that sleeps has to be woken by the first answer that it gets, which takes longer than the answer itself. So the
answers of one turn of the event loop go out one right after the other, and not each between two requests: a client with
many connections is woken once. What a request found when it was committed may so wait for one look at the sockets more.
Where turns have one answer each, it leaves at once.

What one connection is sent stays in its order. Whoever writes to a transport by other ways, or closes it, flushes first.
"""

import asyncio
import logging
from typing import Final

log = logging.getLogger(__name__)

BYTES_MAX: Final = 64 * 1024
"""Answers that are larger together leave at once, so that a connection that cannot take more is noticed."""


class Outgoing:
    """The answers of one listener that have not been written yet."""

    __slots__ = ("_answers", "_bytes", "_count", "_count_before")

    def __init__(self) -> None:
        self._answers: list[tuple[asyncio.Transport, bytes]] = []
        self._bytes = 0
        self._count = 0  # of answers in this turn
        self._count_before = 0  # in the last turn that had any

    def write(self, transport: asyncio.Transport, data: bytes, loop: asyncio.AbstractEventLoop) -> None:
        """Send bytes on a connection that is open: at the end of the turn, or now if they are much, or probably alone."""
        self._count += 1
        if self._count == 1:
            loop.call_soon(self._turn_over)
        self._answers.append((transport, data))
        self._bytes += len(data)
        is_probably_alone = self._count == 1 and self._count_before <= 1
        if is_probably_alone or self._bytes > BYTES_MAX:
            self.flush()

    def flush(self) -> None:
        """Write what waits, except to connections that have been closed since."""
        answers, self._answers, self._bytes = self._answers, [], 0
        for transport, data in answers:
            if transport.is_closing():
                continue
            try:
                transport.write(data)
            except Exception:  # what goes wrong with one connection is nothing to the others, nor to who flushes
                log.exception("an answer could not be written")
                transport.abort()

    def _turn_over(self) -> None:
        self._count_before, self._count = self._count, 0
        self.flush()
