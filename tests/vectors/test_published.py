"""Published vectors for the algorithms that everything at rest depends on, each with its source.

AES-256-GCM has its vector beside the barrier's own tests (`tests/storage/test_barrier.py`).
"""

import hashlib

import pytest

from conclave.storage.checksums import checksum
from conclave.storage.shamir import combine, multiply

# RFC 3720, appendix B.4: the CRCs stand there in the order of their bytes on the wire, least significant first.
CRC_32C = [
    (bytes(32), "aa36918a"),
    (b"\xff" * 32, "43aba862"),
    (bytes(range(32)), "4e79dd46"),
    (bytes(range(31, -1, -1)), "5cdb3f11"),
]


@pytest.mark.parametrize(("data", "written"), CRC_32C)
def test_crc_32c_of_rfc_3720(data: bytes, written: str) -> None:
    assert checksum(data).to_bytes(4, "little").hex() == written


def test_a_continued_crc_is_that_of_the_whole() -> None:
    assert checksum(b"6789", checksum(b"12345")) == checksum(b"123456789") == 0xE3069283


# FIPS 197, sections 4.2 and 4.2.1: products in GF(2**8) modulo x**8 + x**4 + x**3 + x + 1.
PRODUCTS = [
    (0x57, 0x83, 0xC1),
    (0x57, 0x02, 0xAE),
    (0x57, 0x04, 0x47),
    (0x57, 0x08, 0x8E),
    (0x57, 0x10, 0x07),
    (0x57, 0x13, 0xFE),
]


@pytest.mark.parametrize(("left", "right", "product"), PRODUCTS)
def test_products_of_fips_197(left: int, right: int, product: int) -> None:
    assert multiply(left, right) == multiply(right, left) == product


def test_shares_on_a_line_through_those_products_give_the_secret_at_zero() -> None:
    secret = b"sixteen bytes it"
    shares = [bytes(byte ^ product for byte in secret) + bytes([x]) for _, x, product in PRODUCTS]

    for first in range(len(shares)):
        for second in range(first):
            assert combine([shares[first], shares[second]]) == secret


def test_blake2b_of_rfc_7693() -> None:
    # Appendix A: BLAKE2b-512 of "abc".
    assert hashlib.blake2b(b"abc").hexdigest() == (
        "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1"
        "7d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923"
    )
