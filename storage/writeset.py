"""What one log entry holds: the effect of one operation, already sealed.

A write set is opaque to consensus and readable to no follower that is sealed. Its encoding is a version byte and a
msgpack array; new fields go last and have defaults. An entry without data is no write set but a new leader's no-op.

A whole state comes through the log, too, when a snapshot is restored: put beside the live state by many entries, which
change nothing that can be read, and put in its place by one (docs/adr/0009-restoring-through-the-log.md). These entries
have a version byte of their own, so that a program which knows nothing of stages refuses them.
"""

from enum import IntEnum
from typing import Final

import msgspec

from conclave.storage.errors import Corrupt, TooLarge

VERSION: Final = 1
VERSION_STAGED: Final = 2
ENTRY_BYTES_MAX: Final = (1 << 20) + (64 << 10)
"""The largest encoding: a value of 1 MiB, with room for names, tags and the records that change with it."""
KEY_BYTES_MIN: Final = 32
REQUEST_ID_BYTES: Final = 16


class Stage(IntEnum):
    """What an entry does to the state that is being staged beside the live one; the numbers never change."""

    NONE = 0  # nothing: puts and deletes are of the live state
    BEGIN = 1  # forget what is staged, and begin to stage
    PUTS = 2  # puts are staged
    SWAP = 3  # what is staged takes the place of the live state
    ABANDON = 4  # forget what is staged


class WriteSet(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The puts and deletes of one operation; a key stands in at most one of them.

    Attributes:
        time_ns: the leader's clock, nanoseconds since 1970, never below that of an earlier write set.
        puts: storage keys (32 bytes or more) with sealed values.
        deletes: storage keys.
        request_id: empty, or the 16 bytes under which the answer of a forwarded request is kept.
        answer: the sealed answer to that request; may be empty.
        stage: what it does to a state that is being restored.
        stage_count: with `SWAP`, how many records must have been staged.
    """

    time_ns: int
    puts: list[tuple[bytes, bytes]] = []
    deletes: list[bytes] = []
    request_id: bytes = b""
    answer: bytes = b""
    stage: Stage = Stage.NONE
    stage_count: int = 0

    def encode(self) -> bytes:
        """Return the bytes of the log entry.

        Raises:
            TooLarge: they are more than `ENTRY_BYTES_MAX`.
        """
        data = (_PREFIX_STAGED if self.stage else _PREFIX) + _ENCODER.encode(self)
        if len(data) > ENTRY_BYTES_MAX:
            raise TooLarge(f"one operation changes {len(data)} bytes; the most is {ENTRY_BYTES_MAX}")
        return data

    @staticmethod
    def decode(data: bytes) -> "WriteSet":
        """Return the write set that `encode` wrote.

        Raises:
            Corrupt: the bytes are no write set of a version this program knows.
        """
        if data[:1] not in (_PREFIX, _PREFIX_STAGED):
            raise Corrupt(f"a write set of version {data[:1].hex() or 'none'} is not known; a newer version wrote it")
        try:
            write_set = _DECODER.decode(memoryview(data)[1:])
        except msgspec.DecodeError as error:
            raise Corrupt("a log entry is no write set") from error
        if (data[:1] == _PREFIX_STAGED) != (write_set.stage is not Stage.NONE):
            raise Corrupt("a write set is of a version that cannot have its stage")
        if not write_set.is_well_formed():
            raise Corrupt("a write set has a key or request id of a wrong length")
        return write_set

    def is_well_formed(self) -> bool:
        """Whether every key and the request id have lengths that this room can store."""
        # Loops instead of generators: each node asks this of each entry.
        for key, _ in self.puts:
            if len(key) < KEY_BYTES_MIN:
                return False
        for key in self.deletes:
            if len(key) < KEY_BYTES_MIN:
                return False
        return len(self.request_id) in {0, REQUEST_ID_BYTES}


_PREFIX: Final = bytes([VERSION])
_PREFIX_STAGED: Final = bytes([VERSION_STAGED])
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(WriteSet)
