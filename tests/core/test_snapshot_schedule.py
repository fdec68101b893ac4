"""Snapshots that a node saves by itself: when, where, and that what is there can be restored."""

import asyncio
import datetime as dt
import stat
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

import pytest

from conclave.core.contract import Operation, Response
from conclave.core.snapshot_schedule import Schedule, ScheduledSnapshots
from conclave.core.snapshots import SavedFile, Snapshots
from conclave.storage.errors import Corrupt
from tests.fakes import FakeVault, data_of, on_loop, request_for, started_vault, until

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class Scheduled(ScheduledSnapshots):
    """Scheduled every hour, keeping two, by a clock that the test sets."""

    def __init__(self, fake: FakeVault, folder: Path) -> None:
        self.now = START
        super().__init__(
            fake.vault, Snapshots(fake.vault), Schedule(folder, 3600.0, retain_count=2), utc_now=lambda: self.now
        )


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@on_loop
async def test_what_was_saved_can_be_restored(tmp_path: Path) -> None:
    async with started_vault() as fake:
        await fake.write("secret/data/a", {"data": {"v": "before"}})

        file = await Scheduled(fake, tmp_path).save()

        await fake.write("secret/data/a", {"data": {"v": "after"}})
        content = file.read_bytes()

        async def upload() -> AsyncIterator[bytes]:
            yield content

        request = request_for(Operation.UPDATE, "sys/storage/raft/snapshot", token=fake.root)
        request.upload = upload()
        assert isinstance(await fake.start(request), Response)
        assert data_of(await fake.read("secret/data/a"))["data"] == {"v": "before"}


@on_loop
async def test_files_are_named_by_their_time_and_private(tmp_path: Path) -> None:
    async with started_vault() as fake:
        file = await Scheduled(fake, tmp_path).save()

        assert file == tmp_path / "conclave-20260101T000000Z.snap"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert names(tmp_path) == [file.name]


@on_loop
async def test_the_next_is_due_after_the_interval_also_after_a_restart(tmp_path: Path) -> None:
    async with started_vault() as fake:
        scheduled = Scheduled(fake, tmp_path)
        assert scheduled.is_due()
        await scheduled.save()

        again = Scheduled(fake, tmp_path)
        again.now = START + dt.timedelta(minutes=59)
        assert not again.is_due()
        again.now = START + dt.timedelta(minutes=60)
        assert again.is_due()
        again.now = START - dt.timedelta(minutes=1)  # the clock was wrong when it was saved
        assert again.is_due()


@on_loop
async def test_the_newest_are_kept_and_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    async with started_vault() as fake:
        scheduled = Scheduled(fake, tmp_path)
        for name in ("conclave-noticesZ.snap", "by-hand.snap"):
            (tmp_path / name).touch()

        for hour in range(4):
            scheduled.now = START + dt.timedelta(hours=hour)
            await scheduled.save()

        assert names(tmp_path) == [
            "by-hand.snap",
            "conclave-20260101T020000Z.snap",
            "conclave-20260101T030000Z.snap",
            "conclave-noticesZ.snap",
        ]


@on_loop
async def test_what_is_not_read_back_as_it_was_saved_gets_no_name_and_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def damaged(self: SavedFile) -> AsyncIterator[bytes]:
        content = bytearray(b"".join([piece async for piece in original(self)]))
        content[len(content) // 2] ^= 1
        yield bytes(content)

    async with started_vault() as fake:
        scheduled = Scheduled(fake, tmp_path)
        whole = await scheduled.save()
        original = SavedFile.__aiter__
        monkeypatch.setattr(SavedFile, "__aiter__", damaged)
        scheduled.now = START + dt.timedelta(hours=1)

        with pytest.raises(Corrupt):
            await scheduled.save()

        assert [name for name in names(tmp_path) if name.startswith("conclave-")] == [whole.name]
        monkeypatch.undo()
        await scheduled.save()
        assert len(names(tmp_path)) == 2


@on_loop
async def test_nothing_is_saved_while_the_node_is_sealed_and_one_at_once_when_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("conclave.core.snapshot_schedule.LOOK_SECONDS", 0.0)
    async with started_vault() as fake:
        fake.vault.seal()
        Scheduled(fake, tmp_path / "new" / "folder").start()
        await asyncio.sleep(0)
        assert names(tmp_path / "new" / "folder") == []

        await fake.unseal()

        async with asyncio.timeout(10):
            while not any((tmp_path / "new" / "folder").glob("conclave-*.snap")):  # noqa: ASYNC110  (a thread writes it)
                await asyncio.sleep(0.001)


@on_loop
async def test_a_file_opened_after_its_save_was_cancelled_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: list[IO[bytes]] = []
    is_asked_for, may_open = threading.Event(), threading.Event()

    def create(path: Path) -> IO[bytes]:
        is_asked_for.set()
        may_open.wait()
        files.append(path.open("w+b"))
        return files[0]

    monkeypatch.setattr("conclave.core.snapshot_schedule._create", create)
    async with started_vault() as fake:
        saving = asyncio.create_task(Scheduled(fake, tmp_path).save())
        await until(is_asked_for.is_set, turns_max=1_000_000)

        saving.cancel()
        await asyncio.wait([saving])
        may_open.set()

    assert files[0].closed


@on_loop
async def test_a_folder_that_cannot_be_written_ends_nothing_but_that_try(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with started_vault() as fake:
        scheduled = Scheduled(fake, tmp_path / "folder")
        scheduled.start()
        (tmp_path / "folder").rmdir()

        await until(lambda: "a scheduled snapshot was not saved" in caplog.text, turns_max=1_000_000)
