"""Rotating the keyring: a new key term for all that is sealed from now on.

The new keyring is an ordinary record, wrapped by the root key, in an ordinary entry; every node, the leader too, takes it
over when that entry is applied (`Keys.refresh`). So no node can miss it, and what is sealed under the new term always
comes behind the entry that brings it.

A key seals at most 2**32 records (NIST SP 800-38D, section 8.3). Long before, the active node rotates by itself: it
writes down from time to time how many it has sealed, and the margin covers what a crash loses of that count.

Source: Vault's pages "Key rotation" and "sys/rotate/config".
"""

from typing import Final

from msgspec import Struct

from conclave.core.durations import NANOSECONDS
from conclave.core.keys import Keys
from conclave.core.records import Records
from conclave.core.services import AREA_CLUSTER, Services
from conclave.storage.keyring import unwrap_keyring, wrap_keyring
from conclave.storage.seal import KEYRING_KEY

OPERATIONS_MAX: Final = 3_865_470_566
"""After how many records a key is replaced, as in Vault: 90 % of 2**32."""
OPERATIONS_MIN: Final = 1_000_000
INTERVAL_SECONDS_MIN: Final = 24 * 3600
"""The least that an operator can set."""
COUNT_STEP: Final = 1 << 20
"""How many records may be sealed before the count is written down again; a crash loses at most that many of it."""

_CONFIG: Final = "rotation"
_COUNT: Final = "encryptions"


class RotationConfig(Struct, array_like=True, frozen=True):
    """When the keyring is rotated by itself. New fields come last, with defaults."""

    enabled: bool = True
    interval_seconds: int = 0  # 0: not by time
    max_operations: int = OPERATIONS_MAX


class EncryptionCount(Struct, array_like=True, frozen=True):
    """How many records a key term has sealed, as far as it was written down."""

    key_term: int
    count: int


def read_config(services: Services) -> RotationConfig:
    """Return when the keyring is rotated by itself."""
    return _cluster(services).get(_CONFIG, RotationConfig) or RotationConfig()


def write_config(services: Services, config: RotationConfig) -> None:
    """Set when the keyring is rotated by itself."""
    _cluster(services).put(_CONFIG, config)


def rotate(services: Services, keys: Keys) -> int:
    """Put a keyring with one more key term in place, and return that term."""
    wrapped = services.transaction.get(KEYRING_KEY)
    assert wrapped is not None, "an unsealed vault has a keyring"
    keyring = unwrap_keyring(keys.root_key, wrapped).rotate(services.now_ns)
    services.transaction.put(KEYRING_KEY, wrap_keyring(keys.root_key, keyring))
    _cluster(services).put(_COUNT, EncryptionCount(keyring.active, 0))
    return keyring.active


def restore_count(services: Services, keys: Keys) -> None:
    """Let the barrier's count go on from what was written down; for a node that becomes active."""
    written = _cluster(services).get(_COUNT, EncryptionCount)
    barrier = keys.barrier
    if written is not None and written.key_term == barrier.keyring.active:
        barrier.encryption_count = max(barrier.encryption_count, written.count)


def rotation_step(services: Services, keys: Keys) -> int:
    """Do what is due: rotate, or write the count down; return whether anything was (0 or 1). A background step."""
    config = read_config(services)
    barrier = keys.barrier
    age_seconds = (services.now_ns - barrier.keyring.terms[barrier.keyring.active].install_time_ns) // NANOSECONDS
    is_old = 0 < config.interval_seconds <= age_seconds
    if config.enabled and (is_old or barrier.encryption_count >= config.max_operations):
        rotate(services, keys)
        return 1
    written = _cluster(services).get(_COUNT, EncryptionCount)
    known = written.count if written is not None and written.key_term == barrier.keyring.active else 0
    if barrier.encryption_count - known < COUNT_STEP:
        return 0
    _cluster(services).put(_COUNT, EncryptionCount(barrier.keyring.active, barrier.encryption_count))
    return 1


def _cluster(services: Services) -> Records:
    return services.area(AREA_CLUSTER)
