"""Audit devices: which there are, and the rule that nothing is answered that no device has recorded.

The devices are replicated records; each node opens them for itself as the log tells it of them, so a standby that answers
a read records it, too. A request is recorded before it is served, and its answer before it leaves. Where there are
devices and none of them takes a record, the request is refused: an unrecorded answer would be worse than none.

Area `audit`: `<path>` one record a device. Source: Vault's page "Audit devices".
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from msgspec import Struct

from conclave.core.audit_devices import Device, DeviceFailed, open_device
from conclave.core.audit_records import Style, Subject, encode, hasher, request_record, response_record
from conclave.core.contract import Response, Storage
from conclave.core.errors import InternalError, InvalidRequest, RequestError, Unavailable

log = logging.getLogger(__name__)

KEY_BYTES: Final = 32
DEVICES_MAX: Final = 16
"""Each record is written to every device while its client waits."""
TEST_PATH: Final = "sys/audit/test"
UNKNOWN_DEVICES: Final = "this node cannot read which audit devices there are, so it refuses what it could not record"


class AuditDevice(Struct, array_like=True, frozen=True):
    """A device as it is kept. New fields come last, with defaults."""

    path: str  # "file/"
    type: str
    description: str
    options: dict[str, str]
    key: bytes  # of its hashes
    is_local: bool = False

    def style(self) -> Style:
        """Return how it writes."""
        is_raw = self.options.get("log_raw", "").lower() in ("true", "1")
        hide = (lambda text: text) if is_raw else hasher(self.key)
        leaves_accessors = self.options.get("hmac_accessor", "true").lower() in ("false", "0")
        elides = self.options.get("elide_list_responses", "").lower() in ("true", "1")
        return Style(hide, (lambda text: text) if leaves_accessors else hide, elides)


class AuditTable:
    """The devices, in one directory.

    Args:
        storage: the directory.
    """

    __slots__ = ("_storage",)

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def all(self) -> list[AuditDevice]:
        """Return every device, sorted by path."""
        found = (self._storage.get(name, AuditDevice) for name in self._storage.list())
        return sorted((device for device in found if device is not None), key=lambda device: device.path)

    def at(self, path: str) -> AuditDevice | None:
        """Return the device of this path ("file/")."""
        return self._storage.get(quote(path, safe=""), AuditDevice)

    def put(self, device: AuditDevice) -> None:
        """Add a device.

        Raises:
            InvalidRequest: its path is taken, or there are as many as there may be.
        """
        devices = self.all()
        if any(device.path.startswith(other.path) or other.path.startswith(device.path) for other in devices):
            raise InvalidRequest("path already in use")
        if len(devices) >= DEVICES_MAX:
            raise InvalidRequest(f"there can be at most {DEVICES_MAX} audit devices")
        self._storage.put(quote(device.path, safe=""), device)

    def remove(self, path: str) -> bool:
        """Remove a device; False if there is none."""
        return self._storage.delete(quote(path, safe=""))


class _Open(Struct, frozen=True):
    """A device that this node writes to; without one it could not be opened, and counts as failing."""

    record: AuditDevice
    style: Style
    device: Device | None

    def take(self, line: bytes) -> None:
        """Write a line.

        Raises:
            DeviceFailed: it was not taken.
        """
        if self.device is None:
            raise DeviceFailed("it could not be opened")
        self.device.write(line)


class Auditor:
    """The devices of one node.

    Args:
        forbidden: folders in which no audit log may lie.
        now_ns: the time.
    """

    def __init__(self, forbidden: Sequence[Path], now_ns: Callable[[], int]) -> None:
        self.forbidden = forbidden
        self.on_failure: Callable[[str], None] = lambda kind: None  # noqa: ARG005  (a name for whoever sets it)
        self._now_ns = now_ns
        self._open: dict[str, _Open] = {}
        self._is_list_unknown = False

    @property
    def is_idle(self) -> bool:
        """Whether there is no device, and so nothing to do."""
        return not self._open and not self._is_list_unknown

    def refuse_all(self) -> None:
        """Record nothing and refuse every request until `use` tells the devices: their list cannot be read."""
        self._is_list_unknown = True

    def use(self, devices: Sequence[AuditDevice]) -> None:
        """Write to exactly these devices from now on: open what is new, close what is gone."""
        self._is_list_unknown = False
        wanted = {device.path: device for device in devices}
        for path in [path for path, opened in self._open.items() if wanted.get(path) != opened.record]:
            closed = self._open.pop(path).device
            if closed is not None:
                closed.close()
        for path, record in wanted.items():
            if path not in self._open:
                self._open[path] = _Open(record, record.style(), self._try_open(record))

    def _try_open(self, record: AuditDevice) -> Device | None:
        try:
            return open_device(record.type, record.options, self.forbidden)
        except InvalidRequest as error:
            log.error("an audit device cannot be opened", extra={"device": record.path, "reason": str(error)})  # noqa: TRY400
            return None

    def reopen(self) -> None:
        """Begin every device anew: its file may have been moved away."""
        for path, opened in list(self._open.items()):
            if opened.device is None:
                self._open[path] = _Open(opened.record, opened.style, self._try_open(opened.record))
                continue
            try:
                opened.device.reopen()
            except (InvalidRequest, OSError) as error:
                log.error("an audit device cannot be reopened", extra={"device": path, "reason": str(error)})  # noqa: TRY400

    def close(self) -> None:
        """Close every device."""
        self.use([])

    # -- recording --

    def request(self, subject: Subject, error: RequestError | None = None) -> None:
        """Record a request that is about to be served, or has been refused.

        Raises:
            InternalError: there are devices, and none has taken the record.
            Unavailable: nobody knows which devices there are.
        """
        now_ns = self._now_ns()
        self._write("request", lambda style: encode(request_record(subject, now_ns, style, error)))

    def response(self, subject: Subject, outcome: Response | RequestError) -> None:
        """Record an answer that is about to leave.

        Raises:
            InternalError, Unavailable: as `request`.
        """
        now_ns = self._now_ns()
        self._write("response", lambda style: encode(response_record(subject, now_ns, style, outcome)))

    def _write(self, kind: str, line: Callable[[Style], bytes]) -> None:
        if self._is_list_unknown:
            raise Unavailable(UNKNOWN_DEVICES)
        if not self._open:
            return
        has_been_taken = False
        for path, opened in self._open.items():
            try:
                opened.take(line(opened.style) + b"\n")
                has_been_taken = True
            except DeviceFailed as error:
                self.on_failure(kind)
                log.error("an audit device failed", extra={"device": path, "reason": str(error)})  # noqa: TRY400
        if not has_been_taken:
            raise InternalError("no audit device has recorded this request, so it was refused")


def probe(record: AuditDevice, subject: Subject, forbidden: Sequence[Path], now_ns: int) -> None:
    """Open a device that is to be added and write a test record, so that a wrong option is refused at once.

    Raises:
        InvalidRequest: it cannot be opened or written.
    """
    device = open_device(record.type, record.options, forbidden)
    try:
        device.write(encode(request_record(subject, now_ns, record.style())) + b"\n")
    except DeviceFailed as error:
        raise InvalidRequest(str(error)) from None
    finally:
        device.close()


def options_of(given: Mapping[str, object]) -> dict[str, str]:
    """Return a device's options as texts."""
    return {
        name: ("true" if value is True else "false" if value is False else str(value)) for name, value in given.items()
    }
