"""sys/mounts, sys/auth, sys/remount and what user interfaces ask about mounts.

What a mount is and which paths can be had: `core/mounts.py`. Here are the shapes of requests and answers, the check of
lifetimes, and what goes with a mount that is removed or moved: its leases end, and if it is removed, its data is emptied
in the background. Both are one small step in effect, whatever hangs on the mount.

Source: Vault's API pages "sys/mounts", "sys/auth", "sys/remount", "sys/internal/ui/mounts"; recorded from a real server.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from conclave.core.bodies import convert_fields
from conclave.core.contract import Context, Engine, Response, operation
from conclave.core.crypto import new_uuid
from conclave.core.durations import parse_seconds
from conclave.core.errors import InvalidRequest, NotFound, PermissionDenied, unsupported_path
from conclave.core.mounts import (
    AUTH_PREFIX,
    BUILT_IN_TYPES,
    CUBBYHOLE_PATH,
    IDENTITY_PATH,
    SYSTEM_PATH,
    TOKEN_PATH,
    Mount,
    MountTable,
    new_mount,
    normalize,
)
from conclave.core.privileged import VaultContext, acl_of_caller
from conclave.core.revocation import doom, doom_aliases, is_clearing, revoke_moved, revoke_prefix
from conclave.core.router import Router
from conclave.core.services import AREA_MOUNTS, Limits

MIGRATIONS_MAX: Final = 32
"""How many moves of mounts are remembered for `sys/remount/status`."""
_MIGRATIONS: Final = "migrations"
_VISIBILITIES: Final = frozenset({"", "hidden", "unauth"})
_TOKEN_TYPES: Final = frozenset({"", "default-service", "default-batch", "service", "batch"})
_KV_VERSIONS: Final = frozenset({"1", "2"})
_UNTUNABLE_PATHS: Final = frozenset({SYSTEM_PATH, CUBBYHOLE_PATH, IDENTITY_PATH})

# -- fields --


class Settings(Struct):
    """What can be set for a mount when it is made, and tuned later; None leaves a setting as it is."""

    default_lease_ttl: Annotated[str | None, Meta(description="Lifetime of leases; `system` for the system's.")] = None
    max_lease_ttl: Annotated[str | None, Meta(description="The longest lifetime; `system` for the system's.")] = None
    listing_visibility: Annotated[str | None, Meta(description="`unauth` shows the mount without a token.")] = None
    token_type: Annotated[str | None, Meta(description="Auth methods: which kind of token logins give.")] = None
    audit_non_hmac_request_keys: Annotated[list[str] | None, Meta(description="Fields audited in clear.")] = None
    audit_non_hmac_response_keys: Annotated[list[str] | None, Meta(description="Likewise, in answers.")] = None
    passthrough_request_headers: Annotated[list[str] | None, Meta(description="Headers the engine may see.")] = None
    allowed_response_headers: Annotated[list[str] | None, Meta(description="Headers the engine may set.")] = None


class NewSettings(Settings):
    """The `config` of a new mount."""

    force_no_cache: Annotated[bool, Meta(description="Kept and shown; nothing is cached behind the state.")] = False


class Enable(Struct):
    """The mount to make."""

    type: Annotated[str, Meta(description='Which engine: "kv", "kv-v2", "approle" …')] = ""
    description: Annotated[str, Meta(description="For people.")] = ""
    config: Annotated[dict[str, Any], Meta(description="Lifetimes and visibility.")] = {}
    options: Annotated[dict[str, str] | None, Meta(description="The engine's own, such as `version` of kv.")] = None
    local: Annotated[bool, Meta(description="Kept and shown; there is no replication between clusters.")] = False
    seal_wrap: Annotated[bool, Meta(description="Kept and shown; everything is encrypted alike.")] = False
    external_entropy_access: Annotated[bool, Meta(description="Kept and shown.")] = False
    plugin_name: Annotated[str, Meta(description="The engine, where `type` is `plugin`.")] = ""
    plugin_version: Annotated[str, Meta(description="Refused unless empty: engines come with the server.")] = ""


class Tune(Settings):
    """What to change of a mount."""

    description: Annotated[str | None, Meta(description="For people.")] = None
    options: Annotated[dict[str, str] | None, Meta(description="The engine's own; others stay as they are.")] = None


class Remount(Struct):
    """From where to where."""

    from_: Annotated[str, Meta(description="The mount's path.")] = msgspec.field(default="", name="from")
    to: Annotated[str, Meta(description="Where it is to be.")] = ""


class Migration(Struct, array_like=True, frozen=True):
    """A move that was made. New fields come last, with defaults."""

    id: str
    source: str
    target: str


class Migrations(Struct, array_like=True, frozen=True):
    """The last moves, oldest first."""

    moves: list[Migration] = []


# -- operations --


class MountOperations(Engine):
    """The mount tables' part of `sys/`; mixed into `System`."""

    type = "system-mounts"

    @operation("mounts", read=True)
    def list_mounts(self, ctx: VaultContext) -> Response:
        """List the secrets engines."""
        return _describe_all(ctx, is_auth=False)

    @operation("mounts/{path...}/tune", read=True)
    def read_mount_tuning(self, ctx: VaultContext, path: str) -> Response:
        """Show the settings of a secrets engine."""
        return _describe_tuning(ctx, normalize(path, is_auth=False))

    @operation("mounts/{path...}/tune", update=Tune)
    def tune_mount(self, ctx: VaultContext, path: str, body: Tune) -> Response:
        """Change settings of a secrets engine."""
        return _tune(ctx, normalize(path, is_auth=False), body)

    @operation("mounts/{path...}", read=True)
    def read_mount(self, ctx: VaultContext, path: str) -> Response:
        """Describe a secrets engine."""
        return _describe(ctx, _named(path, is_auth=False), "No secret engine mount at")

    @operation("mounts/{path...}", update=Enable)
    def enable_mount(self, ctx: VaultContext, path: str, body: Enable) -> Response:
        """Enable a secrets engine at a path."""
        full_path = _named(path, is_auth=False)
        if full_path.startswith(AUTH_PREFIX):
            raise InvalidRequest(f'cannot mount "{full_path}"')
        return _enable(ctx, full_path, body, ctx.services.engines)

    @operation("mounts/{path...}", delete=True)
    def disable_mount(self, ctx: VaultContext, path: str) -> Response:
        """Disable a secrets engine: its leases end, its data is deleted."""
        full_path = _named(path, is_auth=False)
        if full_path.startswith(AUTH_PREFIX) and _table(ctx).at(full_path) is not None:  # only sys/auth asks for sudo
            raise InvalidRequest(f'cannot unmount "{full_path}"')
        return _disable(ctx, full_path)

    @operation("auth", read=True)
    def list_methods(self, ctx: VaultContext) -> Response:
        """List the auth methods."""
        return _describe_all(ctx, is_auth=True)

    @operation("auth/{path...}/tune", read=True, sudo=True)
    def read_method_tuning(self, ctx: VaultContext, path: str) -> Response:
        """Show the settings of an auth method."""
        return _describe_tuning(ctx, normalize(path, is_auth=True))

    @operation("auth/{path...}/tune", update=Tune, sudo=True)
    def tune_method(self, ctx: VaultContext, path: str, body: Tune) -> Response:
        """Change settings of an auth method."""
        return _tune(ctx, normalize(path, is_auth=True), body)

    @operation("auth/{path...}", read=True, sudo=True)
    def read_method(self, ctx: VaultContext, path: str) -> Response:
        """Describe an auth method."""
        return _describe(ctx, _named(path, is_auth=True), "No auth engine at")

    @operation("auth/{path...}", update=Enable, sudo=True)
    def enable_method(self, ctx: VaultContext, path: str, body: Enable) -> Response:
        """Enable an auth method at a path."""
        return _enable(ctx, _named(path, is_auth=True), body, ctx.services.methods)

    @operation("auth/{path...}", delete=True, sudo=True)
    def disable_method(self, ctx: VaultContext, path: str) -> Response:
        """Disable an auth method: the tokens that it gave end, its data is deleted."""
        return _disable(ctx, _named(path, is_auth=True))

    @operation("remount", update=Remount, sudo=True)
    def remount(self, ctx: VaultContext, body: Remount) -> Response:
        """Move a mount to another path; its leases end."""
        source, target = body.from_.strip("/"), body.to.strip("/")
        if not source or not target:
            raise InvalidRequest("both 'from' and 'to' path must be specified as a string")
        _table(ctx).move(f"{source}/", f"{target}/")
        revoke_moved(ctx.services, f"{source}/")
        move = Migration(new_uuid(ctx.random), f"{source}/", f"{target}/")
        before = ctx.storage.get(_MIGRATIONS, Migrations) or Migrations()
        ctx.storage.put(_MIGRATIONS, Migrations([*before.moves, move][-MIGRATIONS_MAX:]))
        return Response(
            {"migration_id": move.id},
            is_doubled=True,
            warnings=["The mount has been moved, and its leases have ended; their records are being cleared."],
        )

    @operation("remount/status/{migration_id}", read=True)
    def remount_status(self, ctx: VaultContext, migration_id: str) -> Response:
        """Tell how a move goes: it is over when the leases of the old path have been cleared."""
        moves = (ctx.storage.get(_MIGRATIONS, Migrations) or Migrations()).moves
        move = next((move for move in moves if move.id == migration_id), None)
        if move is None:
            raise NotFound
        status = "in-progress" if is_clearing(ctx.services, move.source) else "success"
        info = {"source_mount": move.source, "target_mount": move.target, "status": status}
        return Response({"migration_id": move.id, "migration_info": info})

    # for user interfaces

    @operation("internal/ui/mounts", read=True, authenticated=False)
    def visible_mounts(self, ctx: VaultContext) -> Response:
        """List the mounts that the caller may know of: by its token, or because they are shown to everybody."""
        acl = acl_of_caller(ctx)
        tables: dict[str, dict[str, Any]] = {"auth": {}, "secret": {}}
        for mount in _table(ctx).all():
            table = tables["auth" if mount.is_auth else "secret"]
            if acl is not None and acl.reaches(mount.path):
                table[mount.table_path] = mount.describe()
            elif mount.listing_visibility == "unauth":
                table[mount.table_path] = {
                    "description": mount.description,
                    "options": mount.options,
                    "type": mount.type,
                }
        return Response(tables)

    @operation("internal/ui/mounts/{path...}", read=True, authenticated=False)
    def preflight(self, ctx: VaultContext, path: str) -> Response:
        """Describe the mount that a path belongs to, if the caller's token reaches anything in it."""
        acl = acl_of_caller(ctx)
        if acl is None:
            raise PermissionDenied("permission denied")
        routed = Router(_table(ctx).all()).route(path.strip("/"))
        if routed is None or not acl.reaches(routed.mount.path):
            raise PermissionDenied(
                "preflight capability check returned 403, please ensure client's policies grant access to path "
                f'"{path.strip("/")}/"'
            )
        return Response(routed.mount.describe() | {"path": routed.mount.table_path})

    @operation("internal/ui/namespaces", read=True)
    def visible_namespaces(self, ctx: Context) -> Response:
        """List the namespaces that the caller may know of: there are none but the root."""
        del ctx
        return Response({})


def _table(ctx: VaultContext) -> MountTable:
    return MountTable(ctx.services.area(AREA_MOUNTS))


def _named(path: str, *, is_auth: bool) -> str:
    """Return the full path of the mount that a request names."""
    if not path.strip("/"):
        raise unsupported_path()
    return normalize(path, is_auth=is_auth)


# -- showing --


def _describe_all(ctx: VaultContext, *, is_auth: bool) -> Response:
    mounts = {mount.table_path: mount.describe() for mount in _table(ctx).all() if mount.is_auth is is_auth}
    return Response(mounts, is_doubled=True)


def _describe(ctx: VaultContext, path: str, absent: str) -> Response:
    mount = _table(ctx).at(path)
    if mount is None:
        raise InvalidRequest(f"{absent} {path.removeprefix(AUTH_PREFIX)}")
    return Response(mount.describe(), is_doubled=True)


def _describe_tuning(ctx: VaultContext, path: str) -> Response:
    mount = _table(ctx).at(path)
    if mount is None:
        raise InvalidRequest(f'cannot fetch sysview for path "{path}"')
    limits = ctx.services.limits
    tuning = mount.describe_tuning(limits.default_lease_ttl_seconds, limits.max_lease_ttl_seconds)
    return Response(tuning, is_doubled=True)


# -- making and removing --


def _enable(ctx: VaultContext, path: str, body: Enable, known: Mapping[str, Engine]) -> Response:
    kind = body.plugin_name if body.type == "plugin" else body.type
    _check_type(kind, body, known)
    mount = new_mount(path, kind, ctx.random, ctx.now_ns, body.options)
    _check_kv_version(mount)
    if body.options is None and "options" in ctx.request.parameters() and not mount.options:
        mount = msgspec.structs.replace(mount, options=None)  # an explicit null is shown as one
    settings = convert_fields(NewSettings, body.config)
    mount = msgspec.structs.replace(
        mount,
        description=body.description,
        force_no_cache=settings.force_no_cache,
        local=body.local,
        seal_wrap=body.seal_wrap,
        external_entropy_access=body.external_entropy_access,
        default_lease_ttl_seconds=_new_lifetime("default", settings.default_lease_ttl),
        max_lease_ttl_seconds=_new_lifetime("max", settings.max_lease_ttl),
    )
    mount = _with_settings(mount, settings)
    _check_new_lifetimes(mount, ctx.services.limits)
    _table(ctx).enable(mount)
    return Response()


def _check_type(kind: str, body: Enable, known: Mapping[str, Engine]) -> None:
    if not kind:
        raise InvalidRequest("backend type must be specified as a string")
    if kind == "token" and kind in known:
        raise InvalidRequest("token credential backend cannot be instantiated")
    if kind in BUILT_IN_TYPES:
        raise InvalidRequest(f'mount type of "{kind}" is not mountable')
    if kind not in known and not (kind == "kv-v1" and "kv" in known):
        raise InvalidRequest(f"plugin not found in the catalog: {kind}")
    if body.plugin_version:
        raise InvalidRequest(f"no version {body.plugin_version} of {kind}: engines come with the server")


def _check_kv_version(mount: Mount) -> None:
    version = (mount.options or {}).get("version", "1")
    if mount.type == "kv" and version not in _KV_VERSIONS:
        raise InvalidRequest(f"invalid version provided: {version}")


def _new_lifetime(name: str, given: str | None) -> int:
    try:
        return _lifetime(given, 0)
    except ValueError as error:
        raise InvalidRequest(f"unable to parse {name} TTL of {given}: {error}") from None


def _check_new_lifetimes(mount: Mount, limits: Limits) -> None:
    default, longest = mount.default_lease_ttl_seconds, mount.max_lease_ttl_seconds
    if longest and default > longest:
        raise InvalidRequest("given default lease TTL greater than given max lease TTL")
    if not longest and default > limits.max_lease_ttl_seconds:
        raise InvalidRequest(
            f"given default lease TTL greater than system max lease TTL of {limits.max_lease_ttl_seconds}"
        )


def _disable(ctx: VaultContext, path: str) -> Response:
    mount = _table(ctx).remove(path)
    if mount is not None:
        revoke_prefix(ctx.services, path)
        doom(ctx.services, mount.uuid)
        if mount.is_auth:
            doom_aliases(ctx.services, mount.accessor)
    return Response()


# -- tuning --


def _tune(ctx: VaultContext, path: str, body: Tune) -> Response:
    mount = _table(ctx).at(path)
    if mount is None:
        raise InvalidRequest(f'tune of path "{path}" failed: no mount entry found')
    if path in _UNTUNABLE_PATHS:
        for name in ("default_lease_ttl", "max_lease_ttl", "description", "options"):
            if getattr(body, name) is not None:
                raise InvalidRequest(f"cannot tune parameter {name} of {path}")
    if body.token_type is not None and not mount.is_auth:
        raise InvalidRequest("'token_type' can only be modified on auth mounts")
    if body.token_type is not None and path == TOKEN_PATH:
        raise InvalidRequest("'token_type' cannot be set for 'token' or 'ns_token' auth mounts")
    tuned = _with_settings(_with_lifetimes(mount, body, ctx.services.limits), body)
    if body.description is not None:
        tuned = msgspec.structs.replace(tuned, description=body.description)
    if body.options:
        tuned = msgspec.structs.replace(tuned, options=_merged_options(ctx, mount, body.options))
    _table(ctx).put(tuned)
    return Response()


def _with_lifetimes(mount: Mount, body: Settings, limits: Limits) -> Mount:
    try:
        default = _lifetime(body.default_lease_ttl, mount.default_lease_ttl_seconds)
        longest = _lifetime(body.max_lease_ttl, mount.max_lease_ttl_seconds)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None
    if default > (longest or limits.max_lease_ttl_seconds):
        whose = "backend" if longest else "system"
        raise InvalidRequest(
            f"{whose} max lease TTL of {longest or limits.max_lease_ttl_seconds} "
            f"would be less than backend default lease TTL of {default}"
        )
    return msgspec.structs.replace(mount, default_lease_ttl_seconds=default, max_lease_ttl_seconds=longest)


def _lifetime(given: str | None, before: int) -> int:
    """Return a lifetime in seconds: nothing given leaves it as it was, `system` is 0.

    Raises:
        ValueError: it is no duration, or a negative one.
    """
    if not given:
        return before
    seconds = 0 if given == "system" else parse_seconds(given)
    if seconds < 0:
        raise ValueError(f"cannot provide negative value '{given}'")
    return seconds


def _with_settings(mount: Mount, body: Settings) -> Mount:
    """Return a mount with all settings but its lifetimes changed as wanted."""
    if body.listing_visibility is not None and body.listing_visibility not in _VISIBILITIES:
        raise InvalidRequest(f"invalid listing_visibility {body.listing_visibility}")
    if body.token_type is not None and body.token_type not in _TOKEN_TYPES:
        raise InvalidRequest("invalid value for 'token_type'")
    given = {
        "listing_visibility": body.listing_visibility,
        "token_type": body.token_type if mount.is_auth else None,
        "audit_non_hmac_request_keys": body.audit_non_hmac_request_keys,
        "audit_non_hmac_response_keys": body.audit_non_hmac_response_keys,
        "passthrough_request_headers": body.passthrough_request_headers,
        "allowed_response_headers": body.allowed_response_headers,
    }
    return msgspec.structs.replace(mount, **{name: value for name, value in given.items() if value is not None})


def _merged_options(ctx: VaultContext, mount: Mount, given: dict[str, str]) -> dict[str, str]:
    """Return a mount's options with some changed; a kv mount may go from version 1 to 2 as long as it holds nothing."""
    before = mount.options or {}
    merged = before | given
    if mount.type != "kv" or "version" not in given:
        return merged
    version = given["version"]
    if version not in _KV_VERSIONS:
        raise InvalidRequest(f"invalid version provided: {version}")
    if mount.engine_key == "kv-v2" and version == "1":
        raise InvalidRequest("cannot downgrade mount from version 2")
    if (
        mount.engine_key != "kv-v2"
        and version == "2"
        and ctx.services.mount_storage(mount.uuid).directory.list_piece(limit=1)[0]
    ):
        raise InvalidRequest("cannot upgrade a mount that holds secrets; copy them to a new mount of version 2")
    return merged
