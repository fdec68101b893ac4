"""What a request goes through, one small function a step: route, token, policy, fields, engine, answer.

    plan        which mount, which declared operation        Router, Engine.match
    admit       whose token, and whether its policies        Tokens, Acl
                allow this
    perform     the engine's handler, with its fields        Engine
    complete    a login's token, a wrapped answer            logins, wrapping

The steps run within one transaction and without waiting, so what they saw is one state. They know nothing of where the
transaction's effects go (`vault.py`), nor of HTTP. What is remembered between requests is in `caches.py`.

Refusals come in the order of Vault's: who has no good token learns nothing, not even whether a path exists. Texts and
order recorded from a real server.
"""

import os
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Final

from msgspec import Struct, structs

from conclave.core import logins, wrapping
from conclave.core.acl import CACHED_PATH_CHARACTERS_MAX
from conclave.core.audit_records import Subject
from conclave.core.bodies import decode_fields
from conclave.core.caches import Caches
from conclave.core.cidrs import contains
from conclave.core.context import NodeContext, RequestContext, Runtime
from conclave.core.contract import Context, Declaration, Engine, Match, MountInfo, Operation, Request, Response
from conclave.core.errors import (
    InternalError,
    InvalidCredentials,
    InvalidRequest,
    PermissionDenied,
    RequestError,
    TooLarge,
    UnsupportedOperation,
    permission_denied,
    unsupported_path,
)
from conclave.core.lockout import LOCKING_METHODS, Lockouts
from conclave.core.mounts import SYSTEM_PATH, Mount
from conclave.core.revocation import tokens_of
from conclave.core.router import no_handler
from conclave.core.services import AREA_MOUNTS, AREA_TOKENS, Limits, Services
from conclave.core.tokens import TokenRecord, is_good
from conclave.storage.barrier import Barrier
from conclave.storage.errors import TooLarge as ValueTooLarge
from conclave.storage.transaction import Transaction

SYSTEM_ENGINE: Final = "system"
DEFAULT_LEASE_TTL_SECONDS: Final = 2_764_800
"""32 days: Vault's default of both lifetimes."""

_WRAPPING_PATHS: Final = frozenset({"sys/wrapping/unwrap", "sys/wrapping/rewrap"})


class NeedsLeader(Exception):
    """Only a transaction that writes can do this: the token counts its uses, or what is named has to be made first.

    Nothing of it has been done, nor recorded.
    """


class Plan(Struct, frozen=True):
    """What is to be done for a request; the same for all requests of a path and operation as long as the mounts are.

    Attributes:
        engine, declaration, arguments: the handler and what its path's placeholders hold; None where there is none.
        mount, info: the mount, and what its engine may know of it.
        relative_path: the path below the mount.
        refusal: makes the answer to whoever would be allowed to do this, where it cannot be done.
        writes: whether only the leader can do it.
        only_creates: whether it writes only if the engine says that what it names is not there; looked at once the token
            is known to be good, so that nobody else learns of it.
    """

    engine: Engine | None
    declaration: Declaration | None
    arguments: Mapping[str, str]
    mount: Mount | None = None
    info: MountInfo | None = None
    relative_path: str = ""
    refusal: Callable[[], RequestError] | None = None
    writes: bool = False
    only_creates: bool = False

    @property
    def is_local(self) -> bool:
        """Whether it is about the very node that was asked."""
        return self.declaration is not None and self.declaration.is_local

    @property
    def is_authenticated(self) -> bool:
        """Whether it takes a token; what does not exist does, so that nobody can probe for it."""
        return self.declaration is None or self.declaration.authenticated


class Pipeline:
    """The engines of a node, and the steps that lead to them.

    Args:
        engines: secrets engines by `Mount.engine_key`.
        methods: auth methods by type.
        limits: the system's lifetimes.
        random: so many bytes from a cryptographic source.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        methods: Mapping[str, Engine],
        limits: Limits | None = None,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.engines: dict[str, Engine] = dict(engines)
        self.methods: dict[str, Engine] = dict(methods)
        self.limits = limits or Limits(DEFAULT_LEASE_TTL_SECONDS, DEFAULT_LEASE_TTL_SECONDS)
        self.random = random
        self.caches = Caches()
        self.lockouts = Lockouts()
        self._while_sealed: dict[str, dict[Operation, Declaration]] = {}
        self._runtime: Runtime | None = None

    def connect(self, runtime: Runtime) -> None:
        """Say who runs what a coroutine needs; once, before the first request."""
        self._runtime = runtime

    def install_system(self, system: Engine) -> None:
        """Add the engine of `sys/`, which needs a vault around this pipeline."""
        self.engines[SYSTEM_ENGINE] = system
        declarations = list(system.declarations())
        patterns = {declared.pattern for declared in declarations if declared.while_sealed}
        assert not any("{" in pattern for pattern in patterns), "what a sealed node answers has no placeholders"
        for declared in declarations:
            if declared.pattern in patterns:
                self._while_sealed.setdefault(SYSTEM_PATH + declared.pattern, {})[declared.operation] = declared

    @property
    def runtime(self) -> Runtime:
        """What runs the pieces of coroutines."""
        assert self._runtime is not None, "connect() comes first"
        return self._runtime

    def services(self, transaction: Transaction, barrier: Barrier, now_ns: int) -> Services:
        """Return the vault's records within a transaction."""
        return Services(
            transaction,
            barrier,
            now_ns=now_ns,
            random=self.random,
            limits=self.limits,
            engines=self.engines,
            methods=self.methods,
        )

    # -- operations that a node without keys answers, too --

    def plan_sealed(self, request: Request) -> Match | None:
        """Return the operation that is answered in any state of the node; None if this is none of those.

        Raises:
            UnsupportedOperation: the path is one of those, the operation is not.
        """
        by_operation = self._while_sealed.get(request.path)
        if by_operation is None:
            return None
        declared = by_operation.get(request.operation)
        if declared is None:
            raise UnsupportedOperation
        return Match(declared, {}) if declared.while_sealed else None

    def perform_sealed(self, match: Match, request: Request, now_ns: int) -> Response | Coroutine[Any, Any, Response]:
        """Run such an operation."""
        context = NodeContext(request, now_ns, self.runtime)
        result = _call(self.engines[SYSTEM_ENGINE], match.declaration, match.arguments, request, context)
        return _warned(result, context.warnings) if isinstance(result, Response) else result

    # -- plan --

    def plan(self, request: Request, services: Services) -> Plan:
        """Return where a request goes. What cannot be done is planned as a refusal: first its token counts."""
        key = (request.operation, request.path)
        usable = self.caches.usable(services, AREA_MOUNTS)
        plan = self.caches.plans.get(key) if usable else None
        if plan is None:
            plan = self._plan(request, services)
            if usable and len(request.path) <= CACHED_PATH_CHARACTERS_MAX:
                self.caches.plans.offer(key, plan)
        assert isinstance(plan, Plan), "the cache holds nothing else"
        if (request.wrap_ttl_seconds or request.is_for_leader) and not plan.is_local:
            return structs.replace(plan, writes=True, only_creates=False)
        return plan

    def _plan(self, request: Request, services: Services) -> Plan:
        router, path = self.caches.router(services), request.path
        routed = router.route(path)
        if routed is None:
            return Plan(None, None, {}, refusal=lambda: no_handler(path))
        mount, relative_path = routed.mount, routed.relative_path
        engine = self.engine_of(mount)
        info = router.info(mount, self.limits.default_lease_ttl_seconds, self.limits.max_lease_ttl_seconds)
        if engine is None:
            unknown = partial(InternalError, f"no engine of type {mount.type!r}")
            return Plan(None, None, {}, mount, info, relative_path, unknown)
        is_list = request.operation is Operation.LIST
        try:
            match = engine.match(relative_path.rstrip("/") if is_list else relative_path, request.operation)
        except UnsupportedOperation as error:
            unsupported = partial(UnsupportedOperation, *error.messages)
            return Plan(engine, None, {}, mount, info, relative_path, unsupported)
        if match is None:
            return Plan(engine, None, {}, mount, info, relative_path, unsupported_path)
        declaration = match.declaration
        writes = declaration.writes and not declaration.is_local
        only_creates = writes and declaration.only_creates
        return Plan(
            engine,
            declaration,
            match.arguments,
            mount,
            info,
            relative_path,
            writes=writes and not only_creates,
            only_creates=only_creates,
        )

    def engine_of(self, mount: Mount) -> Engine | None:
        """Return what answers below a mount; None if this node has no such engine."""
        registry = self.methods if mount.is_auth else self.engines
        return registry.get(mount.engine_key)

    # -- admit --

    def admit(self, plan: Plan, request: Request, services: Services) -> TokenRecord | None:
        """Return the record of the token used, one use counted if the transaction writes; None where none is needed.

        Raises:
            PermissionDenied: there is no good token, or its policies do not allow this.
            InvalidRequest: it is no wrapping token where one is needed.
            NeedsLeader: the token's use cannot be counted in this transaction, or what it names cannot be made.
        """
        if not plan.is_authenticated:
            return None
        record = self._identify(request, services)
        if record.num_uses > 0 and not services.transaction.is_writable:
            raise NeedsLeader
        self._authorize(plan, request, services, record)
        is_left = plan.only_creates and not services.transaction.is_writable
        if is_left and not self._exists(plan, request, services, record):
            raise NeedsLeader
        if record.num_uses > 0:
            record = tokens_of(services).use(services.area(AREA_TOKENS), record)
        return record

    def readmit(
        self, plan: Plan, request: Request, services: Services, admitted: TokenRecord | None
    ) -> TokenRecord | None:
        """Check a token anew in a later step of the same request, which is no further use of it.

        `admitted` is what `admit` returned.

        Raises:
            PermissionDenied: it has ended meanwhile, or its policies do not allow this any more.
        """
        if not plan.is_authenticated:
            return None
        if admitted is None or admitted.num_uses >= 0:
            record = self._identify(request, services)
        else:
            # This request is its last use. Its record may have been cleared away by now; what it hangs on still counts.
            record = admitted
            unspent = structs.replace(admitted, num_uses=0)
            if not is_good(services.area(AREA_TOKENS), unspent, services.now_ns):
                raise PermissionDenied("permission denied")
            self._check_bearer(request, services, record)
        self._authorize(plan, request, services, record)
        return record

    def count_use(self, plan: Plan, request: Request, services: Services) -> None:
        """Count one use of the token of a request that was refused; what takes no token is no use of one."""
        record = self.known_token(plan, request, services)
        if record is not None:
            tokens_of(services).use(services.area(AREA_TOKENS), record)

    def _find_token(self, request: Request, services: Services) -> TokenRecord | None:
        return tokens_of(services).lookup(self.caches.tokens(services), request.token, services.now_ns)

    def _identify(self, request: Request, services: Services) -> TokenRecord:
        record = self._find_token(request, services) if request.token else None
        if record is None:
            if request.path in _WRAPPING_PATHS and request.token:
                raise InvalidRequest(wrapping.NOT_VALID)
            raise PermissionDenied("permission denied")
        self._check_bearer(request, services, record)
        return record

    def _check_bearer(self, request: Request, services: Services, record: TokenRecord) -> None:
        """Refuse a good token in wrong hands: from elsewhere, or of somebody who is disabled."""
        if not contains(record.bound_cidrs, request.remote_address):
            raise PermissionDenied("permission denied")
        if not self.caches.standing(services, record.entity_id).is_good:
            raise PermissionDenied("permission denied")

    def _authorize(self, plan: Plan, request: Request, services: Services, record: TokenRecord) -> None:
        acl = self.caches.acl(services, record)
        if acl.is_root:
            return
        is_allowed = acl.check(
            request.path,
            request.operation,
            parameters=request.parameters,
            sudo_needed=plan.declaration is not None and plan.declaration.sudo,
            exists=partial(self._exists, plan, request, services, record),
            wrap_ttl_seconds=request.wrap_ttl_seconds or None,
        )
        if not is_allowed:
            raise permission_denied()

    def _exists(self, plan: Plan, request: Request, services: Services, record: TokenRecord) -> bool | None:
        """Tell a create from an update, which policies tell apart; None where the engine does not."""
        if request.operation is not Operation.UPDATE or plan.engine is None or plan.declaration is None:
            return None
        context = RequestContext(plan, request, services, record, self.caches, self.runtime)
        return plan.engine.exists(context, plan.relative_path)

    def known_token(self, plan: Plan, request: Request, services: Services) -> TokenRecord | None:
        """Return the record of the token of a request that was refused, if there is a good one."""
        return self._find_token(request, services) if plan.is_authenticated and request.token else None

    def subject(self, plan: Plan, request: Request, services: Services, token: TokenRecord | None) -> Subject:
        """Return what an audit log says of a request besides the request itself."""
        operation = request.operation
        if token is not None and self._exists(plan, request, services, token) is False:
            operation = Operation.CREATE
        policies = () if token is None else self.caches.policies(services, token)
        return Subject(request, operation, plan.mount, token, policies, plan.is_authenticated)

    # -- perform --

    def perform(
        self,
        plan: Plan,
        request: Request,
        services: Services,
        token: TokenRecord | None,
        request_id: bytes = b"",
    ) -> Response | Coroutine[Any, Any, Response]:
        """Run the handler of an admitted request.

        Returns:
            the complete answer, or a coroutine that gives it later.

        Raises:
            RequestError: it cannot be done.
        """
        if plan.refusal is not None:
            raise plan.refusal()
        assert plan.engine is not None, "what has no engine has a refusal"
        assert plan.declaration is not None, "what has no handler has a refusal"
        context = RequestContext(plan, request, services, token, self.caches, self.runtime, request_id)
        claimed = self._claimed_name(plan, context)
        self._refuse_locked(claimed, context)
        try:
            result = _call(plan.engine, plan.declaration, plan.arguments, request, context)
            if not isinstance(result, Response):
                return self._perform_later(result, context, claimed)
            response = self.complete(_warned(result, context.warnings), plan, request, services)
        except InvalidCredentials:
            self._count_login(claimed, context, has_failed=True)
            raise
        except ValueTooLarge as error:
            raise TooLarge(str(error)) from error
        self._count_login(claimed, context, has_failed=False)
        return response

    async def _perform_later(
        self, work: Coroutine[Any, Any, Response], context: RequestContext, claimed: str
    ) -> Response:
        try:
            response = _warned(await work, context.warnings)
        except InvalidCredentials:
            self._refuse_locked(claimed, context)
            self._count_login(claimed, context, has_failed=True)
            raise
        # Many guesses may have been let in before the first was found wrong: none counts that comes out of a lock.
        self._refuse_locked(claimed, context)
        self._count_login(claimed, context, has_failed=False)
        if not needs_completion(response, context.request):
            return response
        return await self.runtime.atomically(context, lambda _: response, is_last=True)

    @staticmethod
    def _claimed_name(plan: Plan, context: RequestContext) -> str:
        """Return the name that a login claims, where failed logins are counted by it; else ""."""
        if plan.is_authenticated or plan.mount is None or plan.mount.type not in LOCKING_METHODS:
            return ""
        assert plan.engine is not None, "a mount that was found has an engine"
        return plan.engine.login_alias(context, plan.relative_path)

    def _refuse_locked(self, claimed: str, context: RequestContext) -> None:
        if claimed and self.lockouts.is_locked(context.mount.accessor, claimed, context.now_ns):
            raise PermissionDenied("permission denied")

    def _count_login(self, claimed: str, context: RequestContext, *, has_failed: bool) -> None:
        if not claimed:
            return
        if has_failed:
            self.lockouts.failed(context.mount.accessor, claimed, context.now_ns)
        else:
            self.lockouts.succeeded(context.mount.accessor, claimed)

    def perform_step(
        self, step: Callable[[Context], Response], context: RequestContext, services: Services, *, is_last: bool
    ) -> Response:
        """Run one atomic step of a coroutine in a transaction of its own.

        Args:
            step: given a context of that transaction.
            context: of the coroutine.
            services: in that transaction.
            is_last: whether its answer is the request's answer, to be wrapped if that was asked for.

        Raises:
            RequestError: its token or its mount has ended meanwhile, or the step refuses.
        """
        request = context.request
        plan = self._replan(context, services)
        record = self.readmit(plan, request, services, context.token_record)
        inner = RequestContext(plan, request, services, record, self.caches, self.runtime, context.request_id)
        try:
            response = _warned(step(inner), inner.warnings)
            return self.complete(response, plan, request, services, is_last=is_last)
        except ValueTooLarge as error:
            raise TooLarge(str(error)) from error

    def _replan(self, context: RequestContext, services: Services) -> Plan:
        """Return where the request of a coroutine goes by now.

        Raises:
            UnsupportedPath: its mount is not there any more.
        """
        plan, before = self.plan(context.request, services), context.plan.mount
        if before is not None and (plan.mount is None or plan.mount.uuid != before.uuid):
            raise no_handler(context.request.path)
        return plan

    # -- complete --

    def complete(
        self, response: Response, plan: Plan, request: Request, services: Services, *, is_last: bool = True
    ) -> Response:
        """Return an answer with its login turned into a token, and wrapped if that was asked for."""
        login = response.login
        if login is not None:
            assert plan.info is not None, "a login comes from an auth method's mount"
            assert plan.mount is not None, "as above"
            if login.confirm is not None:
                login.confirm(services.mount_storage(plan.mount.uuid))
            response.auth, warnings = logins.complete_login(
                services,
                plan.info,
                plan.mount.token_type,
                login,
                request.path,
                lambda entity_id: self.caches.standing(services, entity_id),
            )
            response.login = None
            response.warnings = [*response.warnings, *warnings]
        if not is_last or not request.wrap_ttl_seconds or not wrapping.is_wrappable(response):
            return response
        info = wrapping.wrap(services, response, ttl_seconds=request.wrap_ttl_seconds, creation_path=request.path)
        return Response(wrap_info=info)


def needs_completion(response: Response, request: Request) -> bool:
    """Whether an answer still needs a transaction: for a login's token, or to be wrapped."""
    return response.login is not None or (request.wrap_ttl_seconds > 0 and wrapping.is_wrappable(response))


def _call(
    engine: Engine,
    declaration: Declaration,
    arguments: Mapping[str, str],
    request: Request,
    context: RequestContext | NodeContext,
) -> Response | Coroutine[Any, Any, Response]:
    """Call a handler with what the path holds and the fields it declares; warn of fields that it does not know."""
    handler = getattr(engine, declaration.handler_name)
    if declaration.fields is None:
        return handler(context, **arguments)  # type: ignore[no-any-return]  # checked by whoever declares an operation
    body, unknown = decode_fields(declaration.fields, request)
    if unknown:
        context.warn(f"Endpoint ignored these unrecognized parameters: [{' '.join(unknown)}]")
    return handler(context, **arguments, body=body)  # type: ignore[no-any-return]  # as above


def _warned(response: Response, warnings: list[str]) -> Response:
    if warnings:
        response.warnings = [*response.warnings, *warnings]
    return response
