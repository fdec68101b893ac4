"""Collecting key shares, and the challenge by which a joining node proves that it holds the unseal key.

Pure decisions: what shares give, and what an answer is worth. Who stores, asks and signs is `vault.py`.

The join key is derived from the unseal key (HKDF, RFC 5869) and kept in the sealed state, so any leader can make a
challenge that only a holder of the unseal key can read. What it holds is a keyed hash of the node id and of the time's
slot: nothing is stored for a challenge, so asking for many costs the leader nothing. It is never sent back: it is the key
of a hash of all that the node asks for, so whoever overhears a proof can ask for nothing but the same once more.
"""

import base64
import binascii
import hmac
import uuid
from collections.abc import Callable
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Struct

from conclave.core.errors import InvalidRequest
from conclave.storage import shamir
from conclave.storage.errors import InvalidShares

SHARE_BYTES_MIN: Final = 16
CHALLENGE_SLOT_SECONDS: Final = 300
"""A proof is good in the slot of its challenge and in the next one: 5 to 10 minutes."""

_NONCE_BYTES: Final = 12


def parse_share(text: str) -> bytes:
    """Return the bytes of a share given in hex or in base64.

    Raises:
        InvalidRequest: it is neither, or too short.
    """
    try:
        share = binascii.unhexlify(text)
    except (binascii.Error, ValueError):
        try:
            share = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise InvalidRequest("'key' must be a valid hex or base64 string") from None
    if len(share) < SHARE_BYTES_MIN:
        raise InvalidRequest(f"invalid key: key is shorter than minimum {SHARE_BYTES_MIN} bytes")
    return share


def encode_share(share: bytes) -> str:
    """Return a share in base64."""
    return base64.b64encode(share).decode()


class Petition(Struct, frozen=True, array_like=True):
    """What a joining node asks for, besides its node id: what its proof is good for. The order of fields never changes."""

    cluster_address: str
    request_pem: bytes
    incarnation: bytes
    is_voter: bool


class Progress:
    """The shares given so far; the same share twice counts once."""

    def __init__(self) -> None:
        self.nonce = ""
        self._shares: list[bytes] = []

    @property
    def count(self) -> int:
        """How many different shares have been given."""
        return len(self._shares)

    def reset(self) -> None:
        """Forget all shares."""
        self.nonce = ""
        self._shares = []

    def add(self, share: bytes, *, threshold: int) -> bytes | None:
        """Take one share; return the unseal key when the threshold is met (and forget the shares), else None.

        Raises:
            InvalidRequest: these shares cannot belong together; all are forgotten.
        """
        if share in self._shares:
            return None
        if not self._shares:
            self.nonce = str(uuid.uuid4())
        self._shares.append(share)
        if len(self._shares) < threshold:
            return None
        shares = self._shares
        self.reset()
        if threshold == 1:
            return shares[0]
        try:
            return shamir.combine(shares)
        except InvalidShares as error:
            raise InvalidRequest(f"unable to retrieve stored keys: invalid key: {error}") from error


def join_key(unseal_key: bytes) -> bytes:
    """Return the 32-byte key under which challenges for joining nodes are sealed (HKDF-SHA256)."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=b"conclave join challenge v1").derive(unseal_key)


def expected_answer(key: bytes, node_id: str, slot: int) -> bytes:
    """Return what the challenge of a time slot holds for a node."""
    return hmac.digest(
        key, b"conclave join answer v1\0" + slot.to_bytes(8, "big", signed=True) + node_id.encode(), "sha256"
    )


def make_challenge(key: bytes, node_id: str, *, now_seconds: int, random: Callable[[int], bytes]) -> bytes:
    """Return a challenge that only a holder of the unseal key can open."""
    nonce = random(_NONCE_BYTES)
    answer = expected_answer(key, node_id, now_seconds // CHALLENGE_SLOT_SECONDS)
    return nonce + AESGCM(key).encrypt(nonce, answer, node_id.encode())


def open_challenge(key: bytes, node_id: str, challenge: bytes) -> bytes | None:
    """Return the answer to a challenge, or None if this is not the key of the cluster that made it."""
    try:
        return AESGCM(key).decrypt(challenge[:_NONCE_BYTES], challenge[_NONCE_BYTES:], node_id.encode())
    except (InvalidTag, ValueError):
        return None


def prove(answer: bytes, petition: Petition) -> bytes:
    """Return what proves that whoever asks for this has opened the challenge that held `answer`."""
    return hmac.digest(answer, b"conclave join proof v1\0" + msgspec.msgpack.encode(petition), "sha256")


def is_proof(key: bytes, node_id: str, proof: bytes, petition: Petition, *, now_seconds: int) -> bool:
    """Whether a proof shows possession of the unseal key, now or a slot ago, by whoever asks for exactly this."""
    slot = now_seconds // CHALLENGE_SLOT_SECONDS
    answers = (expected_answer(key, node_id, each) for each in (slot, slot - 1))
    return any(hmac.compare_digest(proof, prove(answer, petition)) for answer in answers)
