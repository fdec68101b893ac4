"""The vault's replicated state: what the log has said, who waits for what to be said, and the one feed.

`Store` is the state machine that a `Replica` drives. It puts the overlay, the barrier's transactions and the replica
together into one promise: `commit` proposes a transaction's effects as one entry and reports exactly once what became of
them, as the log tells it:

* COMMITTED  the entry was applied in the term in which it was proposed;
* NOTHING    nothing was changed and nothing was in flight: it stands if this node led at that moment;
* LOST       another entry took its index: it did not happen and never will;
* UNKNOWN    nothing was heard of its index within the deadline (this node is cut off).

What only looked (a refused check-and-set, a write that changes nothing) may have looked at effects still in flight, so
`settled` lets its answer go with the last of those. See design section 1 and docs/adr/0004-execution-on-the-leader.md.

Whoever restores a snapshot freezes the store: it alone may propose, until the swap is applied or this node leads no more
(docs/adr/0009-restoring-through-the-log.md).
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import Final, TypeVar

from conclave.cluster.errors import NotLeader
from conclave.cluster.replica import Replica, Standing, Ticket
from conclave.cluster.waiting import to_the_end
from conclave.core.errors import Unavailable
from conclave.storage.errors import Full, StorageError
from conclave.storage.overlay import Overlay
from conclave.storage.transaction import Transaction
from conclave.storage.writeset import Stage, WriteSet

log = logging.getLogger(__name__)

SETTLE_SECONDS_MAX: Final = 10.0
"""How long a proposal may stay unsettled before its client is told that the outcome is unknown."""
FULL_RETRY_SECONDS: Final = 1.0
"""Pause before a flush is tried again for which the disk had no room."""
FLUSH_POLL_SECONDS: Final = 0.05
"""How often the overlay is asked whether a flush to the state environment is due."""

WHAT_TO_DO_ABOUT_DAMAGE: Final = (
    "if other nodes are whole, remove this one from the cluster (operator raft remove-peer), wipe its data folder and "
    "join it anew; if none is, restore a snapshot"
)
RESTORING: Final = "a snapshot is being restored"

T = TypeVar("T")


class Settlement(Enum):
    """What became of a proposal."""

    COMMITTED = "committed"
    NOTHING = "nothing"  # there was nothing to commit and nothing in flight: true if this node leads
    LOST = "lost"
    UNKNOWN = "unknown"


class _Pending:
    """Who waits for what was proposed at one index in one term, each with the time at which to give up."""

    __slots__ = ("began_seconds", "term", "waiting")

    def __init__(self, term: int, began_seconds: float) -> None:
        self.term = term
        self.began_seconds = began_seconds
        self.waiting: list[tuple[float, Callable[[Settlement], None]]] = []

    def take_late(self, now_seconds: float) -> list[Callable[[Settlement], None]]:
        """Return whoever has waited long enough, and forget them; what was proposed may still be committed."""
        late = [done for deadline, done in self.waiting if deadline < now_seconds]
        self.waiting = [each for each in self.waiting if each[0] >= now_seconds]
        return late

    def take_all(self) -> list[Callable[[Settlement], None]]:
        """Return whoever waits, and forget them: it is settled."""
        everybody, self.waiting = self.waiting, []
        return [done for _, done in everybody]


class Freeze:
    """The right to be the only one who proposes, for whoever restores a snapshot. It ends with leadership.

    Args:
        changes_keys: whether the state that is to be has other keys, so that this node seals itself with the swap.
    """

    __slots__ = ("changes_keys", "swap_index")

    def __init__(self, *, changes_keys: bool) -> None:
        self.changes_keys = changes_keys
        self.swap_index = 0


class Store:
    """The state machine, and the way into it. Every method runs on the event loop.

    Args:
        overlay: committed and proposed effects over the state environment.
        wall_clock_ns: nanoseconds since 1970; may jump, `now_ns` never goes back.
        monotonic_seconds: for deadlines.
    """

    def __init__(
        self, overlay: Overlay, *, wall_clock_ns: Callable[[], int], monotonic_seconds: Callable[[], float]
    ) -> None:
        self.overlay = overlay
        self.on_standing: Callable[[Standing, int], None] = lambda _standing, _term: None
        self.on_committed: Callable[[float], None] = lambda milliseconds: None  # noqa: ARG005  (told how long it took)
        self.on_replaced: Callable[[], None] = lambda: None
        self.on_damage: Callable[[], None] = lambda: None  # whenever `is_in_need` may have changed
        self._wall_clock_ns = wall_clock_ns
        self._monotonic_seconds = monotonic_seconds
        self._replica: Replica | None = None
        # An index that was cut from the log and used again has several; any of them may be the one that is committed.
        self._pending: dict[int, list[_Pending]] = {}
        self._flusher: asyncio.Task[None] | None = None
        self._flush_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="flush")
        self._flush_fault: BaseException | None = None
        self._damage: StorageError | None = None
        self._flush_again_seconds = 0.0  # of the monotonic clock: not before then, after the disk was full
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._is_being_replaced = False
        self._freeze: Freeze | None = None
        self._read_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="snapshot")

    def connect(self, replica: Replica) -> None:
        """Say which replica orders this store's entries; once, before anything is proposed."""
        self._replica = replica

    @property
    def replica(self) -> Replica:
        """The replica that orders the entries."""
        assert self._replica is not None, "connect() comes first"
        return self._replica

    def now_ns(self) -> int:
        """Return the time: this node's clock or the last applied entry's, whichever is later."""
        return max(self._wall_clock_ns(), self.overlay.now_ns)

    @property
    def fault(self) -> str | None:
        """Why this node can no longer keep what it applies; None as long as it can."""
        if self._damage is not None:
            return f"the state is damaged: {self._damage}; {WHAT_TO_DO_ABOUT_DAMAGE}"
        return None if self._flush_fault is None else f"cannot flush the state: {self._flush_fault}"

    @property
    def is_damaged(self) -> bool:
        """Whether the state is known to hold what nobody wrote there."""
        return self._damage is not None

    @property
    def is_in_need(self) -> bool:
        """Whether another node had better lead: this one is damaged, and not about to be restored."""
        return self.is_damaged and not self.is_frozen

    def _need_changed(self) -> None:
        if self.is_damaged:
            self.on_damage()

    def note_damage(self, error: StorageError) -> None:
        """Say in `fault` that the state holds what nobody wrote there, until it is replaced."""
        if self._damage is None:
            log.critical("the state is damaged", extra={"reason": str(error), "what_to_do": WHAT_TO_DO_ABOUT_DAMAGE})
            self._damage = error
            self.on_damage()

    # -- transactions --

    def reading(self) -> Transaction:
        """Begin a read of what is committed; nothing can be put into it."""
        return Transaction(self.overlay, uncommitted=False)

    def writing(self) -> Transaction:
        """Begin an atomic step that sees everything proposed before it."""
        return Transaction(self.overlay, uncommitted=True)

    def commit(
        self,
        transaction: Transaction,
        done: Callable[[Settlement], None],
        *,
        request_id: bytes = b"",
        answer: bytes = b"",
    ) -> None:
        """Propose what `transaction` changed and report once what became of it.

        A transaction that changed nothing settles with the last effect that it can have seen.

        Args:
            transaction: from `writing()`; not to be used again.
            done: called once, possibly before this returns.
            request_id: 16 bytes that name a forwarded request, with `answer`, its sealed outcome, so that its sender can
                ask any later leader what became of it.
            answer: see request_id.

        Raises:
            NotLeader: this node does not lead; nothing was proposed.
            Overloaded: too much is in flight; nothing was proposed.
            TooLarge: the entry exceeds its bound; nothing was proposed.
            Unavailable: a snapshot is being restored, or has been since the transaction began; nothing was proposed.
        """
        write_set = transaction.write_set(self.now_ns(), request_id=request_id, answer=answer)
        if write_set is None:
            self.settled(done)
            return
        if self._freeze is not None or transaction.is_outdated:
            raise Unavailable(RESTORING)
        self._propose(write_set, done)

    def _propose(self, write_set: WriteSet, done: Callable[[Settlement], None]) -> Ticket:
        ticket = self.replica.propose(write_set.encode())
        self.overlay.propose(ticket.index, write_set)
        pending = _Pending(ticket.term, self._monotonic_seconds())
        self._pending.setdefault(ticket.index, []).append(pending)
        self._wait(pending, done)
        return ticket

    def settled(self, done: Callable[[Settlement], None]) -> None:
        """Report once all that is proposed now has been settled: at once if nothing is in flight."""
        index = self.overlay.last_proposed_index
        pending = self._pending.get(index) if index > self.overlay.applied_index else None
        if pending is None:
            done(Settlement.NOTHING)
        else:
            self._wait(pending[-1], done)

    def _wait(self, pending: _Pending, done: Callable[[Settlement], None]) -> None:
        pending.waiting.append((self._monotonic_seconds() + SETTLE_SECONDS_MAX, done))

    # -- a whole state that comes through the log --

    @property
    def is_frozen(self) -> bool:
        """Whether nobody but the restorer of a snapshot may propose."""
        return self._freeze is not None

    @property
    def is_changing_keys(self) -> bool:
        """Whether a state with other keys is being restored: who belongs to the cluster must stay as it is, then."""
        return self._freeze is not None and self._freeze.changes_keys

    @property
    def has_leftovers(self) -> bool:
        """Whether a state is staged that nobody here is going to put in place."""
        return self.overlay.staging_since > 0 and self._freeze is None

    def freeze(self, *, changes_keys: bool = False) -> Freeze:
        """Let nobody else propose from now on; what has been proposed comes first in the log.

        Args:
            changes_keys: see `Freeze`.

        Raises:
            NotLeader: this node does not lead.
            Unavailable: somebody restores a snapshot already.
        """
        if self.replica.standing is not Standing.LEADER:
            raise NotLeader("this node does not lead")
        if self._freeze is not None:
            raise Unavailable(RESTORING)
        self._freeze = Freeze(changes_keys=changes_keys)
        self._need_changed()
        return self._freeze

    def thaw(self, freeze: Freeze) -> None:
        """End a freeze; but while its swap may still be applied, nothing may be proposed that has seen the old state."""
        if self._freeze is freeze and freeze.swap_index <= self.overlay.applied_index:
            self._freeze = None
            self._need_changed()

    def stage(
        self, freeze: Freeze, stage: Stage, puts: list[tuple[bytes, bytes]], done: Callable[[Settlement], None]
    ) -> None:
        """Propose a step of bringing a state in beside the live one.

        Args:
            freeze: from `freeze()`.
            stage: any step but `SWAP`.
            puts: the records to stage.
            done: as for `commit`.

        Raises:
            NotLeader: this node does not lead, or has not led without a break since the freeze.
            Overloaded, TooLarge: as for `commit`.
        """
        self._check(freeze)
        self._propose(WriteSet(self.now_ns(), puts, stage=stage), done)

    def swap(self, freeze: Freeze, count: int, done: Callable[[Settlement], None]) -> int:
        """Propose to put what has been staged in the place of the state.

        Args:
            freeze: from `freeze()`.
            count: how many records there must be.
            done: as for `commit`.

        Returns:
            the entry's index: it has happened if `overlay.swapped_at` comes to be that.

        Raises:
            NotLeader, Overloaded: as for `stage`.
        """
        self._check(freeze)
        ticket = self._propose(WriteSet(self.now_ns(), stage=Stage.SWAP, stage_count=count), done)
        freeze.swap_index = ticket.index
        return ticket.index

    def abandon(self, done: Callable[[Settlement], None]) -> None:
        """Propose to forget what an earlier restorer has staged and left.

        Raises:
            NotLeader, Overloaded: as for `commit`.
        """
        assert self.has_leftovers, "only what nobody is going to use can be forgotten"
        self._propose(WriteSet(self.now_ns(), stage=Stage.ABANDON), done)

    def _check(self, freeze: Freeze) -> None:
        if self._freeze is not freeze:
            raise NotLeader("leadership was lost since the restoring began")

    # -- what the replica calls (StateMachine) --

    @property
    def applied(self) -> tuple[int, int]:
        """Index and term of the last applied entry."""
        return self.overlay.applied_index, self.overlay.applied_term

    @property
    def durable_index(self) -> int:
        """What the state environment holds durably, for other nodes, too: what is staged is in no snapshot of theirs."""
        overlay = self.overlay
        return min(overlay.durable_index, overlay.staging_since - 1) if overlay.staging_since else overlay.durable_index

    @property
    def membership(self) -> bytes:
        """The membership record beside the applied index."""
        return self.overlay.membership

    def apply(self, index: int, term: int, data: bytes) -> None:
        """Take a committed entry: its effects, then the answers that waited for it."""
        self.overlay.apply(index, term, data)
        if self.overlay.swapped_at == index:
            self._freeze = self._damage = None
            self.on_replaced()  # before the answer leaves
        self._settle(index, term)

    def apply_membership(self, index: int, term: int, membership: bytes) -> None:
        """Take a committed membership change."""
        self.overlay.apply_membership(index, term, membership)
        self._settle(index, term)

    def standing_changed(self, standing: Standing, term: int) -> None:
        """Forget uncommitted effects when leadership is lost; tell the vault."""
        if standing is not Standing.LEADER:
            self.overlay.drop_proposed()
            self._freeze = None
            self._need_changed()
        self.on_standing(standing, term)

    async def prepare_replacement(self) -> None:
        """End the flush that is under way and begin no other: the state environment is about to be replaced."""
        self._is_being_replaced = True
        await self._is_idle.wait()

    def state_replaced(self) -> None:
        """Start over from a state that came as a snapshot; proposals it covers can no longer be told apart."""
        self._is_being_replaced = False
        self._flush_fault = self._damage = None
        self.overlay.reload()
        for index in [index for index in self._pending if index <= self.overlay.applied_index]:
            for pending in self._pending.pop(index):
                self._finish(pending.take_all(), Settlement.UNKNOWN)
        self.on_replaced()

    def _settle(self, index: int, term: int) -> None:
        for pending in self._pending.pop(index, ()):
            if pending.term == term:
                self.on_committed((self._monotonic_seconds() - pending.began_seconds) * 1e3)
            settlement = Settlement.COMMITTED if pending.term == term else Settlement.LOST
            self._finish(pending.take_all(), settlement)

    @staticmethod
    def _finish(waiting: Iterable[Callable[[Settlement], None]], settlement: Settlement) -> None:
        for done in waiting:
            try:
                done(settlement)
            except Exception:  # one client's answer must not keep the log from being applied for all others
                log.exception("an answer could not be delivered")

    # -- background --

    def start(self) -> None:
        """Begin flushing and watching deadlines."""
        self._flusher = asyncio.get_running_loop().create_task(self._maintain(), name="store")

    async def stop(self) -> None:
        """End the background work; what is not flushed is replayed from the log."""
        if self._flusher is not None:
            self._flusher.cancel()
            await asyncio.gather(self._flusher, return_exceptions=True)
        self._flush_thread.shutdown(wait=True)
        self._read_thread.shutdown(wait=True)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run one piece of reading or writing a snapshot file; pieces are run in order, and never two at once."""
        return await asyncio.get_running_loop().run_in_executor(self._read_thread, work)

    def in_thread_later(self, work: Callable[[], object]) -> None:
        """Have a piece run behind those that were asked for; nobody waits for it but `stop`."""
        self._read_thread.submit(work)

    async def flush_up_to(self, index: int) -> None:
        """Write committed effects to the state environment until it holds this entry's.

        Raises:
            StorageError: they could not be written.
            Unavailable: the state is being replaced.
        """
        while self.overlay.durable_index < index:
            if self._is_being_replaced:
                raise Unavailable("this node takes over another state; try again")
            await self._is_idle.wait()
            await self.flush()

    async def flush(self) -> None:
        """Write all committed effects to the state environment now; nothing while another flush is under way.

        Raises:
            StorageError: they could not be written.
        """
        job = None if self._is_being_replaced else self.overlay.begin_flush()
        if job is None:
            return
        self._is_idle.clear()
        try:
            # Whoever gives up waiting must not leave behind a flush that nobody finishes: no other would ever begin.
            await to_the_end(asyncio.get_running_loop().run_in_executor(self._flush_thread, job.run))
        finally:
            if not job.has_failed:
                self.overlay.finish_flush(job)
            self._is_idle.set()

    async def _maintain(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_POLL_SECONDS)
            self._expire_pending()
            if self._flush_due():
                await self._flush_watched()

    def _flush_due(self) -> bool:
        now = self._monotonic_seconds()
        if self._flush_fault is not None and (
            not isinstance(self._flush_fault, Full) or now < self._flush_again_seconds
        ):
            return False
        return self.overlay.flush_due(now)

    async def _flush_watched(self) -> None:
        """Flush; if the state environment fails, serving goes on from the log and the overlay, and `fault` says so."""
        try:
            await self.flush()
        except Full as error:
            if self._flush_fault is None:
                log.error("the state cannot be flushed", extra={"reason": str(error)})  # noqa: TRY400  (its text says it all)
            self._fail_flush(error)
        except Exception as error:  # the loop's edge: whatever failed, this node must not go on as if nothing had
            log.exception("the state could not be flushed")
            self._fail_flush(error)
        else:
            if self._flush_fault is not None:
                log.info("the state can be flushed again")
            self._flush_fault = None

    def _fail_flush(self, error: Exception) -> None:
        self._flush_fault = error
        self._flush_again_seconds = self._monotonic_seconds() + FULL_RETRY_SECONDS

    def _expire_pending(self) -> None:
        now = self._monotonic_seconds()
        for pending in [each for at_index in self._pending.values() for each in at_index]:
            self._finish(pending.take_late(now), Settlement.UNKNOWN)


async def settlement_of(propose: Callable[[Callable[[Settlement], None]], object]) -> Settlement:
    """Return what becomes of what `propose` proposes, given what is to be told; a waiter that was cancelled is told nothing.

    Raises:
        whatever `propose` raises: nothing was proposed then.
    """
    settled: asyncio.Future[Settlement] = asyncio.get_running_loop().create_future()
    propose(lambda settlement: None if settled.done() else settled.set_result(settlement))
    return await settled
