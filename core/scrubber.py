"""Looks at every record of the state in turn, so that damage on a disk is known before anybody asks for what it hit.

LMDB has no checksums of its own, and a record that is never read could rot on two disks of three. A record opens only if
every bit of it, and of the key at which it lies, is as it was sealed.
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from conclave.storage.errors import is_damage
from conclave.storage.seal import CLEAR_KEYS

if TYPE_CHECKING:
    from conclave.core.vault import Vault

log = logging.getLogger(__name__)

STEP_RECORDS: Final = 64
"""As many as are opened between two requests: well under a millisecond."""
STEP_SECONDS: Final = 0.05
"""Pause between two steps: a million records take a quarter of an hour, and one hundredth of a core."""
STEP_BYTES: Final = 256 * 1024
"""Or so much of them: a record may have a megabyte."""
RETRY_SECONDS: Final = 60.0
"""Pause after a step that failed otherwise: no reader to be had, say."""
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
        overlay = vault.store.overlay
        if vault.store.is_frozen or overlay.durable_index < overlay.swapped_at:
            return True  # what is durable is a state that is being replaced, perhaps by one with other keys
        looked_at = size_bytes = 0
        reader = overlay.open_reader()
        try:
            for key, sealed in reader.pairs(self._after):
                if key not in CLEAR_KEYS:
                    vault.keys.barrier.open_record(key, sealed)
                self._after = key
                looked_at += 1
                size_bytes += len(sealed)
                if looked_at == STEP_RECORDS or size_bytes >= STEP_BYTES:
                    return True
        finally:
            reader.close()
        self._after = b""
        self.rounds += 1
        return False

    async def _run(self) -> None:
        while True:
            try:
                pause_seconds = STEP_SECONDS if self.step() else ROUND_SECONDS
            except Exception as error:  # noqa: BLE001  # the loop's edge: what it cannot look at now it looks at later
                self._vault.failure(error)
                if is_damage(error):
                    return  # one is enough: the fault says what to do, which replaces the whole state
                pause_seconds = RETRY_SECONDS
            await asyncio.sleep(pause_seconds)
