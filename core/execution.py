"""The leader's side of a request that may write: one atomic step, one entry, one answer.

`execute` runs a local operation to its end within one transaction, proposes what it changed, and lets the answer go, also a
refusal, once all that it saw is committed. An operation that waits runs as a coroutine; each of its steps is such a
transaction of its own (`atomically`), so nothing is held while it waits.

What becomes of a request is one of three: an outcome; `NOT_HAPPENED`, which the log has said, so it may be sent again;
`UNKNOWN`, if nothing was heard of its entry in time. See docs/adr/0004-execution-on-the-leader.md.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

from conclave.cluster.errors import ClusterError, NoQuorum, NotLeader, Overloaded
from conclave.core import outcomes
from conclave.core.context import RequestContext
from conclave.core.contract import Context, Request, Response
from conclave.core.errors import RequestError, TooLarge, Unavailable
from conclave.core.forwarding import UNKNOWN_OUTCOME, Reply
from conclave.core.keys import Keys
from conclave.core.outcomes import Outcome
from conclave.core.store import Settlement, settlement_of
from conclave.core.trail import Trail
from conclave.storage.errors import StorageError
from conclave.storage.errors import TooLarge as EntryTooLarge
from conclave.storage.transaction import Transaction

if TYPE_CHECKING:
    from conclave.core.vault import Vault

log = logging.getLogger(__name__)

T = TypeVar("T")
Settled = Callable[[Outcome | Reply], None]
"""Hears once what became of a request."""

OVERLOADED: Final = "too many writes are in flight; try again"
LOST_IN_THE_MIDST: Final = "leadership was lost in the midst of this request; look before you repeat it"
THREADS_MAX: Final = 4
"""How many threads do the arithmetic of coroutines (password hashes, key generation); more only take turns."""


class Execution:
    """Executes requests on the node that leads. Every method runs on the event loop.

    Args:
        vault: whose state is changed.
    """

    def __init__(self, vault: "Vault") -> None:
        self._vault = vault
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="arithmetic")

    def stop(self) -> None:
        """End the threads; what they still compute nobody waits for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    # -- requests --

    def execute(self, request: Request, request_id: bytes, done: Settled) -> None:
        """Run a request that may write.

        Args:
            request: from a client of this node, or forwarded.
            request_id: 16 bytes if it was forwarded, else empty.
            done: gets the outcome once it is certain, or why there is none.
        """
        try:
            self._execute(request, request_id, done)
        except RequestError as error:
            done(error)
        except NotLeader:
            done(Reply.NOT_HAPPENED)
        except Exception as error:  # noqa: BLE001  # the edge of a request: its client gets an answer and the server goes on
            done(self._vault.failure(error))

    def _execute(self, request: Request, request_id: bytes, done: Settled) -> None:
        vault = self._vault
        keys = self._leading_keys()
        transaction = vault.store.writing()
        services = vault.services(keys, transaction)
        plan = vault.pipeline.plan(request, services)
        trail = Trail(vault.auditor, vault.pipeline, plan, request, services)
        done = _recorded(trail, done)
        outcome: Outcome
        try:
            result = vault.pipeline.perform(plan, request, services, trail.admit(), request_id)
            if not isinstance(result, Response):
                vault.spawn(self._execute_later(result, transaction, done))
                return
            outcome = result
        except RequestError as error:
            outcome = error
        except Exception as error:  # noqa: BLE001  # as in execute(), but with the token's use counted and the answer recorded
            outcome = self._vault.failure(error)
        if not isinstance(outcome, Response):  # what it put is dropped, yet it was a use of its token
            transaction = vault.store.writing()
            vault.pipeline.count_use(plan, request, vault.services(keys, transaction))
        answer = keys.seal_outcome(request_id, outcomes.encode(outcome)) if request_id else b""
        try:
            self._commit(transaction, self._when_settled(outcome, done), request_id, answer)
        except RequestError as error:
            done(error)

    def _leading_keys(self) -> Keys:
        if not self._vault.is_active:
            raise NotLeader
        return self._vault.serving_keys()

    def _commit(
        self, transaction: Transaction, settled: Callable[[Settlement], None], request_id: bytes, answer: bytes
    ) -> None:
        """Propose a transaction; what keeps it from being proposed is a refusal of the request."""
        try:
            self._vault.store.commit(transaction, settled, request_id=request_id, answer=answer)
        except Overloaded as error:
            raise Unavailable(OVERLOADED) from error
        except EntryTooLarge as error:
            raise TooLarge(str(error)) from error
        except StorageError as error:
            raise Unavailable(f"this node cannot write: {error}") from error

    def _when_settled(self, outcome: Outcome, done: Settled) -> Callable[[Settlement], None]:
        def settled(settlement: Settlement) -> None:
            if settlement is Settlement.LOST:
                done(Reply.NOT_HAPPENED)
            elif settlement is Settlement.UNKNOWN:
                done(Reply.UNKNOWN)
            elif settlement is Settlement.COMMITTED or self._vault.replica.has_lease():
                done(outcome)
            else:
                self._vault.spawn(self._confirm(outcome, done))

        return settled

    async def _confirm(self, outcome: Outcome, done: Settled) -> None:
        """Let an answer that wrote nothing go only after a quorum has confirmed that this node led."""
        try:
            await self._vault.replica.read_barrier()
        except (NoQuorum, NotLeader):
            done(Reply.NOT_HAPPENED)
            return
        except asyncio.CancelledError:
            done(Reply.UNKNOWN)
            raise
        done(outcome if self._vault.is_active else Reply.NOT_HAPPENED)

    # -- operations that wait --

    async def _execute_later(
        self, work: Coroutine[Any, Any, Response], transaction: Transaction, done: Settled
    ) -> None:
        """Run a coroutine to its end, once the use of its token is committed that `transaction` holds."""
        outcome: Outcome | Reply
        try:
            if transaction.has_changes:
                await self._settle(transaction)
            outcome = await work
        except RequestError as error:
            outcome = error
        except NotLeader:
            outcome = Reply.NOT_HAPPENED
        except ClusterError as error:
            outcome = Unavailable(str(error))
        except asyncio.CancelledError:
            done(Reply.UNKNOWN)
            raise
        except Exception as error:  # noqa: BLE001  # as in execute()
            outcome = self._vault.failure(error)
        finally:
            work.close()
        done(outcome)

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
        vault = self._vault
        keys = self._leading_keys()
        transaction = vault.store.writing()
        services = vault.services(keys, transaction)
        response = vault.pipeline.perform_step(step, context, services, is_last=is_last)
        answer = b""
        if context.request_id:
            answer = keys.seal_outcome(context.request_id, outcomes.encode(response))
        await self._settle(transaction, context.request_id, answer)
        return response

    async def _settle(self, transaction: Transaction, request_id: bytes = b"", answer: bytes = b"") -> None:
        """Commit a transaction and return once that is certain.

        Raises:
            NotLeader: it did not happen.
            RequestError: it could not be proposed, or its outcome is unknown.
        """
        settlement = await settlement_of(lambda done: self._commit(transaction, done, request_id, answer))
        if settlement is Settlement.UNKNOWN:
            raise Unavailable(UNKNOWN_OUTCOME)
        if settlement is Settlement.LOST:
            raise NotLeader
        if settlement is Settlement.NOTHING and not self._vault.replica.has_lease():
            await self._vault.replica.read_barrier()

    # -- what forwarding asks for (Executor) --

    @property
    def applied_index(self) -> int:
        """What this node has applied."""
        return self._vault.store.applied[0]

    def outcome(self, request_id: bytes, after_index: int) -> bytes | Reply:
        """Return what became of a forwarded request; see `forwarding.Executor`."""
        vault = self._vault
        overlay = vault.store.overlay
        if not vault.is_active or vault.keys is None:
            return Reply.UNKNOWN
        found = overlay.outcome(request_id)
        if found is not None:
            return vault.keys.open_outcome(request_id, found[1]) or Reply.UNKNOWN
        # Outcomes are remembered from one index on; what lies below is not known to have not happened.
        return Reply.UNKNOWN if after_index + 1 < overlay.outcomes_since else Reply.NOT_HAPPENED


def _recorded(trail: Trail, done: Settled) -> Settled:
    """Let an outcome pass only once it is in the audit log; what did not happen has no record."""
    return lambda outcome: done(outcome if isinstance(outcome, Reply) else trail.answered(outcome))
