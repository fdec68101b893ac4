"""What can go wrong in storage.

Faults of the world and of the disk are errors here; a caller's mistake is an assertion or a `ValueError`. No text of
these errors holds a key, a value or a name that is sealed.
"""

from typing import TypeGuard


class StorageError(Exception):
    """The base of everything this room raises on purpose."""


class Corrupt(StorageError):
    """Bytes on disk are not what was written: a checksum, a tag or a layout is wrong. Never repaired by cutting."""


class Misfit(Corrupt):
    """What is there is as it was written, but not what this program reads: of a newer version, say. Not the disk's fault."""


def is_damage(error: Exception) -> TypeGuard[Corrupt]:
    """Tell whether an error says that bytes on this node's disk are not what was written there."""
    return isinstance(error, Corrupt) and not isinstance(error, Misfit)


class Full(StorageError):
    """The disk or the map has no room; nothing of the transaction was written, and it may be tried again later."""


class Fenced(StorageError):
    """A write or sync has failed: what the disk holds is unknown, and nothing is written until a restart re-reads it."""


class InUse(StorageError):
    """Another process (or another object of this one) has the folder open."""


class Compacted(StorageError):
    """The entry asked for has been compacted away."""


class Unavailable(StorageError):
    """The entry asked for is not in the log yet."""


class TooLarge(StorageError):
    """A value, name or write set is over its bound; nothing was changed."""


class NotWritable(StorageError):
    """A read-only transaction was asked to change something."""


class WrongKey(StorageError):
    """A key does not open what it should: the wrong unseal key, or the wrong root key."""


class KeyExhausted(StorageError):
    """A key term has sealed as many records as it may; rotate the keyring first."""


class InvalidShares(StorageError):
    """A set of key shares cannot be combined; the text says why."""


class InvalidSealConfig(StorageError):
    """A seal configuration makes no sense; the text says why."""


class SnapshotMismatch(StorageError):
    """A chunk does not belong to the snapshot that is being installed; the installation starts again."""
