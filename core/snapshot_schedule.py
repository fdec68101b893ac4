"""Snapshots that a node saves by itself, at an interval, into a folder of its own: each read back and checked.

    due ▸ save beside ▸ sync ▸ read back as a restoring would ▸ rename ▸ remove the oldest

Rules it enforces:

* A file under its final name is whole, on the disk, and can be restored by this vault: it was read to its last byte, and
  its seal opened. What is being written has another name.
* As many of the newest are kept as the schedule says; one is removed only after another has been checked.
* When the next one is due follows from the names of those that there are, so a restart neither skips nor repeats one.
* Nothing is saved while this node is sealed. A failure is logged and tried again soon.

Each node with a schedule saves for itself, for a copy on the disk that fails is none.
"""

import asyncio
import contextlib
import datetime as dt
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from msgspec import Struct

from conclave.cluster.errors import ClusterError
from conclave.core.errors import RequestError, Unavailable
from conclave.core.snapshots import DAMAGED_HERE, Snapshots
from conclave.storage.environment import sync_folder
from conclave.storage.errors import StorageError

if TYPE_CHECKING:
    from conclave.core.vault import Vault

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
"""How often it is looked whether one is due."""
RETRY_SECONDS: Final = 60.0
"""Pause after one that could not be saved."""
NAME_FORMAT: Final = "conclave-%Y%m%dT%H%M%SZ.snap"
_PATTERN: Final = "conclave-*Z.snap"
_UNFINISHED: Final = ".unfinished.snap"


class Schedule(Struct, frozen=True):
    """When and where.

    Attributes:
        retain_count: how many of the newest are kept, 1 or more.
    """

    folder: Path
    interval_seconds: float
    retain_count: int


class ScheduledSnapshots:
    """The scheduled snapshots of one node.

    Args:
        vault: whose state.
        snapshots: saves and checks.
        schedule: when and where.
        utc_now: the date.
    """

    def __init__(
        self,
        vault: "Vault",
        snapshots: Snapshots,
        schedule: Schedule,
        utc_now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._vault = vault
        self._snapshots = snapshots
        self._schedule = schedule
        self._utc_now = utc_now

    def start(self) -> None:
        """Begin; the vault ends it when it stops.

        Raises:
            OSError: the folder cannot be made.
        """
        self._schedule.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._vault.spawn(self._run())

    async def _run(self) -> None:
        while True:
            pause_seconds = LOOK_SECONDS
            try:
                if not self._vault.is_sealed and self._vault.scrubber.rounds and self.is_due():
                    await self.save()
            except (RequestError, ClusterError, StorageError, OSError) as error:
                log.error("a scheduled snapshot was not saved", extra={"reason": str(error)})  # noqa: TRY400  (its text says it)
                pause_seconds = RETRY_SECONDS
            except Exception:  # the loop's edge: one failure must not be the end of all backups
                log.exception("a scheduled snapshot was not saved")
                pause_seconds = RETRY_SECONDS
            await asyncio.sleep(pause_seconds)

    def is_due(self) -> bool:
        """Tell whether the newest file is older than the interval, or there is none."""
        names = self._names()
        if not names:
            return True
        newest = dt.datetime.strptime(names[-1], NAME_FORMAT).replace(tzinfo=dt.UTC)
        age_seconds = (self._utc_now() - newest).total_seconds()
        return not 0 <= age_seconds < self._schedule.interval_seconds  # one of the future is of a clock that was wrong

    async def save(self) -> Path:
        """Save one now, check it, and remove what is too old; return its path.

        Raises:
            OSError: it cannot be written.
            StorageError: what was written is not what was saved, or the state cannot be read.
            RequestError, ClusterError: as `Snapshots.save`; also if the state is damaged, for this would take the place of a
                file of when it was not.
        """
        folder, in_thread = self._schedule.folder, self._vault.store.in_thread
        final = folder / self._utc_now().strftime(NAME_FORMAT)
        unfinished = folder / _UNFINISHED
        saved = await self._snapshots.save()
        opened = contextlib.ExitStack()  # closes the file even if it is opened after this was cancelled
        try:
            file = await in_thread(lambda: opened.enter_context(_create(unfinished)))
            async for piece in saved:
                await in_thread(_writing(file, piece))
            await in_thread(lambda: _sync(file))
            count = await self._snapshots.check(file)
        finally:
            self._vault.store.in_thread_later(opened.close)
            saved.close()
        if self._vault.store.is_damaged:
            raise Unavailable(DAMAGED_HERE)
        size_bytes = await in_thread(lambda: self._publish(unfinished, final))
        log.info("saved a scheduled snapshot", extra={"file": final.name, "size_bytes": size_bytes, "records": count})
        return final

    def _names(self) -> list[str]:
        """Return the names of the files that there are, oldest first; others in the folder are left alone."""
        return sorted(file.name for file in self._schedule.folder.glob(_PATTERN) if _is_ours(file.name))

    def _publish(self, unfinished: Path, final: Path) -> int:
        unfinished.rename(final)
        sync_folder(final.parent)
        for name in self._names()[: -self._schedule.retain_count]:
            (final.parent / name).unlink(missing_ok=True)
        return final.stat().st_size


def _is_ours(name: str) -> bool:
    with contextlib.suppress(ValueError):
        dt.datetime.strptime(name, NAME_FORMAT).replace(tzinfo=dt.UTC)
        return True
    return False


def _create(path: Path) -> IO[bytes]:
    path.unlink(missing_ok=True)  # of one that was broken off
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b")


def _writing(file: IO[bytes], piece: bytes) -> Callable[[], int]:
    return lambda: file.write(piece)


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
