"""Checking a snapshot file without a server: everything that can be known of it without the keys of its vault.

That is its form byte for byte, all sums, and that its records are complete and in order. By whose keys it was sealed only the
vault can tell, which looks when it restores.
"""

from pathlib import Path

from msgspec import Struct

from conclave.storage.archive import verify_file
from conclave.storage.errors import StorageError


class DamagedSnapshot(Exception):
    """A file is no snapshot, or not one that any vault would take; its text says what is wrong."""


class Verified(Struct, frozen=True):
    """What a sound snapshot holds.

    Attributes:
        index, term: of the last log entry in it.
        records: how many sealed records.
        state_bytes: what they take.
    """

    snapshot_id: str
    index: int
    term: int
    records: int
    state_bytes: int


def verify_snapshot(file: Path) -> Verified:
    """Read a snapshot to its end and check all of it, in constant memory.

    Raises:
        DamagedSnapshot: it is none, or it was changed.
        OSError: it cannot be read.
    """
    with file.open("rb") as source:
        try:
            meta, manifest = verify_file(source)
        except StorageError as error:
            raise DamagedSnapshot(str(error)) from error
    return Verified(meta.snapshot_id, meta.index, meta.term, manifest.count, meta.size)
