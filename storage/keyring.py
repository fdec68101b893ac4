"""The keys of the barrier: one data key for each key term, and the name key; wrapped by the root key.

Three layers, as in Vault: Shamir shares restore the unseal key, which unwraps the root key, which unwraps the keyring,
whose newest term seals records. Rotation adds a term and keeps the old ones, so nothing has to be sealed again. The name
key never rotates: it decides where every record lies.

A keyring is a value; who holds the newest one and stores it is `core`'s business. Nothing here shows a key in its repr.
"""

import os
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from conclave.storage.errors import Corrupt, Misfit, WrongKey

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
VERSION: Final = 1
WRAP_VERSION: Final = 1
WRAP_OVERHEAD_BYTES: Final = 1 + NONCE_BYTES + 16
"""How much longer a wrapped key is: version, nonce and tag."""
KEYRING_PURPOSE: Final = b"conclave keyring under root key"


class DataKey(msgspec.Struct, frozen=True, array_like=True):
    """One key term's key.

    Attributes:
        key: 32 bytes, AES-256.
        install_time_ns: when it was made, nanoseconds since 1970.
    """

    key: bytes
    install_time_ns: int

    def __repr__(self) -> str:
        return f"DataKey(install_time_ns={self.install_time_ns})"


class Keyring(msgspec.Struct, frozen=True, array_like=True):
    """All keys of the barrier.

    Attributes:
        active: the key term that seals new records; the highest of `terms`.
        terms: key terms (1 to 2**32 - 1) and their keys.
        name_key: 32 bytes; hashes names.
    """

    active: int
    terms: dict[int, DataKey]
    name_key: bytes

    def __repr__(self) -> str:
        return f"Keyring(active={self.active})"

    @staticmethod
    def generate(now_ns: int) -> "Keyring":
        """Return a new keyring with one random key."""
        return Keyring(1, {1: DataKey(os.urandom(KEY_BYTES), now_ns)}, os.urandom(KEY_BYTES))

    def rotate(self, now_ns: int) -> "Keyring":
        """Return this keyring with one more random key, which is then the active one."""
        active = self.active + 1
        return Keyring(active, {**self.terms, active: DataKey(os.urandom(KEY_BYTES), now_ns)}, self.name_key)

    def encode(self) -> bytes:
        """Return a version byte and a msgpack array. In clear: to be wrapped at once."""
        in_order = msgspec.structs.replace(self, terms=dict(sorted(self.terms.items())))
        return bytes([VERSION]) + msgspec.msgpack.encode(in_order)

    @staticmethod
    def decode(encoded: bytes) -> "Keyring":
        """Return the keyring that `encode` wrote.

        Raises:
            Corrupt: the bytes are no keyring of a version this program knows.
        """
        if encoded[:1] != bytes([VERSION]):
            raise Misfit(f"a keyring of version {encoded[:1].hex() or 'none'} is not known; a newer version wrote it")
        try:
            keyring = msgspec.msgpack.decode(memoryview(encoded)[1:], type=Keyring)
        except msgspec.DecodeError as error:
            raise Corrupt("the keyring does not decode") from error
        keys = [keyring.name_key, *(data_key.key for data_key in keyring.terms.values())]
        if keyring.active not in keyring.terms or any(len(key) != KEY_BYTES for key in keys):
            raise Corrupt("the keyring lacks its active key, or a key has a wrong length")
        return keyring


def wrap_keyring(root_key: bytes, keyring: Keyring) -> bytes:
    """Return the keyring sealed by the root key (32 bytes)."""
    return wrap(root_key, KEYRING_PURPOSE, keyring.encode())


def unwrap_keyring(root_key: bytes, wrapped: bytes) -> Keyring:
    """Return the keyring that `wrap_keyring` sealed.

    Raises:
        WrongKey: this root key does not open it.
        Corrupt: it opens, but holds no keyring this program knows.
    """
    return Keyring.decode(unwrap(root_key, KEYRING_PURPOSE, wrapped))


def wrap(key: bytes, purpose: bytes, plaintext: bytes) -> bytes:
    """Seal a key (or keyring) by another key, with AES-256-GCM.

    Args:
        key: 32 bytes.
        purpose: bound in as associated data: what is wrapped for one purpose does not open for another.
        plaintext: 0 to 1 MiB.

    Returns:
        version (1 byte) + nonce (12, random) + ciphertext + tag (16).
    """
    nonce = os.urandom(NONCE_BYTES)
    return bytes([WRAP_VERSION]) + nonce + AESGCM(key).encrypt(nonce, plaintext, purpose)


def unwrap(key: bytes, purpose: bytes, wrapped: bytes) -> bytes:
    """Return what `wrap` sealed.

    Raises:
        WrongKey: the key or the purpose is another, or the bytes were changed.
    """
    if len(key) != KEY_BYTES or wrapped[:1] != bytes([WRAP_VERSION]):
        raise WrongKey("the key has a wrong length, or what it should open has an unknown version")
    try:
        return AESGCM(key).decrypt(wrapped[1 : 1 + NONCE_BYTES], wrapped[1 + NONCE_BYTES :], purpose)
    except (InvalidTag, ValueError) as error:
        raise WrongKey("the key does not open what it should") from error
