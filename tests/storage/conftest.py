"""All implementations of log and state, so that one suite holds them to the contract."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conclave.storage.file_log import FileLog
from conclave.storage.log import LmdbLog, LogStore
from conclave.storage.memory import MemoryLog, MemoryState
from conclave.storage.state import LmdbState, StateStore

MAP_BYTES = 1 << 28


OPEN: dict[str, Callable[[Path], LogStore]] = {
    "file": lambda folder: FileLog(folder, segment_bytes_max=20_000),
    "lmdb": lambda folder: LmdbLog(folder, map_bytes=MAP_BYTES),
}


@pytest.fixture(params=[*OPEN, "memory"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LogStore]:
    store = OPEN[request.param](tmp_path / "log") if request.param in OPEN else MemoryLog()
    yield store
    store.close()


@pytest.fixture(params=["lmdb", "memory"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StateStore]:
    store: StateStore = LmdbState(tmp_path / "state", map_bytes=MAP_BYTES) if request.param == "lmdb" else MemoryState()
    yield store
    store.close()


@pytest.fixture(params=list(OPEN))
def open_log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], LogStore]]:
    """Open the log of one folder again and again; each open closes the one before."""
    opened: list[LogStore] = []

    def reopen() -> LogStore:
        for earlier in opened:
            earlier.close()
        opened.clear()
        opened.append(OPEN[request.param](tmp_path / "log"))
        return opened[0]

    yield reopen
    for store in opened:
        store.close()
