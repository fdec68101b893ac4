"""Opening LMDB, once for the whole room.

An `Environment` is one folder with LMDB's two files. Rules it enforces:

* Folders are 0700 and files 0600, whatever the umask.
* One owner: a second opening of the folder, also by another process, raises `InUse` (a lock on the folder itself, so no
  file stays behind).
* Every write transaction is synced. A failure that leaves the disk's content unknown fences the environment: no later
  write is tried, because a sync that is repeated after a failure may report success for pages that were dropped
  (PostgreSQL's fsync finding, 2018). Running out of room is not such a failure: LMDB writes every page of a
  transaction anew and its meta page last, so the transaction simply did not happen.
* The map is reserved, not grown: a terabyte of address space costs nothing, while growing a map needs a moment without
  any reader, and a snapshot's reader may live for minutes (docs/adr/0003-storage-layout.md).

It does not know what the tables hold.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import lmdb

from conclave.storage.errors import Corrupt, Fenced, Full, InUse, StorageError

MAP_BYTES: int = 1 << 40
"""Address space reserved for one environment; also the most it can hold."""
MAP_BYTES_MIN: int = 1 << 28
"""Where a machine with less address space (a small ulimit -v) gets no further halving."""
SHORT_WRITE_BYTES_MAX: int = 1 << 20
"""A disk with less room than this may have been full a moment ago."""
READERS_MAX: int = 126
"""Read transactions at once: the loop's, the storage thread's and one for each snapshot being sent."""

LMDB_FILE: Final = "data.mdb"
"""What LMDB calls its file in a folder."""

Table: TypeAlias = "lmdb._Database"  # noqa: SLF001  (the only name py-lmdb has for it)
Transaction: TypeAlias = "lmdb.Transaction[bytes]"


class Environment:
    """One LMDB environment: a folder, its tables, its single writer."""

    def __init__(self, folder: Path, tables: Sequence[str], *, map_bytes: int = MAP_BYTES) -> None:
        """Open `folder`, creating it and its tables where they are missing.

        Args:
            folder: created with mode 0700; its parent must exist.
            tables: names of the tables, opened for the life of the environment.
            map_bytes: address space to reserve; less is taken where the machine refuses so much.

        Raises:
            InUse: the folder is open already.
            Corrupt: the files are no LMDB environment.
            Full: the disk has no room for an empty environment.
            Fenced: the disk does not take what is in memory of it.
        """
        self.folder = folder
        self._fenced = ""
        make_private_folder(folder)
        self._lock = lock_folder(folder)
        try:
            with self._translated():
                self._env = _open(folder, len(tables), map_bytes)
                self._env.reader_check()
                self._env.sync(True)  # what is read may be in memory only: its writer may have ended before its sync
            for file in folder.iterdir():
                file.chmod(0o600)
            with self._translated():
                self._tables = {name: self._env.open_db(name.encode()) for name in tables}
        except BaseException:
            os.close(self._lock)
            raise

    def table(self, name: str) -> Table:
        """Return a table that was named at opening."""
        return self._tables[name]

    @contextlib.contextmanager
    def write(self) -> Iterator[Transaction]:
        """Open the one write transaction; commit and sync it at the end, or abort it if the block raises.

        Raises:
            Full: no room; nothing was written.
            Fenced: this or an earlier transaction failed; the disk's content is unknown.
        """
        if self._fenced:
            raise Fenced(self._fenced)
        with self._translated(fence=True):
            transaction = self._env.begin(write=True)
            try:
                yield transaction
                self._commit(transaction)
            except BaseException:
                transaction.abort()
                raise

    def read(self) -> Transaction:
        """Open a read transaction: one moment's state for as long as it lives. The caller ends it."""
        with self._translated():
            return self._env.begin()

    def meaning(self, error: lmdb.Error) -> StorageError:
        """Return what an error of a read says about the files, to be raised in its place."""
        return _translate(error, self.folder)

    @property
    def is_fenced(self) -> bool:
        """Whether a write has failed in a way that forbids another."""
        return bool(self._fenced)

    def close(self) -> None:
        """Close the environment; no transaction may be open."""
        self._env.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _commit(self, transaction: Transaction) -> None:
        """Commit and sync; the one place where the disk is waited for, so that tests can make it fail."""
        transaction.commit()

    @contextlib.contextmanager
    def _translated(self, *, fence: bool = False) -> Iterator[None]:
        """Turn LMDB's errors into ours; with `fence`, one that leaves the disk unknown fences the environment."""
        try:
            yield
        except lmdb.Error as error:
            translated = _translate(error, self.folder)
            if fence and isinstance(translated, Fenced):
                self._fenced = str(translated)
            raise translated from error


def make_private_folder(folder: Path) -> None:
    """Create `folder` if it is missing, and make it 0700 whatever the umask."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    folder.chmod(0o700)


def sync_folder(folder: Path) -> None:
    """Make renames and new files in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock_folder(folder: Path) -> int:
    """Return a descriptor that owns `folder` for as long as it is open.

    Raises:
        InUse: somebody owns it already.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise InUse(f"{folder.name}: another process has this folder open") from error
    return descriptor


def _open(folder: Path, table_count: int, map_bytes: int) -> lmdb.Environment:
    used = folder / LMDB_FILE
    size = max(map_bytes, 2 * used.stat().st_size if used.exists() else 0)
    while True:
        try:
            # readahead reads what lies beside a random key; metasync and sync stay on: every commit is durable.
            return lmdb.open(
                str(folder), map_size=size, max_dbs=table_count, mode=0o600, max_readers=READERS_MAX, readahead=False
            )
        except lmdb.MemoryError:
            if size // 2 < MAP_BYTES_MIN:
                raise
            size //= 2


def _translate(error: lmdb.Error, folder: Path) -> StorageError:
    """Say what an LMDB error means for the caller."""
    where = folder.name
    if isinstance(error, lmdb.MapFullError):
        return Full(f"{where}: the map is full; it grows when the node is started again")
    if (
        isinstance(error, lmdb.DiskError)
        or _errno(error) in {errno.ENOSPC, errno.EDQUOT}
        or _was_cut_short(error, folder)
    ):
        return Full(f"{where}: no space left on the device")
    if isinstance(error, (lmdb.CorruptedError, lmdb.InvalidError, lmdb.PageNotFoundError, lmdb.VersionMismatchError)):
        return Corrupt(f"{where}: {error}")
    return Fenced(f"{where}: {error}")


def _was_cut_short(error: lmdb.Error, folder: Path) -> bool:
    """Tell whether a write had room for a part of it only, which LMDB calls an input/output error.

    A failed sync of a full disk looks alike, and does as little harm: what it was about will be written anew.
    """
    if _errno(error) != errno.EIO:
        return False
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize < SHORT_WRITE_BYTES_MAX


def _errno(error: lmdb.Error) -> int:
    return getattr(error, "code", 0)
