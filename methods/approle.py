"""The AppRole auth method: machines log in with a role id and, unless the role says otherwise, a secret id.

Neither id is kept in the clear: a role id is found by its hash, a secret id by its hash within its role. A role's secret
ids lie under an id of the role's own making, so removing a role makes all of them worthless at once; what is left of them
is cleared by `tidy/secret-id`, a bounded piece at a time. Names of roles are lower case.

Storage: `role/<name>`, `role_id/<hash>` → name, `secret/<role key>/<hash>`, `accessor/<role key>/<accessor>` → hash.
Source: Vault's API page "AppRole auth method"; texts and shapes recorded from a real server.
"""

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from conclave.core import token_fields
from conclave.core.cidrs import are_within, check_cidrs, contains
from conclave.core.contract import Context, Engine, Login, Response, TokenParameters, operation
from conclave.core.crypto import hash_text, new_uuid
from conclave.core.durations import NANOSECONDS, Seconds
from conclave.core.errors import InvalidCredentials, InvalidRequest, NotFound
from conclave.core.listing import Page, list_page
from conclave.core.timestamps import rfc3339
from conclave.core.token_fields import TokenFields

ID_CHARACTERS_MAX: Final = 4096
METADATA_MAX: Final = 64
TIDY_MAX: Final = 256
"""How many secret ids one call clears away."""
_REFUSED: Final = "invalid role or secret ID"


# -- what is kept --


class Role(Struct, array_like=True, frozen=True):
    """A role as it is kept. New fields come last, with defaults."""

    role_id: str
    key: str  # under which its secret ids lie
    parameters: TokenParameters = TokenParameters()
    binds_secret_id: bool = True
    secret_id_bound_cidrs: list[str] = []
    secret_id_num_uses: int = 0
    secret_id_ttl_seconds: int = 0
    has_local_secret_ids: bool = False


class SecretId(Struct, array_like=True, frozen=True):
    """What is known of a secret id. New fields come last, with defaults."""

    accessor: str
    created_ns: int
    updated_ns: int
    expires_ns: int = 0  # 0: never
    ttl_seconds: int = 0
    uses_left: int = 0  # 0: not counted
    metadata: dict[str, str] = {}
    bound_cidrs: list[str] = []
    token_bound_cidrs: list[str] = []

    def is_over(self, now_ns: int) -> bool:
        """Whether its time has run out."""
        return 0 < self.expires_ns <= now_ns


# -- fields --


class WriteRole(TokenFields):
    """A role; what is not given stays."""

    role_id: Annotated[str, Meta(description="Its role id; random by default.")] = ""
    bind_secret_id: Annotated[bool | None, Meta(description="Whether a login needs a secret id.")] = None
    secret_id_bound_cidrs: Annotated[list[str] | None, Meta(description="From where logins may come.")] = None
    bound_cidr_list: Annotated[list[str] | None, Meta(description="The older name of secret_id_bound_cidrs.")] = None
    secret_id_num_uses: Annotated[int | None, Meta(description="How many logins a secret id is good for; 0: any.")] = (
        None
    )
    secret_id_ttl: Annotated[Seconds | None, Meta(description="How long a secret id is good for; 0: for ever.")] = None
    local_secret_ids: Annotated[bool | None, Meta(description="Can be set when the role is made; has no effect.")] = (
        None
    )


class DrawSecretId(Struct):
    """A secret id to be made."""

    metadata: Annotated[str, Meta(description="A JSON object of texts, which tokens carry as metadata.")] = ""
    cidr_list: Annotated[list[str], Meta(description="From where it can be used.")] = []
    token_bound_cidrs: Annotated[list[str], Meta(description="From where its tokens can be used.")] = []
    num_uses: Annotated[int | None, Meta(description="How many logins it is good for; the role's by default.")] = None
    ttl: Annotated[Seconds | None, Meta(description="How long it is good for; the role's by default.")] = None


class CustomSecretId(DrawSecretId):
    """A secret id that the client chooses."""

    secret_id: Annotated[str, Meta(description="The secret id.")] = ""


class WhichSecretId(Struct):
    """A secret id."""

    secret_id: Annotated[str, Meta(description="The secret id.")] = ""


class WhichAccessor(Struct):
    """A secret id by its accessor."""

    secret_id_accessor: Annotated[str, Meta(description="The accessor.")] = ""


class RoleId(Struct):
    """A role id."""

    role_id: Annotated[str, Meta(description="The role id.")] = ""


class Credentials(Struct):
    """What a machine logs in with."""

    role_id: Annotated[str, Meta(description="The role id.")] = ""
    secret_id: Annotated[str, Meta(description="The secret id.")] = ""


# -- the method --


class AppRole(Engine):
    """Roles for machines."""

    type = "approle"

    def exists(self, ctx: Context, path: str) -> bool | None:
        """Tell create from update for roles."""
        area, _, name = path.partition("/")
        return _find(ctx, name) is not None if area == "role" and name and "/" not in name else None

    def login_alias(self, ctx: Context, path: str) -> str:
        """Return whom a login names."""
        return str(ctx.request.parameters().get("role_id", ""))[:ID_CHARACTERS_MAX] if path == "login" else ""

    @operation("login", update=Credentials, authenticated=False)
    def login(self, ctx: Context, body: Credentials) -> Response:
        """Log in."""
        if not body.role_id:
            raise InvalidRequest("missing role_id")
        name = ctx.storage.recall(f"role_id/{_hash(body.role_id)}", bytes)
        role = None if name is None else _find(ctx, name.decode())
        if role is None or name is None:
            raise InvalidCredentials(_REFUSED)
        if not contains(role.secret_id_bound_cidrs, ctx.request.remote_address):
            raise InvalidCredentials(f"source address {ctx.request.remote_address!r} unauthorized by CIDR restrictions")
        metadata = {"role_name": name.decode()}
        parameters = role.parameters
        if role.binds_secret_id:
            secret = _use(ctx, role, body.secret_id)
            metadata = secret.metadata | metadata
            if secret.token_bound_cidrs:
                parameters = msgspec.structs.replace(parameters, bound_cidrs=secret.token_bound_cidrs)
        return Response(login=Login(role.role_id, "approle", parameters, metadata))

    # roles

    @operation("role", list=Page)
    @operation("role/", list=Page)
    def list_roles(self, ctx: Context, body: Page) -> Response:
        """List the roles."""
        return list_page(ctx.storage, "role", body)

    @operation("role/{role_name}", read=True)
    def read_role(self, ctx: Context, role_name: str) -> Response:
        """Show a role."""
        role = _find(ctx, role_name)
        if role is None:
            raise NotFound
        return Response(_describe(role))

    @operation("role/{role_name}", update=WriteRole)
    def write_role(self, ctx: Context, role_name: str, body: WriteRole) -> Response:
        """Make or change a role."""
        before = _find(ctx, role_name)
        if before is None:
            before = Role(body.role_id or new_uuid(ctx.random), new_uuid(ctx.random))
        elif body.local_secret_ids is not None and body.local_secret_ids != before.has_local_secret_ids:
            raise InvalidRequest("local_secret_ids can only be modified during role creation")
        role = _changed(before, body)
        if not role.binds_secret_id and not role.secret_id_bound_cidrs and not role.parameters.bound_cidrs:
            raise InvalidRequest("at least one constraint should be enabled on the role")
        _save(ctx, role_name, role, body.role_id or role.role_id)
        return Response()

    @operation("role/{role_name}", delete=True)
    def delete_role(self, ctx: Context, role_name: str) -> Response:
        """Remove a role with all its secret ids."""
        role = _find(ctx, role_name)
        if role is not None:
            ctx.storage.delete(_place(role_name))
            ctx.storage.delete(f"role_id/{_hash(role.role_id)}")
            _clear(ctx, role.key, TIDY_MAX, only_over=False)
            if ctx.storage.list(f"secret/{role.key}", limit=1):
                ctx.storage.put(f"orphaned/{role.key}", b"")
        return Response()

    @operation("role/{role_name}/role-id", read=True)
    def read_role_id(self, ctx: Context, role_name: str) -> Response:
        """Show a role's id."""
        return Response({"role_id": _known(ctx, role_name).role_id})

    @operation("role/{role_name}/role-id", update=RoleId)
    def write_role_id(self, ctx: Context, role_name: str, body: RoleId) -> Response:
        """Choose a role's id."""
        if not body.role_id:
            raise InvalidRequest("missing role_id")
        _save(ctx, role_name, _known(ctx, role_name), body.role_id)
        return Response()

    # secret ids

    @operation("role/{role_name}/secret-id", update=DrawSecretId)
    def draw_secret_id(self, ctx: Context, role_name: str, body: DrawSecretId) -> Response:
        """Make a secret id; it is shown this once."""
        return _make(ctx, role_name, new_uuid(ctx.random), body)

    @operation("role/{role_name}/custom-secret-id", update=CustomSecretId)
    def set_secret_id(self, ctx: Context, role_name: str, body: CustomSecretId) -> Response:
        """Make a secret id that the client has chosen."""
        if not body.secret_id:
            raise InvalidRequest("missing secret_id")
        return _make(ctx, role_name, body.secret_id, body)

    @operation("role/{role_name}/secret-id", list=Page)
    @operation("role/{role_name}/secret-id/", list=Page)
    def list_secret_ids(self, ctx: Context, role_name: str, body: Page) -> Response:
        """List the accessors of a role's secret ids."""
        return list_page(ctx.storage, f"accessor/{_known(ctx, role_name).key}", body)

    @operation("role/{role_name}/secret-id/lookup", update=WhichSecretId, writes=False)
    def look_up(self, ctx: Context, role_name: str, body: WhichSecretId) -> Response:
        """Show what is known of a secret id."""
        if not body.secret_id:
            raise InvalidRequest("missing secret_id")
        role = _known(ctx, role_name)
        secret = ctx.storage.get(_secret_place(role, _hash(body.secret_id, role.key)), SecretId)
        return Response() if secret is None or secret.is_over(ctx.now_ns) else Response(_describe_secret(secret))

    @operation("role/{role_name}/secret-id/destroy", update=WhichSecretId, delete=WhichSecretId)
    def destroy(self, ctx: Context, role_name: str, body: WhichSecretId) -> Response:
        """End a secret id."""
        if not body.secret_id:
            raise InvalidRequest("missing secret_id")
        role = _known(ctx, role_name)
        _remove(ctx, role.key, _hash(body.secret_id, role.key))
        return Response()

    @operation("role/{role_name}/secret-id-accessor/lookup", update=WhichAccessor, writes=False)
    def look_up_accessor(self, ctx: Context, role_name: str, body: WhichAccessor) -> Response:
        """Show what is known of the secret id with an accessor."""
        role = _known(ctx, role_name)
        hashed = _hash_of(ctx, role, body.secret_id_accessor)
        secret = None if hashed is None else ctx.storage.get(_secret_place(role, hashed), SecretId)
        if secret is None or secret.is_over(ctx.now_ns):
            raise NotFound(f'failed to find accessor entry for secret_id_accessor: "{body.secret_id_accessor}"')
        return Response(_describe_secret(secret))

    @operation("role/{role_name}/secret-id-accessor/destroy", update=WhichAccessor, delete=WhichAccessor)
    def destroy_accessor(self, ctx: Context, role_name: str, body: WhichAccessor) -> Response:
        """End the secret id with an accessor."""
        role = _known(ctx, role_name)
        hashed = _hash_of(ctx, role, body.secret_id_accessor)
        if hashed is None:
            raise NotFound(f'failed to find accessor entry for secret_id_accessor: "{body.secret_id_accessor}"')
        _remove(ctx, role.key, hashed)
        return Response()

    # single fields: last, for what stands above has paths of the same form

    @operation("role/{role_name}/{field}", read=True)
    def read_field(self, ctx: Context, role_name: str, field: str) -> Response:
        """Show one field of a role."""
        shown = _describe(_known(ctx, role_name))
        if field == "bound-cidr-list":
            warning = (
                'The "bound_cidr_list" field is deprecated and will be removed. '
                'Please use "secret_id_bound_cidrs" instead.'
            )
            return Response({"bound_cidr_list": shown["secret_id_bound_cidrs"]}, warnings=[warning])
        return Response({name: shown[name] for name in _names(field)})

    @operation("role/{role_name}/{field}", update=WriteRole)
    def write_field(self, ctx: Context, role_name: str, field: str, body: WriteRole) -> Response:
        """Change one field of a role."""
        names = _names(field)
        accepted = {*names, *(_OLDER_NAMES[name] for name in names if name in _OLDER_NAMES)}
        sent = {name: value for name in accepted if (value := getattr(body, name)) is not None}
        if not sent:
            raise InvalidRequest(f"missing {names[0]}")
        role = _changed(_known(ctx, role_name), WriteRole(**sent))
        _save(ctx, role_name, role, role.role_id)
        return Response()

    @operation("role/{role_name}/{field}", delete=True)
    def delete_field(self, ctx: Context, role_name: str, field: str) -> Response:
        """Set one field of a role to its default."""
        role = _known(ctx, role_name)
        defaults = _describe(Role("", ""))
        fields = {name: defaults[name] for name in _names(field)}
        role = _changed(role, WriteRole(**{name: [] if value is None else value for name, value in fields.items()}))
        _save(ctx, role_name, role, role.role_id)
        return Response()

    @operation("tidy/secret-id", update=True)
    def tidy(self, ctx: Context) -> Response:
        """Clear away secret ids that are over or whose role is gone: a bounded number with each call."""
        left = TIDY_MAX
        for key in ctx.storage.list("orphaned", limit=left):
            left -= _clear(ctx, key, left, only_over=False)
            if not ctx.storage.list(f"secret/{key}", limit=1):
                ctx.storage.delete(f"orphaned/{key}")
        for name in ctx.storage.list("role"):
            if left <= 0:
                break
            role = _find(ctx, name)
            if role is not None:
                left -= _clear(ctx, role.key, left, only_over=True)
        warning = "Tidy operation successfully started. Any information from the operation will be printed to the logs."
        return Response(is_accepted=True, warnings=[warning])


# -- roles --

_FIELDS: Final = {
    "bind-secret-id": ("bind_secret_id",),
    "bound-cidr-list": ("secret_id_bound_cidrs",),
    "local-secret-ids": ("local_secret_ids",),
    "period": ("token_period",),
    "policies": ("token_policies",),
    "secret-id-bound-cidrs": ("secret_id_bound_cidrs",),
    "secret-id-num-uses": ("secret_id_num_uses",),
    "secret-id-ttl": ("secret_id_ttl",),
    "token-bound-cidrs": ("token_bound_cidrs",),
    "token-max-ttl": ("token_max_ttl",),
    "token-num-uses": ("token_num_uses",),
    "token-ttl": ("token_ttl",),
}
"""Fields of a role that have a path of their own."""
_OLDER_NAMES: Final = {
    "secret_id_bound_cidrs": "bound_cidr_list",
    "token_period": "period",
    "token_policies": "policies",
}


def _names(field: str) -> tuple[str, ...]:
    names = _FIELDS.get(field)
    if names is None:
        raise NotFound("1 error occurred:\n\t* unsupported path\n\n")
    return names


def _place(role_name: str) -> str:
    return f"role/{role_name.lower()}"


def _hash(text: str, key: str = "") -> str:
    if len(text) > ID_CHARACTERS_MAX:
        raise InvalidRequest(f"an id has at most {ID_CHARACTERS_MAX} characters")
    return hash_text(f"{key}\0{text}", "conclave-approle")


def _find(ctx: Context, role_name: str) -> Role | None:
    return ctx.storage.recall(_place(role_name), Role)


def _known(ctx: Context, role_name: str) -> Role:
    role = _find(ctx, role_name)
    if role is None:
        raise NotFound(f'role "{role_name.lower()}" does not exist')
    return role


def _changed(role: Role, sent: WriteRole) -> Role:
    cidrs = sent.bound_cidr_list if sent.secret_id_bound_cidrs is None else sent.secret_id_bound_cidrs
    uses, ttl = sent.secret_id_num_uses, sent.secret_id_ttl
    if uses is not None and uses < 0:
        raise InvalidRequest("secret_id_num_uses cannot be negative")
    if ttl is not None and ttl < 0:
        raise InvalidRequest("secret_id_ttl cannot be negative")
    return msgspec.structs.replace(
        role,
        parameters=token_fields.merged(role.parameters, sent),
        binds_secret_id=role.binds_secret_id if sent.bind_secret_id is None else sent.bind_secret_id,
        secret_id_bound_cidrs=role.secret_id_bound_cidrs if cidrs is None else check_cidrs(cidrs),
        secret_id_num_uses=role.secret_id_num_uses if uses is None else uses,
        secret_id_ttl_seconds=role.secret_id_ttl_seconds if ttl is None else ttl,
        has_local_secret_ids=role.has_local_secret_ids if sent.local_secret_ids is None else sent.local_secret_ids,
    )


def _save(ctx: Context, role_name: str, role: Role, role_id: str) -> None:
    """Keep a role under its name and its role id."""
    name = role_name.lower().encode()
    owner = ctx.storage.get(f"role_id/{_hash(role_id)}")
    if owner is not None and owner != name:
        raise InvalidRequest("role_id already in use")
    if role_id != role.role_id:
        ctx.storage.delete(f"role_id/{_hash(role.role_id)}")
    ctx.storage.put(_place(role_name), msgspec.structs.replace(role, role_id=role_id))
    ctx.storage.put(f"role_id/{_hash(role_id)}", name)


def _describe(role: Role) -> dict[str, Any]:
    return {
        "bind_secret_id": role.binds_secret_id,
        "local_secret_ids": role.has_local_secret_ids,
        "secret_id_bound_cidrs": role.secret_id_bound_cidrs or None,
        "secret_id_num_uses": role.secret_id_num_uses,
        "secret_id_ttl": role.secret_id_ttl_seconds,
        **token_fields.describe(role.parameters),
    }


# -- secret ids --


def _secret_place(role: Role, hashed: str) -> str:
    return f"secret/{role.key}/{hashed}"


def _make(ctx: Context, role_name: str, text: str, body: DrawSecretId) -> Response:
    role = _known(ctx, role_name)
    if not role.binds_secret_id:
        raise InvalidRequest("bind_secret_id is not set on the role")
    uses = role.secret_id_num_uses if body.num_uses is None else body.num_uses
    ttl = role.secret_id_ttl_seconds if body.ttl is None else body.ttl
    if uses < 0:
        raise InvalidRequest("num_uses cannot be negative")
    if role.secret_id_num_uses and (uses == 0 or uses > role.secret_id_num_uses):
        raise InvalidRequest("num_uses cannot be higher than the role's secret_id_num_uses")
    if ttl < 0:
        raise InvalidRequest("ttl cannot be negative")
    if role.secret_id_ttl_seconds and (ttl == 0 or ttl > role.secret_id_ttl_seconds):
        raise InvalidRequest("ttl cannot be longer than the role's secret_id_ttl")
    hashed = _hash(text, role.key)
    if ctx.storage.get(_secret_place(role, hashed), SecretId) is not None:
        raise InvalidRequest("SecretID is already registered")
    bound_cidrs, token_bound_cidrs = check_cidrs(body.cidr_list), check_cidrs(body.token_bound_cidrs)
    if not are_within(bound_cidrs, role.secret_id_bound_cidrs):
        raise InvalidRequest("cidr_list must lie within the role's secret_id_bound_cidrs")
    if not are_within(token_bound_cidrs, role.parameters.bound_cidrs):
        raise InvalidRequest("token_bound_cidrs must lie within the role's token_bound_cidrs")
    secret = SecretId(
        accessor=new_uuid(ctx.random),
        created_ns=ctx.now_ns,
        updated_ns=ctx.now_ns,
        expires_ns=ctx.now_ns + ttl * NANOSECONDS if ttl else 0,
        ttl_seconds=ttl,
        uses_left=uses,
        metadata=_metadata(body.metadata),
        bound_cidrs=bound_cidrs,
        token_bound_cidrs=token_bound_cidrs,
    )
    ctx.storage.put(_secret_place(role, hashed), secret)
    ctx.storage.put(f"accessor/{role.key}/{secret.accessor}", hashed.encode())
    return Response(
        {
            "secret_id": text,
            "secret_id_accessor": secret.accessor,
            "secret_id_num_uses": uses,
            "secret_id_ttl": ttl,
        }
    )


def _metadata(text: str) -> dict[str, str]:
    if not text:
        return {}
    try:
        metadata = msgspec.json.decode(text, type=dict[str, str])
    except msgspec.MsgspecError:
        raise InvalidRequest("failed to parse metadata: it must be a JSON object of texts") from None
    if len(metadata) > METADATA_MAX:
        raise InvalidRequest(f"a secret id has at most {METADATA_MAX} entries of metadata")
    return metadata


def _use(ctx: Context, role: Role, text: str) -> SecretId:
    """Return a secret id that is good, with one use less."""
    if not text:
        raise InvalidRequest("missing secret_id")
    hashed = _hash(text, role.key)
    secret = ctx.storage.get(_secret_place(role, hashed), SecretId)
    if secret is None or secret.is_over(ctx.now_ns):
        raise InvalidCredentials(_REFUSED)
    if not contains(secret.bound_cidrs, ctx.request.remote_address):
        raise InvalidCredentials(f"source address {ctx.request.remote_address!r} unauthorized by CIDR restrictions")
    if secret.uses_left == 1:
        _remove(ctx, role.key, hashed)
    elif secret.uses_left:
        used = msgspec.structs.replace(secret, uses_left=secret.uses_left - 1, updated_ns=ctx.now_ns)
        ctx.storage.put(_secret_place(role, hashed), used)
    return secret


def _hash_of(ctx: Context, role: Role, accessor: str) -> str | None:
    if not accessor:
        raise InvalidRequest("missing secret_id_accessor")
    hashed = None if "/" in accessor else ctx.storage.get(f"accessor/{role.key}/{accessor}")
    return None if hashed is None else hashed.decode()


def _remove(ctx: Context, role_key: str, hashed: str) -> None:
    place = f"secret/{role_key}/{hashed}"
    secret = ctx.storage.get(place, SecretId)
    if secret is not None:
        ctx.storage.delete(place)
        ctx.storage.delete(f"accessor/{role_key}/{secret.accessor}")


def _clear(ctx: Context, role_key: str, limit: int, *, only_over: bool) -> int:
    """Remove a role's secret ids, or those of them that are over; return how many were looked at."""
    names = ctx.storage.list(f"secret/{role_key}", limit=limit)
    for hashed in names:
        secret = ctx.storage.get(f"secret/{role_key}/{hashed}", SecretId)
        if secret is not None and (not only_over or secret.is_over(ctx.now_ns)):
            _remove(ctx, role_key, hashed)
    return len(names)


def _describe_secret(secret: SecretId) -> dict[str, Any]:
    return {
        "cidr_list": secret.bound_cidrs,
        "creation_time": rfc3339(secret.created_ns),
        "expiration_time": rfc3339(secret.expires_ns) if secret.expires_ns else "0001-01-01T00:00:00Z",
        "last_updated_time": rfc3339(secret.updated_ns),
        "metadata": secret.metadata,
        "secret_id_accessor": secret.accessor,
        "secret_id_num_uses": secret.uses_left,
        "secret_id_ttl": secret.ttl_seconds,
        "token_bound_cidrs": secret.token_bound_cidrs,
    }
