"""The replicated log: one suite for all implementations, then what only a disk can do."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from conclave.storage.errors import Compacted, Corrupt, InUse, Unavailable
from conclave.storage.file_log import FileLog
from conclave.storage.log import EntryTuple, LogStore

LIMITLESS = 1 << 30


def entries(first: int, last: int, term: int = 1) -> list[EntryTuple]:
    return [(term, index, 0, f"{term}/{index}".encode()) for index in range(first, last + 1)]


def test_a_new_log_is_empty(log: LogStore) -> None:
    assert (log.first_index, log.last_index, log.hard_state) == (1, 0, (0, 0, 0))


def test_what_was_appended_is_read_back(log: LogStore) -> None:
    log.append((1, 2, 0), entries(1, 5))

    assert log.read(2, 5, LIMITLESS) == entries(2, 4)
    assert log.hard_state == (1, 2, 0)


def test_an_entry_at_an_existing_index_replaces_it_and_all_behind(log: LogStore) -> None:
    log.append(None, entries(1, 5))

    log.append(None, entries(3, 3, term=2))

    assert log.last_index == 3
    assert log.term(3) == 2


def test_no_hard_state_leaves_the_old_one(log: LogStore) -> None:
    log.append((3, 1, 0), [])

    log.append(None, entries(1, 1))

    assert log.hard_state == (3, 1, 0)


def test_a_read_is_cut_at_its_bound_but_returns_one_entry(log: LogStore) -> None:
    log.append(None, entries(1, 3))

    assert log.read(1, 4, 1) == entries(1, 1)


def test_reading_beyond_the_end_is_unavailable(log: LogStore) -> None:
    log.append(None, entries(1, 3))

    with pytest.raises(Unavailable):
        log.read(2, 5, LIMITLESS)


def test_compaction_keeps_the_term_at_its_index(log: LogStore) -> None:
    log.append(None, entries(1, 1200))

    log.compact(1100)

    assert (log.first_index, log.term(1100)) == (1101, 1)
    with pytest.raises(Compacted):
        log.read(1100, 1102, LIMITLESS)


def test_a_reset_log_starts_behind_the_snapshot(log: LogStore) -> None:
    log.append((1, 0, 0), entries(1, 5))

    log.reset(90, 7)
    log.append(None, entries(91, 92, term=8))

    assert (log.first_index, log.last_index, log.term(90), log.term(92)) == (91, 92, 7, 8)


def test_identity_is_kept(log: LogStore) -> None:
    log.set_identity(b"who")

    assert log.get_identity() == b"who"


def test_everything_survives_a_restart(open_log: Callable[[], LogStore]) -> None:
    log = open_log()
    log.append((2, 3, 4), entries(1, 3000))
    log.compact(10)

    log = open_log()

    assert (log.first_index, log.last_index, log.hard_state) == (11, 3000, (2, 3, 4))
    assert log.read(11, 3001, LIMITLESS) == entries(11, 3000)


def test_an_identity_survives_compaction_and_a_restart(open_log: Callable[[], LogStore]) -> None:
    log = open_log()
    log.set_identity(b"who")
    log.append((1, 0, 0), entries(1, 2000))
    log.append(None, entries(2001, 2001))
    log.compact(2001)

    assert open_log().get_identity() == b"who"


def test_a_reset_survives_a_restart(open_log: Callable[[], LogStore]) -> None:
    log = open_log()
    log.append((1, 2, 3), entries(1, 9))
    log.reset(50, 4, (4, 0, 50))

    log = open_log()

    assert (log.first_index, log.last_index, log.term(50), log.hard_state) == (51, 50, 4, (4, 0, 50))


def test_what_was_cut_off_stays_so_after_a_restart(open_log: Callable[[], LogStore]) -> None:
    log = open_log()
    log.append((1, 0, 0), entries(1, 2000))
    log.append((2, 0, 0), entries(700, 701, term=2))

    log = open_log()

    assert log.read(699, 702, LIMITLESS) == [*entries(699, 699), *entries(700, 701, term=2)]
    assert log.last_index == 701


def test_old_entries_are_read_from_disk_while_the_log_is_cut_and_compacted(open_log: Callable[[], LogStore]) -> None:
    log = open_log()
    for first in range(1, 9001, 500):
        log.append(None, entries(first, first + 499))
    log.append(None, entries(4000, 4000, term=2))
    log.compact(2000)

    assert log.read(2001, 2003, LIMITLESS) == entries(2001, 2002)
    assert log.read(3999, 4001, LIMITLESS) == [*entries(3999, 3999), *entries(4000, 4000, term=2)]


def test_a_flipped_bit_in_an_old_entry_is_found_and_nothing_is_cut(
    open_log: Callable[[], LogStore], tmp_path: Path
) -> None:
    log = open_log()
    log.append((1, 0, 0), [(1, 1, 0, b"x" * 50), (1, 2, 0, b"a-marker-to-be-found"), (1, 3, 0, b"z")])
    log.append(None, [(1, 4, 0, b"later")])
    log.close()
    file = max((tmp_path / "log").iterdir(), key=lambda path: path.stat().st_size)
    damaged = file.read_bytes().replace(b"a-marker-to-be-found", b"b-marker-to-be-found")
    file.write_bytes(damaged)

    with pytest.raises(Corrupt):
        open_log()

    assert file.read_bytes() == damaged


def test_a_log_is_opened_once_at_a_time(tmp_path: Path, open_log: Callable[[], LogStore]) -> None:
    open_log()

    with pytest.raises(InUse):
        FileLog(tmp_path / "log")


def test_files_are_private_whatever_the_umask(
    open_log: Callable[[], LogStore], tmp_path: Path, permissive_umask: None
) -> None:
    del permissive_umask
    open_log()

    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "log").iterdir()}
    assert modes == {0o600}
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o700
