"""What is replicated: a few registers, each request at most once, whoever repeats it.

A request carries its client's number and a sequence; the answer to a client's last request is part of the state, so a
repeated one is answered and not executed again, also by a node that got the state as a snapshot.
"""

import asyncio
import zlib
from enum import Enum
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from conclave.cluster.membership import decode_record
from conclave.cluster.replica import Standing, Ticket
from conclave.storage.memory import MemoryState
from conclave.storage.state import Applied
from tests.simulator.linearizability import Kind
from tests.simulator.nodes.checkers import Checkers

if TYPE_CHECKING:
    from conclave.storage.state import StateStore


class Request(Struct, frozen=True, array_like=True):
    """What a client asks for; see `linearizability.Operation`."""

    client: int
    sequence: int
    kind: Kind
    key: str
    value: str | None = None
    expected: str | None = None


class Outcome(Enum):
    """What became of a request."""

    DONE = "done"
    REFUSED = "refused"  # nothing was done
    UNKNOWN = "unknown"


class Reply(Struct, frozen=True, array_like=True):
    """The answer."""

    outcome: Outcome
    succeeded: bool = True
    value: str | None = None


REFUSED = Reply(Outcome.REFUSED)
UNKNOWN = Reply(Outcome.UNKNOWN)

_encode = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(Request).decode
decode_reply = msgspec.msgpack.Decoder(Reply).decode


class Register:
    """A `StateMachine`.

    Args:
        name: of its node.
        state: what survives of it.
        checkers: watch it.
    """

    def __init__(self, name: str, state: MemoryState, checkers: Checkers) -> None:
        self.name = name
        self.raft_id = 0
        self.values: dict[str, str] = {}
        self.is_being_replaced = False
        self._state: StateStore = state
        self._checkers = checkers
        self._answers: dict[int, tuple[int, bool]] = {}
        self._changed: set[str] = set()
        self._waiting: dict[int, list[tuple[int, bytes, asyncio.Future[Reply]]]] = {}
        self._load()

    def _load(self) -> None:
        self.applied, self.membership = self._state.applied, self._state.membership
        self.values, self._answers = {}, {}
        self._changed = set()
        for key in self._state.keys(b""):
            value = self._state.get(key)
            assert value is not None
            text = key.rstrip(b"\0").decode()
            if text.startswith("key/"):
                self.values[text[4:]] = value.decode()
            else:
                sequence, _, succeeded = value.decode().partition(" ")
                self._answers[int(text[7:])] = (int(sequence), succeeded == "True")

    @property
    def durable_index(self) -> int:
        """See `replica.StateMachine`."""
        return self._state.applied[0]

    @property
    def digest(self) -> int:
        """What it holds, in four bytes."""
        return zlib.crc32(repr((sorted(self.values.items()), sorted(self._answers.items()), self.membership)).encode())

    def wait(self, ticket: Ticket, data: bytes) -> asyncio.Future[Reply]:
        """Wait for what becomes of a proposal."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(ticket.index, []).append((ticket.term, data, future))
        return future

    def apply(self, index: int, term: int, data: bytes) -> None:
        """See `replica.StateMachine`."""
        self._next(index, term)
        reply = self._execute(decode_request(data), index) if data else REFUSED
        self._checkers.applied(self.name, index, term, data, self.digest)
        self._settle(index, term, data, reply)

    def apply_membership(self, index: int, term: int, membership: bytes) -> None:
        """See `replica.StateMachine`."""
        self._next(index, term)
        self.membership = membership
        self._checkers.applied(self.name, index, term, membership, self.digest)
        self._checkers.membership(index, membership)
        self._settle(index, term, b"", REFUSED)

    def _next(self, index: int, term: int) -> None:
        if index != self.applied[0] + 1:
            self._checkers.fail(f"{self.name} applies entry {index} after entry {self.applied[0]}")
        self.applied = (index, term)

    def _execute(self, request: Request, index: int) -> Reply:
        sequence, succeeded = self._answers.get(request.client, (0, False))
        if request.sequence < sequence:
            return UNKNOWN  # its client has gone on long ago
        if request.sequence > sequence:
            self._checkers.executed(request.client, request.sequence, index)
            succeeded = request.kind is not Kind.CAS or self.values.get(request.key) == request.expected
            if succeeded and request.value is None:
                self.values.pop(request.key, None)
            elif succeeded and request.value is not None:
                self.values[request.key] = request.value
            self._answers[request.client] = (request.sequence, succeeded)
        return Reply(Outcome.DONE, succeeded)

    def _settle(self, index: int, term: int, data: bytes, reply: Reply) -> None:
        for proposed_term, proposed, future in self._waiting.pop(index, ()):
            if proposed_term == term and proposed != data:
                self._checkers.fail(f"{self.name} was told that another proposal would stand at {index} of term {term}")
            if future.done():
                continue
            if proposed_term == term and reply.outcome is Outcome.DONE:
                self._checkers.acknowledged(index, term)
            future.set_result(reply if proposed_term == term else REFUSED)

    async def prepare_replacement(self) -> None:
        """See `replica.StateMachine`."""
        self.is_being_replaced = True

    def standing_changed(self, standing: Standing, term: int) -> None:
        """See `replica.StateMachine`."""
        self._checkers.standing_changed(self.name, self.raft_id, standing, term, self.applied[0])

    def state_replaced(self) -> None:
        """See `replica.StateMachine`."""
        self.is_being_replaced = False
        self._load()
        self._checkers.snapshots += 1
        self._checkers.holds(self.name, self.applied[0], self.digest)
        for index in [index for index in self._waiting if index <= self.applied[0]]:
            for _, _, future in self._waiting.pop(index):
                if not future.done():
                    future.set_result(UNKNOWN)

    def flush(self) -> None:
        """Make what was applied durable."""
        if self.is_being_replaced or self.applied[0] <= self._state.applied[0]:
            return
        puts: dict[bytes, bytes | None] = dict.fromkeys(self._state.keys(b""))
        for key, value in self.values.items():
            puts[f"key/{key}".encode().ljust(32, b"\0")] = value.encode()
        for client, (sequence, succeeded) in self._answers.items():
            puts[f"client/{client}".encode().ljust(32, b"\0")] = f"{sequence} {succeeded}".encode()
        self._state.flush(puts, Applied(*self.applied, 1, self.membership))
        self._state.refresh()

    def knows(self, raft_id: int) -> bool:
        """Tell whether a node is a member, as of what was applied here."""
        return decode_record(self.membership).member(raft_id) is not None


def encoded(message: Request | Reply) -> bytes:
    """Return a message's bytes."""
    return _encode(message)
