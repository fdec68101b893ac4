"""The append-only log: what a crash, damage, or a full or failing disk may leave, and what becomes of it."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from conclave.storage import file_log
from conclave.storage.errors import Corrupt, Fenced, Full
from conclave.storage.file_log import FileLog
from conclave.storage.files import SystemFiles
from conclave.storage.log import EntryTuple, LmdbLog

LIMITLESS = 1 << 30
GOLDEN = (
    "636e636c6f67303100000000000000010000000000000001000000001b736f6fc1ba7c68000000320000000000000001b921"
    "c52906a0eadc0101000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "000000000000ffffffffffffc1ba7c68000000010000000000000002cd51b099f2fea74204ffffffffffffffc1ba7c680000"
    "0038000000000000000324032d7966f91fb50201000000000000000200000000000000030000000000000001000000000000"
    "00010000000566bc2f5c000000000000000200656e747279ffffffffffffffffc1ba7c68000000110000000000000004c3e4"
    "4c479a7ebf520300000000000000010000000000000002ffffffffffffff"
)
"""Head, base, identity (none), one append, one compaction: a change of these bytes is a change of the format."""
Open = Callable[[], FileLog]


def entries(first: int, last: int, term: int = 1, size: int = 90) -> list[EntryTuple]:
    return [(term, index, 0, Random(index * term).randbytes(size)) for index in range(first, last + 1)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def reopen(folder: Path) -> Iterator[Open]:
    opened: list[FileLog] = []

    def reopen() -> FileLog:
        for earlier in opened:
            earlier.close()
        opened.clear()
        opened.append(FileLog(folder, segment_bytes_max=20_000))
        return opened[0]

    yield reopen
    for store in opened:
        store.close()


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.log"))


def used_bytes(content: bytes) -> int:
    return len(content.rstrip(b"\0"))


def test_what_is_found_at_the_start_is_on_the_disk_before_it_is_used(
    reopen: Open, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = reopen()
    log.append((1, 0, 0), entries(1, 3))
    log.append(None, entries(4, 5))
    log.close()
    written = used_bytes(segments(folder)[0].read_bytes())
    done: list[object] = []

    def pwrite(file: int, content: bytes, offset: int) -> int:
        done.append(offset + used_bytes(content))
        return pwrite_really(file, content, offset)

    pwrite_really = os.pwrite
    monkeypatch.setattr(os, "pwrite", pwrite)
    monkeypatch.setattr(os, "fdatasync", lambda _: done.append("sync"))
    monkeypatch.setattr(SystemFiles, "sync_folder", lambda _, which: done.append(which))

    assert reopen().last_index == 5

    assert done == [written, "sync", folder]


def test_a_disk_that_refuses_what_is_found_at_the_start_ends_it(reopen: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    reopen().append((1, 0, 0), entries(1, 3))

    def refuse(_: int) -> None:
        raise OSError(errno.EIO, "")

    monkeypatch.setattr(os, "fdatasync", refuse)

    with pytest.raises(Fenced):
        reopen()


def test_a_last_batch_that_is_torn_at_any_byte_is_cut_off(reopen: Open, folder: Path) -> None:
    log = reopen()
    log.append((1, 0, 0), entries(1, 3))
    before = segments(folder)[0].read_bytes()
    log.append(None, entries(4, 9))
    after = segments(folder)[0].read_bytes()
    begin, end = used_bytes(before), used_bytes(after)
    sectors = [begin, *range(begin // 512 * 512 + 512, end, 512)]

    for cut in sectors:
        log.close()
        segments(folder)[0].write_bytes(after[:cut].ljust(len(after), b"\0"))
        log = reopen()

        assert log.read(1, 4, LIMITLESS) == entries(1, 3)
        assert log.last_index == 3
        log.append(None, entries(4, 4, term=2))
        assert reopen().read(4, 5, LIMITLESS) == entries(4, 4, term=2)


def test_bug_b37_a_torn_batch_that_was_to_cut_the_log_leaves_all_of_it_and_what_is_known_of_it(
    reopen: Open, folder: Path
) -> None:
    # What a log knows besides its entries (terms, positions, hard state) is made from them: neither is ahead of the other.
    log = reopen()
    log.append((1, 0, 0), entries(1, 9))
    begin = used_bytes(segments(folder)[0].read_bytes())
    log.append((2, 3, 4), entries(5, 14, term=2))
    after = segments(folder)[0].read_bytes()

    for cut in [begin, *range(begin // 512 * 512 + 512, used_bytes(after), 512)]:
        log.close()
        segments(folder)[0].write_bytes(after[:cut].ljust(len(after), b"\0"))
        log = reopen()

        assert log.read(1, 10, LIMITLESS) == entries(1, 9)
        assert (log.last_index, log.hard_state, log.term(5)) == (9, (1, 0, 0), 1)
        log.append((2, 3, 4), entries(5, 6, term=2))
        assert reopen().read(4, 7, LIMITLESS) == entries(4, 4) + entries(5, 6, term=2)


def test_a_last_batch_that_lacks_any_of_its_sectors_is_cut_off(reopen: Open, folder: Path) -> None:
    log = reopen()
    log.append((1, 0, 0), entries(1, 3))
    before = segments(folder)[0].read_bytes()
    log.append(None, entries(4, 30))
    log.close()
    after = segments(folder)[0].read_bytes()
    begin, end = used_bytes(before), used_bytes(after)

    for sector in range(begin // 512 * 512, end, 512):
        torn = after[:sector] + before[sector : sector + 512] + after[sector + 512 :]
        segments(folder)[0].write_bytes(torn)

        log = reopen()

        assert log.last_index == 3
        log.close()
        assert used_bytes(segments(folder)[0].read_bytes()) == begin


def test_a_file_that_ends_in_its_last_batch_is_cut_off(reopen: Open, folder: Path) -> None:
    log = reopen()
    log.append(None, entries(1, 3))
    log.append(None, entries(4, 9))
    log.close()
    content = segments(folder)[0].read_bytes()
    segments(folder)[0].write_bytes(content[: used_bytes(content) - 9])  # 8 may be padding

    assert reopen().last_index == 3


@pytest.mark.parametrize("which", ["earlier", "last"])
def test_a_flipped_bit_anywhere_in_a_batch_is_damage_and_nothing_is_cut(reopen: Open, folder: Path, which: str) -> None:
    log = reopen()
    log.append(None, entries(1, 1))
    marks = [used_bytes(segments(folder)[0].read_bytes())]
    for index in (2, 3):
        log.append(None, entries(index, index))
        marks.append(used_bytes(segments(folder)[0].read_bytes()))
    log.close()
    good = segments(folder)[0].read_bytes()
    begin, end = marks[:2] if which == "earlier" else marks[1:]

    for position in range(begin, end - 8):  # the last bytes may be padding, which nobody reads
        damaged = bytearray(good)
        damaged[position] ^= 0x10
        segments(folder)[0].write_bytes(damaged)

        with pytest.raises(Corrupt):
            FileLog(folder)
        assert segments(folder)[0].read_bytes() == damaged


def test_a_blank_sector_before_a_later_batch_is_damage(reopen: Open, folder: Path) -> None:
    log = reopen()
    log.append(None, entries(1, 20))
    log.append(None, entries(21, 21))
    log.close()
    content = segments(folder)[0].read_bytes()
    segments(folder)[0].write_bytes(content[:512] + bytes(512) + content[1024:])

    with pytest.raises(Corrupt):
        reopen()


def failing(number: int) -> Callable[..., int]:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    return fail


def fill_segments(log: FileLog) -> None:
    for first in range(1, 600, 50):
        log.append((1, 0, first), entries(first, first + 49))


def test_segments_follow_each_other_and_compaction_drops_whole_ones(reopen: Open, folder: Path) -> None:
    log = reopen()
    fill_segments(log)
    count = len(segments(folder))

    log.compact(500)

    assert len(segments(folder)) < count
    log = reopen()
    assert (log.first_index, log.last_index, log.term(500)) == (501, 600, 1)
    assert log.read(501, 601, LIMITLESS) == entries(501, 600)


@pytest.mark.parametrize("number", [0, 1])
def test_a_missing_segment_is_damage(reopen: Open, folder: Path, number: int) -> None:
    log = reopen()
    fill_segments(log)
    log.close()
    segments(folder)[number].unlink()

    with pytest.raises(Corrupt):
        reopen()


def test_a_torn_batch_in_a_segment_that_is_not_the_last_is_damage(reopen: Open, folder: Path) -> None:
    log = reopen()
    fill_segments(log)
    log.close()
    first = segments(folder)[0]
    content = first.read_bytes()
    first.write_bytes(content[: used_bytes(content) - 600])

    with pytest.raises(Corrupt):
        reopen()


@pytest.mark.parametrize("left", [slice(0, 1), slice(1, 2), slice(0, 2)])
def test_segments_that_a_crash_left_behind_a_compaction_are_removed(reopen: Open, folder: Path, left: slice) -> None:
    log = reopen()
    fill_segments(log)
    kept = [(path, path.read_bytes()) for path in segments(folder)[:2]]
    log.compact(500)
    log.close()
    remaining = segments(folder)
    for path, content in kept[left]:
        path.write_bytes(content)

    log = reopen()

    assert log.read(501, 601, LIMITLESS) == entries(501, 600)
    assert segments(folder) == remaining


def test_a_crash_before_a_reset_has_dropped_the_old_segments_changes_nothing(reopen: Open, folder: Path) -> None:
    log = reopen()
    fill_segments(log)
    kept = {path: path.read_bytes() for path in segments(folder)}
    log.reset(2000, 5)
    log.append(None, entries(2001, 2003, term=5))
    log.close()
    for path, content in kept.items():
        path.write_bytes(content)

    log = reopen()

    assert (log.first_index, log.last_index, log.term(2000)) == (2001, 2003, 5)
    assert log.hard_state == (1, 0, 551)
    assert len(segments(folder)) == 1


def test_a_segment_that_was_not_finished_is_forgotten(reopen: Open, folder: Path) -> None:
    reopen().append(None, entries(1, 3))
    (folder / f"{2:016x}.new").write_bytes(b"half of it")

    assert reopen().last_index == 3
    assert not list(folder.glob("*.new"))


def test_a_full_disk_writes_nothing_and_lets_the_batch_be_tried_again(
    reopen: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = reopen()
    log.append((1, 0, 0), entries(1, 3))
    large = entries(4, 4, size=2 * file_log.FILL_BYTES)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", failing(errno.ENOSPC))
        with pytest.raises(Full):
            log.append((2, 0, 0), large)
    assert (log.last_index, log.hard_state) == (3, (1, 0, 0))

    log.append((2, 0, 0), large)

    assert reopen().read(4, 5, LIMITLESS) == large


def test_a_full_disk_refuses_a_new_segment_and_leaves_nothing_behind(
    reopen: Open, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = reopen()
    log.append(None, entries(1, 300))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", failing(errno.ENOSPC))
        with pytest.raises(Full):
            log.append(None, entries(301, 301))
        with pytest.raises(Full):
            log.reset(900, 2)
    assert len(list(folder.iterdir())) == 1

    log.append(None, entries(301, 301))

    assert reopen().last_index == 301


def test_a_new_segment_of_which_nobody_can_tell_whether_it_is_there_fences_the_log(
    reopen: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = reopen()
    log.append(None, entries(1, 300))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", failing(errno.ENOSPC))
        patch.setattr(Path, "iterdir", failing(errno.EIO))
        with pytest.raises(Fenced):
            log.append(None, entries(301, 301))


def test_a_failed_sync_is_never_tried_again(reopen: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    log = reopen()
    log.append(None, entries(1, 3))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", failing(errno.EIO))
        with pytest.raises(Fenced):
            log.append(None, entries(4, 4))

    assert log.last_index == 3
    attempts: list[Callable[[], None]] = [
        lambda: log.append(None, entries(4, 4)),
        lambda: log.compact(2),
        lambda: log.reset(9, 1),
        lambda: log.set_identity(b"x"),
    ]
    for attempt in attempts:
        with pytest.raises(Fenced):
            attempt()


def test_nothing_is_told_before_it_is_synced(reopen: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    log = reopen()
    seen: list[tuple[int, tuple[int, int, int]]] = []
    sync = os.fdatasync

    def watch(file: int) -> None:
        seen.append((log.last_index, log.hard_state))
        sync(file)

    monkeypatch.setattr(os, "fdatasync", watch)

    log.append((1, 1, 0), entries(1, 3))
    log.append((2, 1, 3), entries(2, 2, term=2))

    assert seen == [(0, (0, 0, 0)), (1, (1, 1, 0))]
    assert (log.last_index, log.hard_state) == (2, (2, 1, 3))


def test_an_append_is_one_sync_and_few_bytes(reopen: Open, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = reopen()
    log.append(None, entries(1, 1))
    syncs: list[int] = []
    monkeypatch.setattr(os, "fdatasync", syncs.append)
    before = used_bytes(segments(folder)[0].read_bytes())

    log.append((1, 0, 1), entries(2, 2, size=100))

    assert len(syncs) == 1
    assert used_bytes(segments(folder)[0].read_bytes()) - before < 220


def test_the_folder_of_another_kind_of_log_is_refused(folder: Path) -> None:
    LmdbLog(folder, map_bytes=1 << 28).close()

    with pytest.raises(Corrupt):
        FileLog(folder)


def test_a_segment_has_the_published_bytes(reopen: Open, folder: Path) -> None:
    log = reopen()
    log.append((2, 3, 1), [(2, 1, 0, b"entry")])
    log.compact(1)
    log.close()

    content = segments(folder)[0].read_bytes()

    assert content.rstrip(b"\0").hex() == GOLDEN
    assert len(content) == file_log.FILL_BYTES


def test_zeros_are_written_ahead_and_are_there_for_the_next_batches(folder: Path) -> None:
    log = FileLog(folder)
    log.append(None, entries(1, 1))
    filling = log._filling
    assert filling is not None
    filling.join()

    log.append(None, entries(2, 2))

    assert log._filled == file_log.FILL_BYTES + file_log.FILL_STEP_BYTES
    log.append(
        None, entries(3, 3, size=2 * file_log.FILL_STEP_BYTES)
    )  # waits for what is being filled, and fills the rest
    log.close()
    log = FileLog(folder)
    assert log.read(1, 4, LIMITLESS) == [*entries(1, 2), *entries(3, 3, size=2 * file_log.FILL_STEP_BYTES)]
    log.close()


def test_zeros_that_could_not_be_written_ahead_are_written_with_the_batch(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = FileLog(folder)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(errno.EIO))
        log.append(None, entries(1, 1))
        filling = log._filling
        assert filling is not None
        filling.join()
    assert filling.filled == file_log.FILL_BYTES

    log.append(None, entries(2, 2, size=2 * file_log.FILL_BYTES))

    assert log.read(2, 3, LIMITLESS) == entries(2, 2, size=2 * file_log.FILL_BYTES)
    log.close()
