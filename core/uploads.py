"""A body that is too long for one frame, on its way from the node that was asked to the leader, piece by piece.

    asked node: request and first piece, then piece after piece ─▶ leader: handles the request, reading what arrives
                ◀─ to each piece: go on, or what has become of the request

Rules it enforces:

* The leader admits and records the request like one of its own clients', with the same token, before it takes any more.
* One piece is on its way at a time, so how fast the leader can keep them is how fast the client is read.
* Nothing is sent twice. A piece that is not answered ends the upload: nothing has happened, unless it was the last one,
  after which nobody but the log knows.
* What arrives is bounded: so many uploads at once, so long a silence.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from os import urandom
from typing import Any, Final

import msgspec
from msgspec import structs

from conclave.cluster.errors import NotLeader, Unreachable
from conclave.cluster.replica import Peers
from conclave.core.contract import Request
from conclave.core.errors import InvalidRequest, Unavailable
from conclave.core.forwarding import NO_LEADER, UNKNOWN_OUTCOME, VERSION, Answer, Ask, Question, Reply
from conclave.core.outcomes import Outcome, decode, encode

PIECE_BYTES: Final = 512 * 1024
PIECE_SECONDS_MAX: Final = 30.0
"""How long the leader may take to keep one piece."""
END_SECONDS_MAX: Final = 3600.0
"""How long it may take over the whole, once that has arrived; if it dies, the broken connection tells at once."""
SILENCE_SECONDS_MAX: Final = 60.0
"""How long the leader waits for the next piece, and keeps an outcome that nobody has fetched."""
ARRIVING_MAX: Final = 4
UPLOAD_ID_BYTES: Final = 16

BROKEN_OFF: Final = "the upload broke off; nothing has changed"
TOO_MANY: Final = "too many uploads are on their way; try again"

Handle = Callable[[Request, Callable[[Outcome], None]], None]

_encode = msgspec.msgpack.Encoder().encode
_decode_answer = msgspec.msgpack.Decoder(Answer).decode


class Uploads:
    """Both ends of uploads on one node. Every method runs on the event loop.

    Args:
        peers: the way to the leader.
        handle: answers a request, as `Vault.handle`.
    """

    def __init__(self, peers: Peers, handle: Handle) -> None:
        self._peers = peers
        self._handle = handle
        self._arriving: dict[bytes, _Arriving] = {}

    # -- the asked node's side --

    async def send(self, request: Request) -> Outcome:
        """Have the leader handle a request with its upload, and return the outcome.

        Raises:
            Unavailable: there is no leader, or contact with it was lost; the text says what has become of the request.
        """
        assert request.upload is not None, "what has no upload is forwarded as it is"
        upload_id = urandom(UPLOAD_ID_BYTES)
        first: Request | None = structs.replace(request, upload=None)
        async for piece in _regular(request.upload):
            outcome = await self._ask(Question(VERSION, Ask.UPLOAD, upload_id, first, piece=piece), PIECE_SECONDS_MAX)
            if outcome is not None:
                return outcome
            first = None
        outcome = await self._ask(Question(VERSION, Ask.UPLOAD, upload_id, first), END_SECONDS_MAX)
        return outcome if outcome is not None else Unavailable(UNKNOWN_OUTCOME)

    async def _ask(self, question: Question, seconds_max: float) -> Outcome | None:
        is_last = not question.piece
        try:
            answer = _decode_answer(await self._peers.ask_leader(_encode(question), timeout_seconds=seconds_max))
        except NotLeader:
            raise Unavailable(BROKEN_OFF if question.request is None else NO_LEADER) from None
        except Unreachable:
            raise Unavailable(UNKNOWN_OUTCOME if is_last else BROKEN_OFF) from None
        return decode(answer.outcome) if answer.outcome else None

    # -- the leader's side --

    async def serve(self, question: Question, asker: str) -> Answer:
        """Take one piece; the answer has the outcome, once there is one."""
        upload_id, request = question.request_id, question.request
        arriving = self._arriving.get(upload_id)
        if arriving is None:
            if request is None:
                return _answer(InvalidRequest(BROKEN_OFF))
            if len(self._arriving) >= ARRIVING_MAX:
                return _answer(Unavailable(TOO_MANY))
            arriving = self._begin(upload_id, request, asker)
        outcome = await arriving.take(question.piece)
        if outcome is None:
            return Answer(VERSION, Reply.ANSWER)
        self._arriving.pop(upload_id, None)
        return _answer(outcome)

    def _begin(self, upload_id: bytes, request: Request, asker: str) -> "_Arriving":
        loop = asyncio.get_running_loop()
        arriving = self._arriving[upload_id] = _Arriving(loop.create_future())
        arriving.outcome.add_done_callback(
            lambda _: loop.call_later(SILENCE_SECONDS_MAX, self._arriving.pop, upload_id, None)
        )
        request.forwarded_by = asker
        request.upload = arriving
        self._handle(request, arriving.done)
        return arriving


class _Arriving:
    """An upload as its handler reads it.

    Args:
        outcome: what has become of the request, once that is known.
    """

    def __init__(self, outcome: "asyncio.Future[Outcome]") -> None:
        self.outcome = outcome
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue(maxsize=1)

    def done(self, outcome: Outcome) -> None:
        """Take in what has become of the request."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)

    async def take(self, piece: bytes) -> Outcome | None:
        """Hand a piece on (an empty one is the end), and return the outcome, if there is one or this was the last."""
        putting = asyncio.ensure_future(self._pieces.put(piece))
        either: set[asyncio.Future[Any]] = {putting, self.outcome}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if piece and not self.outcome.done():
                return None
            return await asyncio.shield(self.outcome)
        finally:
            putting.cancel()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            async with asyncio.timeout(SILENCE_SECONDS_MAX):
                piece = await self._pieces.get()
        except TimeoutError:
            raise InvalidRequest(BROKEN_OFF) from None
        if not piece:
            raise StopAsyncIteration
        return piece


async def _regular(upload: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Iterate over an upload in pieces of a size that is worth a frame, and none above it."""
    collected = bytearray()
    async for piece in upload:
        collected += piece
        while len(collected) >= PIECE_BYTES:
            yield bytes(collected[:PIECE_BYTES])
            del collected[:PIECE_BYTES]
    if collected:
        yield bytes(collected)


def _answer(outcome: Outcome) -> Answer:
    return Answer(VERSION, Reply.ANSWER, encode(outcome))
