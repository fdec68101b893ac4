"""Frames: what two nodes say to each other, as bytes. Sans-IO: bytes in, frames out, no socket and no clock.

    u32 length (big endian, of what follows) | u8 version | u8 type | msgpack array

Rules it enforces: a version or type that this node doesn't know, a length over the type's bound, and a body that is not
what its type says are each a `FrameError`, after which the connection is of no use any more. A length is checked as soon
as the header is there, so nobody can make this node buffer more than the bound. Before its HELLO is accepted a peer is
held to a much smaller bound (`Decoder.limit_bytes`).

It does not know who may send what to whom: that is `transport.py`. New fields go last and have defaults; type numbers
are never used again.
"""

import struct
from enum import IntEnum
from typing import Final

import msgspec
from msgspec import Struct

from conclave.cluster.raft import Message

VERSION: Final = 1
HEADER_BYTES: Final = 6

GREETING_BYTES_MAX: Final = 4 * 1024
"""The longest frame of a peer whose HELLO has not been accepted."""
CONTROL_BYTES_MAX: Final = 256 * 1024
"""The longest frame on a control connection: nothing large may stand before a heartbeat."""
BULK_BYTES_MAX: Final = 36 * 1024 * 1024
"""The longest frame on a bulk connection: a forwarded request of 32 MiB, Vault's max_request_size, and what is around it."""

_HEADER: Final = struct.Struct(">IBB")


class FrameError(Exception):
    """A peer sent what is no frame, or one that it may not send; its connection has to be closed."""


class Lane(IntEnum):
    """The two connections to a peer."""

    CONTROL = 0  # heartbeats, votes, acknowledgements, read index, announcements
    BULK = 1  # entries, forwarded requests, snapshot chunks


class Refusal(IntEnum):
    """Why a node does not talk to another."""

    MALFORMED = 1
    WRONG_CLUSTER = 2
    WRONG_NODE = 3
    WRONG_INCARNATION = 4
    REMOVED = 6  # for good: ids are never used again
    OLDER_COPY = 7  # of the data directory: what it acknowledged is gone from it


class Outcome(IntEnum):
    """What became of a forwarded request."""

    ANSWERED = 0
    NOT_LEADER = 1  # the body was not looked at
    FAILED = 2  # the handler raised: the outcome is unknown


class Service(IntEnum):
    """Who is asked by a FORWARD frame."""

    APPLICATION = 0
    MEMBERSHIP = 1  # "remove me"
    DEMOTION = 2  # "take my vote"
    CERTIFICATE = 3  # "sign my next certificate"


class Hello(Struct, array_like=True, frozen=True):
    """The first frame of whoever dialed. The certificate has said the same already, but not what the dialer expects."""

    cluster_id: str
    source: int
    to: int
    lane: Lane
    incarnation: bytes


class Welcome(Struct, array_like=True, frozen=True):
    """The answer to an accepted HELLO."""

    source: int
    incarnation: bytes


class Refused(Struct, array_like=True, frozen=True):
    """The last frame before a connection is closed."""

    code: Refusal
    text: str


class Messages(Struct, array_like=True, frozen=True):
    """Raft messages, in the order in which the core produced them."""

    messages: list[Message]


class Forward(Struct, array_like=True, frozen=True):
    """A request for the leader of one term, and nobody else."""

    request_id: int
    term: int
    service: Service
    body: bytes


class Answer(Struct, array_like=True, frozen=True):
    """The answer to a FORWARD, on the connection on which that came."""

    request_id: int
    outcome: Outcome
    body: bytes = b""


class Announce(Struct, array_like=True, frozen=True):
    """What a node tells about itself, once a second and first on every new control connection.

    Attributes:
        session: random, drawn when the process began to take part; 0: not told.
        began_with_index: where its log ended then.
        is_damaged: its state is known to hold what nobody wrote there.
    """

    node_id: str
    cluster_address: str
    api_address: str
    version: str
    hostname: str
    is_sealed: bool | None
    applied_index: int
    last_index: int
    last_term: int
    session: int = 0
    began_with_index: int = 0
    is_damaged: bool = False


class ChunkRequest(Struct, array_like=True, frozen=True):
    """A follower asks for the part of a snapshot behind what it has."""

    snapshot_id: bytes
    progress: bytes


class ChunkReply(Struct, array_like=True, frozen=True):
    """One part of a snapshot; an empty `chunk` says that this snapshot is not to be had (any more)."""

    snapshot_id: bytes
    progress: bytes
    chunk: bytes


Frame = Hello | Welcome | Refused | Messages | Forward | Answer | Announce | ChunkRequest | ChunkReply

_TYPES: Final[dict[int, type[Frame]]] = {
    1: Hello,
    2: Welcome,
    3: Messages,
    4: Forward,
    5: Answer,
    6: Announce,
    7: ChunkRequest,
    8: ChunkReply,
    9: Refused,
}
_NUMBERS: Final = {kind: number for number, kind in _TYPES.items()}
_DECODERS: Final = {number: msgspec.msgpack.Decoder(kind) for number, kind in _TYPES.items()}
_encode = msgspec.msgpack.Encoder().encode


def encode(frame: Frame) -> bytes:
    """Return a frame's bytes."""
    body = _encode(frame)
    return _HEADER.pack(len(body) + 2, VERSION, _NUMBERS[type(frame)]) + body


class Decoder:
    """Turns a stream of bytes, however it is cut, into frames.

    Attributes:
        limit_bytes: the longest frame that is accepted from now on, header excluded.
    """

    __slots__ = ("_buffer", "limit_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Take in the next bytes of the stream."""
        self._buffer += data

    def next(self) -> Frame | None:
        """Return the next frame; None until more bytes have come.

        Raises:
            FrameError: the stream is broken from here on.
        """
        buffer = self._buffer
        if len(buffer) < HEADER_BYTES:
            return None
        length, version, number = _HEADER.unpack_from(buffer)
        if version != VERSION:
            raise FrameError(f"frame version {version} is not {VERSION}")
        decoder = _DECODERS.get(number)
        if decoder is None:
            raise FrameError(f"unknown frame type {number}")
        if not 2 <= length <= self.limit_bytes:
            raise FrameError(f"a frame of {length} bytes; at most {self.limit_bytes} are accepted here")
        end = 4 + length
        if len(buffer) < end:
            return None
        with memoryview(buffer) as view:
            body = bytes(view[HEADER_BYTES:end])
        del buffer[:end]
        try:
            return decoder.decode(body)
        except ValueError as error:  # msgspec's own errors, or a text that is no UTF-8
            raise FrameError(f"a frame of type {number} does not decode: {error}") from error
