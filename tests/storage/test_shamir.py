"""Shamir's scheme over GF(2^8), in Vault's share format.

The field's tables are checked against the products that FIPS 197 (AES), section 4.2 publishes: {57} x {83} = {c1} and
{57} x {13} = {fe}. The fixed shares are a polynomial worked out by hand: f(x) = 0x57 + 0x83 x, so f(1) = 0xd4.
"""

from random import Random

import pytest
from hypothesis import given
from hypothesis.strategies import DataObject, binary, data, integers, permutations

from conclave.storage.errors import InvalidShares
from conclave.storage.shamir import combine, divide, multiply, split


def test_the_field_is_that_of_aes() -> None:
    assert multiply(0x57, 0x83) == 0xC1
    assert multiply(0x57, 0x13) == 0xFE


@given(a=integers(0, 255), b=integers(1, 255))
def test_division_undoes_multiplication(a: int, b: int) -> None:
    assert divide(multiply(a, b), b) == a


def test_shares_worked_out_by_hand_give_the_secret() -> None:
    at_1 = bytes([0x57 ^ 0x83]) * 16 + b"\x01"
    at_2 = bytes([0x57 ^ multiply(0x83, 2)]) * 16 + b"\x02"

    assert combine([at_1, at_2]) == b"\x57" * 16


@given(secret=binary(min_size=16, max_size=64), seed=integers(), choice=data())
def test_any_threshold_of_shares_restores_the_secret(secret: bytes, seed: int, choice: DataObject) -> None:
    total = choice.draw(integers(2, 9), label="total")
    threshold = choice.draw(integers(2, total), label="threshold")
    shares = split(secret, total=total, threshold=threshold, random=Random(seed).randbytes)

    chosen = choice.draw(permutations(shares), label="order")[:threshold]

    assert combine(chosen) == secret


def test_too_few_shares_give_something_else() -> None:
    secret = bytes(range(32))
    shares = split(secret, total=5, threshold=3, random=Random(1).randbytes)

    assert combine(shares[:2]) != secret


def test_255_shares_are_all_different() -> None:
    shares = split(bytes(32), total=255, threshold=2, random=Random(1).randbytes)

    assert len({share[-1] for share in shares}) == 255
    assert all(len(share) == 33 for share in shares)


def test_a_single_share_is_the_secret_itself() -> None:
    assert split(bytes(32), total=1, threshold=1, random=Random(1).randbytes) == [bytes(32)]


@pytest.mark.parametrize(
    "shares",
    [
        [],
        [bytes(16) + b"\x01", bytes(17) + b"\x02"],
        [bytes(16) + b"\x01", bytes(16) + b"\x01"],
        [bytes(16) + b"\x00", bytes(16) + b"\x01"],
        [bytes(3) + b"\x01", bytes(3) + b"\x02"],
    ],
    ids=["none", "of different length", "repeated", "at zero", "short"],
)
def test_shares_that_cannot_belong_together_are_refused(shares: list[bytes]) -> None:
    with pytest.raises(InvalidShares):
        combine(shares)


@pytest.mark.parametrize(("total", "threshold"), [(0, 0), (256, 2), (3, 4), (3, 1)])
def test_numbers_that_make_no_sense_are_refused(total: int, threshold: int) -> None:
    with pytest.raises(ValueError, match=r"share|threshold"):
        split(bytes(32), total=total, threshold=threshold, random=Random(1).randbytes)
