"""The simulated disk keeps what was synced, and nothing else for sure."""

import errno
from pathlib import Path
from random import Random

import pytest

from tests.simulator.files import Died, SimulatedFiles

FOLDER = Path("log")
OLD, NEW = b"a" * 2048, b"b" * 2048
SECTORS = 4


def with_a_file(seed: int) -> tuple[SimulatedFiles, int]:
    files = SimulatedFiles(Random(seed))
    file = files.create(FOLDER / "x")
    files.pwrite(file, OLD, 0)
    files.sync(file)
    files.sync_folder(FOLDER)
    return files, file


def after_a_power_failure(files: SimulatedFiles) -> bytes:
    files.end_process()
    files.lose_power()
    return files.read(FOLDER / "x")


def test_what_was_synced_outlives_the_power() -> None:
    files, file = with_a_file(1)
    files.pwrite(file, NEW, 0)
    files.sync_data(file)

    assert after_a_power_failure(files) == NEW


def test_each_unsynced_sector_is_kept_or_lost_on_its_own() -> None:
    seen = set()
    for seed in range(200):
        files, file = with_a_file(seed)
        files.pwrite(file, NEW, 0)
        content = after_a_power_failure(files)
        sectors = [content[start : start + 512] for start in range(0, len(NEW), 512)]
        assert all(sector in (OLD[:512], NEW[:512]) for sector in sectors)
        seen.add(content)

    assert len(seen) == 2**SECTORS


def test_the_end_of_a_process_loses_nothing() -> None:
    files, file = with_a_file(1)
    files.pwrite(file, NEW, 0)

    files.end_process()

    assert files.read(FOLDER / "x") == NEW


def test_a_sync_after_one_that_failed_keeps_nothing_more() -> None:
    seen = set()
    for seed in range(50):
        files, file = with_a_file(seed)
        files.pwrite(file, NEW, 0)
        files.fails_sync = True
        with pytest.raises(OSError, match="error") as failed:
            files.sync_data(file)
        assert failed.value.errno == errno.EIO
        files.sync_data(file)
        assert files.read(FOLDER / "x") == NEW
        seen.add(after_a_power_failure(files))

    assert len(seen) > 1


def test_names_that_were_not_synced_survive_from_the_first_on() -> None:
    seen = set()
    for seed in range(50):
        files, _ = with_a_file(seed)
        files.create(FOLDER / "draft")
        files.rename(FOLDER / "draft", FOLDER / "y")
        files.unlink(FOLDER / "x")
        files.end_process()
        files.lose_power()
        seen.add(tuple(files.names(FOLDER)))

    assert seen == {("x",), ("draft", "x"), ("x", "y"), ("y",)}


def test_a_full_disk_takes_what_fits_and_then_nothing() -> None:
    files, file = with_a_file(1)
    files.limit_bytes = files.used_bytes + 100

    assert files.pwrite(file, NEW, len(OLD)) == 100
    with pytest.raises(OSError, match="space") as refused:
        files.pwrite(file, NEW, len(OLD) + 100)
    assert refused.value.errno == errno.ENOSPC
    assert files.pwrite(file, NEW, 0) == len(NEW)


def test_a_process_dies_after_so_many_steps_and_leaves_whole_sectors() -> None:
    files, file = with_a_file(1)
    files.steps_left = 1
    files.pwrite(file, NEW[:512], 0)

    with pytest.raises(Died):
        files.pwrite(file, NEW, 0)

    content = files.read(FOLDER / "x")
    assert content == NEW[: content.count(b"b")] + OLD[content.count(b"b") :]
    assert content.count(b"b") % 512 == 0


def test_a_flipped_bit_is_one_bit_and_is_remembered_as_long_as_its_file_is_there() -> None:
    files, _ = with_a_file(1)

    assert files.flip_bit()

    content = files.read(FOLDER / "x")
    assert sum((a ^ b).bit_count() for a, b in zip(content, OLD, strict=True)) == 1
    assert files.are_rotten
    files.unlink(FOLDER / "x")
    assert not files.are_rotten
