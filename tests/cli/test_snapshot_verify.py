"""`operator raft snapshot verify` on files that the storage wrote, whole and damaged."""

import json
from pathlib import Path

import pytest

from conclave.storage.archive import write_file
from conclave.storage.memory import MemoryState
from conclave.storage.state import Applied
from tests.cli.conftest import Shell


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    state = MemoryState()
    state.flush({number.to_bytes(32, "big"): b"sealed" * 50 for number in range(3)}, Applied(7, 3, 5, b"m"))
    state.refresh()
    reader = state.open_reader()
    file = tmp_path / "s.snap"
    file.write_bytes(b"".join(write_file(reader, bytes(16))))
    reader.close()
    return file


def verify(shell: Shell, file: Path) -> tuple[int, str, str]:
    return shell("operator", "raft", "snapshot", "verify", "-format=json", str(file))


def test_a_sound_snapshot_is_told_what_it_holds_and_no_server_is_asked(shell: Shell, snapshot: Path) -> None:
    code, out, _ = verify(shell, snapshot)

    assert code == 0
    assert json.loads(out).items() >= {"Index": 7, "Term": 3, "Records": 3}.items()
    assert not shell.server.seen


def test_any_changed_byte_and_any_cut_is_refused(shell: Shell, snapshot: Path) -> None:
    whole = snapshot.read_bytes()
    for place in (*range(24), *range(24, len(whole), 97), len(whole) - 1):
        for damaged in (whole[:place], whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]):
            snapshot.write_bytes(damaged)

            code, out, err = verify(shell, snapshot)

            assert (code, out) == (1, "")
            assert "is no snapshot that could be restored" in err


def test_a_file_that_is_not_there_is_an_error(shell: Shell) -> None:
    code, _, err = verify(shell, shell.home / "none.snap")

    assert code == 1
    assert "Error opening snapshot file" in err
