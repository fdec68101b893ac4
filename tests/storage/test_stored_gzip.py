"""Gzip without compression: judged by the standard library, and strict where that is not."""

import gzip
import io

import pytest
from hypothesis import given
from hypothesis.strategies import binary, integers, lists

from conclave.storage.errors import Corrupt
from conclave.storage.stored_gzip import BLOCK_BYTES_MAX, HEADER, Packer, Unpacker


def stored(*pieces: bytes) -> bytes:
    packer = Packer()
    return b"".join(packer.pack(piece) for piece in pieces) + packer.end()


def unpacked(file: bytes) -> bytes:
    return Unpacker(io.BytesIO(file)).read(len(file) + 1)


@given(lists(binary(max_size=300)))
def test_the_standard_library_reads_what_is_packed(pieces: list[bytes]) -> None:
    assert gzip.decompress(stored(*pieces)) == b"".join(pieces)


@given(content=binary(max_size=300), count=integers(1, 50))
def test_it_is_read_in_pieces_of_any_size(content: bytes, count: int) -> None:
    unpacker = Unpacker(io.BytesIO(stored(content)))

    pieces = list(iter(lambda: unpacker.read(count), b""))

    assert b"".join(pieces) == content
    assert all(len(piece) == count for piece in pieces[:-1])


def test_a_piece_longer_than_a_block_is_packed_and_read() -> None:
    content = bytes(range(256)) * 600

    file = stored(content)

    assert len(content) > 2 * BLOCK_BYTES_MAX
    assert gzip.decompress(file) == unpacked(file) == content


def test_what_the_standard_library_stores_is_read() -> None:
    assert unpacked(HEADER + gzip.compress(b"content", 0, mtime=0)[len(HEADER) :]) == b"content"


def test_a_source_that_gives_less_than_it_is_asked_for_is_read() -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(3, size or 0))

    assert Unpacker(Slow(stored(b"content"))).read(100) == b"content"


@pytest.mark.parametrize("end", range(1, len(stored(b"content"))))
def test_a_file_that_is_cut_short_says_so(end: int) -> None:
    with pytest.raises(Corrupt, match="unexpected EOF"):
        unpacked(stored(b"content")[:end])


@pytest.mark.parametrize("position", range(len(stored(b"content"))))
def test_no_byte_may_be_another(position: int) -> None:
    file = bytearray(stored(b"content"))
    for mask in range(1, 256):
        file[position] ^= mask
        with pytest.raises(Corrupt):
            unpacked(bytes(file))
        file[position] ^= mask


def test_nothing_may_follow() -> None:
    with pytest.raises(Corrupt, match="more in the file"):
        unpacked(stored(b"content") + b"\0")


def test_a_wrong_sum_is_named() -> None:
    file = stored(b"content")

    with pytest.raises(Corrupt, match="invalid checksum"):
        unpacked(file.replace(b"content", b"contend"))
