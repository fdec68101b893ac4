"""Sharing a secret among holders of shares: Shamir's scheme over GF(2**8), in Vault's share format.

Each byte of the secret is the constant term of a polynomial of degree threshold - 1 with random coefficients; a share
is the polynomials' values at one x, followed by that x (1 to 255). With one share there is nothing to share, and the
share is the secret itself, as Vault does it. The field is that of AES: polynomial 0x11b, tables to the generator 3.

Pure: randomness comes in as an argument. It cannot tell a wrong share from a right one; whoever uses the result does.
Tables make the time depend on data; that is acceptable here: a share is combined on its holder's demand, a few times in
a node's life, and not for an attacker to measure.

Source: A. Shamir, "How to share a secret" (1979); FIPS 197, section 4.2, for the field.
"""

from collections.abc import Callable, Sequence
from typing import Final

from conclave.storage.errors import InvalidShares

SHARES_MAX: Final = 255
SHARE_BYTES_MIN: Final = 16
"""The shortest share (or key) that is looked at, as in Vault; a shorter one is a typing error."""


def _tables() -> tuple[bytes, bytes]:
    exponents, logarithms = bytearray(510), bytearray(256)
    value = 1
    for exponent in range(255):
        exponents[exponent] = exponents[exponent + 255] = value
        logarithms[value] = exponent
        value ^= (value << 1) ^ (0x11B if value & 0x80 else 0)  # times 3: itself plus twice itself
    return bytes(exponents), bytes(logarithms)


_EXP, _LOG = _tables()


def multiply(a: int, b: int) -> int:
    """Return the product of two elements of GF(2**8)."""
    return _EXP[_LOG[a] + _LOG[b]] if a and b else 0


def divide(a: int, b: int) -> int:
    """Return the quotient of two elements of GF(2**8); `b` is not 0."""
    assert b, "nothing is divided by zero"
    return _EXP[_LOG[a] - _LOG[b] + 255] if a else 0


def split(secret: bytes, *, total: int, threshold: int, random: Callable[[int], bytes]) -> list[bytes]:
    """Split a secret into shares, any `threshold` of which restore it and fewer of which say nothing about it.

    Args:
        secret: 1 byte or more.
        total: 1 to 255 shares.
        threshold: 2 to `total`; 1 only if `total` is 1.
        random: returns so many random bytes; must be a cryptographic source.

    Returns:
        `total` shares, each one byte longer than the secret; for a total of 1, the secret itself.

    Raises:
        ValueError: the numbers make no sense.
    """
    if not secret or not 1 <= total <= SHARES_MAX or not 1 <= threshold <= total or (threshold == 1 and total > 1):
        raise ValueError("a secret is split into 1 to 255 shares, with a threshold of 2 or more, at most all of them")
    if total == 1:
        return [secret]
    polynomials = [bytes([byte]) + random(threshold - 1) for byte in secret]
    return [
        bytes(_evaluate(polynomial, x) for polynomial in polynomials) + bytes([x])
        for x in _distinct_coordinates(total, random)
    ]


def combine(shares: Sequence[bytes]) -> bytes:
    """Restore the secret from at least as many shares as the threshold was; their order does not matter.

    A single share is taken for the secret itself. Shares of another secret, or too few, give another result.

    Raises:
        InvalidShares: none, too short, of different lengths, repeated, or with the x coordinate 0.
    """
    if not shares:
        raise InvalidShares("no key shares were given")
    if any(len(share) < SHARE_BYTES_MIN for share in shares):
        raise InvalidShares(f"a key share has fewer than {SHARE_BYTES_MIN} bytes")
    if len(shares) == 1:
        return shares[0]
    if len({len(share) for share in shares}) > 1:
        raise InvalidShares("all key shares must have the same length")
    xs = [share[-1] for share in shares]
    if 0 in xs:
        raise InvalidShares("a key share is damaged: its last byte must not be zero")
    if len(set(xs)) < len(xs):
        raise InvalidShares("a key share was given twice")
    weights = _weights_at_zero(xs)
    return bytes(_dot(weights, values) for values in zip(*(share[:-1] for share in shares), strict=True))


def _distinct_coordinates(count: int, random: Callable[[int], bytes]) -> list[int]:
    """Return distinct x coordinates in a random order, by a Fisher-Yates shuffle without bias."""
    coordinates = list(range(1, 256))
    for position in range(count):
        other = position + _random_below(255 - position, random)
        coordinates[position], coordinates[other] = coordinates[other], coordinates[position]
    return coordinates[:count]


def _random_below(bound: int, random: Callable[[int], bytes]) -> int:
    limit = 256 - 256 % bound
    while True:
        value = random(1)[0]
        if value < limit:
            return value % bound


def _evaluate(polynomial: bytes, x: int) -> int:
    """Return the polynomial's value at `x` (Horner's scheme); the constant term stands first."""
    value = 0
    for coefficient in reversed(polynomial):
        value = multiply(value, x) ^ coefficient
    return value


def _weights_at_zero(xs: Sequence[int]) -> list[int]:
    """Return Lagrange's weights for the value at 0: the product of other / (other - own); minus is exclusive or."""
    weights = []
    for own in xs:
        weight = 1
        for other in xs:
            if other != own:
                weight = multiply(weight, divide(other, other ^ own))
        weights.append(weight)
    return weights


def _dot(weights: Sequence[int], values: Sequence[int]) -> int:
    total = 0
    for weight, value in zip(weights, values, strict=True):
        total ^= multiply(weight, value)
    return total
