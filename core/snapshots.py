"""Saving the whole state to a file, and restoring one: atomically, on every node.

    save      read barrier ▸ flush ▸ one read transaction, streamed while writes go on; by any node
    restore   spool ▸ check everything ▸ freeze ▸ stage through the log ▸ swap; by the leader

Rules it enforces:

* A saved file holds everything that had been acknowledged when it was asked for.
* Nothing changes before the uploaded file has been read to its last byte, its sums compared, and its keys found to be
  those of this vault. Who forces it gives the last of these up: a snapshot of other keys replaces keys and shares, too, and
  this node seals itself in the step that puts it in place. Only a node does that which is its cluster's only member.
* What is restored reaches every node as entries of the log, beside the live state, and one last entry puts it in the
  state's place; so each node has either the old state or the new one, at the same index. From before the first of these
  entries until the last has been applied nobody else can propose: nothing acknowledged in between is lost.
* Otherwise what is the cluster's own stays as it is: by which shares it is unsealed, and the secrets by which nodes join. A
  snapshot from before the shares were changed would ask for shares that nobody may have any more.
* Whatever breaks a restoring off (lost leadership, a full disk) changes nothing; what was staged is dropped.
* A file is written and checked with half of one core at most, so that writes go on beside it.
* Memory and disk are bounded: a chunk at a time in memory, a few entries in flight, one upload at a time, and so much
  room left on the disk that the node can go on.

The file is `storage/archive.py`; staging is `storage/overlay.py`; see docs/adr/0009-restoring-through-the-log.md.
"""

import asyncio
import logging
import os
import shutil
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, TypeVar

from conclave.cluster.errors import NotLeader
from conclave.core.errors import InternalError, InvalidRequest, TooLarge, Unavailable
from conclave.core.forwarding import UNKNOWN_OUTCOME
from conclave.core.keys import Keys
from conclave.core.lifecycle import AUTHORITY_KEY, JOIN_KEY
from conclave.core.services import AREA_CLUSTER, area_id
from conclave.core.store import RESTORING, Freeze, Settlement, Store
from conclave.storage.archive import Checking, Server, new_spool, write_file
from conclave.storage.barrier import Barrier
from conclave.storage.errors import Corrupt, SnapshotMismatch, StorageError, WrongKey
from conclave.storage.keyring import Keyring, unwrap_keyring
from conclave.storage.seal import CLEAR_KEYS, KEYRING_KEY, ROOT_KEY_KEY, SEAL_CONFIG_KEY, check_clear_records
from conclave.storage.snapshots import SNAPSHOT_ID_BYTES, Pairs
from conclave.storage.state import StateReader
from conclave.storage.transaction import Transaction
from conclave.storage.writeset import KEY_BYTES_MIN, Stage

if TYPE_CHECKING:
    from conclave.core.vault import Vault

log = logging.getLogger(__name__)

T = TypeVar("T")

STAGED_BYTES: Final = 512 * 1024
"""Records in one entry, unless a single one is larger: what the log can take between two requests."""
IN_FLIGHT_MAX: Final = 4
"""Entries on their way at once: enough to keep the disks busy."""
RECORD_OVERHEAD_BYTES: Final = 8
DISK_RESERVE_BYTES: Final = 256 << 20
"""What a restoring leaves free on the disk of the data: the log and the state go on growing."""
ROOM_CHECK_BYTES: Final = 16 << 20
"""How much of an upload is taken between two looks at the disk."""
DOWNLOADS_MAX: Final = 4
"""Files on their way out at once: each keeps the pages of its moment from being used again."""
KEY_BYTES_MAX: Final = 511
"""The longest key that the state can hold."""

FOREIGN: Final = (
    "the snapshot was taken from a vault with other keys, and nothing of it could be opened here; restore it into a node of "
    "the cluster that it comes from, or with -force (snapshot-force) into a new one: all that is here, keys and shares, too, "
    "is replaced then, and what unseals it are the shares of the snapshot's vault"
)
NOT_ALONE: Final = (
    "the snapshot was taken from a vault with other keys, and the other members of this cluster could not follow; "
    "remove them first (operator raft remove-peer), restore, and let them join again with wiped data folders"
)
BROKEN_OFF: Final = "leadership was lost while the snapshot was being restored; nothing has changed, try again"
DAMAGED_HERE: Final = "the state of this node is damaged: save one at another node"
NOT_WHOLE: Final = "what was staged was not what was sent; nothing has changed"

SEAL_LOCATION: Final = blake2b(b"snapshot sums", digest_size=32, person=b"conclave.sums").digest()
"""Stands for the place of the sealed sums, as a storage key does for that of a record."""


class Snapshots:
    """Saves and restores the state of one node's vault. Every method runs on the event loop.

    Args:
        vault: whose state.
        spool_folder: where an upload is kept, without a name, while it is checked; None: where temporary files go.
    """

    def __init__(self, vault: "Vault", spool_folder: Path | None = None) -> None:
        self._vault = vault
        self._spool_folder = spool_folder or Path(tempfile.gettempdir())
        self._is_receiving = False
        self._open_files: set[SavedFile] = set()

    # -- saving --

    async def save(self) -> "SavedFile":
        """Return a file of the state as it is now, to be read piece by piece and closed.

        Raises:
            Unavailable: too many are being read already, the state cannot be written, or is damaged and others hold it, too.
            ClusterError: nobody confirms that this node knows everything that was acknowledged.
        """
        if len(self._open_files) >= DOWNLOADS_MAX:
            raise Unavailable("too many snapshots are being saved; try again")
        vault = self._vault
        vault.serving_keys()
        if vault.store.is_damaged and len(vault.membership.peers()) > 1:
            raise Unavailable(DAMAGED_HERE)
        index = await vault.replica.read_barrier()
        try:
            await vault.store.flush_up_to(index)
        except StorageError as error:
            raise Unavailable(f"this node cannot write its state: {error}") from error
        keys = vault.serving_keys()  # still: the state may have been replaced by one of other keys meanwhile
        reader = vault.store.overlay.open_reader()
        servers = [
            Server(peer.node_id, peer.cluster_address, suffrage=0 if peer.is_voter else 1)
            for peer in vault.membership.peers()
        ]
        log.info("saves a snapshot", extra={"index": reader.applied.index, "records": reader.count})
        # A barrier of its own, for sealing happens in a thread.
        barrier = Barrier(keys.barrier.keyring)
        content = write_file(
            reader,
            os.urandom(SNAPSHOT_ID_BYTES),
            servers=servers,
            seal=lambda sums: barrier.seal_record(SEAL_LOCATION, sums),
        )
        file = SavedFile(vault.store, reader, content, self._open_files.discard)
        self._open_files.add(file)
        return file

    # -- restoring --

    async def restore(self, upload: AsyncIterator[bytes], *, is_forced: bool = False) -> None:
        """Put the state in an uploaded file in the place of this cluster's; on the leader.

        Args:
            upload: the file.
            is_forced: take it also if it is of a vault with other keys, after which this node is sealed.

        Raises:
            InvalidRequest: it is no snapshot, a damaged one, or of a vault with other keys that was not forced or finds
                other members here; nothing has changed.
            TooLarge: there is no room for it; nothing has changed.
            Unavailable: another one is being restored, or leadership was lost; the text says what has become of it.
            NotLeader: this node does not lead; nothing has changed.
        """
        if self._is_receiving:
            raise Unavailable(RESTORING)
        self._is_receiving = True
        store = self._vault.store
        spool = new_spool(self._spool_folder)
        try:
            await self._receive(upload, spool)
            keys = self._vault.serving_keys()
            count, keyring = await self._verify(spool, keys, is_forced=is_forced)
            await self._bring_in(spool, count, keys, keyring)
        except (Corrupt, SnapshotMismatch) as error:
            raise InvalidRequest(str(error)) from error
        except WrongKey as error:
            log.warning("refused a snapshot", extra={"reason": str(error)})
            raise InvalidRequest(str(error) if is_forced else FOREIGN) from error
        finally:
            self._is_receiving = False
            store.in_thread_later(spool.close)
        log.info("restored a snapshot", extra={"records": count, "other_keys": keyring is None})

    async def _receive(self, upload: AsyncIterator[bytes], spool: IO[bytes]) -> None:
        """Keep an upload until it can be checked as a whole."""
        store = self._vault.store
        received_bytes = unchecked_bytes = 0
        async for piece in upload:
            received_bytes += len(piece)
            unchecked_bytes += len(piece)
            if unchecked_bytes >= ROOM_CHECK_BYTES:
                unchecked_bytes = 0
                self._require_room(received_bytes)
            try:
                await store.in_thread(_writing(spool, piece))
            except OSError as error:
                raise TooLarge(f"the snapshot cannot be kept: {error.strerror}") from error
        self._require_room(received_bytes)

    def _require_room(self, received_bytes: int) -> None:
        """See that what was received fits twice more, into the log and beside the live state."""
        if shutil.disk_usage(self._spool_folder).free < DISK_RESERVE_BYTES + 2 * received_bytes:
            raise TooLarge("there is no room on this node's disk for the snapshot")

    async def check(self, file: IO[bytes]) -> int:
        """Read a file to its end, see that it could be restored here, and return how many records it holds.

        Raises:
            Corrupt, SnapshotMismatch: it is damaged, or holds what no state can hold.
            WrongKey: its keys are not those of this vault.
        """
        count, _ = await self._verify(file, self._vault.serving_keys())
        return count

    async def _verify(self, spool: IO[bytes], keys: Keys, *, is_forced: bool = False) -> tuple[int, Keyring | None]:
        """Read all of a spooled file, and return how many records it holds and the keyring that opens them.

        That is None if it was forced and the keys are another vault's.

        Raises:
            Corrupt, SnapshotMismatch: it is damaged, or holds what no state can hold.
            WrongKey: its keys are not those of this vault, or its seal is not theirs.
        """
        store = self._vault.store
        key_check = _KeyCheck(keys, takes_other_keys=is_forced)
        checking = Checking(spool, key_check.open_seal)
        await store.in_thread(lambda: spool.seek(0))
        async for _, pairs in _paced(store, checking.records()):
            key_check.look(pairs)
        return checking.result()[1].count, key_check.keyring()

    async def _records(self, spool: IO[bytes], checking: Checking) -> AsyncIterator[Pairs]:
        """Iterate over a spooled file's records, chunk by chunk, without a pause: writers wait for it."""
        store = self._vault.store
        await store.in_thread(lambda: spool.seek(0))
        records = checking.records()
        while (found := await store.in_thread(lambda: next(records, None))) is not None:
            yield found[1]

    async def _bring_in(self, spool: IO[bytes], count: int, keys: Keys, keyring: Keyring | None) -> None:
        """Stage a checked file's records on every node, then swap; without a keyring with its keys, which seals."""
        vault = self._vault
        freeze = vault.store.freeze(changes_keys=keyring is None)
        staging = _Staging(vault.store, freeze)
        try:
            if vault.serving_keys() is not keys:  # what was found out with them may not hold any more
                raise Unavailable(RESTORING)
            if keyring is None:
                self._require_alone()
                own: dict[bytes, bytes] = {}
                staging.before_swap = self._require_alone
            else:
                own = own_records(vault.store.writing(), keys.barrier, Barrier(keyring))
            await staging.run(_entries(self._records(spool, Checking(spool)), own), count)
            if keyring is None:
                await self._keep_now()
        except NotLeader as error:
            raise Unavailable(BROKEN_OFF) from error
        finally:
            vault.store.thaw(freeze)
            if vault.is_active:
                vault.background.start()  # it has done nothing meanwhile; what is left of a failure it clears away

    def _require_alone(self) -> None:
        """See that this node is its cluster's only member, and that none is on the way; while frozen it stays so."""
        if self._vault.admitting or len(self._vault.membership.peers()) != 1:
            raise InvalidRequest(NOT_ALONE)

    async def _keep_now(self) -> None:
        """Flush, so that a restart does not ask for the shares of the old state first; the log has it in any case."""
        store = self._vault.store
        try:
            await store.flush_up_to(store.overlay.swapped_at)
        except (StorageError, Unavailable) as error:
            log.warning("the restored state is in the log only for now", extra={"reason": str(error)})


class SavedFile:
    """A snapshot file on its way out (`Download`)."""

    def __init__(
        self, store: Store, reader: StateReader, content: Iterator[bytes], closed: "Callable[[SavedFile], None]"
    ) -> None:
        self._store = store
        self._reader = reader
        self._content = content
        self._closed = closed

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over the file's bytes, in pieces of about a chunk; empty ones while the state is measured.

        Raises:
            InternalError: the state cannot be read.
        """
        try:
            async for piece in _paced(self._store, self._content):
                yield piece
        except StorageError as error:
            raise InternalError(f"the snapshot cannot be read: {error}") from error

    def close(self) -> None:
        """Let go of the state, behind the piece that is being read."""
        self._closed(self)
        self._store.in_thread_later(self._reader.close)


async def _paced(store: Store, pieces: Iterator[T]) -> AsyncIterator[T]:
    """Iterate in the thread for reading, and pause for as long as each piece took: half of one core at most."""
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        piece = await store.in_thread(lambda: next(pieces, None))
        if piece is None:
            return
        seconds = loop.time() - began
        yield piece
        await asyncio.sleep(seconds)


class _KeyCheck:
    """Whether a snapshot's records can be kept and opened here.

    Which keys they need stands in the snapshot itself: its keyring, wrapped by the root key. It may lack terms that
    this vault has, and have others.

    Args:
        keys: of this vault.
        takes_other_keys: whether another vault's keyring will do: then nothing that is sealed can be checked.
    """

    def __init__(self, keys: Keys, *, takes_other_keys: bool) -> None:
        self._keys = keys
        self._takes_other_keys = takes_other_keys
        self._clear: dict[bytes, bytes] = {}

    def look(self, pairs: Pairs) -> None:
        """See that records have keys that the state can hold, and note those that are readable before unsealing."""
        for key, value in pairs:
            if not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
                raise Corrupt("snapshot: a record has a key of a wrong length")
            if key in CLEAR_KEYS:
                self._clear[key] = value

    def open_seal(self, sealed: bytes) -> bytes | None:
        """Open the sealed sums with the snapshot's own keyring; None if that is another vault's."""
        keyring = self.keyring()
        if keyring is None:
            return None
        try:
            return Barrier(keyring).open_record(SEAL_LOCATION, sealed)
        except Corrupt as error:
            raise WrongKey("the snapshot's seal does not open") from error

    def keyring(self) -> Keyring | None:
        """Return the snapshot's keyring; None if it is another vault's, and that will do.

        Raises:
            WrongKey: it is not one of this vault.
            Corrupt: it is another vault's, and nobody's shares could unseal the state.
        """
        wrapped = self._clear.get(KEYRING_KEY)
        if not wrapped:
            raise WrongKey("the snapshot holds no keyring")
        try:
            keyring = unwrap_keyring(self._keys.root_key, wrapped)
        except WrongKey:
            if not self._takes_other_keys:
                raise
            check_clear_records(self._clear)
            return None
        if keyring.name_key != self._keys.barrier.keyring.name_key:
            raise WrongKey("the snapshot's keyring has another name key")
        return keyring


class _Staging:
    """Brings records into the log, a few entries at a time.

    Args:
        store: where they are proposed.
        freeze: the right to do so.

    Attributes:
        before_swap: called when all is staged; what it raises ends the restoring.
    """

    def __init__(self, store: Store, freeze: Freeze) -> None:
        self._store = store
        self._freeze = freeze
        self.before_swap: Callable[[], None] = lambda: None
        self._in_flight: deque[asyncio.Future[Settlement]] = deque()

    async def run(self, portions: AsyncIterator[Pairs], count: int) -> None:
        """Stage portions of records, each an entry, and put them in the place of the state.

        Raises:
            NotLeader: leadership was lost; nothing has changed.
            Unavailable: an entry was not settled in time; the text says what that means.
            InternalError: some records were not staged; nothing has changed.
        """
        self._stage(Stage.BEGIN, [])
        async for puts in portions:
            await self._wait(IN_FLIGHT_MAX - 1)
            self._stage(Stage.PUTS, puts)
        await self._wait(0)
        self.before_swap()
        await self._swap(count)

    def _stage(self, stage: Stage, puts: Pairs) -> None:
        future: asyncio.Future[Settlement] = asyncio.get_running_loop().create_future()
        self._store.stage(self._freeze, stage, puts, _setter(future))
        self._in_flight.append(future)

    async def _wait(self, left_count: int) -> None:
        """Wait until no more than so many entries are in flight."""
        while len(self._in_flight) > left_count:
            settlement = await self._in_flight.popleft()
            if settlement is Settlement.UNKNOWN:
                raise Unavailable("the cluster did not take the snapshot in time; nothing has changed, try again")
            if settlement is not Settlement.COMMITTED:
                raise NotLeader("leadership was lost since the restoring began")

    async def _swap(self, count: int) -> None:
        future: asyncio.Future[Settlement] = asyncio.get_running_loop().create_future()
        index = self._store.swap(self._freeze, count, _setter(future))
        settlement = await future
        if settlement is Settlement.UNKNOWN:
            raise Unavailable(UNKNOWN_OUTCOME)
        if settlement is not Settlement.COMMITTED:
            raise NotLeader("leadership was lost before the swap")
        if self._store.overlay.swapped_at != index:
            raise InternalError(NOT_WHOLE)


def own_records(view: Transaction, present: Barrier, restored: Barrier) -> dict[bytes, bytes]:
    """Return the records that a restoring does not change, by storage key.

    Args:
        view: the state as it is.
        present: opens it.
        restored: seals for the state that is to be; its keyring may lack what `present` seals with.
    """
    own = {key: value for key in (SEAL_CONFIG_KEY, ROOT_KEY_KEY) if (value := view.get(key)) is not None}
    for name in (JOIN_KEY, AUTHORITY_KEY):
        key = present.child_key(area_id(present, AREA_CLUSTER), name.encode())
        stored = view.get(key)
        if stored is not None:
            own[key] = restored.seal_record(key, present.open_record(key, stored))
    return own


async def _entries(records: AsyncIterator[Pairs], own: Mapping[bytes, bytes]) -> AsyncIterator[Pairs]:
    """Iterate over records, with those of `own` in the place of theirs, in portions that an entry can hold."""
    portion: Pairs = []
    size_bytes = 0
    async for pairs in records:
        for key, restored in pairs:
            value = own.get(key, restored)
            record_bytes = len(key) + len(value) + RECORD_OVERHEAD_BYTES
            if portion and size_bytes + record_bytes > STAGED_BYTES:
                yield portion
                portion, size_bytes = [], 0
            portion.append((key, value))
            size_bytes += record_bytes
    if portion:
        yield portion


def _setter(future: "asyncio.Future[Settlement]") -> Callable[[Settlement], None]:
    return lambda settlement: None if future.done() else future.set_result(settlement)


def _writing(spool: IO[bytes], piece: bytes) -> Callable[[], object]:
    return lambda: spool.write(piece)
