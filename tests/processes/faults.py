"""What can fail nodes from outside: disks that are full, hang or fail, clocks that jump, logs and states that rot, busy
cores.

`SickDisk` and `WallClock` are files that a node's process looks at: it has to be started with their `environment`. Wires
are a module of their own.
"""

import contextlib
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import lmdb

from conclave.storage.environment import LMDB_FILE
from conclave.storage.seal import CLEAR_KEYS
from conclave.storage.state import DATA_TABLES, TABLES

PAGE_BYTES: Final = 4096
ROTTEN_BYTES: Final = 24
ROTTEN_RECORDS: Final = 200
SMALL_DISK_BYTES: Final = 768 << 20
"""More than a node needs for half an hour under this load; what is left is in memory while the disk is full."""
BALLAST: Final = "ballast"
SICK_DISKS: Final = Path(__file__).parent / "sick_disks"
FAKETIME_PATTERNS: Final = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib*/faketime/libfaketime.so.1")
"""Where Debian and others put it."""


class SmallDisk:
    """A file system of its own for a node's data, so that it can be full; root alone may make one.

    Raises:
        OSError: this user may not mount, or cannot here.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700)
        size = f"size={SMALL_DISK_BYTES},mode=0700"
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", size, "conclave-test", folder], capture_output=True, text=True, check=False
        )
        if mounted.returncode != 0:
            raise OSError(mounted.stderr.strip())

    def fill(self) -> None:
        """Leave no room."""
        with contextlib.suppress(OSError), (self.folder / BALLAST).open("ab", buffering=0) as ballast:
            while True:
                ballast.write(bytes(PAGE_BYTES))

    def free(self) -> None:
        """Give the room back."""
        (self.folder / BALLAST).unlink()

    def close(self) -> None:
        """Unmount it, whoever still has a file open."""
        subprocess.run(["umount", "--lazy", self.folder], check=True)


class SickDisk:
    """What makes the log's syncs of a node hang or fail (`sick_disks/sitecustomize.py`).

    Args:
        folder: for the files that say so; made here.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._hang = folder / "hang"
        self._fail = folder / "fail"
        before = os.environ.get("PYTHONPATH")
        path = f"{SICK_DISKS}:{before}" if before else str(SICK_DISKS)
        self.environment = {"PYTHONPATH": path, "CONCLAVE_TEST_DISK": str(folder)}

    def hang(self) -> None:
        """Let no sync end."""
        self._hang.touch()

    def fail(self) -> None:
        """Let every sync fail."""
        self._fail.touch()

    def heal(self) -> None:
        """Let every sync, those that hang among them, do what it should."""
        self._hang.unlink(missing_ok=True)
        self._fail.unlink(missing_ok=True)


class WallClock:
    """The wall clock of a node; clocks that count from some moment on are not touched (libfaketime's manual).

    Args:
        file: for what libfaketime adds to the time; made here.

    Raises:
        OSError: libfaketime is not installed.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.back()
        self.environment = {
            "LD_PRELOAD": str(libfaketime()),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # or waits for the interpreter's lock take their whole 5 ms
            "NO_FAKE_STAT": "1",
        }

    def jump(self, seconds: int) -> None:
        """Let the clock be ahead, or behind if negative, from now on."""
        draft = self._file.with_suffix(".new")
        draft.write_text(f"{seconds:+d}\n")
        draft.rename(self._file)  # the time is asked for while this is written

    def back(self) -> None:
        """Let the clock be right."""
        self.jump(0)


def libfaketime() -> Path:
    """Return the library that changes a process's clock.

    Raises:
        OSError: it is not installed.
    """
    found = [path for pattern in FAKETIME_PATTERNS for path in sorted(Path("/").glob(pattern.removeprefix("/")))]
    if not found:
        raise OSError("clocks jump by libfaketime, which is not installed (Debian: apt-get install libfaketime)")
    return found[0]


@contextlib.contextmanager
def burning(count: int) -> Iterator[None]:
    """Keep so many processes busy, at the priority of everybody else."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            burner = stack.enter_context(subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]))
            stack.callback(burner.kill)
        yield


def wipe(folder: Path) -> None:
    """Remove what a folder holds; the folder may be where a file system is mounted."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def rot(file: Path, chooser: random.Random) -> None:
    """Change some bytes of a file, anywhere."""
    size = file.stat().st_size
    with file.open("r+b") as opened:
        for place in chooser.sample(range(size), ROTTEN_BYTES):
            opened.seek(place)
            old = opened.read(1)
            opened.seek(place)
            opened.write(bytes([old[0] ^ 0xFF]))


def rot_records(folder: Path, chooser: random.Random) -> None:
    """Change a bit in each of some sealed records of a stopped node's state, all if it has but a few.

    What LMDB keeps around them is left alone: it has no checksums, and might crash on it.
    """
    with lmdb.open(str(folder), readonly=True, max_dbs=len(TABLES)) as env, env.begin() as transaction:
        tables = [env.open_db(name.encode(), transaction, create=False) for name in DATA_TABLES]
        records = [value for table in tables for key, value in transaction.cursor(table) if key not in CLEAR_KEYS]
    file = folder / LMDB_FILE
    content = file.read_bytes()
    with file.open("r+b") as opened:
        for sealed in chooser.sample(records, min(len(records), ROTTEN_RECORDS)):
            place = content.find(sealed)
            while place >= 0:  # pages that LMDB has left behind may hold it, too
                end = place + len(sealed) - 1
                opened.seek(end)
                opened.write(bytes([content[end] ^ 1]))
                place = content.find(sealed, end)
