"""What the log does with files: a narrow port, so that a test can put a disk behind it that loses, tears and refuses.

`SystemFiles` are those of the operating system, one call each. All raise `OSError` as `os` does. Whoever opens a file by
its name sees what was written last, durable or not; what is durable is for `sync`, `sync_data` and `sync_folder` to say.
"""

import os
from pathlib import Path
from typing import Final, Protocol

from conclave.storage.environment import lock_folder, make_private_folder, sync_folder

_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC


class Files(Protocol):
    """Files in one folder."""

    def own(self, folder: Path) -> int:
        """Make a folder, for this user alone, if it is missing; return a descriptor that owns it until it is closed.

        Raises:
            InUse: somebody owns it already.
        """

    def names(self, folder: Path) -> list[str]:
        """Return the names of all files in a folder, ascending."""

    def read(self, path: Path) -> bytes:
        """Return the whole content of a file."""

    def create(self, path: Path) -> int:
        """Return a descriptor of an empty file for this user alone, whatever was there."""

    def open(self, path: Path, *, writable: bool = False) -> int:
        """Return a descriptor of a file that is there."""

    def pread(self, file: int, length: int, offset: int) -> bytes:
        """Return what stands at `offset`; less than `length` at the end of the file."""

    def pwrite(self, file: int, content: bytes, offset: int) -> int:
        """Write at `offset`; return how many bytes of `content` were taken, at least one."""

    def sync(self, file: int) -> None:
        """Make a file durable."""

    def sync_data(self, file: int) -> None:
        """Make what a file holds durable."""

    def rename(self, path: Path, target: Path) -> None:
        """Give a file another name in its folder."""

    def unlink(self, path: Path) -> None:
        """Remove a file, if it is there."""

    def sync_folder(self, folder: Path) -> None:
        """Make the names in a folder durable."""

    def close(self, file: int) -> None:
        """Close a descriptor."""


class SystemFiles:
    """`Files` of the operating system."""

    def own(self, folder: Path) -> int:
        """See `Files`."""
        make_private_folder(folder)
        return lock_folder(folder)

    def names(self, folder: Path) -> list[str]:
        """See `Files`."""
        return sorted(path.name for path in folder.iterdir())

    def read(self, path: Path) -> bytes:
        """See `Files`."""
        return path.read_bytes()

    def create(self, path: Path) -> int:
        """See `Files`."""
        file = os.open(path, _CREATE, 0o600)
        try:
            os.fchmod(file, 0o600)
        except OSError:
            os.close(file)
            raise
        return file

    def open(self, path: Path, *, writable: bool = False) -> int:
        """See `Files`."""
        return os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)

    def pread(self, file: int, length: int, offset: int) -> bytes:
        """See `Files`."""
        return os.pread(file, length, offset)

    def pwrite(self, file: int, content: bytes, offset: int) -> int:
        """See `Files`."""
        return os.pwrite(file, content, offset)

    def sync(self, file: int) -> None:
        """See `Files`."""
        os.fsync(file)

    def sync_data(self, file: int) -> None:
        """See `Files`."""
        os.fdatasync(file)

    def rename(self, path: Path, target: Path) -> None:
        """See `Files`."""
        path.rename(target)

    def unlink(self, path: Path) -> None:
        """See `Files`."""
        path.unlink(missing_ok=True)

    def sync_folder(self, folder: Path) -> None:
        """See `Files`."""
        sync_folder(folder)

    def close(self, file: int) -> None:
        """See `Files`."""
        os.close(file)
