"""What an unsealed node holds in memory: the barrier, and the root key that opens newer keyrings."""

import hashlib
import logging
from typing import Final, Protocol

from conclave.storage.barrier import Barrier
from conclave.storage.errors import StorageError, WrongKey
from conclave.storage.keyring import unwrap_keyring
from conclave.storage.overlay import Overlay
from conclave.storage.seal import KEYRING_KEY

log = logging.getLogger(__name__)

_OUTCOME_PERSON: Final = b"conclave-outcome"


class HasOverlay(Protocol):
    """Whatever keeps the replicated state."""

    @property
    def overlay(self) -> Overlay:
        """Its memory."""


class Keys:
    """The keys of an unsealed vault.

    Args:
        root_key: 32 bytes; wraps the keyring.
        barrier: made of the keyring.
    """

    __slots__ = ("barrier", "root_key")

    def __init__(self, root_key: bytes, barrier: Barrier) -> None:
        self.root_key = root_key
        self.barrier = barrier

    def refresh(self, store: HasOverlay) -> bool:
        """Take over the keyring that the committed state holds now; False if this root key does not open it.

        Rotation reaches every unsealed node by the log and by nothing else: the record that a rotation writes is
        followed by this on each node, before anything sealed under the new key term can be applied.
        """
        wrapped = store.overlay.get(KEYRING_KEY, uncommitted=False)
        if wrapped is None:
            return False
        try:
            keyring = unwrap_keyring(self.root_key, wrapped)
        except WrongKey:
            log.warning("the keyring in the state is wrapped by another root key than this node's")
            return False
        except StorageError:
            log.exception("the keyring in the state does not open")
            return False
        if keyring.name_key != self.barrier.keyring.name_key:
            log.error("the keyring in the state belongs to another vault")
            return False
        if keyring.active != self.barrier.keyring.active:
            log.info("keyring rotated", extra={"key_term": keyring.active})
        self.barrier.replace_keyring(keyring)
        return True

    def seal_outcome(self, request_id: bytes, outcome: bytes) -> bytes:
        """Encrypt the outcome of a forwarded request for the log."""
        return self.barrier.seal_record(_outcome_location(request_id), outcome)

    def open_outcome(self, request_id: bytes, sealed: bytes) -> bytes | None:
        """Decrypt an outcome from the log; None if it does not open (a key term this node has not seen)."""
        try:
            return self.barrier.open_record(_outcome_location(request_id), sealed)
        except StorageError:
            log.exception("a recorded outcome does not open")
            return None


def _outcome_location(request_id: bytes) -> bytes:
    return hashlib.blake2b(request_id, digest_size=32, person=_OUTCOME_PERSON).digest()
