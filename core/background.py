"""What goes on without a request, on the active node alone: ending what is over, clearing what is left of it.

* leases that are over are ended on time; children of ended tokens and doomed directories are cleared away
* the keyring is rotated before a key has sealed too much
* what a restorer of a snapshot has staged and left, for it lost leadership or failed, is dropped; while there is a
  restorer, nothing of all this is done

Each piece of work is one bounded step and one entry of its own, so requests come in between, and a new leader goes on
where the old one stopped: what is still there is what is still to do. Which steps there are is decided in
`core/revocation.py` and `core/rotation.py`; here is when.

Nothing is polled: the task sleeps until the next lease ends, and the feed wakes it when something earlier comes or
something is doomed. It ends at once when leadership does.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import conclave
from conclave.cluster.errors import ClusterError
from conclave.core.durations import NANOSECONDS
from conclave.core.keys import Keys
from conclave.core.revocation import clear_step, empty_step, expire_due, leases_of, next_clearing_ns
from conclave.core.rotation import restore_count, rotation_step
from conclave.core.services import AREA_DOOMED, AREA_TOKENS, TABLE_EXPIRY, Services, area_id
from conclave.core.store import Settlement, settlement_of
from conclave.core.tokens import ENDED_PREFIXES
from conclave.core.versions import note_version
from conclave.storage.errors import StorageError, is_damage
from conclave.storage.transaction import Transaction

if TYPE_CHECKING:
    from conclave.core.vault import Vault

log = logging.getLogger(__name__)

SLEEP_SECONDS_MAX: Final = 60.0
"""How long it sleeps at most: the clock may have been set, and key use is looked at as often."""
RETRY_SECONDS: Final = 1.0
"""Pause after a step that could not be committed."""
_TIME_BYTES: Final = slice(16, 24)  # of an ordered table's key


class Background:
    """The background work of one node.

    Args:
        vault: whose state is worked on.
    """

    def __init__(self, vault: "Vault") -> None:
        self._vault = vault
        self.on_expired: Callable[[int], None] = lambda count: None  # noqa: ARG005  (told how many leases were ended)
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._sleeps_until_ns = 0
        self._prefixes_key = b""
        self._unsubscribe: list[Callable[[], None]] = []

    def start(self) -> None:
        """Begin; this node has become active."""
        self.stop()
        keys = self._vault.keys
        assert keys is not None, "an active node is unsealed"
        overlay = self._vault.store.overlay
        tokens = area_id(keys.barrier, AREA_TOKENS)
        self._prefixes_key = keys.barrier.child_key(tokens, ENDED_PREFIXES.encode())
        self._unsubscribe = [
            overlay.subscribe(area_id(keys.barrier, TABLE_EXPIRY), self._lease_changed),
            overlay.subscribe(area_id(keys.barrier, AREA_DOOMED), self._something_to_clear),
            overlay.subscribe(keys.barrier.descend(tokens, "ending/"), self._something_to_clear),
            overlay.subscribe(tokens, self._token_changed),
        ]
        try:
            restore_count(self._vault.pipeline.services(self._vault.store.reading(), keys.barrier, 0), keys)
        except StorageError as error:  # called while this node becomes active, which must not be held up
            self._vault.failure(error)
        self._task = self._vault.spawn(self._run())

    def stop(self) -> None:
        """End at once: this node is active no longer."""
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        self._unsubscribe = []
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _lease_changed(self, _index: int, key: bytes) -> None:
        if int.from_bytes(key[_TIME_BYTES], "big") < self._sleeps_until_ns:
            self._wake.set()

    def _something_to_clear(self, _index: int, _key: bytes) -> None:
        self._wake.set()

    def _token_changed(self, _index: int, key: bytes) -> None:
        if key == self._prefixes_key:
            self._wake.set()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                while await self.step():  # noqa: ASYNC110  (not polling: a turn for the requests that came meanwhile)
                    await asyncio.sleep(0)
                pause_seconds = self._pause_seconds()
            except (ClusterError, StorageError) as error:
                log.warning("background work is held up", extra={"reason": str(error)})
                if is_damage(error):
                    self._vault.store.note_damage(error)
                pause_seconds = RETRY_SECONDS
            except Exception:  # the loop's edge: expiry must go on whatever one record does to it
                log.exception("background work failed")
                pause_seconds = RETRY_SECONDS
            # Not wait_for: before Python 3.12 it loses a cancellation that comes in the turn in which the event is set.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_seconds):
                    await self._wake.wait()

    async def step(self) -> bool:
        """Do one bounded piece of what is due and return once it is committed; False if nothing is due.

        What cannot be done, for a record does not open, holds up nothing but its own kind.

        Raises:
            ClusterError: this node does not lead any more, or too much is in flight.
            StorageError: nothing could be done but what cannot.
        """
        vault = self._vault
        keys = vault.keys
        if keys is None or not vault.is_active or vault.store.is_frozen:
            return False
        if vault.store.has_leftovers:
            return await self._settled(vault.store.abandon)
        failed: StorageError | None = None
        for work in (self._expire, _clear, _empty, rotation_step, _note_version):
            transaction = vault.store.writing()
            services = vault.pipeline.services(transaction, keys.barrier, vault.store.now_ns())
            try:
                is_due = work(services, keys)
            except StorageError as error:
                failed = error
                continue
            if is_due:
                return await self._commit(transaction)
        if failed is not None:
            raise failed
        return False

    def _expire(self, services: Services, _keys: Keys) -> int:
        count = expire_due(services)
        if count:
            self.on_expired(count)
        return count

    async def _commit(self, transaction: Transaction) -> bool:
        return await self._settled(lambda done: self._vault.store.commit(transaction, done))

    @staticmethod
    async def _settled(propose: Callable[[Callable[[Settlement], None]], None]) -> bool:
        return await settlement_of(propose) is Settlement.COMMITTED

    def _pause_seconds(self) -> float:
        """Return how long nothing is due."""
        vault = self._vault
        keys = vault.keys
        if keys is None:
            return SLEEP_SECONDS_MAX
        now_ns = vault.store.now_ns()
        services = vault.pipeline.services(vault.store.reading(), keys.barrier, now_ns)
        latest_ns = now_ns + int(SLEEP_SECONDS_MAX * NANOSECONDS)
        due_ns = (leases_of(services).next_expiry_ns(), next_clearing_ns(services), latest_ns)
        self._sleeps_until_ns = min(each_ns for each_ns in due_ns if each_ns is not None)
        return max(0.0, (self._sleeps_until_ns - now_ns) / NANOSECONDS)


def _note_version(services: Services, _keys: Keys) -> int:
    return note_version(services, conclave.__version__)


def _clear(services: Services, _keys: Keys) -> int:
    return clear_step(services)


def _empty(services: Services, _keys: Keys) -> int:
    return empty_step(services)
