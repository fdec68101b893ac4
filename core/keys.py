"""What an unsealed node holds in memory: the barrier, and the root key that opens newer keyrings."""

import hashlib
import logging

from conclave.storage.barrier import Barrier
from conclave.storage.errors import StorageError

log = logging.getLogger(__name__)


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
    return hashlib.blake2b(request_id, digest_size=32, person=b"conclave-outcome").digest()
