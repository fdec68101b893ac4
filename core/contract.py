"""The engine contract: what a secrets engine or auth method declares, and all that it may touch.

An engine is a class with a `type` and methods marked by `@operation`. The declaration is the whole truth about a path:
routing, validation, existence (create or update), sudo, OpenAPI and help come from it.

    class Totp(Engine):
        type = "totp"

        @operation("keys/{name}", update=CreateKey)
        def create_key(self, ctx: Context, name: str, body: CreateKey) -> Response: ...

A local operation is an ordinary function, runs to its end on the event loop within 5 ms and is atomic: what it put and
deleted through `ctx.storage` becomes one log entry, or nothing does if it raises. An operation that waits on the outside
world is a coroutine function.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, ClassVar, Final, Protocol, TypeVar, overload

import msgspec
from msgspec import UNSET, Struct, UnsetType

from conclave.core.errors import unsupported_operation

T = TypeVar("T")
Handler = TypeVar("Handler", bound=Callable[..., Any])


class Operation(StrEnum):
    """What a client wants done. POST and PUT arrive as UPDATE; policy decides between create and update by existence."""

    READ = "read"
    CREATE = "create"
    UPDATE = "update"
    PATCH = "patch"
    DELETE = "delete"
    LIST = "list"


class Request(Struct):
    """One request, as the API hands it over and as a standby forwards it."""

    id: str  # UUID; becomes the envelope's request_id
    operation: Operation
    path: str  # after /v1/, percent-decoded and clean: "secret/data/app"
    token: str = ""
    body: bytes = b""  # the JSON text of an object, or nothing
    query: dict[str, str] = {}
    remote_address: str = ""
    content_type: str = ""
    forwarded_by: str = ""  # node id of the standby that took it from the client
    wrap_ttl_seconds: int = 0  # the answer is to be wrapped for so long; 0: not at all
    remote_port: int = 0
    is_forwarding_refused: bool = False  # X-Vault-No-Request-Forwarding: what only the leader can answer is redirected
    is_for_leader: bool = False  # X-Vault-Forward: active-node: the leader answers, even what this node could
    upload: AsyncIterator[bytes] | None = None  # a body that comes piece by piece; of operations about one node only

    def parameters(self) -> dict[str, Any]:
        """Return the body's fields as plain values; numbers keep their kind.

        Raises:
            InvalidRequest: the body is no JSON object.
        """
        from conclave.core.bodies import decode_object  # noqa: PLC0415  (bodies needs the types of this file)

        return decode_object(self.body)


class Lease(Struct, frozen=True):
    """How long what was answered is good for."""

    lease_id: str
    duration_seconds: int
    renewable: bool


class Auth(Struct, frozen=True, kw_only=True):
    """A token that was just issued or renewed, in the order and spelling of Vault's `auth` block."""

    client_token: str
    accessor: str
    policies: list[str]
    token_policies: list[str]
    identity_policies: list[str] | UnsetType = UNSET  # shown only where there are any
    metadata: dict[str, str] | None
    lease_duration: int
    renewable: bool
    entity_id: str
    token_type: str
    orphan: bool
    mfa_requirement: None = None
    num_uses: int = 0


class TokenParameters(Struct, frozen=True, array_like=True):
    """What a role of an auth method says of the tokens that it gives: Vault's `token_*` fields. 0: nothing is said."""

    policies: list[str] = []
    ttl_seconds: int = 0
    max_ttl_seconds: int = 0
    explicit_max_ttl_seconds: int = 0
    period_seconds: int = 0
    num_uses: int = 0
    bound_cidrs: list[str] = []
    no_default_policy: bool = False
    type: str = ""  # "service", "batch", "default-service", "default-batch"; "" as the mount says


class Login(Struct, frozen=True):
    """What an auth method has found out: who somebody is, and what token is due. The pipeline makes that token."""

    alias_name: str  # the name under which the mount knows whoever logs in: finds or makes the entity
    display_name: str  # "userpass-bob"
    parameters: TokenParameters
    metadata: dict[str, str] = {}
    is_renewable: bool = True
    confirm: Callable[[Storage], None] | None = None
    """Called in the step that makes the token: raises if what was found out, while it waited, holds no longer."""


class WrapInfo(Struct, frozen=True):
    """Where an answer lies that was wrapped, in the order and spelling of Vault's `wrap_info` block."""

    token: str
    accessor: str
    ttl: int
    creation_time: str
    creation_path: str
    wrapped_accessor: str = ""  # shown only if the wrapped answer has an `auth` block


class Download(Protocol):
    """A body that is read piece by piece. Whoever is handed it closes it."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Return the pieces; an empty one is a moment in which to see whether anybody still waits for them."""

    def close(self) -> None:
        """Let go of what the pieces come from, at the end or before."""


class Response(Struct):
    """What is answered. `data` None and no `auth` means: done, nothing to say."""

    data: Any = None  # JSON-able; msgspec.Raw holds JSON text that goes out as it is
    auth: Auth | None = None
    lease: Lease | None = None
    login: Login | None = None  # from an auth method's login; the pipeline turns it into `auth`
    wrap_info: WrapInfo | None = None
    warnings: list[str] = []
    is_bare: bool = False  # `data` alone is the body, without the envelope (sys/health, sys/init …)
    is_doubled: bool = False  # each key of `data` also stands at the top level (sys/mounts …)
    is_absent: bool = False  # nothing is there, yet there is something to say about it (a deleted version)
    is_accepted: bool = False  # the work goes on after the answer
    batch_failure_code: int = (
        0  # some items of a batch were wrong: answered with this code (400, or the client's choice)
    )
    condition: str = ""  # sys/health alone: a key of the table in api/health.py
    raw: bytes | None = None  # a body that is no JSON (metrics in Prometheus' form), with its content type
    content_type: str = ""
    download: Download | None = None  # a body that goes piece by piece; of operations about one node only


class MountInfo(Struct, frozen=True):
    """What an engine may know of its own mount."""

    path: str  # with a slash at its end: "secret/", "auth/approle/"
    accessor: str
    uuid: str
    options: Mapping[str, str]
    default_lease_ttl_seconds: int  # the effective ones: tuned, or else the system's
    max_lease_ttl_seconds: int


class TokenView(Struct, frozen=True):
    """What an engine may know of the token that was used."""

    accessor: str
    policies: Sequence[str]
    display_name: str
    entity_id: str
    is_root: bool


class Storage(Protocol):
    """A part of the sealed tree: one mount's, or a sub-directory of it."""

    @overload
    def get(self, path: str) -> bytes | None: ...
    @overload
    def get(self, path: str, as_type: type[T]) -> T | None: ...
    def recall(self, path: str, as_type: type[T]) -> T | None:
        """Return a record as `get` does, remembered as long as it is the same; whoever gets it must not change it.

        With `bytes` it is the record as it is.

        For what is read again and again, and may lie in memory in clear: settings and keys rather than clients' secrets.
        """

    def exists(self, path: str) -> bool:
        """Whether there is a record, which is not opened for that."""

    def put(self, path: str, value: bytes | Struct) -> None:
        """Store bytes, or a struct as msgpack."""

    def delete(self, path: str) -> bool:
        """Remove a record; False if there was none."""

    def list(self, path: str = "", *, after: str = "", limit: int | None = None) -> list[str]:
        """Return the sorted names in a directory; sub-directories end in a slash."""


class Context(Protocol):
    """Everything an operation may touch; a test hands in a fake and needs no server."""

    @property
    def storage(self) -> Storage:
        """This mount's storage; read-only in an operation that does not write."""

    @property
    def request(self) -> Request:
        """What is being answered."""

    @property
    def mount(self) -> MountInfo:
        """Where the engine is mounted."""

    @property
    def token(self) -> TokenView | None:
        """The token used; None in an unauthenticated operation."""

    @property
    def now_ns(self) -> int:
        """Nanoseconds since 1970, never going back, also across a failover."""

    def random(self, length: int) -> bytes:
        """Return so many bytes from the system's source of randomness."""

    def warn(self, text: str) -> None:
        """Add a warning to the answer."""

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run pure arithmetic that takes longer than 5 ms (key generation, password hashing); coroutines only."""

    async def atomically(self, step: Callable[[Context], Response]) -> Response:
        """Run `step` as one atomic step of its own on the newest state, and return its answer once that is committed.

        How a coroutine changes state: what it put through its own `storage` before or after waiting would be lost. The
        token is checked anew, for it may have ended meanwhile.
        """


class Declaration(Struct, frozen=True):
    """One operation of one path, as declared."""

    pattern: str
    operation: Operation
    handler_name: str
    fields: type[Struct] | None = None  # the body's (or query's) fields; None: takes none
    writes: bool = False  # runs on the leader, may change state
    only_creates: bool = False  # changes nothing where `Engine.exists` says that what it names is there
    authenticated: bool = True
    sudo: bool = False
    while_sealed: bool = False  # also answered by a sealed or detached node, and always by the node addressed
    is_local: bool = False  # about the addressed node itself: never forwarded
    summary: str = ""


_DECLARATIONS: Final = "__conclave_operations__"


def operation(
    pattern: str,
    *,
    read: type[Struct] | bool = False,
    update: type[Struct] | bool = False,
    patch: type[Struct] | bool = False,
    delete: type[Struct] | bool = False,
    list: type[Struct] | bool = False,  # noqa: A002  (Vault's name of the operation)
    writes: bool | None = None,
    only_creates: bool = False,
    authenticated: bool = True,
    sudo: bool = False,
    while_sealed: bool = False,
    is_local: bool = False,
) -> Callable[[Handler], Handler]:
    """Declare a method as the handler of one or more operations on a path.

    Args:
        pattern: "keys/{name}": `{name}` is one segment without a slash; `{path...}` is the rest, slashes included, and
            may be empty only for LIST.
        read: True, or the Struct that describes the fields; the handler takes it as keyword `body`. They come from the
            query for read, delete and list, from the body for the others.
        update: likewise.
        patch: likewise.
        delete: likewise.
        list: likewise.
        writes: whether it can change state (it then runs on the leader); by default all but read and list do.
        only_creates: it changes state only to make what it names; where `Engine.exists` says that this is there, any node
            answers like a read.
        authenticated: False for the few paths that take no token.
        sudo: the policy must also grant `sudo`.
        while_sealed: a node without keys answers it too.
        is_local: it is about the node addressed (seal, health), so it is never forwarded.
    """

    def declare(handler: Handler) -> Handler:
        summary = (handler.__doc__ or "").strip().partition("\n")[0]
        chosen = {
            Operation.READ: read,
            Operation.UPDATE: update,
            Operation.PATCH: patch,
            Operation.DELETE: delete,
            Operation.LIST: list,
        }
        for kind, fields in chosen.items():
            if fields is False:
                continue
            declared = Declaration(
                pattern=pattern,
                operation=kind,
                handler_name=handler.__name__,
                fields=None if fields is True else fields,
                writes=writes if writes is not None else kind not in (Operation.READ, Operation.LIST),
                only_creates=only_creates,
                authenticated=authenticated,
                sudo=sudo,
                while_sealed=while_sealed,
                is_local=is_local,
                summary=summary,
            )
            handler.__dict__.setdefault(_DECLARATIONS, []).append(declared)
        return handler

    return declare


class Match(Struct, frozen=True):
    """A declaration that fits a path, with what its placeholders hold."""

    declaration: Declaration
    arguments: dict[str, str]


class Engine:
    """A secrets engine or auth method: stateless but for what it keeps in `ctx.storage`."""

    type: ClassVar[str]
    _routes: ClassVar[list[tuple[re.Pattern[str], dict[Operation, Declaration]]]]

    def __init_subclass__(cls) -> None:
        """Collect the declared operations, in the order of the source: the first pattern that fits wins."""
        super().__init_subclass__()
        routes: dict[str, dict[Operation, Declaration]] = {}
        for base in reversed(cls.__mro__):
            for member in vars(base).values():
                for declared in getattr(member, _DECLARATIONS, ()):
                    routes.setdefault(declared.pattern, {})[declared.operation] = declared
        cls._routes = [(_compile(pattern), by_operation) for pattern, by_operation in routes.items()]

    @classmethod
    def declarations(cls) -> Iterator[Declaration]:
        """Yield every declared operation."""
        for _, by_operation in cls._routes:
            yield from by_operation.values()

    @classmethod
    def declarations_of(cls, path: str) -> list[Declaration]:
        """Return what is declared for a path relative to the mount, each operation once; the first pattern wins."""
        found: dict[Operation, Declaration] = {}
        for pattern, by_operation in cls._routes:
            if pattern.fullmatch(path) is not None:
                found = {**by_operation, **found}
        return list(found.values())

    @classmethod
    def match(cls, path: str, kind: Operation) -> Match | None:
        """Return what handles `kind` on a path relative to the mount.

        None means that the engine has no such path; a path that exists without this operation raises.

        Raises:
            UnsupportedOperation: the path has no such operation.
        """
        found = False
        for pattern, by_operation in cls._routes:
            fits = pattern.fullmatch(path)
            if fits is None:
                continue
            declared = by_operation.get(kind)
            if declared is not None:
                return Match(declared, fits.groupdict())
            found = True
        if found:
            raise unsupported_operation()
        return None

    def exists(self, ctx: Context, path: str) -> bool | None:
        """Tell whether a write to this path would update; None where create and update are the same."""
        del ctx, path
        return None

    def login_alias(self, ctx: Context, path: str) -> str:
        """Return whom a login on this path names, so that failures are counted; empty where it is no login."""
        del ctx, path
        return ""


def _compile(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)(\.\.\.)?\}", pattern)
    expression = re.escape(parts[0])
    for name, rest, literal in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        expression += f"(?P<{name}>{'.*' if rest else '[^/]+'})" + re.escape(literal)
    return re.compile(expression, re.DOTALL)


def raw_json(text: bytes) -> msgspec.Raw:
    """Return JSON text as a value that goes into an answer unchanged."""
    return msgspec.Raw(text)
