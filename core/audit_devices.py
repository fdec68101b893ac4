"""Where audit records go: a file, or a socket. Opening and writing, nothing about what is written.

A record is written before the answer that it is about leaves. A file gets it by one `write` to a descriptor opened for
appending; a socket takes it into the kernel's buffer or the device has failed: nothing here ever waits for a reader, and
for a connection hardly.

A file device never writes into the server's own data directory, nor over a file that holds anything but an audit log:
whoever may enable audit devices shall not be able to overwrite what the server's user can.
"""

import contextlib
import os
import socket
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from conclave.core.errors import InvalidRequest

SOCKET_TIMEOUT_SECONDS: Final = 0.15
"""How long connecting may take. Everything else on this node waits meanwhile, heartbeats too; so less than a promise to a
leader lasts."""
RECONNECT_SECONDS: Final = 1.0
"""How long an address is left alone at which nothing answered in time."""
RECORD_STARTS: Final = (b'{"time":', b'{"request":', b'{"auth":')
"""How a line of an audit log begins."""
_FILE_MODE: Final = 0o600
STANDARD_OUTPUT: Final = "stdout"
DISCARD: Final = "discard"


class DeviceFailed(Exception):
    """A record could not be written."""


class Device(Protocol):
    """Takes records, one line each."""

    def write(self, line: bytes) -> None:
        """Write a line.

        Raises:
            DeviceFailed: it is not certain that all of it was taken.
        """

    def reopen(self) -> None:
        """Begin anew where the device is: after its file was moved away."""

    def close(self) -> None:
        """Write no more."""


class FileDevice:
    """Appends to a file.

    Args:
        path: of the file; "stdout" and "discard" are special, as in Vault.
        mode: of a file that is created.
        prefix: what each line begins with.
        forbidden: folders in which no audit log may lie.

    Raises:
        InvalidRequest: the file must not be used, or cannot be.
    """

    def __init__(
        self, path: str, *, mode: int = _FILE_MODE, prefix: bytes = b"", forbidden: Sequence[Path] = ()
    ) -> None:
        self._path = path
        self._mode = mode
        self._prefix = prefix
        self._forbidden = forbidden
        self._descriptor = -1
        self.reopen()

    def reopen(self) -> None:
        """See `Device`."""
        before = self._descriptor
        self._descriptor = self._open()
        if before >= 0:
            os.close(before)

    def write(self, line: bytes) -> None:
        """See `Device`."""
        if self._path == DISCARD:
            return
        data = self._prefix + line
        try:
            written = os.write(self._descriptor, data)
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        except OSError as error:
            raise DeviceFailed(f"cannot write the audit log: {error.strerror}") from error

    def close(self) -> None:
        """See `Device`."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> int:
        if self._path == DISCARD:
            return os.open(os.devnull, os.O_WRONLY)
        if self._path == STANDARD_OUTPUT:
            return os.dup(1)
        path = Path(self._path)
        self._check_place(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(
                path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, self._mode
            )
        except OSError as error:
            raise InvalidRequest(
                f"sanity check failed; unable to open {self._path!r} for writing: {error.strerror}"
            ) from None
        try:
            self._check_content(descriptor)
        except InvalidRequest:
            os.close(descriptor)
            raise
        return descriptor

    def _check_place(self, path: Path) -> None:
        resolved = path.resolve()
        for folder in self._forbidden:
            if resolved.is_relative_to(folder.resolve()):
                raise InvalidRequest("an audit log must not lie in the server's data directory")

    def _check_content(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidRequest(f"{self._path!r} is no regular file")
        if status.st_size == 0:
            return
        start = os.pread(descriptor, 256, 0)
        if not start.removeprefix(self._prefix).startswith(RECORD_STARTS):
            raise InvalidRequest(f"{self._path!r} exists and is no audit log; choose another file")


class SocketDevice:
    """Sends to a TCP, UDP or Unix socket, and connects anew when that breaks.

    Args:
        address: "host:port", or a path.
        kind: "tcp", "udp" or "unix".
        prefix: what each line begins with.
        clock: seconds, never going back.

    Raises:
        InvalidRequest: the address or its kind makes no sense, or nobody listens there.
    """

    def __init__(
        self, address: str, kind: str, prefix: bytes = b"", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._address = address
        self._kind = kind
        self._prefix = prefix
        self._clock = clock
        self._left_alone_until = 0.0
        self._socket: socket.socket | None = None
        try:
            self.reopen()
        except OSError as error:
            raise InvalidRequest(f"cannot connect to {address!r}: {error.strerror or error}") from None

    def reopen(self) -> None:
        """See `Device`."""
        self.close()
        try:
            self._socket = _connect(self._address, self._kind)
        except TimeoutError:
            self._left_alone_until = self._clock() + RECONNECT_SECONDS
            raise

    def write(self, line: bytes) -> None:
        """See `Device`."""
        data = self._prefix + line
        if self._socket is None and self._clock() < self._left_alone_until:
            raise DeviceFailed("nobody answered at the audit socket's address a moment ago")
        for is_last in (False, True):
            try:
                if self._socket is None:
                    self.reopen()
                assert self._socket is not None, "reopen() sets it"
                if self._socket.send(data) == len(data):
                    return
                raise BlockingIOError  # half a line is lost for its reader: begin a new connection
            except OSError as error:
                self.close()
                if is_last or isinstance(error, TimeoutError):
                    raise DeviceFailed(
                        f"cannot send to the audit socket: {error.strerror or 'it is not read'}"
                    ) from error

    def close(self) -> None:
        """See `Device`."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None


def _connect(address: str, kind: str) -> socket.socket:
    if kind == "unix":
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        target: str | tuple[str, int] = address
    elif kind in ("tcp", "udp"):
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise InvalidRequest(f"{address!r} is no address of the form host:port")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
        target = (host.strip("[]"), int(port))
    else:
        raise InvalidRequest(f"unknown socket type {kind!r}: tcp, udp or unix")
    try:
        connection.settimeout(SOCKET_TIMEOUT_SECONDS)
        connection.connect(target)
        connection.setblocking(False)
    except OSError:
        connection.close()
        raise
    return connection


def open_device(kind: str, options: Mapping[str, str], forbidden: Sequence[Path]) -> Device:
    """Open a device as its options say.

    Raises:
        InvalidRequest: an option is wrong, or the device cannot be opened.
    """
    prefix = options.get("prefix", "").encode()
    if kind == "file":
        path = options.get("file_path") or options.get("path") or ""
        if not path:
            raise InvalidRequest("file_path is required")
        return FileDevice(path, mode=_mode(options.get("mode", "")), prefix=prefix, forbidden=forbidden)
    if kind == "socket":
        address = options.get("address", "")
        if not address:
            raise InvalidRequest("address is required")
        return SocketDevice(address, options.get("socket_type", "tcp"), prefix)
    raise InvalidRequest(f'unknown backend type: "{kind}"')


def _mode(text: str) -> int:
    if text in ("", "0000"):
        return _FILE_MODE
    try:
        mode = int(text, 8)
    except ValueError:
        raise InvalidRequest(f"mode {text!r} is no octal number") from None
    if not 0 < mode <= 0o777:
        raise InvalidRequest(f"mode {text!r} is no file mode")
    return mode
