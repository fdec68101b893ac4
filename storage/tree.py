"""The sealed tree: directories of records whose names and values nobody can read without the keyring.

A directory is a 16-byte id. A child's storage key is that id and a keyed hash of the child's name, so that a lookup is
one get whatever the depth; the name itself stands in front of the value inside the sealed record, so that a listing can
read it. A sub-directory's id is derived from its parent's id and its name; "a" (a record) and "a/" (a directory) are
different names.

The invariant: a directory that has children has a marker record under its own name ("a/", empty value) in its parent,
and so up to the root; a directory without children has none. `put` and `delete` keep it.

A name is read from its record once; from then on a listing tells it by the storage key, which is its hash, without opening
the record: whether that is sound shows when it is read.

It works on a `View` (a transaction, or a dictionary in tests) and decides nothing about when that is committed.
Layout: docs/storage.md; why: docs/adr/0005-sealed-tree.md.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Protocol, TypeAlias, TypeVar

from conclave.storage.barrier import Barrier
from conclave.storage.errors import Corrupt, TooLarge

NAME_BYTES_MAX: Final = 4096
"""The longest name of one record or directory."""
DEPTH_MAX: Final = 128
"""How many directories a record may lie in: a first record marks all of them, one step must not take for ever, and no
real path comes near."""
PIECE_RECORDS: Final = 512
"""Records looked at in one step of what goes on in further ones."""
_LENGTH_BYTES: Final = 2

_Names: TypeAlias = list[str]
T = TypeVar("T")


class View(Protocol):
    """Sealed records by storage key, as one operation sees them."""

    def get(self, key: bytes) -> bytes | None:
        """Return a sealed record."""

    def keys(self, prefix: bytes, start: bytes = b"", limit: int | None = None) -> Sequence[bytes]:
        """Return the keys of records under a 16-byte prefix in order, from `start` on."""

    def has_records(self, prefix: bytes) -> bool:
        """Whether there is any record under a 16-byte prefix."""

    def put(self, key: bytes, value: bytes) -> None:
        """Set a sealed record."""

    def delete(self, key: bytes) -> None:
        """Remove a record, if it is there."""


class Directory:
    """One directory and all below it. Paths are relative to it, without a leading slash."""

    __slots__ = ("_barrier", "_read_location", "_read_path", "_view", "id")

    def __init__(self, view: View, barrier: Barrier, directory_id: bytes) -> None:
        """Look at the directory with this id (16 bytes), whether it has children or not."""
        assert len(directory_id) == 16, "a directory's id has 16 bytes"
        self._view = view
        self._barrier = barrier
        self._read_path: str | None = None  # the last record looked for: what is read is often written next
        self._read_location = (b"", b"")
        self.id = directory_id

    def directory(self, path: str) -> "Directory":
        """Return the directory at `path` ("a/b/") below this one."""
        return Directory(self._view, self._barrier, self._barrier.descend(self.id, _as_directory(path)))

    def get(self, path: str) -> bytes | None:
        """Return the value of the record at `path`, or None.

        Raises:
            Corrupt: the record does not open.
            ValueError: the path is empty or ends in a slash.
        """
        key, name = self._look_for(path)
        sealed = self._view.get(key)
        return None if sealed is None else self._open(key, sealed, name)

    def derived(self, path: str, derive: Callable[[bytes], T]) -> T | None:
        """Return what `derive` makes of the record at `path`, or None; made once for as long as the record is the same.

        Nothing has to be told of changes: what is remembered counts for the very bytes that the view shows.

        Args:
            path: as for `get`.
            derive: a pure function, for one path always the same one; what it returns must never be changed.

        Raises:
            Corrupt, ValueError: as `get`.
        """
        key = self._barrier.recalled_key(self.id, _checked(path))
        sealed = self._view.get(key)
        if sealed is None:
            return None
        known = self._barrier.derived_at(key, sealed)
        if known is None:
            known = derive(self._open(key, sealed, path[path.rfind("/") + 1 :].encode()))
            self._barrier.note_derived(key, sealed, known)
        return known  # type: ignore[return-value]  # what `derive` made

    def exists(self, path: str) -> bool:
        """Whether there is a record at `path`, or with a slash at its end, a directory that has children.

        Raises:
            ValueError: the path is empty.
        """
        key, _ = self._locate_any(path) if path.endswith("/") else self._look_for(path)
        return self._view.get(key) is not None

    def put(self, path: str, value: bytes) -> None:
        """Set the record at `path`, and mark the directories on the way that had no children.

        Raises:
            TooLarge: a name is over 4096 bytes, or the path leads too deep.
            ValueError: the path is empty or ends in a slash.
        """
        if path.count("/") > DEPTH_MAX:
            raise TooLarge(f"a path leads through {path.count('/')} directories; the most is {DEPTH_MAX}")
        key, name = self._locate(path)
        self._view.put(key, self._seal(key, name, value))
        for directory_path in _ancestors(path):
            if self._view.get(self._barrier.marker_key(self.id, directory_path)) is not None:
                break  # and so are all above it
            marker, name = self._locate_any(directory_path)
            self._view.put(marker, self._seal(marker, name, b""))

    def delete(self, path: str) -> bool:
        """Remove the record at `path`, and the markers of directories that are empty then; False if there was none.

        Raises:
            ValueError: the path is empty or ends in a slash.
        """
        key, _ = self._locate(path)
        if self._view.get(key) is None:
            return False
        self._view.delete(key)
        self._unmark_empty(path)
        return True

    def walk_delete(self, path: str = "", *, limit: int) -> bool:
        """Empty the directory at `path`, `limit` records at most; True once nothing is left.

        What is gone is the progress: call again, in later transactions, until it says True.
        """
        path = _as_directory(path)
        left = limit
        walk: list[tuple[bytes, bytes | None]] = [(self._barrier.descend(self.id, path), None)]
        while walk:
            directory_id, marker = walk[-1]
            keys = self._view.keys(directory_id, limit=min(max(left, 1), PIECE_RECORDS))
            if not keys:
                walk.pop()
                if marker is not None:
                    self._view.delete(marker)
                    left -= 1
            elif left <= 0:
                return False
            for key, name in zip(keys, self._names(keys), strict=True):
                if name.endswith("/"):
                    walk.append((self._barrier.directory_id(directory_id, name.encode()), key))
                else:
                    self._view.delete(key)
                    left -= 1
        if path:
            self._unmark_empty(path)
        return True

    def list_piece(self, path: str = "", cursor: bytes = b"", *, limit: int) -> tuple[_Names, bytes]:
        """Return some names of the directory at `path`, in no useful order, and where to go on.

        For directories that are too large to be listed in one step.

        Args:
            path: "" or a directory below this one.
            cursor: empty, or what the last call returned.
            limit: how many names at most; at least 1.

        Returns:
            names (sub-directories end in "/") and the next cursor, empty at the end.
        """
        directory_id = self._barrier.descend(self.id, _as_directory(path))
        keys = self._view.keys(directory_id, cursor, limit)
        return self._names(keys), keys[-1] + b"\0" if len(keys) == limit else b""

    def list(self, path: str = "", after: str = "", limit: int | None = None) -> _Names:
        """Return the names in the directory at `path`, sorted; sub-directories end in "/".

        Args:
            path: "" or a directory below this one, with or without a slash at its end.
            after: only names behind this one.
            limit: how many at most.
        """
        directory_id = self._barrier.descend(self.id, _as_directory(path))
        names = self._names(self._view.keys(directory_id))
        return sorted(names if not after else (name for name in names if name > after))[:limit]

    def _names(self, keys: Iterable[bytes]) -> _Names:
        name_at = self._barrier.name_at
        return [name_at(key) or self._read_name(key) for key in keys]

    def _unmark_empty(self, path: str) -> None:
        """Remove the markers of empty directories on the way to `path`, from the deepest up."""
        for directory_path in _ancestors(path):
            if self._view.has_records(self._barrier.descend(self.id, directory_path)):
                return
            self._view.delete(self._barrier.marker_key(self.id, directory_path))

    def _look_for(self, path: str) -> tuple[bytes, bytes]:
        self._read_location = self._locate(path)
        self._read_path = path
        return self._read_location

    def _locate(self, path: str) -> tuple[bytes, bytes]:
        return self._read_location if path == self._read_path else self._locate_any(_checked(path))

    def _locate_any(self, path: str) -> tuple[bytes, bytes]:
        """Return storage key and name of a record ("a/b") or of a directory's marker ("a/b/")."""
        cut = path.rfind("/", 0, len(path) - 1) + 1
        name = path[cut:].encode()
        return self._barrier.child_key(self._barrier.descend(self.id, path[:cut]), name), name

    def _seal(self, key: bytes, name: bytes, value: bytes) -> bytes:
        if len(name) > NAME_BYTES_MAX:
            raise TooLarge(f"a name has {len(name)} bytes; the most is {NAME_BYTES_MAX}")
        return self._barrier.seal_record(key, len(name).to_bytes(_LENGTH_BYTES, "big") + name + value)

    def _open(self, key: bytes, sealed: bytes, name: bytes) -> bytes:
        plaintext = self._barrier.open_record(key, sealed)
        end = _LENGTH_BYTES + len(name)
        if plaintext[:end] != len(name).to_bytes(_LENGTH_BYTES, "big") + name:
            raise Corrupt("a record holds another name than the one it lies under")
        return plaintext[end:]

    def _read_name(self, key: bytes) -> str:
        plaintext = self._barrier.open_record(key, sealed_at(self._view, key))
        end = _LENGTH_BYTES + int.from_bytes(plaintext[:_LENGTH_BYTES], "big")
        name = plaintext[_LENGTH_BYTES:end].decode()
        self._barrier.note_name(key, name)
        return name


def sealed_at(view: View, key: bytes) -> bytes:
    """Return the sealed record at a key that the view has just shown.

    Raises:
        Corrupt: it is not there.
    """
    sealed = view.get(key)
    if sealed is None:
        raise Corrupt("a key is there, but not its record")
    return sealed


def _checked(path: str) -> str:
    if not path or path.endswith("/"):
        raise ValueError("a record's path must not be empty nor end in a slash")
    return path


def _as_directory(path: str) -> str:
    return path if not path or path.endswith("/") else path + "/"


def _ancestors(path: str) -> Iterator[str]:
    """Yield the directories on the way to `path`, deepest first: "a/b/" and "a/" for "a/b/c" as for "a/b/"."""
    end = path.rfind("/")
    while end >= 0:
        yield path[: end + 1]
        end = path.rfind("/", 0, end)
