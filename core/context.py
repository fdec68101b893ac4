"""What one request's handler is handed: the `Context` of the engine contract, and what the vault's own engines see beyond.

A context belongs to one transaction. A coroutine that waits holds it for longer than that transaction lives, so it
changes state only through `atomically`, which hands its step a context of its own; what else it puts is lost with the
transaction that it came from, whose storage it may still read.
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from conclave.core.acl import Acl
from conclave.core.caches import Caches
from conclave.core.contract import Context, MountInfo, Request, Response, Storage, TokenView
from conclave.core.services import Services
from conclave.core.tokens import TokenRecord

if TYPE_CHECKING:
    from conclave.core.pipeline import Plan

T = TypeVar("T")


class Runtime(Protocol):
    """What a coroutine needs of the vault that runs it."""

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run arithmetic in a thread."""

    async def atomically(
        self, context: "RequestContext", step: Callable[[Context], Response], *, is_last: bool = False
    ) -> Response:
        """Run a step in a transaction of its own and return its answer once that is committed.

        Args:
            context: of the coroutine.
            step: given a context of that transaction.
            is_last: whether its answer is the request's.
        """


class RequestContext:
    """The context of one authenticated or unauthenticated request.

    Args:
        plan: where the request goes.
        request: the request.
        services: the vault's records in the request's transaction.
        token_record: the token's record as it is after this use; None for an unauthenticated operation.
        caches: compiled policies.
        runtime: runs the pieces of a coroutine.
        request_id: names a forwarded request in the log; empty for one of this node's own clients.
    """

    __slots__ = (
        "_caches",
        "_runtime",
        "_storage",
        "has_committed",
        "plan",
        "request",
        "request_id",
        "services",
        "token_record",
        "warnings",
    )

    def __init__(
        self,
        plan: "Plan",
        request: Request,
        services: Services,
        token_record: TokenRecord | None,
        caches: Caches,
        runtime: Runtime,
        request_id: bytes = b"",
    ) -> None:
        self.plan = plan
        self.request = request
        self.services = services
        self.token_record = token_record
        self.request_id = request_id
        self.warnings: list[str] = []
        self.has_committed = False
        self._caches = caches
        self._runtime = runtime
        self._storage: Storage | None = None

    @property
    def storage(self) -> Storage:
        """This mount's storage."""
        if self._storage is None:
            self._storage = self.services.mount_storage(self.mount.uuid)
        return self._storage

    @property
    def mount(self) -> MountInfo:
        """This mount."""
        info = self.plan.info
        assert info is not None, "a handler belongs to a mount"
        return info

    @property
    def token(self) -> TokenView | None:
        """What an engine may know of the token used."""
        return None if self.token_record is None else self.token_record.view()

    @property
    def acl(self) -> Acl | None:
        """What that token may do."""
        return None if self.token_record is None else self._caches.acl(self.services, self.token_record)

    @property
    def now_ns(self) -> int:
        """The request's time."""
        return self.services.now_ns

    def random(self, length: int) -> bytes:
        """Return random bytes."""
        return self.services.random(length)

    def warn(self, text: str) -> None:
        """Add a warning to the answer."""
        self.warnings.append(text)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run arithmetic in a thread."""
        return await self._runtime.in_thread(work)

    async def atomically(self, step: Callable[[Context], Response]) -> Response:
        """Run `step` as one atomic step and return its answer once that is committed."""
        return await self._runtime.atomically(self, step)


class NodeContext:
    """The context of an operation about a node that holds no keys, or that any node answers in any state.

    There is no token, and nothing that is sealed can be reached.
    """

    __slots__ = ("_runtime", "now_ns", "request", "warnings")

    def __init__(self, request: Request, now_ns: int, runtime: Runtime) -> None:
        self.request = request
        self.now_ns = now_ns
        self.warnings: list[str] = []
        self._runtime = runtime

    @property
    def storage(self) -> Storage:
        """There is none."""
        raise AssertionError("an operation that a sealed node answers has no storage")

    @property
    def mount(self) -> MountInfo:
        """There is none."""
        raise AssertionError("an operation that a sealed node answers knows no mounts")

    @property
    def token(self) -> TokenView | None:
        """There is none."""
        return None

    def random(self, length: int) -> bytes:
        """Return random bytes."""
        return os.urandom(length)

    def warn(self, text: str) -> None:
        """Add a warning to the answer."""
        self.warnings.append(text)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run arithmetic in a thread."""
        return await self._runtime.in_thread(work)

    async def atomically(self, step: Callable[[Context], Response]) -> Response:
        """There is no state to change."""
        del step
        raise AssertionError("an operation that a sealed node answers changes no state in a step")
