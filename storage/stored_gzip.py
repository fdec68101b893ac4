"""Gzip without compression, and only that: one header, stored blocks, one trailer. No byte in it may be another.

A decompressor of the standard library lets some damage pass: it ignores the time in the header, and the bits that fill up
the first byte of each block. Here every byte is either content, which the sum covers, or has one value that it may have.

Sources: RFC 1952 (gzip); RFC 1951, section 3.2.4 (stored blocks).
"""

import struct
import zlib
from typing import IO, Final

from conclave.storage.errors import Corrupt

HEADER: Final = bytes.fromhex("1f8b0800000000000403")
"""Deflate, no name, no time, the least compression, Unix."""
BLOCK_BYTES_MAX: Final = 0xFFFF
_BLOCK: Final = struct.Struct("<BHH")
_TRAILER: Final = struct.Struct("<II")
_MORE, _LAST = 0, 1
_SIZE_MASK: Final = 0xFFFF_FFFF
_FAULT: Final = "failed to decompress snapshot: "


class Packer:
    """Makes such a file, piece by piece."""

    def __init__(self) -> None:
        self._header = HEADER  # until it is out
        self._sum = self._size = 0

    def pack(self, piece: bytes) -> bytes:
        """Return what stands in the file for the next piece."""
        parts = [self._header]
        self._header = b""
        self._sum = zlib.crc32(piece, self._sum)
        self._size += len(piece)
        for start in range(0, len(piece), BLOCK_BYTES_MAX):
            block = piece[start : start + BLOCK_BYTES_MAX]
            parts += (_block_head(_MORE, len(block)), block)
        return b"".join(parts)

    def end(self) -> bytes:
        """Return what stands behind the last piece."""
        return self._header + _block_head(_LAST, 0) + _TRAILER.pack(self._sum, self._size & _SIZE_MASK)


def _block_head(kind: int, size: int) -> bytes:
    return _BLOCK.pack(kind, size, size ^ BLOCK_BYTES_MAX)


class Unpacker:
    """Reads such a file; it is checked to its end as soon as a read finds that."""

    def __init__(self, source: IO[bytes]) -> None:
        """Read from `source` on, which is at the file's beginning and need be no more than readable."""
        self._source = source
        self._sum = self._size = 0
        self._left = 0  # of the block
        self._has_begun = self._is_last = self._is_ended = False

    def read(self, count: int) -> bytes:
        """Return up to `count` bytes of content, fewer only at the end.

        Raises:
            Corrupt: the file is damaged, cut short, or not of this form; the texts are those that clients know.
        """
        parts = []
        while count and self._in_block():
            piece = self._exactly(min(count, self._left))
            self._sum = zlib.crc32(piece, self._sum)
            self._size += len(piece)
            self._left -= len(piece)
            count -= len(piece)
            parts.append(piece)
        return b"".join(parts)

    def _in_block(self) -> bool:
        """Go to where there is content; False at the end."""
        if not self._has_begun:
            self._begin()
        while not self._left and not self._is_ended:
            if self._is_last:
                self._end()
            else:
                self._open_block()
        return not self._is_ended

    def _begin(self) -> None:
        header = self._some(len(HEADER))
        if header != HEADER:
            is_cut = 0 < len(header) < len(HEADER) and HEADER.startswith(header)
            raise Corrupt(_FAULT + ("unexpected EOF" if is_cut else "gzip: invalid header"))
        self._has_begun = True

    def _open_block(self) -> None:
        kind, size, complement = _BLOCK.unpack(self._exactly(_BLOCK.size))
        if kind not in {_MORE, _LAST} or size ^ BLOCK_BYTES_MAX != complement:
            raise Corrupt(_FAULT + "gzip: invalid data")
        self._left, self._is_last = size, kind == _LAST

    def _end(self) -> None:
        self._is_ended = True
        if _TRAILER.unpack(self._exactly(_TRAILER.size)) != (self._sum, self._size & _SIZE_MASK):
            raise Corrupt(_FAULT + "gzip: invalid checksum")
        if self._source.read(1):
            raise Corrupt("snapshot: there is more in the file than a snapshot")

    def _exactly(self, count: int) -> bytes:
        content = self._some(count)
        if len(content) != count:
            raise Corrupt(_FAULT + "unexpected EOF")
        return content

    def _some(self, count: int) -> bytes:
        """Return `count` bytes of the file, fewer only at its end."""
        content = self._source.read(count)
        while len(content) < count and (more := self._source.read(count - len(content))):
            content += more
        return content
