"""Looks at every record of the state in turn, so that damage on a disk is known before anybody asks for what it hit.

LMDB has no checksums of its own, and a record that is never read could rot on two disks of three. A record opens only if
every bit of it, and of the key at which it lies, is as it was sealed.
"""

import asyncio
import logging
from itertools import islice
from typing import TYPE_CHECKING, Final

from conclave.storage.errors import StorageError
from conclave.storage.seal import CLEAR_KEYS

if TYPE_CHECKING:
    from conclave.core.vault import Vault

log = logging.getLogger(__name__)

STEP_RECORDS: Final = 64
"""As many as are opened between two requests: well under a millisecond."""
STEP_SECONDS: Final = 0.05
"""Pause between two steps: a million records take a quarter of an hour, and one hundredth of a core."""
ROUND_SECONDS: Final = 24 * 3600.0
"""Pause between two rounds."""


class Scrubber:
    """Goes through the durable state of one node, for as long as it is unsealed.

    Args:
        vault: whose state is looked at.
    """

    def __init__(self, vault: "Vault") -> None:
        self._vault = vault
        self._task: asyncio.Task[None] | None = None
        self._after = b""
        self.rounds = 0  # how many times everything has been looked at since the node was unsealed

    def start(self) -> None:
        """Begin with the first record; this node is unsealed."""
        self.stop()
        self._after, self.rounds = b"", 0
        self._task = self._vault.spawn(self._run())

    def stop(self) -> None:
        """End at once: this node holds no keys any more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def step(self) -> bool:
        """Open the next records; False if those were the last ones and the next step begins a new round.

        Raises:
            Corrupt: one of them does not open, or LMDB cannot find its way to them.
        """
        vault = self._vault
        assert vault.keys is not None, "only an unsealed node can open records"
        if vault.store.is_frozen:  # another state is being restored: look on when that is done
            return True
        reader = vault.store.overlay.open_reader()
        try:
            records = list(islice(reader.pairs(self._after), STEP_RECORDS))
        finally:
            reader.close()
        for key, sealed in records:
            if key not in CLEAR_KEYS:
                vault.keys.barrier.open_record(key, sealed)
            self._after = key
        if len(records) == STEP_RECORDS:
            return True
        self._after = b""
        self.rounds += 1
        return False

    async def _run(self) -> None:
        while True:
            try:
                is_more = self.step()
            except StorageError as error:
                self._vault.store.note_damage(error)
                return  # one is enough: the fault says what to do, which replaces the whole state
            await asyncio.sleep(STEP_SECONDS if is_more else ROUND_SECONDS)
