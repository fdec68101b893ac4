"""The vault of one node: its lifecycle, and where a request is answered.

    detached ─ initialize or join ─▶ sealed ─ unseal ─▶ standby ◀─ leadership ─▶ active
                                       ▲─────── seal, removal ──────┘

* Operations that a sealed node answers too: here, whatever this node is.
* Operations that cannot write: here, from committed state, once it is certain that nothing newer was acknowledged
  (the leader's lease, or one read-index round for all reads that wait).
* All others: by the leader, as one atomic step on the event loop; the answer leaves when what it saw is committed.

The steps a request takes are in `pipeline.py`, init, unseal and join in `lifecycle.py`, what goes on without a request in
`background.py`. Nothing here knows HTTP, LMDB or Raft messages.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

from conclave.cluster.errors import ClusterError, NoQuorum, NotLeader, Overloaded
from conclave.cluster.replica import Membership, Peers, Replica, Standing
from conclave.core import outcomes
from conclave.core.audit import Auditor, AuditTable
from conclave.core.background import Background
from conclave.core.context import RequestContext
from conclave.core.contract import Context, Request, Response
from conclave.core.errors import (
    InternalError,
    PermissionDenied,
    Redirected,
    RequestError,
    Sealed,
    TooLarge,
    Unavailable,
)
from conclave.core.forwarding import NO_LEADER, UNKNOWN_OUTCOME, Forwarder, Reply
from conclave.core.keys import Keys
from conclave.core.outcomes import Outcome
from conclave.core.pipeline import NeedsLeader, Pipeline, Plan
from conclave.core.services import AREA_AUDIT, Services, area_id
from conclave.core.store import Settlement, Store
from conclave.core.trail import Trail
from conclave.storage.errors import StorageError
from conclave.storage.errors import TooLarge as EntryTooLarge
from conclave.storage.transaction import Transaction

log = logging.getLogger(__name__)

Done = Callable[[Outcome], None]

VAULT_IS_SEALED: Final = "Vault is sealed"
REMOVED: Final = "this node has been removed from the cluster; wipe its data directory and join again"
OVERLOADED: Final = "too many writes are in flight; try again"
NOT_WITH_A_USE_LIMIT: Final = (
    "an operation on one node takes a token without a use limit, for only the leader counts uses"
)
LOST_IN_THE_MIDST: Final = "leadership was lost in the midst of this request; look before you repeat it"
THREADS_MAX: Final = 4
"""How many threads do the arithmetic of coroutines (password hashes, key generation); more only take turns."""

T = TypeVar("T")


class Vault:
    """One node's vault. Every method runs on the event loop.

    Args:
        store: the replicated state, connected to `replica`.
        replica, peers, membership: this node's part in the cluster (one object in practice).
        pipeline: engines, methods and caches.
        forbidden_folders: in which no audit log may lie.
    """

    def __init__(
        self,
        store: Store,
        replica: Replica,
        peers: Peers,
        membership: Membership,
        pipeline: Pipeline,
        forbidden_folders: Sequence[Path] = (),
    ) -> None:
        self.store = store
        self.replica = replica
        self.peers = peers
        self.membership = membership
        self.pipeline = pipeline
        self.keys: Keys | None = None
        self.active_since_ns: int | None = None
        self.forwarder = Forwarder(peers, self, time.monotonic)
        self.background = Background(self)
        self.auditor = Auditor(forbidden_folders, store.now_ns)
        self._unsubscribe_audit: Callable[[], None] = lambda: None
        self.on_standby: Callable[[], None] = lambda: None
        self.on_sealed_changed: Callable[[], None] = lambda: None
        self.on_state_replaced: Callable[[], None] = lambda: None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._reads: list[tuple[Request, Done]] = []
        self._barrier_task: asyncio.Task[None] | None = None
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="arithmetic")
        pipeline.connect(self)
        store.on_standing = self._standing_changed
        store.on_replaced = self._state_replaced
        peers.serve(self.forwarder.serve)

    # -- what this node is --

    @property
    def is_sealed(self) -> bool:
        """Whether this node holds no keys."""
        return self.keys is None

    @property
    def is_active(self) -> bool:
        """Whether this node leads and serves."""
        return self.keys is not None and self.replica.standing is Standing.LEADER

    def unseal_with(self, keys: Keys) -> None:
        """Begin to serve with these keys."""
        self.keys = keys
        self.pipeline.caches.attach(self.store.overlay, keys.barrier)
        self._follow_audit_devices(keys)
        log.info("unsealed")
        self.on_sealed_changed()
        self._consider_activity()

    def seal(self) -> None:
        """Drop every key; what was read with them stays where it was sent, nothing more is."""
        if self.keys is None:
            return
        self.background.stop()
        self.active_since_ns = None
        self.keys = None
        self.on_standby()
        self.pipeline.caches.detach(self.store.overlay)
        self._unsubscribe_audit()
        self.auditor.close()
        log.info("sealed")
        self.on_sealed_changed()

    def _follow_audit_devices(self, keys: Keys) -> None:
        """Open the audit devices that there are, and those that the feed tells of."""

        def use_devices(_index: int = 0, _key: bytes = b"") -> None:
            services = self._services(keys, self.store.reading())
            self.auditor.use(AuditTable(services.area(AREA_AUDIT)).all())

        self._unsubscribe_audit = self.store.overlay.subscribe(area_id(keys.barrier, AREA_AUDIT), use_devices)
        use_devices()

    async def stop(self) -> None:
        """Seal, and end every task of this vault; requests still held are refused."""
        self.background.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.seal()

    def _standing_changed(self, standing: Standing, term: int) -> None:
        log.info("standing changed", extra={"standing": standing.value, "raft_term": term})
        if standing is Standing.REMOVED:
            self.seal()
        self._consider_activity()

    def _state_replaced(self) -> None:
        self.pipeline.caches.clear()
        if self.keys is not None and not self.keys.refresh(self.store):
            log.error("the state that came as a snapshot does not open with this node's root key")
            self.seal()
        self.on_state_replaced()

    def _consider_activity(self) -> None:
        if self.is_active and self.active_since_ns is None:
            self.active_since_ns = self.store.now_ns()
            self.background.start()
            log.info("active")
        elif not self.is_active and self.active_since_ns is not None:
            self.active_since_ns = None
            self.background.stop()
            self.on_standby()
            log.info("standby")

    # -- requests --

    def handle(self, request: Request, done: Done) -> None:
        """Answer a request: `done` gets its outcome exactly once, before this returns or later on the event loop."""
        try:
            self._dispatch(request, done)
        except RequestError as error:
            done(error)
        except (
            Exception
        ):  # the edge of a request: whatever went wrong, its client gets an answer and the server goes on
            log.exception("a request failed")
            done(InternalError("internal error"))

    def _dispatch(self, request: Request, done: Done) -> None:
        local = self.pipeline.plan_sealed(request)
        if local is not None:
            result = self.pipeline.perform_sealed(local, request, self.store.now_ns())
            if isinstance(result, Response):
                done(result)
            else:
                self.spawn(self._await(result, done))
            return
        keys = self._serving_keys()
        services = self._services(keys, self.store.reading())
        plan = self.pipeline.plan(request, services)
        if plan.is_local and not plan.is_authenticated:
            result = self.pipeline.perform(plan, request, services, None)
            assert isinstance(result, Response), "what anybody may ask of a node is answered at once"
            done(result)
        elif plan.is_local:
            self.spawn(self._await(self._run_local(request), done))
        elif plan.writes:
            self._write(request, done)
        elif self.replica.has_lease():
            outcome = self._try_read(plan, request, services)
            if outcome is None:
                self._write(request, done)
            elif self.replica.has_lease():
                done(outcome)
            else:
                self._read_later(request, done)
        else:
            self._read_later(request, done)

    async def _run_local(self, request: Request) -> Response:
        """Run an operation about this very node (seal, step-down), on the newest state if there is a quorum to ask.

        A node that is cut off goes by what it last knew, so that it can still be sealed.
        """
        with contextlib.suppress(NoQuorum, NotLeader):
            await self.replica.read_barrier()
        services = self._services(self._serving_keys(), self.store.reading())
        plan = self.pipeline.plan(request, services)
        trail = self._trail(plan, request, services)
        try:
            token = trail.admit()
        except NeedsLeader:
            raise PermissionDenied(NOT_WITH_A_USE_LIMIT) from None
        try:
            result = self.pipeline.perform(plan, request, services, token)
            response = result if isinstance(result, Response) else await result
        except RequestError as error:
            raise trail.answered(error) from error  # type: ignore[misc]  # an error in, an error out
        recorded = trail.answered(response)
        if isinstance(recorded, RequestError):
            raise recorded
        return recorded

    def _trail(self, plan: Plan, request: Request, services: Services) -> Trail:
        return Trail(self.auditor, self.pipeline, plan, request, services)

    def _serving_keys(self) -> Keys:
        if self.replica.standing is Standing.REMOVED:
            raise Unavailable(REMOVED)
        if self.keys is None:
            raise Sealed(VAULT_IS_SEALED)
        return self.keys

    def _services(self, keys: Keys, transaction: Transaction) -> Services:
        return self.pipeline.services(transaction, keys.barrier, self.store.now_ns())

    async def _await(self, work: Coroutine[Any, Any, Response], done: Done) -> None:
        try:
            done(await work)
        except RequestError as error:
            done(error)
        except NotLeader:
            done(Unavailable(NO_LEADER))
        except ClusterError as error:
            done(Unavailable(str(error)))
        except asyncio.CancelledError:
            done(Unavailable("this node is stopping"))
            raise
        except Exception:  # as in handle()
            log.exception("a request failed")
            done(InternalError("internal error"))

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine as a task that this vault owns."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- reads --

    def _try_read(self, plan: Plan, request: Request, services: Services) -> Outcome | None:
        """Answer from what `services` sees; None if the token counts its uses, which only the leader can do."""
        trail = self._trail(plan, request, services)
        outcome: Outcome
        try:
            result = self.pipeline.perform(plan, request, services, trail.admit())
            assert isinstance(result, Response), "an operation that waits is declared as one that writes"
            outcome = result
        except NeedsLeader:
            return None
        except RequestError as error:
            outcome = error
        except Exception:  # as in handle()
            log.exception("a read failed")
            outcome = InternalError("internal error")
        return trail.answered(outcome)

    def _read_later(self, request: Request, done: Done) -> None:
        self._reads.append((request, done))
        if self._barrier_task is None:
            self._barrier_task = self.spawn(self._pass_barriers())

    def _read_now(self, request: Request, done: Done) -> None:
        """Answer after a barrier: plan anew, for mounts and tokens may have changed meanwhile."""
        try:
            services = self._services(self._serving_keys(), self.store.reading())
            plan = self.pipeline.plan(request, services)
        except RequestError as error:
            done(error)
            return
        outcome = None if plan.writes else self._try_read(plan, request, services)
        if outcome is None:
            self._write(request, done)
        else:
            done(outcome)

    async def _pass_barriers(self) -> None:
        """Read-index rounds: one for all reads that wait; those that come meanwhile share the next."""
        try:
            while self._reads:
                waiting, self._reads = self._reads, []
                try:
                    await self.replica.read_barrier()
                except (NoQuorum, NotLeader):
                    for _, done in waiting:
                        done(Unavailable(NO_LEADER))
                    continue
                except BaseException:
                    for _, done in waiting:
                        done(Unavailable("this node is stopping"))
                    raise
                for request, done in waiting:
                    self._read_now(request, done)
        finally:
            self._barrier_task = None

    # -- writes --

    def _write(self, request: Request, done: Done) -> None:
        if self.is_active:
            self.execute(request, b"", lambda outcome: self._deliver(request, outcome, done))
        elif request.is_forwarding_refused:
            done(self._redirect(request))
        else:
            self.spawn(self._forward(request, done))

    def _redirect(self, request: Request) -> RequestError:
        """Send a client to the leader that does not want this node to ask it."""
        leader = self.replica.leader
        if leader is None or not leader.api_address:
            return Unavailable(NO_LEADER)
        query = f"?{urlencode(request.query)}" if request.query else ""
        return Redirected(f"{leader.api_address}/v1/{request.path}{query}")

    def execute(self, request: Request, request_id: bytes, done: Callable[[Outcome | Reply], None]) -> None:
        """Run a request that may write, on the leader.

        Args:
            request: from a client of this node, or forwarded.
            request_id: 16 bytes if it was forwarded, else empty.
            done: gets the outcome once it is certain, `NOT_HAPPENED` if the log says so (it may be sent again), or `UNKNOWN`.
        """
        try:
            self._execute(request, request_id, done)
        except RequestError as error:
            done(error)
        except NotLeader:
            done(Reply.NOT_HAPPENED)
        except Exception:  # as in handle()
            log.exception("a request failed")
            done(InternalError("internal error"))

    def _execute(self, request: Request, request_id: bytes, done: Callable[[Outcome | Reply], None]) -> None:
        if not self.is_active:
            raise NotLeader
        keys = self._serving_keys()
        transaction = self.store.writing()
        services = self._services(keys, transaction)
        plan = self.pipeline.plan(request, services)
        trail = self._trail(plan, request, services)
        done = _recorded(trail, done)
        outcome: Outcome
        try:
            token = trail.admit()
            result = self.pipeline.perform(plan, request, services, token, request_id)
            if not isinstance(result, Response):
                self.spawn(self._execute_later(result, transaction, done))
                return
            outcome = result
        except RequestError as error:
            outcome = error
            transaction = self.store.writing()  # what a refused request put is dropped; its token's use still counts
            self.pipeline.count_use(request, self._services(keys, transaction))
        answer = keys.seal_outcome(request_id, outcomes.encode(outcome)) if request_id else b""
        self._commit(transaction, self._when_settled(outcome, done), request_id, answer)

    def _commit(
        self, transaction: Transaction, settled: Callable[[Settlement], None], request_id: bytes, answer: bytes
    ) -> None:
        """Propose a transaction; what keeps it from being proposed is a refusal of the request."""
        try:
            self.store.commit(transaction, settled, request_id=request_id, answer=answer)
        except Overloaded as error:
            raise Unavailable(OVERLOADED) from error
        except EntryTooLarge as error:
            raise TooLarge(str(error)) from error
        except StorageError as error:
            raise Unavailable(f"this node cannot write: {error}") from error

    async def _execute_later(
        self,
        work: Coroutine[Any, Any, Response],
        transaction: Transaction,
        done: Callable[[Outcome | Reply], None],
    ) -> None:
        """Run a coroutine to its end, once the use of its token is committed that `transaction` holds."""
        try:
            if transaction.has_changes:
                await self._settle(transaction)
            outcome: Outcome | Reply = await work
        except RequestError as error:
            outcome = error
        except NotLeader:
            outcome = Reply.NOT_HAPPENED
        except ClusterError as error:
            outcome = Unavailable(str(error))
        except asyncio.CancelledError:
            done(Reply.UNKNOWN)
            raise
        except Exception:  # as in handle()
            log.exception("a request failed")
            outcome = InternalError("internal error")
        finally:
            work.close()
        done(outcome)

    async def _settle(self, transaction: Transaction, request_id: bytes = b"", answer: bytes = b"") -> None:
        """Commit a transaction and return once that is certain.

        Raises:
            NotLeader: it did not happen.
            RequestError: it could not be proposed, or its outcome is unknown.
        """
        future: asyncio.Future[Settlement] = asyncio.get_running_loop().create_future()
        self._commit(transaction, lambda found: None if future.done() else future.set_result(found), request_id, answer)
        settlement = await future
        if settlement is Settlement.UNKNOWN:
            raise Unavailable(UNKNOWN_OUTCOME)
        if settlement is Settlement.LOST:
            raise NotLeader
        if settlement is Settlement.NOTHING and not self.replica.has_lease():
            await self.replica.read_barrier()

    # -- pieces of coroutines (Runtime) --

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run arithmetic in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def atomically(
        self, context: RequestContext, step: Callable[[Context], Response], *, is_last: bool = False
    ) -> Response:
        """Run a step in a transaction of its own and return its answer once that is committed.

        The entry carries the step's answer as the request's outcome: should this node die before the coroutine ends,
        whoever forwarded the request learns from the next leader that this much happened.

        Raises:
            NotLeader: nothing of this request has happened yet; another node may try it from the start.
            RequestError: the step refused, or an earlier one is committed and this one could not be.
        """
        try:
            response = await self._step(context, step, is_last=is_last)
        except NotLeader:
            if context.has_committed:
                raise Unavailable(LOST_IN_THE_MIDST) from None
            raise
        context.has_committed = True
        return response

    async def _step(self, context: RequestContext, step: Callable[[Context], Response], *, is_last: bool) -> Response:
        if not self.is_active:
            raise NotLeader
        keys = self._serving_keys()
        transaction = self.store.writing()
        response = self.pipeline.perform_step(step, context, self._services(keys, transaction), is_last=is_last)
        answer = b""
        if context.request_id:
            answer = keys.seal_outcome(context.request_id, outcomes.encode(response))
        await self._settle(transaction, context.request_id, answer)
        return response

    def _when_settled(self, outcome: Outcome, done: Callable[[Outcome | Reply], None]) -> Callable[[Settlement], None]:
        def settled(settlement: Settlement) -> None:
            if settlement is Settlement.LOST:
                done(Reply.NOT_HAPPENED)
            elif settlement is Settlement.UNKNOWN:
                done(Reply.UNKNOWN)
            elif settlement is Settlement.COMMITTED or self.replica.has_lease():
                done(outcome)
            else:
                self.spawn(self._confirm(outcome, done))

        return settled

    async def _confirm(self, outcome: Outcome, done: Callable[[Outcome | Reply], None]) -> None:
        """Let an answer that wrote nothing go only after a quorum has confirmed that this node led."""
        try:
            await self.replica.read_barrier()
        except (NoQuorum, NotLeader):
            done(Reply.NOT_HAPPENED)
            return
        done(outcome if self.is_active else Reply.NOT_HAPPENED)

    @property
    def applied_index(self) -> int:
        """What this node has applied."""
        return self.store.applied[0]

    @property
    def outcomes_since(self) -> int:
        """The index from which on this node remembers the outcome of every forwarded request."""
        return self.store.overlay.outcomes_since

    def outcome(self, request_id: bytes) -> bytes | None:
        """Return the encoded outcome of a committed forwarded request, if it is known."""
        found = self.store.overlay.outcome(request_id)
        if found is None or self.keys is None:
            return None
        return self.keys.open_outcome(request_id, found[1])

    def _deliver(self, request: Request, outcome: Outcome | Reply, done: Done) -> None:
        """Hand a request's own outcome to its client; what did not happen here is tried again by whoever leads now."""
        if outcome is Reply.NOT_HAPPENED:
            self.spawn(self._forward(request, done))
        elif outcome is Reply.UNKNOWN:
            done(Unavailable(UNKNOWN_OUTCOME))
        else:
            assert not isinstance(outcome, Reply)
            done(outcome)

    async def _forward(self, request: Request, done: Done) -> None:
        try:
            outcome = await self.forwarder.forward(request, retry_here=lambda: self.is_active)
        except RequestError as error:
            done(error)
            return
        except asyncio.CancelledError:
            done(Unavailable("this node is stopping"))
            raise
        except Exception:  # as in handle()
            log.exception("a request could not be forwarded")
            done(InternalError("internal error"))
            return
        if outcome is None:
            self.handle(request, done)
        else:
            done(outcome)


def _recorded(trail: Trail, done: Callable[[Outcome | Reply], None]) -> Callable[[Outcome | Reply], None]:
    """Let an outcome pass only once it is in the audit log; what did not happen has none."""
    return lambda outcome: done(outcome if isinstance(outcome, Reply) else trail.answered(outcome))
