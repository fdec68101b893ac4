"""Where audit records go: what a device takes, refuses to overwrite, and never waits for."""

import socket
from pathlib import Path

import pytest

from conclave.core import audit_devices
from conclave.core.audit_devices import RECONNECT_SECONDS, DeviceFailed, FileDevice, SocketDevice, open_device
from conclave.core.errors import InvalidRequest
from tests.fakes import Clock

LINE = b'{"time":"now"}\n'


def test_a_file_is_appended_to_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    for _ in range(2):
        device = FileDevice(str(path))
        device.write(LINE)
        device.close()

    assert path.read_bytes() == LINE * 2
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_no_audit_log_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_bytes(b"data")

    with pytest.raises(InvalidRequest, match="no audit log"):
        FileDevice(str(path))

    assert path.read_bytes() == b"data"


@pytest.mark.parametrize("name", ["log", "deeper/log", "../data/log"])
def test_no_file_lies_in_a_forbidden_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()

    with pytest.raises(InvalidRequest, match="data directory"):
        FileDevice(f"{folder}/{name}", forbidden=[folder])


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "target")

    with pytest.raises(InvalidRequest, match="unable to open"):
        FileDevice(str(link))


def test_a_socket_gets_whole_lines_with_their_prefix(tmp_path: Path) -> None:
    address = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        device = open_device("socket", {"address": address, "socket_type": "unix", "prefix": "p "}, [])
        accepted, _ = listener.accept()
        with accepted:
            device.write(LINE)

            assert accepted.recv(100) == b"p " + LINE
        device.close()


def test_an_address_at_which_nobody_answers_in_time_is_left_alone_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, clock = str(tmp_path / "socket"), Clock()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        device = SocketDevice(address, "unix", clock=clock.monotonic_seconds)
    tries: list[str] = []

    def nobody_answers(address: str, _kind: str) -> socket.socket:
        tries.append(address)
        raise TimeoutError

    monkeypatch.setattr(audit_devices, "_connect", nobody_answers)
    device.close()

    for _ in range(3):
        with pytest.raises(DeviceFailed):
            device.write(LINE)
    assert len(tries) == 1
    clock.advance(RECONNECT_SECONDS)
    with pytest.raises(DeviceFailed):
        device.write(LINE)

    assert len(tries) == 2
