"""Both implementations of log and state, so that one suite holds both to the contract."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conclave.storage.log import LmdbLog, LogStore
from conclave.storage.memory import MemoryLog, MemoryState
from conclave.storage.state import LmdbState, StateStore

MAP_BYTES = 1 << 28


@pytest.fixture(params=["lmdb", "memory"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LogStore]:
    store: LogStore = LmdbLog(tmp_path / "log", map_bytes=MAP_BYTES) if request.param == "lmdb" else MemoryLog()
    yield store
    store.close()


@pytest.fixture(params=["lmdb", "memory"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StateStore]:
    store: StateStore = LmdbState(tmp_path / "state", map_bytes=MAP_BYTES) if request.param == "lmdb" else MemoryState()
    yield store
    store.close()


@pytest.fixture
def open_log(tmp_path: Path) -> Iterator[Callable[[], LmdbLog]]:
    """Open the log of one folder again and again; each open closes the one before."""
    opened: list[LmdbLog] = []

    def reopen() -> LmdbLog:
        for earlier in opened:
            earlier.close()
        opened[:] = [LmdbLog(tmp_path / "log", map_bytes=MAP_BYTES)]
        return opened[0]

    yield reopen
    for store in opened:
        store.close()
