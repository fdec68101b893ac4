"""The applied state: one suite for both implementations, then what only a disk can do."""

from pathlib import Path

import lmdb
import pytest

from conclave.storage.checksums import checksum
from conclave.storage.environment import READERS_MAX
from conclave.storage.errors import Corrupt, StorageError
from conclave.storage.state import Applied, LmdbState, StateStore, decode_applied, encode_applied

DIRECTORY = bytes(16)


def key(number: int, directory: bytes = DIRECTORY) -> bytes:
    return directory + number.to_bytes(16, "big")


def test_a_reader_that_could_not_be_opened_holds_up_nothing(tmp_path: Path) -> None:
    state = LmdbState(tmp_path / "state")
    readers = [state.open_reader() for _ in range(READERS_MAX - 1)]  # the last one is the state's own

    with pytest.raises(StorageError):
        state.open_reader()
    for reader in readers:
        reader.close()

    assert not state.has_readers
    state.close()


class TornView:
    """Pages that LMDB cannot find its way through."""

    def get(self, _key: bytes, *, db: object) -> bytes:
        del db
        raise lmdb.CorruptedError("mdb_get")

    def cursor(self, _db: object) -> object:
        raise lmdb.PageNotFoundError("mdb_cursor_get")

    def abort(self) -> None:
        pass


def test_what_lmdb_finds_wrong_with_its_pages_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = LmdbState(tmp_path / "state")
    state.flush({key(1): b"one"}, Applied(5, 2, 99, b"members"))
    monkeypatch.setattr(state, "_view", TornView())

    with pytest.raises(Corrupt):
        state.get(key(1))
    found = state.get(key(1))
    monkeypatch.setattr(state, "_view", TornView())
    with pytest.raises(Corrupt):
        list(state.keys(DIRECTORY))

    assert found == b"one", "LMDB answers nothing more in a transaction that failed: another is begun"
    assert list(state.keys(DIRECTORY)) == [key(1)]
    state.close()


def test_a_new_state_holds_nothing(state: StateStore) -> None:
    assert state.applied == (0, 0)
    assert state.get(key(1)) is None


def test_a_flush_is_seen_after_a_refresh(state: StateStore) -> None:
    state.flush({key(1): b"one"}, Applied(5, 2, 99, b"members"))
    state.refresh()

    assert (state.get(key(1)), state.applied, state.membership) == (b"one", (5, 2), b"members")


def test_a_deleted_key_is_gone(state: StateStore) -> None:
    state.flush({key(1): b"one"}, Applied(1, 1))
    state.flush({key(1): None}, Applied(2, 1))
    state.refresh()

    assert state.get(key(1)) is None


def test_keys_are_those_of_their_directory_and_in_order(state: StateStore) -> None:
    other = b"\x01" * 16
    state.flush({key(3): b"3", key(1): b"1", key(2): b"2", key(0, other): b"x"}, Applied(1, 1))
    state.refresh()

    assert list(state.keys(DIRECTORY)) == [key(1), key(2), key(3)]
    assert list(state.keys(DIRECTORY, key(2))) == [key(2), key(3)]
    assert list(state.keys(b"\xff" * 16)) == []


def test_a_reader_sees_one_moment(state: StateStore) -> None:
    state.flush({key(1): b"old"}, Applied(1, 1))
    state.refresh()
    reader = state.open_reader()

    state.flush({key(1): b"new", key(2): b"more"}, Applied(2, 1))

    assert list(reader.pairs()) == [(key(1), b"old")]
    assert (reader.applied.index, reader.count) == (1, 1)
    reader.close()


def test_a_state_survives_a_restart(tmp_path: Path) -> None:
    state = LmdbState(tmp_path / "state")
    state.flush({key(1): b"one"}, Applied(7, 3, 5, b"m"))
    state.close()

    reopened = LmdbState(tmp_path / "state")

    assert (reopened.get(key(1)), reopened.applied_record) == (b"one", Applied(7, 3, 5, b"m"))
    reopened.close()


def test_the_applied_record_has_this_layout() -> None:
    assert encode_applied(Applied(7, 3, 5, b"m")).hex()[8:] == "980703" + "05" + "c4016d" + "01" + "c20000"


def test_an_applied_record_without_the_newest_fields_can_be_read() -> None:
    written = bytes.fromhex("950703" + "05" + "c4016d" + "01")

    assert decode_applied(checksum(written).to_bytes(4, "big") + written) == Applied(7, 3, 5, b"m")


def test_a_damaged_applied_record_is_found() -> None:
    stored = bytearray(encode_applied(Applied(7, 3, 5, b"m")))
    stored[5] ^= 1

    with pytest.raises(Corrupt):
        decode_applied(bytes(stored))


def test_a_state_on_disk_knows_that_it_is_being_read(tmp_path: Path) -> None:
    state = LmdbState(tmp_path / "state", map_bytes=1 << 28)
    reader = state.open_reader()

    while_reading = state.has_readers
    reader.close()

    assert (while_reading, state.has_readers) == (True, False)
    state.close()
