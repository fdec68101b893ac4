"""The door to primitives outside storage: ids, token texts, hashes that hide what they name, comparison in constant time.

Randomness comes in as an argument, so that tests can fix it. Engines import this and nothing else of the kind.
"""

import hashlib
import hmac
import uuid
from collections.abc import Callable
from typing import Final

import bcrypt

Random = Callable[[int], bytes]
"""Returns so many random bytes."""

_BASE62: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FAIR_BYTES: Final = 256 - 256 % len(_BASE62)
_DIGITS: Final = bytes(_BASE62[byte % len(_BASE62)] for byte in range(256))
_UNFAIR: Final = bytes(range(_FAIR_BYTES, 256))
"""What is drawn again: with these, some characters would come more often."""


def new_uuid(random: Random) -> str:
    """Return a random UUID (RFC 9562, version 4) as text."""
    return str(uuid.UUID(bytes=random(16), version=4))


def new_base62(random: Random, length: int) -> str:
    """Return `length` characters of 0-9A-Za-z, each equally likely: 5.95 bits a character."""
    characters = b""
    while len(characters) < length:
        characters += random(length).translate(_DIGITS, delete=_UNFAIR)
    return characters[:length].decode()


def hash_text(text: str, purpose: str) -> str:
    """Return a hash of `text` as 64 hex digits: a name for something whose text must not be kept.

    BLAKE2b (RFC 7693), 32 bytes. It hides only what cannot be guessed, as tokens and accessors.

    Args:
        text: what is named.
        purpose: at most 16 characters of ASCII; different purposes give unrelated names.
    """
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=32, person=purpose.encode()).hexdigest()


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """Return the HMAC (RFC 2104) of a message with SHA-256."""
    return hmac.digest(key, message, "sha256")


def equal(one: bytes, other: bytes) -> bool:
    """Compare in a time that depends on the lengths alone."""
    return hmac.compare_digest(one, other)


PASSWORD_BYTES_MAX: Final = 72
"""What bcrypt looks at; a longer password is refused instead of being cut."""
PASSWORD_COST: Final = 10
"""2**10 rounds: about 50 ms, as in Vault. Only ever run in a thread."""


def hash_password(password: str) -> str:
    """Return the bcrypt hash of a password (Provos and Mazieres, 1999) with a salt of its own. Slow on purpose."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(PASSWORD_COST)).decode()


def password_fits(password: str, hashed: str) -> bool:
    """Whether a password is the one that was hashed. Slow on purpose."""
    encoded = password.encode()
    return len(encoded) <= PASSWORD_BYTES_MAX and bcrypt.checkpw(encoded, hashed.encode())


def is_password_hash(text: str) -> bool:
    """Whether a text is a bcrypt hash that `password_fits` can use."""
    try:
        bcrypt.checkpw(b"", text.encode())
    except ValueError:
        return False
    return True
