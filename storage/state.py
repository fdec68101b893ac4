"""What has been applied, on disk: sealed records by storage key, and how far the log is in them.

Rules it enforces:

* The applied index, its term, the time and the membership are written in the transaction that writes the data they
  belong to; so a crash leaves the state at exactly one place in the log.
* `get` and `keys` see what the last `refresh` saw. A flush runs in a thread; its effect is seen from the next `refresh`
  on, so the event loop never reads a state that is ahead of the overlay's layers.
* The applied index never goes back.
* There are two tables of records, and `Applied` says which of them is live. The other one is empty but for a restored
  state that is being staged there; the flush that makes it the live one also empties the table that was.

It opens nothing: values are sealed, and their authentication tags are what finds damage in them. The few records that
can be read before unsealing are as opaque to it as all others.

Layout (docs/storage.md): tables `data` and `staged`: storage key -> value; table `meta`: `applied` -> CRC-32C (4) +
`Applied` as a msgpack array.
"""

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import lmdb
import msgspec
from msgspec import structs

from conclave.storage.checksums import checksum
from conclave.storage.environment import MAP_BYTES, Environment, Table, Transaction, sync_folder
from conclave.storage.errors import Corrupt, Misfit, StorageError

FORMAT_VERSION: Final = 1
TABLES: Final = ("data", "staged", "meta")
DATA_TABLES: Final = ("data", "staged")
"""The two tables of records, by number: `int(applied.is_swapped)` is the live one's."""


class Applied(msgspec.Struct, frozen=True, array_like=True):
    """How far the log is in the state.

    Attributes:
        index: of the last entry applied; 0 in a new state.
        term: of that entry.
        time_ns: the newest write set's clock, nanoseconds since 1970.
        membership: the membership in force at `index`, in the cluster's own encoding; empty before the first.
        version: of the state's format.
        is_swapped: whether the second table is the live one.
        staging_since: the index of the entry that began to stage a state beside the live one; 0: none is staged.
        staged_count: how many records have been staged.
    """

    index: int = 0
    term: int = 0
    time_ns: int = 0
    membership: bytes = b""
    version: int = FORMAT_VERSION
    is_swapped: bool = False
    staging_since: int = 0
    staged_count: int = 0

    def alone(self) -> "Applied":
        """Return the record of the live state by itself, in the first table, as a snapshot carries it."""
        return structs.replace(self, is_swapped=False, staging_since=0, staged_count=0)


class Staging(msgspec.Struct, frozen=True):
    """What a flush changes beside the live table; roles are those of the applied record that it writes.

    Attributes:
        puts: records to stage.
        clears_live: the live table is emptied before anything is put there.
        clears_staged: likewise the other.
    """

    puts: Mapping[bytes, bytes | None]
    clears_live: bool
    clears_staged: bool


class StateReader(Protocol):
    """One consistent read of a whole state, while writes go on. May move between threads, used by one at a time."""

    @property
    def applied(self) -> Applied:
        """How far the log is in what is read; `alone`."""

    @property
    def is_staging(self) -> bool:
        """Whether a state was being staged beside what is read, which is no part of it."""

    @property
    def count(self) -> int:
        """How many records there are."""

    def pairs(self, after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Iterate over the records behind the key `after`, in order of their keys."""

    def close(self) -> None:
        """End the read."""


class StateInstaller(Protocol):
    """Takes a snapshot's records until they can replace a state; see `snapshots.Installation`."""

    def progress(self) -> bytes | None:
        """Return what the last `put` kept about the progress; None if nothing has been kept."""

    def start(self, progress: bytes) -> None:
        """Begin with nothing but this progress."""

    def put(self, pairs: list[tuple[bytes, bytes]], progress: bytes) -> None:
        """Add records, and keep the progress, in one durable step."""

    def complete(self, applied: Applied, progress: bytes) -> None:
        """Mark the records as a whole state, durably."""

    def close(self) -> None:
        """Stop; what was put stays for the next time, as far as it is durable."""


class StateStore(Protocol):
    """Applied data. `LmdbState` keeps it on disk, `memory.MemoryState` in memory; one test suite holds both to this."""

    @property
    def applied(self) -> tuple[int, int]:
        """Index and term of the last entry whose effects are durable here, as of the last refresh."""

    @property
    def applied_record(self) -> Applied:
        """The same with time and membership."""

    @property
    def membership(self) -> bytes:
        """The membership record stored with the applied index."""

    def get(self, key: bytes, table: int | None = None) -> bytes | None:
        """Return a value, as of the last refresh.

        Args:
            key: the storage key.
            table: 0 or 1; None: the one that was live then.
        """

    def keys(self, prefix: bytes, start: bytes = b"", table: int | None = None) -> Iterator[bytes]:
        """Iterate over the keys under `prefix` in order, as of the last refresh; no value is read for it.

        Args:
            prefix: what the keys begin with.
            start: the first key that may come, itself included; empty: from the beginning.
            table: as for `get`.

        The iterator must not be used after the next `refresh`.
        """

    def flush(self, puts: Mapping[bytes, bytes | None], applied: Applied, staging: Staging | None = None) -> None:
        """Write changes (None deletes) and the applied record in one synced transaction. May run in a thread.

        Args:
            puts: changes of the table that `applied` says is the live one.
            applied: the new record.
            staging: what else changes, if anything.

        Raises:
            Corrupt: more or fewer records are staged than the log says; nothing was written.
            Full: nothing was written; may be tried again.
            Fenced: the disk's content is unknown; never tried again.
        """

    def refresh(self) -> None:
        """Let `get`, `keys` and `applied` see what has been flushed. On the reading thread."""

    def open_reader(self) -> StateReader:
        """Begin one consistent read of everything that has been flushed."""

    @property
    def has_readers(self) -> bool:
        """Whether a reader is open; until it is closed the state cannot be replaced."""

    def open_installer(self) -> StateInstaller:
        """Begin, or go on, to take a snapshot that will replace this state. One at a time."""

    def install(self) -> None:
        """Replace this state by the completed and closed installation; readers must have been closed.

        Raises:
            Corrupt: there is no completed installation.
        """

    def close(self) -> None:
        """Close the store; no other call may follow."""


class LmdbState:
    """A `StateStore` in one LMDB environment."""

    def __init__(self, folder: Path, *, map_bytes: int = MAP_BYTES) -> None:
        """Open the state in `folder`, creating it if it is missing and finishing a replacement that a crash cut off.

        Raises:
            Corrupt: the applied record is damaged, or the folder has another format.
            InUse: the folder is open already.
        """
        self._folder = folder
        self._map_bytes = map_bytes
        self._guard = threading.Lock()  # readers are opened and counted by any thread
        self._reader_count = 0
        recover(folder)
        self._open()

    def _open(self) -> None:
        self._env = Environment(self._folder, TABLES, map_bytes=self._map_bytes)
        try:
            self._tables = tuple(self._env.table(name) for name in DATA_TABLES)
            self._meta = self._env.table("meta")
            self._view = self._env.read()
            self._applied = load_applied(self._view, self._meta)
        except BaseException:
            self._env.close()
            raise

    @property
    def applied(self) -> tuple[int, int]:
        """See `StateStore`."""
        return self._applied.index, self._applied.term

    @property
    def applied_record(self) -> Applied:
        """See `StateStore`."""
        return self._applied

    @property
    def membership(self) -> bytes:
        """See `StateStore`."""
        return self._applied.membership

    def get(self, key: bytes, table: int | None = None) -> bytes | None:
        """See `StateStore`."""
        try:
            return self._view.get(key, db=self._tables[self._applied.is_swapped if table is None else table])
        except lmdb.Error as error:
            raise self._failed(error) from error

    def keys(self, prefix: bytes, start: bytes = b"", table: int | None = None) -> Iterator[bytes]:
        """See `StateStore`."""
        try:
            with self._view.cursor(self._tables[self._applied.is_swapped if table is None else table]) as cursor:
                if cursor.set_range(max(prefix, start)):
                    for key in cursor.iternext(keys=True, values=False):
                        if not key.startswith(prefix):
                            return
                        yield key
        except lmdb.Error as error:
            raise self._failed(error) from error

    def _failed(self, error: lmdb.Error) -> StorageError:
        """Return what an error of a read means; LMDB answers nothing more in a transaction that had one, so begin another.

        It may show what is being flushed at this moment, which those who read have in memory all the same.
        """
        self._view.abort()
        self._view = self._env.read()
        return self._env.meaning(error)

    def flush(self, puts: Mapping[bytes, bytes | None], applied: Applied, staging: Staging | None = None) -> None:
        """See `StateStore`."""
        live, other = self._tables[applied.is_swapped], self._tables[not applied.is_swapped]
        with self._env.write() as transaction:
            stored = load_applied(transaction, self._meta)
            assert applied.index >= stored.index, "the applied index never goes back"
            if staging is not None:
                _stage(transaction, live, other, staging)
                check_staged(applied, transaction.stat(other)["entries"])
            _write(transaction, live, puts)
            transaction.put(b"applied", encode_applied(applied), db=self._meta)

    def refresh(self) -> None:
        """See `StateStore`."""
        self._view.abort()
        self._view = self._env.read()
        self._applied = load_applied(self._view, self._meta)

    def open_reader(self) -> StateReader:
        """See `StateStore`."""
        with self._guard:
            self._reader_count += 1
        try:
            return _LmdbReader(self, self._env.read(), self._tables, self._meta)
        except BaseException:
            self._reader_closed()
            raise

    @property
    def has_readers(self) -> bool:
        """See `StateStore`."""
        return self._reader_count > 0

    def open_installer(self) -> StateInstaller:
        """See `StateStore`."""
        return _LmdbInstaller(_new(self._folder), self._map_bytes)

    def install(self) -> None:
        """See `StateStore`."""
        assert self._reader_count == 0, "a reader of the old state is still open"
        if not _is_complete(_new(self._folder), self._map_bytes):
            raise Corrupt("state: there is no completed snapshot to install")
        self._view.abort()
        self._env.close()
        try:
            replace_folder(self._folder)
        finally:
            self._open()

    def close(self) -> None:
        """See `StateStore`."""
        self._view.abort()
        self._env.close()

    def _reader_closed(self) -> None:
        with self._guard:
            self._reader_count -= 1


class _LmdbReader:
    """One read transaction over a whole state."""

    def __init__(self, owner: LmdbState, transaction: Transaction, tables: Sequence[Table], meta: Table) -> None:
        self._owner = owner
        self._transaction = transaction
        self._is_open = True
        applied = load_applied(transaction, meta)
        self._data = tables[applied.is_swapped]
        self.applied = applied.alone()
        self.is_staging = applied.staging_since > 0
        self.count = transaction.stat(self._data)["entries"]

    def pairs(self, after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        try:
            with self._transaction.cursor(self._data) as cursor:
                found = cursor.set_range(after) if after else cursor.first()
                if found and cursor.key() == after:
                    found = cursor.next()
                while found:
                    yield cursor.item()
                    found = cursor.next()
        except lmdb.Error as error:
            raise self._owner._env.meaning(error) from error  # noqa: SLF001  # as in close()

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._transaction.abort()
            self._owner._reader_closed()  # noqa: SLF001  # the reader is a part of its owner


class _LmdbInstaller:
    """A second environment beside the state. It has no `applied` record until it is complete."""

    def __init__(self, folder: Path, map_bytes: int) -> None:
        self._env = Environment(folder, TABLES, map_bytes=map_bytes)
        self._data, self._meta = self._env.table("data"), self._env.table("meta")

    def progress(self) -> bytes | None:
        with self._env.read() as transaction:
            return transaction.get(b"progress", db=self._meta)

    def start(self, progress: bytes) -> None:
        with self._env.write() as transaction:
            transaction.drop(self._data, delete=False)
            transaction.drop(self._meta, delete=False)
            transaction.put(b"progress", progress, db=self._meta)

    def put(self, pairs: list[tuple[bytes, bytes]], progress: bytes) -> None:
        with self._env.write() as transaction:
            for key, value in pairs:
                transaction.put(key, value, db=self._data, append=True)
            transaction.put(b"progress", progress, db=self._meta)

    def complete(self, applied: Applied, progress: bytes) -> None:
        with self._env.write() as transaction:
            transaction.put(b"applied", encode_applied(applied.alone()), db=self._meta)
            transaction.put(b"progress", progress, db=self._meta)

    def close(self) -> None:
        self._env.close()


def check_staged(applied: Applied, staged_count: int) -> None:
    """See that the staged table holds what the log says.

    Raises:
        Corrupt: it does not.
    """
    if applied.staged_count != staged_count:
        raise Corrupt(f"state: {staged_count} records are staged where the log says {applied.staged_count}")


def _stage(transaction: Transaction, live: Table, other: Table, staging: Staging) -> None:
    if staging.clears_live:
        transaction.drop(live, delete=False)
    if staging.clears_staged:
        transaction.drop(other, delete=False)
    _write(transaction, other, staging.puts)


def _write(transaction: Transaction, table: Table, puts: Mapping[bytes, bytes | None]) -> None:
    for key in sorted(puts):  # in order: neighbours share a page, which is then copied once
        value = puts[key]
        if value is None:
            transaction.delete(key, db=table)
        else:
            transaction.put(key, value, db=table)


def encode_applied(applied: Applied) -> bytes:
    """Return the stored form of an applied record."""
    record = msgspec.msgpack.encode(applied)
    return checksum(record).to_bytes(4, "big") + record


def decode_applied(stored: bytes) -> Applied:
    """Return the applied record that `encode_applied` wrote.

    Raises:
        Corrupt: a wrong checksum, or a format that a newer version wrote.
    """
    if len(stored) < 4 or int.from_bytes(stored[:4], "big") != checksum(stored[4:]):
        raise Corrupt("state: the applied record has a wrong checksum")
    applied = msgspec.msgpack.decode(stored[4:], type=Applied)
    if applied.version != FORMAT_VERSION:
        raise Misfit(f"state: format {applied.version} is not {FORMAT_VERSION}; a newer version wrote it")
    return applied


def load_applied(transaction: Transaction, meta: Table) -> Applied:
    """Return a state's applied record; that of an empty state if there is none."""
    stored = transaction.get(b"applied", db=meta)
    return Applied() if stored is None else decode_applied(stored)


# -- replacing a state by a snapshot: a crash between any two steps is finished or undone by `recover` --


def _new(folder: Path) -> Path:
    return folder.with_name(folder.name + ".new")


def _old(folder: Path) -> Path:
    return folder.with_name(folder.name + ".old")


def replace_folder(folder: Path) -> None:
    """Put the completed `<folder>.new` in the place of `folder`; neither may be open.

    A folder cannot be replaced in one step, so the old one is set aside first. Each rename is durable before the next
    step, and what `recover` finds after a crash between two of them says which one it was.
    """
    remove_folder(_old(folder))
    folder.rename(_old(folder))
    sync_folder(folder.parent)
    _new(folder).rename(folder)
    sync_folder(folder.parent)
    remove_folder(_old(folder))


def recover(folder: Path) -> None:
    """Finish what `replace_folder` began before a crash; changes nothing where it had not begun."""
    if not folder.exists() and _old(folder).exists():
        # Only replace_folder sets the old state aside, and only for a completed new one.
        (_new(folder) if _new(folder).exists() else _old(folder)).rename(folder)
        sync_folder(folder.parent)
    if folder.exists():
        remove_folder(_old(folder))


def remove_folder(folder: Path) -> None:
    """Remove an environment's folder and its files, if it is there."""
    if folder.exists():
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


def _is_complete(folder: Path, map_bytes: int) -> bool:
    if not folder.exists():
        return False
    env = Environment(folder, TABLES, map_bytes=map_bytes)
    with contextlib.closing(env), env.read() as transaction:
        return transaction.get(b"applied", db=env.table("meta")) is not None
