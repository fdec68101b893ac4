"""A simulated folder on a simulated disk, behind the port that the real log writes through.

What is written is seen at once, and is durable by the sector: after a sync, or by the kernel's own choice if the power
fails first. Each unsynced sector is then there or not, whatever became of its neighbours. Names are durable after a sync
of the folder; of the changes since then the first few survive, in their order, as in a journal. After a sync that failed
the kernel takes the sectors for written, whether the disk has them or not; a folder's sync does not fail, since a journal
that fails ends the whole file system. A file that grows may be refused, in part or altogether. Ending a process loses
nothing that was written.
"""

import errno
import os
from pathlib import Path
from random import Random

from conclave.storage.errors import InUse
from conclave.storage.log_batches import SECTOR_BYTES


class Died(BaseException):
    """The process ended in the middle of something."""


class _File:
    """One file.

    Attributes:
        memory: what is seen by whoever reads.
        durable: what the disk holds.
        dirty: the sectors that the next sync writes; others may differ all the same, once a sync has failed.
        is_rotten: whether a bit was flipped in it.
    """

    __slots__ = ("dirty", "durable", "is_rotten", "memory")

    def __init__(self) -> None:
        self.memory = bytearray()
        self.durable = bytearray()
        self.dirty: set[int] = set()
        self.is_rotten = False

    def keep(self, sector: int) -> None:
        """Write one sector to the disk."""
        start = sector * SECTOR_BYTES
        if start > len(self.durable):
            self.durable.extend(bytes(start - len(self.durable)))
        self.durable[start : start + SECTOR_BYTES] = self.memory[start : start + SECTOR_BYTES]


class SimulatedFiles:
    """`Files` in one folder, whatever it is called.

    Attributes:
        limit_bytes: how much room there is; None: more than enough.
        fails_sync: whether the next sync of a file fails.
        steps_left: how many more changes and syncs the process lives to see; None: all.
    """

    def __init__(self, random: Random) -> None:
        self.limit_bytes: int | None = None
        self.fails_sync = False
        self.steps_left: int | None = None
        self._random = random
        self._names: dict[str, _File] = {}
        self._durable_names: dict[str, _File] = {}
        self._renamings: list[tuple[str, str, _File]] = []  # from, to; either may be missing
        self._opened: dict[int, _File] = {}
        self._owner = 0
        self._next = 1

    # -- what befalls them --

    def end_process(self) -> None:
        """Close everything, as at the end of a process."""
        self._opened.clear()
        self._owner = 0
        self.steps_left = None
        self.fails_sync = False

    def lose_power(self) -> None:
        """Lose what is not durable, by chance; the process has ended."""
        random, share = self._random, self._random.random()
        for file in self._files():
            for sector in sorted(file.dirty):
                if random.random() < share:
                    file.keep(sector)
            file.dirty.clear()
            file.memory[:] = file.durable
        for renaming in self._renamings[: random.randrange(len(self._renamings) + 1)]:
            _rename(self._durable_names, *renaming)
        self._renamings.clear()
        self._names = dict(self._durable_names)

    def grow(self) -> None:
        """Have room for everything."""
        self.limit_bytes = None

    def flip_bit(self) -> bool:
        """Flip a bit of what is durable and used; return whether there was one to flip."""
        name = self._random.choice(sorted(self._names))
        file = self._names[name]
        used = len(file.durable.rstrip(b"\0"))
        position, bit = self._random.randrange(used) if used else 0, 1 << self._random.randrange(8)
        if not used or self._durable_names.get(name) is not file or position // SECTOR_BYTES in file.dirty:
            return False
        file.durable[position] ^= bit
        file.memory[position] = file.durable[position]
        file.is_rotten = True
        return True

    @property
    def are_rotten(self) -> bool:
        """Whether a bit was flipped in a file that is still there."""
        return any(file.is_rotten for file in self._names.values())

    @property
    def used_bytes(self) -> int:
        """How much room all files take."""
        return sum(len(file.memory) for file in self._names.values())

    # -- what the log does with them --

    def own(self, folder: Path) -> int:
        """See `Files`."""
        if self._owner:
            raise InUse(f"{folder.name}: another process has this folder open")
        self._owner = self._descriptor()
        return self._owner

    def names(self, folder: Path) -> list[str]:
        """See `Files`."""
        del folder
        return sorted(self._names)

    def read(self, path: Path) -> bytes:
        """See `Files`."""
        return bytes(self._named(path).memory)

    def create(self, path: Path) -> int:
        """See `Files`."""
        self._step()
        created = _File()
        self._rename("", path.name, created)
        return self._open(created)

    def open(self, path: Path, *, writable: bool = False) -> int:
        """See `Files`."""
        del writable
        return self._open(self._named(path))

    def pread(self, file: int, length: int, offset: int) -> bytes:
        """See `Files`."""
        return bytes(self._opened[file].memory[offset : offset + length])

    def pwrite(self, file: int, content: bytes, offset: int) -> int:
        """See `Files`."""
        held = self._opened[file]
        end = offset + len(content)
        if self.steps_left == 0:
            end = self._random.randrange(offset // SECTOR_BYTES, end // SECTOR_BYTES + 1) * SECTOR_BYTES
        if end > len(held.memory) and self.limit_bytes is not None:
            end = min(end, len(held.memory) + max(0, self.limit_bytes - self.used_bytes))
            if end <= offset:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if end > offset:
            if offset > len(held.memory):
                held.memory.extend(bytes(offset - len(held.memory)))
            held.memory[offset:end] = content[: end - offset]
            held.dirty.update(range(offset // SECTOR_BYTES, (end - 1) // SECTOR_BYTES + 1))
        self._step()
        return end - offset

    def sync(self, file: int) -> None:
        """See `Files`."""
        self._write_back(file)

    def sync_data(self, file: int) -> None:
        """See `Files`."""
        self._write_back(file)

    def _write_back(self, file: int) -> None:
        self._step()
        held = self._opened[file]
        if self.fails_sync:
            self.fails_sync = False
            share = self._random.random()
            for sector in sorted(held.dirty):
                if self._random.random() < share:
                    held.keep(sector)
            held.dirty.clear()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        for sector in held.dirty:
            held.keep(sector)
        held.dirty.clear()

    def rename(self, path: Path, target: Path) -> None:
        """See `Files`."""
        self._step()
        self._rename(path.name, target.name, self._named(path))

    def unlink(self, path: Path) -> None:
        """See `Files`."""
        if path.name in self._names:
            self._step()
            self._rename(path.name, "", self._names[path.name])

    def sync_folder(self, folder: Path) -> None:
        """See `Files`."""
        del folder
        self._step()
        self._durable_names = dict(self._names)
        self._renamings.clear()

    def close(self, file: int) -> None:
        """See `Files`."""
        self._opened.pop(file, None)
        if file == self._owner:
            self._owner = 0

    def _step(self) -> None:
        if self.steps_left is not None:
            if self.steps_left == 0:
                raise Died
            self.steps_left -= 1

    def _descriptor(self) -> int:
        self._next += 1
        return self._next

    def _open(self, file: _File) -> int:
        descriptor = self._descriptor()
        self._opened[descriptor] = file
        return descriptor

    def _named(self, path: Path) -> _File:
        if path.name not in self._names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self._names[path.name]

    def _rename(self, source: str, target: str, file: _File) -> None:
        _rename(self._names, source, target, file)
        self._renamings.append((source, target, file))

    def _files(self) -> list[_File]:
        """Return all files that are there, or may be after the power has failed."""
        candidates = [*self._names.values(), *self._durable_names.values(), *(each[2] for each in self._renamings)]
        return list({id(file): file for file in candidates}.values())


def _rename(names: dict[str, _File], source: str, target: str, file: _File) -> None:
    if source:
        names.pop(source, None)
    if target:
        names[target] = file
