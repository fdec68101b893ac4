"""Snapshots from node to node: a follower that the log cannot help any more pulls the state, chunk by chunk.

The core only ever sees a descriptor (`raft.Snapshot`, with the snapshot's id as its data); the state travels beside it
as frames on the bulk connection. The follower asks for the chunk behind what it has kept durably, so flow control, back
pressure and resuming are one thing, and a lost frame costs one repeated question.

Rules enforced here:

* A sender holds at most one snapshot: one read transaction, shared by all that ask for it. It is dropped when whoever asked
  for its end has it, or when nobody gets any further: one whose disk is full asks for the same chunk again and again. Until
  then the log must stay (`pinned_index`), and no page of the state that is freed is used again, so that its file grows by
  what is written meanwhile.
* Reading takes half of one core at most, in a thread, one chunk at a time; so does writing on the other side.
* A receiver gives up (`TransferFailed`) when the sender is silent or has dropped the snapshot. What it holds stays, and
  the next `fetch` of the same snapshot goes on there.

It does not know what the chunks hold (`storage/snapshots.py`), and it installs nothing: the node does.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

import msgspec
from msgspec import Struct

from conclave.cluster.errors import ClusterError
from conclave.cluster.frames import ChunkReply, ChunkRequest
from conclave.cluster.membership import decode_record
from conclave.cluster.raft import Snapshot, SnapshotMeta, SnapshotTemporarilyUnavailable
from conclave.cluster.waiting import to_the_end
from conclave.storage.errors import Corrupt, SnapshotMismatch, StorageError
from conclave.storage.snapshots import SNAPSHOT_ID_BYTES, ChunkKind, Installation, Stream, sequence_of
from conclave.storage.state import StateReader, StateStore

log = logging.getLogger(__name__)

IDLE_SECONDS_MAX: Final = 30.0
"""How long a snapshot is kept that nobody gets further in: one may restart and go on where it was, or install all of it.
If this node does not lead, or no member is on its way to it any more, `REPEAT_SECONDS_MAX` are enough after its end."""
SILENCE_SECONDS_MAX: Final = 5.0
"""After so long without a question the taker of a snapshot has died, or given up, if it does not install it."""
REQUESTS_MAX: Final = 16
"""Questions waiting for the reader at once; one more is dropped and will be asked again."""
REPLY_SECONDS_MAX: Final = 5.0
"""How long an answer may take before the question is repeated."""
REPEAT_SECONDS_MAX: Final = REPLY_SECONDS_MAX + 1.0
"""A question that has not come again by then was most likely answered."""
ATTEMPTS_MAX: Final = 6
"""How often a question is asked, or a damaged chunk taken, before the transfer is given up."""
RESTARTS_MAX: Final = 2
"""How often one fetch begins anew because what it holds does not fit the sender's snapshot."""

T = TypeVar("T")


class TransferFailed(ClusterError):
    """A snapshot could not be received; the text says why. What was received is kept."""


class RunInThread(Protocol):
    """Runs a function that waits for the disk off the event loop; one executor thread each, or inline in tests."""

    def __call__(self, function: Callable[[], T], /) -> Awaitable[T]:
        """Return what `function` returns, once it has."""


class Descriptor(Struct, frozen=True, array_like=True):
    """What stands for the state in a `raft.Snapshot`."""

    snapshot_id: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode_descriptor = msgspec.msgpack.Decoder(Descriptor).decode


class _Offer:
    """The snapshot that a sender holds."""

    def __init__(self, reader: StateReader, snapshot_id: bytes, now: float) -> None:
        self.reader = reader
        self.stream = Stream(reader, snapshot_id)
        self.snapshot_id = snapshot_id
        self.asked_at = now
        self.advanced_at = now
        self.sequences: dict[int, int] = {}  # the chunk furthest on that each peer was given
        self.at_end: set[int] = set()  # the peers whose last answer was its end
        self.turn = asyncio.Lock()  # the reader is used by one thread at a time
        self.waiting_count = 0

    def given(self, peer: int, sequence: int, chunk: bytes, now: float) -> None:
        """Take in that a peer was given a chunk."""
        if sequence > self.sequences.get(peer, -1):
            self.sequences[peer] = sequence
            self.advanced_at = now
        if chunk[0] == ChunkKind.END:
            self.at_end.add(peer)
        else:
            self.at_end.discard(peer)

    @property
    def is_finished(self) -> bool:
        """Whether everybody who has asked for it was given its end."""
        return bool(self.at_end) and len(self.at_end) == len(self.sequences)

    def descriptor(self) -> Snapshot:
        applied = self.stream.manifest.applied
        conf_state = decode_record(applied.membership).conf_state
        return Snapshot(SnapshotMeta(applied.index, applied.term, conf_state), _encode(Descriptor(self.snapshot_id)))


class SnapshotSender:
    """The sending side of one node. Every method is called on the event loop.

    Args:
        state: where snapshots are read.
        run_in_thread: runs one read.
        clock: seconds, monotone.
        random_bytes: for the ids of snapshots.
    """

    def __init__(
        self,
        state: StateStore,
        run_in_thread: RunInThread,
        clock: Callable[[], float],
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._state = state
        self._run_in_thread = run_in_thread
        self._clock = clock
        self._random_bytes = random_bytes
        self._offer: _Offer | None = None
        self._asked_at: dict[int, float] = {}  # by peer, whatever it asked for
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def pinned_index(self) -> int | None:
        """The index behind which the log must stay, while a follower may be on its way to it; None if none is."""
        return None if self._offer is None else self._offer.stream.manifest.applied.index

    def take(self, *, index_min: int = 0) -> Snapshot:
        """Return the descriptor of a snapshot that can be asked for now: the one on offer, or a new one.

        Args:
            index_min: the lowest index at which the log can take over, `first_index - 1`; an offer below is replaced.

        Raises:
            SnapshotTemporarilyUnavailable: nothing as new as that is durable yet.
        """
        offer = self._offer
        if offer is None or offer.stream.manifest.applied.index < index_min:
            offer = self._renewed(index_min)
        return offer.descriptor()

    def is_at_end(self, peer: int) -> bool:
        """Tell whether a peer has asked for all of the snapshot on offer: it installs it, or does not need it any more."""
        return self._offer is not None and peer in self._offer.at_end

    def is_silent(self, peer: int, since: float) -> bool:
        """Tell whether a peer that is to take a snapshot since then does not ask for it, so that the core is to probe it."""
        seconds_max = IDLE_SECONDS_MAX if self.is_at_end(peer) else SILENCE_SECONDS_MAX
        return self._clock() - max(since, self._asked_at.get(peer, since)) > seconds_max

    def requested(self, peer: int, frame: ChunkRequest, reply: Callable[[ChunkReply], object]) -> None:
        """Answer a follower's question, soon; an empty chunk says that there is no such snapshot (any more)."""
        self._asked_at[peer] = now = self._clock()
        offer = self._offer
        if offer is None or offer.snapshot_id != frame.snapshot_id:
            reply(ChunkReply(frame.snapshot_id, frame.progress, b""))
            return
        offer.asked_at = now
        if offer.waiting_count >= REQUESTS_MAX:
            return
        offer.waiting_count += 1
        task = asyncio.get_running_loop().create_task(self._answer(offer, peer, frame, reply), name="snapshot chunk")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def expire(self, *, has_taker: bool) -> None:
        """Drop a snapshot that nobody needs any more, or gets any further in. Called every now and then.

        Args:
            has_taker: whether this node leads, and a member is on its way to it.
        """
        offer = self._offer
        if offer is None or offer.waiting_count:
            return
        now = self._clock()
        is_taken = offer.is_finished and not has_taker and now - offer.asked_at > REPEAT_SECONDS_MAX
        if is_taken or now - offer.advanced_at > IDLE_SECONDS_MAX:
            self._drop()

    async def close(self) -> None:
        """Drop the snapshot and wait until nothing reads the state any more. A later `take` begins a new one."""
        self._drop()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _renewed(self, index_min: int) -> _Offer:
        """Replace the offer by a new one."""
        reader = self._state.open_reader()
        if reader.applied.index < max(1, index_min):
            reader.close()
            raise SnapshotTemporarilyUnavailable("the state on disk is older than the log")
        if reader.is_staging:  # what is staged would be missing behind it; who lacks that gets it from the log
            reader.close()
            raise SnapshotTemporarilyUnavailable("a snapshot is being restored")
        self._drop()
        self._offer = offer = _Offer(reader, self._random_bytes(SNAPSHOT_ID_BYTES), self._clock())
        log.info("opened a snapshot for a follower", extra={"index": reader.applied.index, "records": reader.count})
        return offer

    def _drop(self) -> None:
        """Take the snapshot off offer; its reader is closed as soon as no thread uses it."""
        offer, self._offer = self._offer, None
        if offer is not None and offer.waiting_count == 0:
            offer.reader.close()

    async def _answer(
        self, offer: _Offer, peer: int, frame: ChunkRequest, reply: Callable[[ChunkReply], object]
    ) -> None:
        try:
            async with offer.turn:
                if offer is not self._offer:
                    chunk, seconds = b"", 0.0
                else:
                    chunk, seconds = await self._read(offer, peer, frame.progress)
        finally:
            offer.waiting_count -= 1
            if offer is not self._offer and offer.waiting_count == 0:
                offer.reader.close()
        await asyncio.sleep(seconds)  # as long again as it took: half of one core at most
        reply(ChunkReply(frame.snapshot_id, frame.progress, chunk))

    async def _read(self, offer: _Offer, peer: int, progress: bytes) -> tuple[bytes, float]:
        """Return a chunk, empty if it is not to be had, and how long reading it took."""
        began = self._clock()
        try:
            chunk = await to_the_end(self._run_in_thread(lambda: offer.stream.chunk(progress)))
        except StorageError as error:
            log.warning("cannot send a chunk of a snapshot", extra={"reason": str(error)})
            return b"", 0.0
        now = self._clock()
        offer.given(peer, sequence_of(progress), chunk, now)
        return chunk, now - began


class SnapshotReceiver:
    """The receiving side of one node: one snapshot at a time. Every method is called on the event loop.

    Args:
        state: what takes the snapshot; it is not touched before somebody calls its `install`.
        send: sends a question to a peer; False if it was dropped.
        run_in_thread: runs one write.
        reply_seconds_max: how long an answer may take.
    """

    def __init__(
        self,
        state: StateStore,
        send: Callable[[int, ChunkRequest], bool],
        run_in_thread: RunInThread,
        *,
        reply_seconds_max: float = REPLY_SECONDS_MAX,
    ) -> None:
        self._state = state
        self._send = send
        self._run_in_thread = run_in_thread
        self._reply_seconds_max = reply_seconds_max
        self._question: tuple[int, ChunkRequest] | None = None
        self._reply: asyncio.Future[bytes] | None = None
        self._is_fetching = False
        self._is_closed = False

    async def fetch(self, peer: int, snapshot: Snapshot) -> None:
        """Receive a snapshot completely; then `state.install()` may be called.

        Raises:
            TransferFailed: it is not to be had from this peer, or there is no room for it.
        """
        assert not self._is_fetching, "one snapshot at a time"
        self._is_fetching = True
        try:
            snapshot_id = _decode_descriptor(snapshot.data).snapshot_id
            opened = contextlib.ExitStack()
            try:
                installation = await to_the_end(self._run_in_thread(lambda: self._open(opened, snapshot_id)))
                await self._pull(peer, snapshot, snapshot_id, installation)
            finally:
                await to_the_end(self._run_in_thread(opened.close))
        except (StorageError, msgspec.DecodeError) as error:
            raise TransferFailed(f"cannot take a snapshot: {error}") from error
        finally:
            self._is_fetching = False

    def reply_received(self, peer: int, reply: ChunkReply) -> None:
        """Take in an answer; one that fits no question, or an earlier one, is dropped."""
        if self._question is None or self._reply is None or self._reply.done():
            return
        to, question = self._question
        if to == peer and (question.snapshot_id, question.progress) == (reply.snapshot_id, reply.progress):
            self._reply.set_result(reply.chunk)

    def give_up(self, text: str) -> None:
        """End a fetch that is waiting for an answer."""
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(TransferFailed(text))

    def close(self) -> None:
        """Give up a fetch that is waiting for an answer, and every later one."""
        self._is_closed = True
        self.give_up("this node is stopping")

    def _open(self, opened: contextlib.ExitStack, snapshot_id: bytes) -> Installation:
        """Open the installer, to be closed by `opened`; in a thread."""
        installer = opened.enter_context(contextlib.closing(self._state.open_installer()))
        return Installation(installer, snapshot_id)

    async def _pull(self, peer: int, snapshot: Snapshot, snapshot_id: bytes, installation: Installation) -> None:
        """Ask for chunk after chunk until the end."""
        damaged_count = restart_count = 0
        while not installation.is_complete:
            chunk = await self._ask(peer, ChunkRequest(snapshot_id, installation.progress))
            try:
                await to_the_end(self._run_in_thread(_taking(installation, chunk)))
            except Corrupt as error:
                damaged_count += 1
                if damaged_count >= ATTEMPTS_MAX:
                    raise TransferFailed(f"a chunk keeps being damaged: {error}") from error
            except SnapshotMismatch as error:
                restart_count += 1
                if restart_count > RESTARTS_MAX:
                    raise TransferFailed(f"what comes does not fit together: {error}") from error
                await to_the_end(self._run_in_thread(installation.restart))
            else:
                damaged_count = 0
        _check_place(snapshot, installation)

    async def _ask(self, peer: int, question: ChunkRequest) -> bytes:
        """Return the chunk that a question asks for."""
        for _ in range(ATTEMPTS_MAX):
            if self._is_closed:
                raise TransferFailed("this node is stopping")
            self._question = (peer, question)
            self._reply = asyncio.get_running_loop().create_future()
            self._send(peer, question)  # one that was dropped is one that got lost: it is repeated
            try:
                async with asyncio.timeout(self._reply_seconds_max):
                    chunk = await self._reply
            except TimeoutError:
                continue
            finally:
                self._question = self._reply = None
            if not chunk:
                raise TransferFailed("the sender does not have this snapshot any more")
            return chunk
        raise TransferFailed("the sender does not answer")


def _taking(installation: Installation, chunk: bytes) -> Callable[[], None]:
    return lambda: installation.take(chunk)


def _check_place(snapshot: Snapshot, installation: Installation) -> None:
    """Raise unless what was received is what the core was promised."""
    manifest = installation.manifest
    assert manifest is not None, "a complete installation has a manifest"
    if (manifest.applied.index, manifest.applied.term) != (snapshot.meta.index, snapshot.meta.term):
        raise TransferFailed("the snapshot that was received stands for another place in the log")
