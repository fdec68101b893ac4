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
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from conclave.cluster.errors import ClusterError, NoQuorum, NotLeader
from conclave.cluster.replica import Membership, Peers, Replica, Standing
from conclave.core.audit import Auditor, AuditTable
from conclave.core.background import Background
from conclave.core.contract import Operation, Request, Response
from conclave.core.errors import (
    InternalError,
    PermissionDenied,
    Redirected,
    RequestError,
    Sealed,
    Unavailable,
)
from conclave.core.execution import Execution
from conclave.core.forwarding import NO_LEADER, UNKNOWN_OUTCOME, Forwarder, Reply
from conclave.core.keys import Keys
from conclave.core.outcomes import Outcome
from conclave.core.pipeline import NeedsLeader, Pipeline, Plan
from conclave.core.quotas import RateLimiter, RateLimitTable
from conclave.core.scrubber import Scrubber
from conclave.core.services import AREA_AUDIT, AREA_QUOTAS, Services, area_id
from conclave.core.store import Store
from conclave.core.trail import Trail
from conclave.core.uploads import Uploads
from conclave.storage.errors import StorageError, is_damage
from conclave.storage.transaction import Transaction

log = logging.getLogger(__name__)

Done = Callable[[Outcome], None]

VAULT_IS_SEALED: Final = "Vault is sealed"
REMOVED: Final = "Vault is sealed: this node has been removed from the cluster; wipe its data directory and join again"
"""Begins with words by which clients know that a node serves nothing."""
DAMAGED: Final = "the state of this node is damaged; if there are other nodes, try again: they hold the same"
NOT_WITH_A_USE_LIMIT: Final = (
    "an operation on one node takes a token without a use limit, for only the leader counts uses"
)


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
        self.admitting = 0  # how many nodes are being made members at this moment
        self.execution = Execution(self)
        self.forwarder = Forwarder(peers, self.execution, time.monotonic)
        self.uploads = self.forwarder.uploads = Uploads(peers, self.handle)
        self.background = Background(self)
        self.scrubber = Scrubber(self)
        self.auditor = Auditor(forbidden_folders, store.now_ns)
        self.rate_limiter = RateLimiter()
        self._unsubscribe: list[Callable[[], None]] = []
        self.on_active: Callable[[], None] = lambda: None
        self.on_standby: Callable[[], None] = lambda: None
        self.on_sealed_changed: Callable[[], None] = lambda: None
        self.on_state_replaced: Callable[[], None] = lambda: None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._reads: list[tuple[Request, Done]] = []
        self._barrier_task: asyncio.Task[None] | None = None
        pipeline.connect(self.execution)
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
        self._follow(keys, AREA_AUDIT, self._use_audit_devices)
        self._follow(keys, AREA_QUOTAS, self._use_rate_limits)
        self.scrubber.start()
        log.info("unsealed")
        self.on_sealed_changed()
        self._consider_activity()

    def seal(self) -> None:
        """Drop every key; what was read with them stays where it was sent, nothing more is."""
        if self.keys is None:
            return
        self.background.stop()
        self.scrubber.stop()
        self.active_since_ns = None
        self.keys = None
        self.on_standby()
        self.pipeline.caches.detach(self.store.overlay)
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        self._unsubscribe = []
        self.auditor.close()
        log.info("sealed")
        self.on_sealed_changed()

    def _follow(self, keys: Keys, area: str, use: Callable[[Keys], None]) -> None:
        """Use what is in an area of records now, and again whenever the feed tells of a change there."""
        prefix = area_id(keys.barrier, area)
        self._unsubscribe.append(self.store.overlay.subscribe(prefix, lambda _index, _key: use(keys)))
        use(keys)

    def _use_audit_devices(self, keys: Keys) -> None:
        services = self.services(keys, self.store.reading())
        try:
            self.auditor.use(AuditTable(services.area(AREA_AUDIT)).all())
        except StorageError as error:  # called inside the feed, which must not be held up
            self.failure(error)
            if self.auditor.is_idle:  # those that are open go on
                self.auditor.refuse_all()

    def _use_rate_limits(self, keys: Keys) -> None:
        services = self.services(keys, self.store.reading())
        try:
            self.rate_limiter.use(RateLimitTable(services.area(AREA_QUOTAS)).all())
        except StorageError as error:  # as above; the limits stay as they were
            self.failure(error)

    async def stop(self) -> None:
        """Seal, and end every task of this vault; requests still held are refused."""
        self.background.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.execution.stop()
        self.seal()

    def _standing_changed(self, standing: Standing, term: int) -> None:
        log.info("standing changed", extra={"standing": standing.value, "raft_term": term})
        if standing is Standing.REMOVED:
            self.seal()
        self._consider_activity()

    def _state_replaced(self) -> None:
        self.pipeline.caches.clear()
        if self.keys is not None and not self.keys.refresh(self.store):
            # Of the old state nothing is left, and of the new one nothing opens. As this is called while the last entry of
            # a restoring is applied, nobody has been able to propose anything since.
            log.warning(
                "the state that came as a snapshot has other keys: unseal this node with that state's key shares"
            )
            self.seal()
        if self.keys is not None:
            self._use_audit_devices(self.keys)
            self._use_rate_limits(self.keys)
            self.scrubber.start()
        if self.active_since_ns is not None:
            self.background.start()  # anew: when the next lease ends it knew of another state
        self.on_state_replaced()

    def _consider_activity(self) -> None:
        if self.is_active and self.active_since_ns is None:
            self.active_since_ns = self.store.now_ns()
            self.background.start()
            log.info("active")
            self.on_active()
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
        except Exception as error:  # noqa: BLE001  # the edge of a request: its client gets an answer and the server goes on
            done(self.failure(error))

    def _dispatch(self, request: Request, done: Done) -> None:
        local = self.pipeline.plan_sealed(request)
        if local is not None:
            result = self.pipeline.perform_sealed(local, request, self.store.now_ns())
            if isinstance(result, Response):
                done(result)
            else:
                self.spawn(self._await(result, done))
            return
        keys = self.serving_keys()
        services = self.services(keys, self.store.reading())
        self.rate_limiter.admit(request, services.now_ns)
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
        services = self.services(self.serving_keys(), self.store.reading())
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
            if response.download is not None:
                response.download.close()
            raise recorded
        return recorded

    def _trail(self, plan: Plan, request: Request, services: Services) -> Trail:
        return Trail(self.auditor, self.pipeline, plan, request, services)

    def serving_keys(self) -> Keys:
        """Return the keys of a node that serves.

        Raises:
            Sealed: it holds none.
            Unavailable: it is a member no longer.
        """
        if self.replica.standing is Standing.REMOVED:
            raise Unavailable(REMOVED)
        if self.keys is None:
            raise Sealed(VAULT_IS_SEALED)
        return self.keys

    def services(self, keys: Keys, transaction: Transaction) -> Services:
        """Return the vault's records within a transaction, at this moment."""
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
        except Exception as error:  # noqa: BLE001  # as in handle()
            done(self.failure(error))

    def failure(self, error: Exception) -> RequestError:
        """Return what the client is told of an error that is no refusal: never its text.

        A state that is damaged is refused with the advice to try again, for other nodes hold the same.
        """
        if is_damage(error):
            self.store.note_damage(error)
            return Unavailable(DAMAGED)
        log.error("a request failed", exc_info=error)
        return InternalError("internal error")

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
        except Exception as error:  # noqa: BLE001  # as in handle()
            outcome = self.failure(error)
            if is_damage(error) and not self.is_active:
                return None  # the leader holds the same
        return trail.answered(outcome)

    def _read_later(self, request: Request, done: Done) -> None:
        self._reads.append((request, done))
        if self._barrier_task is None:
            self._barrier_task = self.spawn(self._pass_barriers())

    def _read_now(self, request: Request, done: Done) -> None:
        """Answer after a barrier: plan anew, for mounts and tokens may have changed meanwhile."""
        try:
            services = self.services(self.serving_keys(), self.store.reading())
            plan = self.pipeline.plan(request, services)
        except RequestError as error:
            done(error)
            return
        except Exception as error:  # noqa: BLE001  # as in handle(): the other reads that wait must get their answers, too
            done(self.failure(error))
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
            self.execution.execute(request, b"", lambda outcome: self._deliver(request, outcome, done))
        elif request.is_forwarding_refused:
            done(self.redirect(request))
        else:
            self.spawn(self._forward(request, done))

    def redirect(self, request: Request) -> RequestError:
        """Send a client to the leader that does not want this node to ask it."""
        leader = self.replica.leader
        if leader is None or not leader.api_address:
            return Unavailable(NO_LEADER)
        fields = request.query | ({"list": "true"} if request.operation is Operation.LIST else {})
        query = f"?{urlencode(fields)}" if fields else ""
        return Redirected(f"{leader.api_address}/v1/{quote(request.path)}{query}")

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
        except Exception as error:  # noqa: BLE001  # as in handle()
            done(self.failure(error))
            return
        if outcome is None:
            self.handle(request, done)
        else:
            done(outcome)
