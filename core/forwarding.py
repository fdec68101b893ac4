"""Requests that another node has to answer: sent to the leader once, never blindly again.

A standby sends a request under an id. If the answer does not come (the leader died, the connection broke), the outcome
is unknown, and what settles it is the log: the next leader, having applied everything that was ever committed, either
finds the id among recent outcomes, and returns the very answer, or says that it did not happen, and refuses that id from
then on, so that a copy still under way cannot happen late. Only then is the request sent again. A leader that does not
remember that far back (it was restarted, or its state came as a snapshot) says that it does not know: the question names
an index that the request cannot lie below. So does one that is sealed, which cannot read what it finds, and one that has
given up waiting for the request's entry, which may still be committed.

A frame names the term it was meant for (`Peers.ask_leader`), so no deposed leader acts on it either.
See design section 1, docs/adr/0004-execution-on-the-leader.md.
"""

import asyncio
import logging
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from enum import IntEnum
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from conclave.cluster.errors import NotLeader, Unreachable
from conclave.cluster.replica import Peers
from conclave.core import outcomes
from conclave.core.contract import Request
from conclave.core.errors import TooLarge, Unavailable
from conclave.core.outcomes import Outcome

log = logging.getLogger(__name__)

HOLD_SECONDS_MAX: Final = 12.0
"""How long a request is held for a leader to be there, and its outcome known."""
ANSWER_SECONDS_MAX: Final = 11.0
"""How long the leader may take over one request; above the store's deadline, so that it answers first."""
RETRY_SECONDS: Final = 0.01
"""Pause before looking for a leader again."""
FORWARDED_BYTES_MAX: Final = 34 << 20
"""The largest body that is sent to the leader: above the default bound of a request, below that of a frame, which would
break the connection on which entries come."""
REMEMBERED_MAX: Final = 65_536
"""How many ids a leader remembers to have declared as not happened, and how many as unknown."""

NO_LEADER: Final = "local node not active but active cluster node not found"
UNKNOWN_OUTCOME: Final = (
    "the outcome of this request is unknown: the cluster did not settle it in time; read before you repeat it"
)


class Ask(IntEnum):
    """What a node wants of the leader."""

    EXECUTE = 0
    OUTCOME = 1
    UPLOAD = 2  # see uploads.py


class Reply(IntEnum):
    """What the leader says."""

    ANSWER = 0
    NOT_HAPPENED = 1
    UNKNOWN = 2


class Question(Struct, array_like=True, frozen=True):
    """One frame to the leader.

    Attributes:
        after_index: what the asking node had applied before it first sent the request: if that happened, then behind it.
        piece: of an upload; empty: it has ended.
    """

    version: int
    ask: Ask
    request_id: bytes
    request: Request | None = None
    after_index: int = 0
    piece: bytes = b""


class Answer(Struct, array_like=True, frozen=True):
    """One frame back."""

    version: int
    reply: Reply
    outcome: bytes = b""


VERSION: Final = 1
_question = msgspec.msgpack.Decoder(Question)
_answer = msgspec.msgpack.Decoder(Answer)


class Executor(Protocol):
    """The leader's side, as this file needs it."""

    def execute(self, request: Request, request_id: bytes, done: Callable[[Outcome | Reply], None]) -> None:
        """Run a forwarded request; `done` gets its outcome, or why there is none."""

    def outcome(self, request_id: bytes, after_index: int) -> bytes | Reply:
        """Return the encoded outcome of a committed forwarded request, or why there is none.

        `NOT_HAPPENED` is certain: nothing of the request is in the log, behind `after_index`, that this node leads.
        """

    @property
    def applied_index(self) -> int:
        """What this node has applied."""


class Takes(Protocol):
    """What takes the pieces of uploads, as this file needs it."""

    async def serve(self, question: Question, asker: str) -> Answer:
        """Take one piece."""


class Forwarder:
    """Both ends of forwarding on one node."""

    uploads: Takes

    def __init__(self, peers: Peers, executor: Executor, monotonic_seconds: Callable[[], float]) -> None:
        self._peers = peers
        self._executor = executor
        self._now = monotonic_seconds
        self._in_flight: dict[bytes, asyncio.Future[Outcome | Reply]] = {}
        self._refused: OrderedDict[bytes, None] = OrderedDict()
        self._given_up: OrderedDict[bytes, None] = OrderedDict()

    # -- the asking side --

    async def forward(self, request: Request, *, retry_here: Callable[[], bool]) -> Outcome | None:
        """Have the leader answer `request`.

        Args:
            request: as it came from the client.
            retry_here: asked before each try; True when this node itself has come to lead.

        Returns:
            the outcome, or None if this node leads now and nothing has happened yet: run it here.

        Raises:
            TooLarge: it fits into no frame; the leader takes it from a client of its own.
            Unavailable: there was no leader, or no certainty, within `HOLD_SECONDS_MAX`.
        """
        if len(request.body) > FORWARDED_BYTES_MAX:
            raise TooLarge("http: request body too large")
        request_id, after_index = uuid.uuid4().bytes, self._executor.applied_index
        deadline = self._now() + HOLD_SECONDS_MAX
        is_uncertain = False
        while self._now() < deadline:
            leads = retry_here()
            if leads and not is_uncertain:
                return None
            ask = Ask.OUTCOME if is_uncertain else Ask.EXECUTE
            question = Question(VERSION, ask, request_id, None if is_uncertain else request, after_index)
            try:
                if leads:
                    answer = await self._find(question)
                else:
                    answer = await self._ask(question, timeout_seconds=min(ANSWER_SECONDS_MAX, deadline - self._now()))
            except NotLeader:
                await asyncio.sleep(RETRY_SECONDS)
                continue
            except Unreachable:
                is_uncertain = True
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if answer.reply is Reply.ANSWER:
                return outcomes.decode(answer.outcome)
            if answer.reply is Reply.NOT_HAPPENED and is_uncertain:
                # The leader refuses the old one from now on.
                request_id, after_index = uuid.uuid4().bytes, self._executor.applied_index
            is_uncertain = answer.reply is Reply.UNKNOWN
            await asyncio.sleep(RETRY_SECONDS)
        raise Unavailable(UNKNOWN_OUTCOME if is_uncertain else NO_LEADER)

    async def _ask(self, question: Question, *, timeout_seconds: float) -> Answer:
        body = msgspec.msgpack.encode(question)
        return _answer.decode(await self._peers.ask_leader(body, timeout_seconds=timeout_seconds))

    # -- the answering side (the node has checked that it leads the term that was asked for) --

    async def serve(self, body: bytes, asker: str) -> bytes:
        """Answer one frame of another node."""
        question = _question.decode(body)
        if question.ask is Ask.UPLOAD:
            return msgspec.msgpack.encode(await self.uploads.serve(question, asker))
        if question.ask is Ask.EXECUTE and question.request is not None:
            question.request.forwarded_by = asker
            answer = await self._execute(question.request_id, question.request)
        else:
            answer = await self._find(question)
        return msgspec.msgpack.encode(answer)

    async def _execute(self, request_id: bytes, request: Request) -> Answer:
        if request_id in self._refused:
            return Answer(VERSION, Reply.NOT_HAPPENED)
        if request_id in self._in_flight:
            return await self._wait(self._in_flight[request_id])
        future: asyncio.Future[Outcome | Reply] = asyncio.get_running_loop().create_future()
        self._in_flight[request_id] = future
        future.add_done_callback(lambda _: self._in_flight.pop(request_id, None))

        def done(outcome: Outcome | Reply) -> None:
            if outcome is Reply.UNKNOWN:  # its entry may still be committed
                _remember(self._given_up, request_id)
            if not future.done():
                future.set_result(outcome)

        self._executor.execute(request, request_id, done)
        return await self._wait(future)

    async def _find(self, question: Question) -> Answer:
        """Say what became of a request. What is not known here, though it would be, did not happen, and will not."""
        request_id = question.request_id
        if request_id in self._in_flight:
            return await self._wait(self._in_flight[request_id])
        found = self._executor.outcome(request_id, question.after_index)
        if isinstance(found, bytes):
            return Answer(VERSION, Reply.ANSWER, found)
        if found is Reply.UNKNOWN or request_id in self._given_up:
            return Answer(VERSION, Reply.UNKNOWN)
        _remember(self._refused, request_id)
        return Answer(VERSION, Reply.NOT_HAPPENED)

    @staticmethod
    async def _wait(future: Awaitable[Outcome | Reply]) -> Answer:
        outcome = await asyncio.shield(asyncio.ensure_future(future))
        if isinstance(outcome, Reply):
            return Answer(VERSION, outcome)
        return Answer(VERSION, Reply.ANSWER, outcomes.encode(outcome))


def _remember(ids: OrderedDict[bytes, None], request_id: bytes) -> None:
    ids[request_id] = None
    if len(ids) > REMEMBERED_MAX:
        ids.popitem(last=False)
