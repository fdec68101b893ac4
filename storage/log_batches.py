"""Batches and segments of the append-only log as bytes: how one is made, recognised, and told from a torn one.

Pure: no file is opened here, and what a body means is `file_log`'s matter. Layout (docs/storage.md), integers big endian:

    file    magic (8) · number (8) · sequence of its first batch (8) · checksum before it (4) · CRC-32C of this head (4)
            · batches · zeros
    batch   magic (4) · length of body (4) · sequence (8) · CRC-32C of the body, seeded with that of the batch before (4)
            · CRC-32C of this head (4) · body · 1 to 8 bytes 0xff, up to a multiple of 8

The sequence counts all batches of a log without a gap, and the chained checksums notice one that is not where it was.
"""

import struct
from typing import Final

from conclave.storage.checksums import checksum
from conclave.storage.errors import Corrupt

SECTOR_BYTES: Final = 512
"""The smallest piece that a disk writes or does not write as a whole."""
_FILE_MAGIC: Final = b"cnclog01"
_FILE_HEAD: Final = struct.Struct(">8sQQII")
_BATCH_MAGIC: Final = b"\xc1\xba\x7c\x68"
_BATCH_HEAD: Final = struct.Struct(">4sIQII")
_BATCH_ALIGNMENT: Final = 8
_CHECKSUM: Final = struct.Struct(">I")

FILE_HEAD_BYTES: Final = _FILE_HEAD.size
BATCH_HEAD_BYTES: Final = _BATCH_HEAD.size


def make_batch(body: bytes, sequence: int, chained: int) -> tuple[bytes, int]:
    """Return a batch, padded, and its body's checksum, which the next batch is chained to."""
    own = checksum(body, chained)
    head = _BATCH_HEAD.pack(_BATCH_MAGIC, len(body), sequence, own, 0)[: -_CHECKSUM.size]
    batch = head + _CHECKSUM.pack(checksum(head)) + body
    # No sector of a whole batch is blank: it begins with the magic and ends like this, and between is sealed data.
    return batch.ljust(batch_bytes(len(body)), b"\xff"), own


def batch_bytes(body_bytes: int) -> int:
    """Return how long a batch with such a body is."""
    return ((BATCH_HEAD_BYTES + body_bytes) // _BATCH_ALIGNMENT + 1) * _BATCH_ALIGNMENT


def open_batch_head(content: bytes, offset: int) -> tuple[int, int, int] | None:
    """Return body length, sequence and body checksum; None if no batch begins here."""
    head = content[offset : offset + BATCH_HEAD_BYTES]
    if len(head) < BATCH_HEAD_BYTES:
        return None
    magic, length, sequence, chained, head_checksum = _BATCH_HEAD.unpack(head)
    if magic != _BATCH_MAGIC or checksum(head[: -_CHECKSUM.size]) != head_checksum:
        return None
    return length, sequence, chained


def open_batch(content: bytes, offset: int, sequence: int, chained: int) -> bytes | None:
    """Return the body of the batch that should stand at `offset`; None if it is not there whole."""
    head = open_batch_head(content, offset)
    if head is None or head[1] != sequence:
        return None
    body = content[offset + BATCH_HEAD_BYTES : offset + BATCH_HEAD_BYTES + head[0]]
    return body if len(body) == head[0] and checksum(body, chained) == head[2] else None


def body_checksum(content: bytes, offset: int) -> int:
    """Return the checksum of the body of the batch at `offset`, which is whole: what the next batch is chained to."""
    head = open_batch_head(content, offset)
    assert head is not None, "it was opened"
    return head[2]


def is_torn(content: bytes, offset: int, sequence: int) -> bool:
    """Tell whether what stands at `offset` can be a batch whose writing was cut short, and so was never acknowledged.

    It cannot if a later batch stands behind it: that was begun after this one was synced. Nor if no sector of it is
    blank: then all of it was written, and has been changed since. What is left open is a disk that loses a sector of
    the last batch after it has said that it is kept.
    """
    found = content.find(_BATCH_MAGIC, offset)
    while found >= 0:
        head = open_batch_head(content, found)
        if head is not None and head[1] > sequence:
            return False
        found = content.find(_BATCH_MAGIC, found + 1)
    head = open_batch_head(content, offset)
    end = offset + batch_bytes(head[0]) if head is not None else offset + BATCH_HEAD_BYTES
    if end > len(content):
        return True
    start = offset
    while start < end:
        sector_end = min((start // SECTOR_BYTES + 1) * SECTOR_BYTES, end)
        if not any(content[start:sector_end]):
            return True
        start = sector_end
    return False


def file_head(number: int, sequence: int, chained: int) -> bytes:
    """Return the head of a segment; `sequence` is that of its first batch, `chained` the checksum before it."""
    head = _FILE_HEAD.pack(_FILE_MAGIC, number, sequence, chained, 0)[: -_CHECKSUM.size]
    return head + _CHECKSUM.pack(checksum(head))


def open_file_head(content: bytes) -> tuple[int, int, int]:
    """Return number, first sequence and the checksum before it.

    Raises:
        Corrupt: this is no head of a segment.
    """
    head = content[:FILE_HEAD_BYTES]
    if len(head) < FILE_HEAD_BYTES or not head.startswith(_FILE_MAGIC):
        raise Corrupt("log: a segment has no head, or that of a newer version")
    _, number, sequence, chained, head_checksum = _FILE_HEAD.unpack(head)
    if checksum(head[: -_CHECKSUM.size]) != head_checksum:
        raise Corrupt("log: the head of a segment has a wrong checksum")
    return number, sequence, chained
