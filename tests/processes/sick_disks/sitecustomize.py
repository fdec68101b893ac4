"""A disk that hangs or fails: Python imports this at its start, in processes that have this folder on PYTHONPATH.

While there is a file `hang` in the folder that CONCLAVE_TEST_DISK names, `os.fsync` and `os.fdatasync` wait until it is
gone; while there is a file `fail`, they raise EIO and sync nothing. What C code syncs by itself (LMDB, for the state) is left
alone.
"""

import errno
import os
import threading
from collections.abc import Callable

POLL_SECONDS = 0.01


def _sick(sync: Callable[[int], None], hang: str, fail: str) -> Callable[[int], None]:
    never = threading.Event()  # its waits are no `time.sleep`, which does not work under libfaketime

    def sync_if_well(file: int) -> None:
        while os.path.exists(hang):  # noqa: PTH110  (before every sync: what takes least)
            never.wait(POLL_SECONDS)
        if os.path.exists(fail):  # noqa: PTH110
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(file)

    return sync_if_well


_folder = os.environ["CONCLAVE_TEST_DISK"]
_paths = f"{_folder}/hang", f"{_folder}/fail"
os.fsync = _sick(os.fsync, *_paths)  # type: ignore[assignment]  # narrower: takes descriptors only, as all callers give
os.fdatasync = _sick(os.fdatasync, *_paths)  # type: ignore[assignment]
