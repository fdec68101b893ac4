"""`python -m bench --stress`: how Conclave behaves with much data, each figure with a bound that makes the command fail.

    reuse      space is used again: a million entries, 99 % deleted, as many written again (one node's storage)
    open       a store of 2 GB is opened, from a cold disk (one node's storage)
    catch-up   a follower that has missed 200,000 entries gets a snapshot while writes go on (three processes)
    snapshot   1 GB is saved, checked, damaged and restored while writes go on (three processes)

The first two are here, the other two in `stress_cluster.py`. What a full disk does is held by the tests.
"""

import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from bench.stress_cluster import catch_up, snapshot
from bench.stress_report import Check, Say, held_to
from conclave.storage.barrier import Barrier
from conclave.storage.environment import LMDB_FILE
from conclave.storage.file_log import FileLog
from conclave.storage.keyring import Keyring
from conclave.storage.overlay import Overlay
from conclave.storage.state import Applied, LmdbState
from conclave.storage.transaction import Transaction
from conclave.storage.tree import Directory

ROOT: Final = bytes(16)
REUSED_ENTRIES: Final = 1_000_000
KEPT_SHARE: Final = 0.01
ENTRIES_IN_A_DIRECTORY: Final = 1000
ENTRIES_IN_A_BATCH: Final = 64
"""What one write of the log takes in while many clients write."""
BATCHES_IN_A_FLUSH: Final = 64
TRAILING_ENTRIES: Final = 10_000
VALUE_BYTES: Final = 100
SLOWER_MAX: Final = 1.2
LARGER_MAX: Final = 1.3

OPENED_BYTES: Final = 2 << 30
OPENED_LOGS_BYTES: Final = (64 << 20, 1 << 30)
"""The log as compaction leaves it, and as long as it gets while a snapshot of 1 GB is restored."""
OPENED_ENTRIES_MAX: Final = 500_000
"""Behind so many compaction waits for nobody."""
RECORD_BYTES: Final = 1000
RECORDS_IN_A_FLUSH: Final = 16_000
OPENINGS: Final = 3
OPEN_SECONDS_MAX: Final = 2.0


class _Storage:
    """The storage of one node, and the way of a write through it: tree, log, overlay, state."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.log = FileLog(folder / "log")
        self.state = LmdbState(folder / "state")
        self.overlay = Overlay(self.state)
        self.barrier = Barrier(Keyring.generate(0))
        self.file = folder / "state" / LMDB_FILE

    def change(self, names: Sequence[str], change: Callable[[Directory, str], object]) -> None:
        """Make a change of each name, as an entry of its own, all in one batch of the log."""
        entries = []
        index = self.overlay.applied_index
        for name in names:
            transaction = Transaction(self.overlay, uncommitted=True)
            change(Directory(transaction, self.barrier, ROOT), name)
            write_set = transaction.write_set(time.time_ns())
            assert write_set is not None, "every change changes something"
            index += 1
            entries.append((1, index, 0, write_set.encode()))
            self.overlay.propose(index, write_set)
        self.log.append((1, 1, index), entries)
        for term, entry_index, _, data in entries:
            self.overlay.apply(entry_index, term, data)

    def flush(self) -> None:
        """Write what has been applied to the state, and cut the log as far as a node does."""
        job = self.overlay.begin_flush()
        assert job is not None, "there is something to flush"
        job.run()
        self.overlay.finish_flush(job)
        self.log.compact(max(0, self.overlay.durable_index - TRAILING_ENTRIES))

    def reading(self) -> Directory:
        """Return the tree as it is."""
        return Directory(Transaction(self.overlay, uncommitted=False), self.barrier, ROOT)

    def close(self) -> None:
        """Close the files."""
        self.state.close()
        self.log.close()


def reuse(folder: Path, base_port: int, say: Say) -> Iterator[Check]:
    """Write, delete and write again; compare how long a write takes, and how large the file is."""
    del base_port
    names = [f"app/{number // ENTRIES_IN_A_DIRECTORY}/n{number}" for number in range(REUSED_ENTRIES)]
    chance = random.Random(1)
    chance.shuffle(names)
    kept = set(chance.sample(names, int(REUSED_ENTRIES * KEPT_SHARE)))
    gone = [name for name in names if name not in kept]
    value = os.urandom(VALUE_BYTES)
    with closing(_Storage(folder / "reuse")) as storage:

        def put(tree: Directory, name: str) -> None:
            tree.put(name, value)

        fresh, peak_bytes = _changed(storage, names, put)
        say(f"fresh: {fresh:.0f} µs a put, file {peak_bytes / 1e6:.0f} MB")
        chance.shuffle(gone)
        deleted, deleted_bytes = _changed(storage, gone, lambda tree, name: tree.delete(name))
        say(f"deleted: {deleted:.0f} µs a delete, file {deleted_bytes / 1e6:.0f} MB")
        chance.shuffle(gone)
        again, again_bytes = _changed(storage, gone, put)
        say(f"again: {again:.0f} µs a put, file {again_bytes / 1e6:.0f} MB")
        reading = storage.reading()
        missing = [name for name in chance.sample(names, 1000) if reading.get(name) != value]
    yield held_to("reuse", "put, p50 of groups of 4096, beside the first million", again / fresh, SLOWER_MAX, "times")
    yield held_to("reuse", "file of the state, beside its peak", again_bytes / peak_bytes, LARGER_MAX, "times")
    yield held_to("reuse", "entries of 1000 that do not read as written", len(missing), 0, "")


def _changed(storage: _Storage, names: Sequence[str], change: Callable[[Directory, str], object]) -> tuple[float, int]:
    """Return microseconds of one change (the median of groups, flush included), and how large the state's file got."""
    group = ENTRIES_IN_A_BATCH * BATCHES_IN_A_FLUSH
    times = []
    largest_bytes = 0
    for start in range(0, len(names), group):
        part = names[start : start + group]
        started = time.perf_counter()
        for first in range(0, len(part), ENTRIES_IN_A_BATCH):
            storage.change(part[first : first + ENTRIES_IN_A_BATCH], change)
        storage.flush()
        times.append((time.perf_counter() - started) / len(part) * 1e6)
        largest_bytes = max(largest_bytes, storage.file.stat().st_size)
    return statistics.median(times), largest_bytes


def open_large(folder: Path, base_port: int, say: Say) -> Iterator[Check]:
    """Open stores of 2 GB, with a short log and with a long one."""
    del base_port
    for log_bytes in OPENED_LOGS_BYTES:
        store = folder / f"open-{log_bytes}"
        _fill(store, log_bytes)
        seconds = statistics.median(_opened(store) for _ in range(OPENINGS))
        say(f"opened with a log of {log_bytes / 1e6:.0f} MB in {seconds:.2f} s")
        for file in store.rglob("*"):
            if file.is_file():
                file.unlink()
        what = f"open 2 GB from a cold disk, {log_bytes / 1e6:.0f} MB of it log"
        yield held_to("open", what, seconds, OPEN_SECONDS_MAX, "s")


def _fill(folder: Path, log_bytes: int) -> None:
    """Make a store of 2 GB, with a log of so many bytes that ends where the state does."""
    folder.mkdir()
    entry_bytes = max(RECORD_BYTES, log_bytes // OPENED_ENTRIES_MAX)
    count = log_bytes // entry_bytes
    log = FileLog(folder / "log")
    for first in range(1, count + 1, RECORDS_IN_A_FLUSH):
        last = min(count, first + RECORDS_IN_A_FLUSH - 1)
        content = os.urandom(entry_bytes)
        log.append((1, 1, last), [(1, index, 0, content) for index in range(first, last + 1)])
    log.close()
    state = LmdbState(folder / "state")
    file = folder / "state" / LMDB_FILE
    number = 0
    while file.stat().st_size < OPENED_BYTES - log_bytes:
        content = os.urandom(RECORD_BYTES)
        state.flush({(number + n).to_bytes(32, "big"): content for n in range(RECORDS_IN_A_FLUSH)}, Applied(count, 1))
        number += RECORDS_IN_A_FLUSH
    state.close()


def _opened(folder: Path) -> float:
    """Return how many seconds it takes until log and state can be used."""
    for file in folder.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
    started = time.perf_counter()
    log = FileLog(folder / "log")
    state = LmdbState(folder / "state")
    overlay = Overlay(state)
    seconds = time.perf_counter() - started
    assert overlay.applied_index == log.last_index, "the state ends where the log does"
    state.close()
    log.close()
    return seconds


ITEMS: Final[dict[str, Callable[[Path, int, Say], Iterator[Check]]]] = {
    "reuse": reuse,
    "open": open_large,
    "catch-up": catch_up,
    "snapshot": snapshot,
}


def stress(names: Sequence[str], base_port: int, say: Say) -> list[Check]:
    """Measure some items, or all."""
    checks = []
    for name in names or ITEMS:
        with tempfile.TemporaryDirectory(prefix="conclave-bench-") as folder:
            for check in ITEMS[name](Path(folder), base_port, _named(name, say)):
                say(str(check))
                checks.append(check)
    return checks


def _named(name: str, say: Say) -> Say:
    return lambda text: say(f"{name}: {text}")
