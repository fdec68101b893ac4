"""The files of the operating system: what the port promises beyond what the log's own tests see of it."""

from pathlib import Path

import pytest

from conclave.storage.errors import InUse
from conclave.storage.files import SystemFiles


def test_a_folder_and_its_files_are_for_this_user_alone(tmp_path: Path) -> None:
    files = SystemFiles()
    folder = tmp_path / "log"

    files.close(files.own(folder))
    files.close(files.create(folder / "a"))

    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "a").stat().st_mode & 0o777 == 0o600


def test_a_folder_has_one_owner_at_a_time(tmp_path: Path) -> None:
    files = SystemFiles()
    owned = files.own(tmp_path / "log")

    with pytest.raises(InUse):
        files.own(tmp_path / "log")

    files.close(owned)
    files.close(files.own(tmp_path / "log"))


def test_a_file_that_is_created_again_is_empty(tmp_path: Path) -> None:
    files = SystemFiles()
    (tmp_path / "a").write_bytes(b"before")

    files.close(files.create(tmp_path / "a"))

    assert files.read(tmp_path / "a") == b""


def test_names_are_ascending_and_a_file_may_be_gone_already(tmp_path: Path) -> None:
    files = SystemFiles()
    for name in ("b", "c", "a"):
        files.close(files.create(tmp_path / name))

    files.unlink(tmp_path / "c")
    files.unlink(tmp_path / "c")
    files.rename(tmp_path / "a", tmp_path / "d")

    assert files.names(tmp_path) == ["b", "d"]
