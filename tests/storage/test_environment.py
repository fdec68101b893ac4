"""What an LMDB error means: tried again when there is room, or never again."""

import errno
import os
from pathlib import Path

import lmdb
import pytest

from conclave.storage.environment import Environment
from conclave.storage.errors import Fenced, Full

MAP_BYTES = 1 << 24


class Failure(lmdb.Error):
    """What LMDB raises with the error number of the system."""

    code = errno.EIO  # type: ignore[misc]  # LMDB itself sets it on each error


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "env", ("table",), map_bytes=MAP_BYTES)


def fail(environment: Environment, patch: pytest.MonkeyPatch, *, free_bytes: int) -> None:
    """Let the next commit fail as a short write does, on a disk with so much room."""

    def refuse(transaction: object) -> None:
        del transaction
        raise Failure("mdb_txn_commit: Input/output error")

    patch.setattr(environment, "_commit", refuse)
    room = os.statvfs_result((4096, 4096, 1000, free_bytes // 4096, free_bytes // 4096, 0, 0, 0, 0, 255))
    patch.setattr(os, "statvfs", lambda _: room)


def test_a_write_that_was_cut_short_is_tried_again_when_there_is_room(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fail(environment, patch, free_bytes=0)
        with pytest.raises(Full), environment.write():
            pass

    with environment.write() as transaction:
        transaction.put(b"key", b"value", db=environment.table("table"))

    assert not environment.is_fenced
    environment.close()


def test_an_error_of_a_disk_with_room_forbids_every_other_write(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fail(environment, patch, free_bytes=1 << 30)
        with pytest.raises(Fenced), environment.write():
            pass

    with pytest.raises(Fenced), environment.write():
        pass
    environment.close()
