"""The token auth method, `auth/token/`: make, look up, prolong and end tokens.

What a token is and how it is kept: `core/tokens.py`; what ends with it: `core/revocation.py`. Here are the rules of who
may make which token, and the shapes of the answers. Source: Vault's API page "Token auth method"; texts recorded from a
real server.
"""

import re
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from conclave.core.contract import Context, Engine, Response, operation
from conclave.core.durations import NANOSECONDS, Seconds, format_short, parse_seconds
from conclave.core.errors import InvalidRequest, NotFound, PermissionDenied, unsupported_path
from conclave.core.identity import Identities
from conclave.core.listing import Page, list_page
from conclave.core.logins import auth_of
from conclave.core.policies import DEFAULT, ROOT, PolicyStore
from conclave.core.privileged import RESPONSE_WRAPPING, VaultContext, standing_of
from conclave.core.revocation import register_token, release_token, renew_token, revoke_token, tokens_of
from conclave.core.services import AREA_IDENTITY, AREA_POLICIES, AREA_TOKENS
from conclave.core.timestamps import rfc3339
from conclave.core.token_roles import RoleFields, TokenRole, merged
from conclave.core.tokens import BATCH, RESERVED_PREFIXES, SERVICE, TokenRecord, with_default

TEXT_CHARACTERS_MAX: Final = 256
"""The longest text that a client can choose for a token."""
NAMES_MAX: Final = 256
"""How many policies, and how many entries of metadata, a token can have."""
FIRST_ROOT_PATH: Final = "auth/token/root"
"""What made the token that comes with a new vault; nothing else has this path."""
_NO_ACCESSOR: Final = "1 error occurred:\n\t* missing accessor\n\n"
_ROLE_NAME: Final = re.compile(r"\w([\w.-]*\w)?", re.ASCII)


_CHOSEN_ID: Final = (
    "Supplying a custom ID for the token uses the weaker SHA1 hashing instead of the more secure SHA2-256 HMAC for token "
    "obfuscation. SHA1 hashed tokens on the wire leads to less secure lookups."
)
"""What every Vault warns of, in the words that clients know. Here all tokens are hashed alike; that an ID which somebody
chose is easier to guess than a random one is as true."""

# -- fields --


class Create(Struct):
    """The token to make."""

    id: Annotated[str, Meta(description="Its text; needs sudo. Random by default.")] = ""
    policies: Annotated[list[str], Meta(description="Its policies; the parent's by default.")] = []
    meta: Annotated[dict[str, str] | None, Meta(description="Free text by name.")] = None
    no_parent: Annotated[bool, Meta(description="Whether it outlives the token that makes it; needs sudo.")] = False
    no_default_policy: Annotated[bool, Meta(description="Leave the policy `default` out.")] = False
    renewable: Annotated[bool, Meta(description="Whether it can be prolonged.")] = True
    ttl: Annotated[str, Meta(description="How long it is good for.")] = ""
    type: Annotated[str, Meta(description="`service` or `batch`.")] = ""
    explicit_max_ttl: Annotated[str, Meta(description="After which no renewal helps.")] = ""
    display_name: Annotated[str, Meta(description="A name for people.")] = ""
    num_uses: Annotated[int, Meta(description="How often it can be used; 0 for any number.")] = 0
    period: Annotated[str, Meta(description="What each renewal gives, without a maximum; needs sudo.")] = ""
    entity_alias: Annotated[str, Meta(description="Whose token it is; needs a role that allows the name.")] = ""
    lease: Annotated[str, Meta(description="The older name of `ttl`.")] = ""


class Which(Struct):
    """A token."""

    token: Annotated[str, Meta(description="Its text.")] = ""


class WhichAccessor(Struct):
    """A token, by its accessor."""

    accessor: Annotated[str, Meta(description="Its accessor.")] = ""


class Renew(Struct):
    """A token, and for how long."""

    token: Annotated[str, Meta(description="Its text.")] = ""
    increment: Annotated[Seconds, Meta(description="How long from now it shall be good for.")] = 0


class RenewSelf(Struct):
    """For how long."""

    increment: Annotated[Seconds, Meta(description="How long from now it shall be good for.")] = 0
    token: Annotated[str, Meta(description="Not used: it is the token of the request.")] = ""


class RenewAccessor(Struct):
    """A token by its accessor, and for how long."""

    accessor: Annotated[str, Meta(description="Its accessor.")] = ""
    increment: Annotated[Seconds, Meta(description="How long from now it shall be good for.")] = 0


class _Lifetimes(Struct, frozen=True):
    """How long a new token lives, in seconds; 0 where nothing is said."""

    ttl: int
    explicit_max: int
    period: int
    warnings: list[str]


# -- the method --


class TokenMethod(Engine):
    """Tokens."""

    type = "token"

    @operation("create", update=Create)
    def create(self, ctx: VaultContext, body: Create) -> Response:
        """Make a token."""
        return _create(ctx, body, is_orphan=body.no_parent, path="auth/token/create")

    @operation("create-orphan", update=Create)
    def create_orphan(self, ctx: VaultContext, body: Create) -> Response:
        """Make a token without a parent."""
        return _create(ctx, body, is_orphan=True, path="auth/token/create-orphan")

    @operation("create/{role_name}", update=Create)
    def create_by_role(self, ctx: VaultContext, role_name: str, body: Create) -> Response:
        """Make a token as a role says."""
        role = ctx.storage.get(f"role/{role_name}", TokenRole)
        if role is None:
            raise InvalidRequest(f"unknown role {role_name}")
        path = "/".join(filter(None, ("auth/token/create", role.name, role.path_suffix)))
        return _create(ctx, body, is_orphan=role.is_orphan, path=path, role=role)

    @operation("lookup", read=Which)
    @operation("lookup", update=Which, writes=False)
    def lookup(self, ctx: VaultContext, body: Which) -> Response:
        """Show what is known of a token."""
        text = body.token or ctx.request.token
        if text == ctx.request.token:
            return _describe(ctx, _used(ctx), text)
        record = tokens_of(ctx.services).lookup(ctx.services.area(AREA_TOKENS), text, ctx.now_ns)
        if record is None:
            raise PermissionDenied("bad token")
        return _describe(ctx, record, text)

    @operation("lookup-self", read=True)
    @operation("lookup-self", update=Which, writes=False)
    def lookup_self(self, ctx: VaultContext, body: Which | None = None) -> Response:
        """Show what is known of the token used."""
        del body
        return _describe(ctx, _used(ctx), ctx.request.token)

    @operation("lookup-accessor", update=WhichAccessor, writes=False)
    def lookup_accessor(self, ctx: VaultContext, body: WhichAccessor) -> Response:
        """Show what is known of the token with an accessor, but not its text."""
        return _describe(ctx, _by_accessor(ctx, body.accessor), "")

    @operation("renew", update=Renew)
    def renew(self, ctx: VaultContext, body: Renew) -> Response:
        """Prolong a token."""
        if not body.token:
            raise InvalidRequest("missing token ID")
        record = tokens_of(ctx.services).lookup(ctx.services.area(AREA_TOKENS), body.token, ctx.now_ns)
        if record is None:
            raise InvalidRequest("token not found")
        return _renew(ctx, record, body.token, body.increment)

    @operation("renew-self", update=RenewSelf)
    def renew_self(self, ctx: VaultContext, body: RenewSelf) -> Response:
        """Prolong the token used."""
        return _renew(ctx, _used(ctx), ctx.request.token, body.increment)

    @operation("renew-accessor", update=RenewAccessor)
    def renew_accessor(self, ctx: VaultContext, body: RenewAccessor) -> Response:
        """Prolong the token with an accessor."""
        return _renew(ctx, _by_accessor(ctx, body.accessor), "", body.increment)

    @operation("revoke", update=Which)
    def revoke(self, ctx: VaultContext, body: Which) -> Response:
        """End a token and its children."""
        if not body.token:
            raise InvalidRequest("missing token ID")
        record = tokens_of(ctx.services).find(ctx.services.area(AREA_TOKENS), body.token)
        if record is not None:
            revoke_token(ctx.services, _revocable(record))
        return Response()

    @operation("revoke-self", update=True)
    def revoke_self(self, ctx: VaultContext) -> Response:
        """End the token used, and its children."""
        revoke_token(ctx.services, _revocable(_used(ctx)))
        return Response()

    @operation("revoke-accessor", update=WhichAccessor)
    def revoke_accessor(self, ctx: VaultContext, body: WhichAccessor) -> Response:
        """End the token with an accessor, and its children."""
        if not body.accessor:
            raise InvalidRequest(_NO_ACCESSOR)
        record = tokens_of(ctx.services).lookup_accessor(ctx.services.area(AREA_TOKENS), body.accessor, ctx.now_ns)
        if record is None:
            return Response(warnings=["No token found with this accessor"])
        revoke_token(ctx.services, record)
        return Response()

    @operation("revoke-orphan", update=Which, sudo=True)
    def revoke_orphan(self, ctx: VaultContext, body: Which) -> Response:
        """End a token; its children become orphans."""
        if not body.token:
            raise InvalidRequest("missing token ID")
        record = tokens_of(ctx.services).find(ctx.services.area(AREA_TOKENS), body.token)
        if record is None:
            raise InvalidRequest("token to revoke not found")
        release_token(ctx.services, _revocable(record))
        return Response()

    @operation("accessors", list=True, sudo=True)
    def list_accessors(self, ctx: VaultContext) -> Response:
        """List the accessors of all tokens."""
        accessors = tokens_of(ctx.services).accessors(ctx.services.area(AREA_TOKENS))
        if not accessors:
            raise NotFound
        return Response({"keys": accessors})

    @operation("tidy", update=True, writes=False)
    def tidy(self, ctx: VaultContext) -> Response:
        """Say that there is nothing to tidy by hand."""
        del ctx
        return Response(
            is_accepted=True, warnings=["What ended tokens leave is cleared all the time; nothing was left."]
        )

    # roles

    @operation("roles", list=Page)
    def list_roles(self, ctx: Context, body: Page) -> Response:
        """List the names of all roles."""
        return list_page(ctx.storage, "role", body)

    @operation("roles/{role_name}", read=True)
    def read_role(self, ctx: Context, role_name: str) -> Response:
        """Show a role."""
        role = ctx.storage.get(f"role/{role_name}", TokenRole)
        if role is None:
            raise NotFound
        return Response(role.describe())

    @operation("roles/{role_name}", update=RoleFields)
    def write_role(self, ctx: Context, role_name: str, body: RoleFields) -> Response:
        """Create a role, or change the fields of one that are sent."""
        if not _ROLE_NAME.fullmatch(role_name):
            raise unsupported_path()
        before = ctx.storage.get(f"role/{role_name}", TokenRole) or TokenRole(role_name)
        ctx.storage.put(f"role/{role_name}", merged(before, body))
        return Response()

    @operation("roles/{role_name}", delete=True)
    def delete_role(self, ctx: Context, role_name: str) -> Response:
        """Remove a role; tokens made through it stay."""
        ctx.storage.delete(f"role/{role_name}")
        return Response()


def _used(ctx: VaultContext) -> TokenRecord:
    assert ctx.token_record is not None, "these operations are authenticated"
    return ctx.token_record


def _by_accessor(ctx: VaultContext, accessor: str) -> TokenRecord:
    if not accessor:
        raise InvalidRequest(_NO_ACCESSOR)
    record = tokens_of(ctx.services).lookup_accessor(ctx.services.area(AREA_TOKENS), accessor, ctx.now_ns)
    if record is None:
        raise InvalidRequest("1 error occurred:\n\t* invalid accessor\n\n")
    return record


def _revocable(record: TokenRecord) -> TokenRecord:
    if record.is_batch:
        raise InvalidRequest("batch tokens cannot be revoked")
    return record


# -- making --


def _create(ctx: VaultContext, body: Create, *, is_orphan: bool, path: str, role: TokenRole | None = None) -> Response:
    parent = _used(ctx)
    token_type = _check_fields(body, role)
    has_sudo = _has_sudo(ctx)
    _check_rights(parent, body, has_sudo=has_sudo)
    policies = _policies(parent, body, role, has_sudo=has_sudo)
    is_root = ROOT in policies
    if token_type == BATCH and is_root:
        raise InvalidRequest("batch tokens cannot be root tokens")
    lifetimes = _lifetimes(ctx, body, role, is_root=is_root)
    text, record = tokens_of(ctx.services).create(
        ctx.services.area(AREA_TOKENS),
        now_ns=ctx.now_ns,
        policies=policies,
        path=path,
        ttl_seconds=lifetimes.ttl,
        explicit_max_ttl_seconds=lifetimes.explicit_max,
        period_seconds=lifetimes.period,
        num_uses=_fewer(body.num_uses, role.num_uses if role is not None else 0),
        parent="" if is_orphan else parent.name,
        token_type=token_type,
        is_renewable=_is_renewable(body, role) and token_type == SERVICE and lifetimes.ttl > 0,
        display_name=_display_name(body.display_name),
        meta=body.meta or None,
        entity_id=_entity_id(ctx, body, role, "" if is_orphan else parent.entity_id),
        role=role.name if role is not None else "",
        bound_cidrs=role.bound_cidrs if role is not None and not is_root else [],
        text=body.id if token_type == SERVICE else "",
    )
    register_token(ctx.services, record)
    store = PolicyStore(ctx.services.area(AREA_POLICIES))
    missing = [f'Policy "{name}" does not exist' for name in policies if not store.exists(name)]
    chosen = [_CHOSEN_ID] if body.id and token_type == SERVICE else []
    standing = standing_of(ctx.services, record.entity_id)
    auth = auth_of(record, text, lifetimes.ttl, standing)
    return Response(auth=auth, warnings=[*lifetimes.warnings, *chosen, *missing])


def _check_fields(body: Create, role: TokenRole | None) -> str:
    """Check what does not depend on who asks, and return the token's type."""
    token_type = (role.token_type(body.type) if role is not None else body.type) or SERVICE
    if token_type not in (SERVICE, BATCH):
        raise InvalidRequest("invalid 'token_type' value")
    if body.num_uses < 0:
        raise InvalidRequest("number of uses cannot be negative")
    if len(body.policies) > NAMES_MAX or len(body.meta or {}) > NAMES_MAX:
        raise InvalidRequest(f"a token has at most {NAMES_MAX} policies and {NAMES_MAX} entries of metadata")
    if body.entity_alias and role is None:
        raise InvalidRequest("'entity_alias' is only allowed in combination with token role")
    if body.entity_alias and role is not None and not role.allows_alias(body.entity_alias):
        raise InvalidRequest("invalid 'entity_alias' value")
    if token_type == BATCH:
        numbers = {"num_uses": body.num_uses}
        numbers |= {name: _positive(name, getattr(body, name)) for name in ("period", "explicit_max_ttl")}
        for name, number in numbers.items():
            if number:
                raise InvalidRequest(f'batch tokens cannot have "{name}" set')
    _check_text(body.id)
    return token_type


def _check_text(text: str) -> None:
    if not text:
        return
    for prefix in RESERVED_PREFIXES:
        if text.startswith(prefix):
            raise InvalidRequest(f"custom token ID cannot have the '{prefix}' prefix")
    if "." in text:
        raise InvalidRequest("custom token ID cannot have a '.' in the value")
    if len(text) > TEXT_CHARACTERS_MAX or not (text.isascii() and text.isprintable()) or " " in text:
        raise InvalidRequest(
            f"custom token ID must be printable ASCII without spaces, {TEXT_CHARACTERS_MAX} characters at most"
        )


def _check_rights(parent: TokenRecord, body: Create, *, has_sudo: bool) -> None:
    if parent.is_batch:
        raise InvalidRequest("batch tokens cannot create more tokens")
    if parent.num_uses != 0:
        raise InvalidRequest("restricted use token cannot generate child tokens")
    if has_sudo:
        return
    if body.id:
        raise InvalidRequest("root or sudo privileges required to specify token id")
    if body.no_parent:
        raise InvalidRequest("root or sudo privileges required to create orphan token")
    if _positive("period", body.period):
        raise InvalidRequest("root or sudo privileges required to create periodic token")


def _has_sudo(ctx: VaultContext) -> bool:
    acl = ctx.acl
    assert acl is not None, "these operations are authenticated"
    return not {"root", "sudo"}.isdisjoint(acl.capabilities(ctx.request.path))


def _policies(parent: TokenRecord, body: Create, role: TokenRole | None, *, has_sudo: bool) -> list[str]:
    """Return the new token's policies: what the role says, or not more than the parent's unless that one has sudo here."""
    unwanted = {DEFAULT} if body.no_default_policy else set()
    wanted = [policy for policy in body.policies if policy.strip().lower() not in unwanted]
    if role is not None and role.bounds_policies:
        policies = role.policies(wanted, parent.policies, no_default=body.no_default_policy)
    else:
        policies = _own_policies(parent, body, wanted, role, has_sudo=has_sudo)
    if RESPONSE_WRAPPING in policies:  # a token with this one counts as made by the vault, for an answer of its own
        raise InvalidRequest(f'cannot assign policy "{RESPONSE_WRAPPING}"')
    if ROOT in policies and not parent.is_root:
        raise InvalidRequest("root tokens may not be created without parent token being root")
    return policies


def _own_policies(
    parent: TokenRecord, body: Create, wanted: list[str], role: TokenRole | None, *, has_sudo: bool
) -> list[str]:
    no_default = body.no_default_policy or (role is not None and role.no_default_policy)
    no_default = no_default or (not has_sudo and DEFAULT not in parent.policies)
    policies = with_default(wanted if body.policies else parent.policies, no_default=no_default)
    if not has_sudo and not set(policies) <= set(parent.policies):
        raise InvalidRequest("child policies must be subset of parent")
    return policies


def _is_renewable(body: Create, role: TokenRole | None) -> bool:
    return body.renewable and (role is None or role.is_renewable)


def _entity_id(ctx: VaultContext, body: Create, role: TokenRole | None, inherited: str) -> str:
    """Return whose token it is: of whoever the alias names, or the parent's."""
    if role is None or not body.entity_alias:
        return inherited
    identities = Identities(ctx.services.area(AREA_IDENTITY), ctx.random, ctx.now_ns)
    return identities.logged_in(ctx.mount.accessor, body.entity_alias.lower(), {}).id


def _fewer(one: int, other: int) -> int:
    """Return the smaller of two numbers of which 0 says nothing."""
    return min(one, other) if one and other else one or other


def _lifetimes(ctx: VaultContext, body: Create, role: TokenRole | None, *, is_root: bool) -> _Lifetimes:
    ttl = _positive("ttl", body.ttl) or _positive("lease", body.lease)
    explicit_max = _positive("explicit_max_ttl", body.explicit_max_ttl)
    period = _positive("period", body.period)
    warnings: list[str] = []
    if role is not None:
        explicit_max = _lesser("Explicit max TTL", explicit_max, role.explicit_max_ttl_seconds, warnings)
        period = _lesser("Period", period, role.period_seconds, warnings)
    if is_root and not (ttl or period or explicit_max):
        return _Lifetimes(0, 0, 0, warnings)
    longest = _fewer(explicit_max, ctx.mount.max_lease_ttl_seconds)
    wanted = period or ttl or (longest if is_root else ctx.mount.default_lease_ttl_seconds)
    if wanted > longest:
        warnings.append(_capped(wanted, longest, "period" if period else "TTL"))
    return _Lifetimes(min(wanted, longest), explicit_max, min(period, ctx.mount.max_lease_ttl_seconds), warnings)


def _lesser(name: str, asked: int, role: int, warnings: list[str]) -> int:
    """Return the lesser of what was asked for and what the role says, with a warning if both say something."""
    seconds = _fewer(asked, role)
    if asked and role:
        warnings.append(
            f"{name} specified both during creation call and in role; using the lesser value of {seconds} seconds"
        )
    return seconds


def _capped(wanted: int, longest: int, name: str = "TTL") -> str:
    return (
        f'{name} of "{format_short(wanted)}" exceeded the effective max_ttl of "{format_short(longest)}"; '
        f"{name} value is capped accordingly"
    )


def _positive(name: str, text: str) -> int:
    if not text:
        return 0
    try:
        seconds = parse_seconds(text)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None
    if seconds < 0:
        raise InvalidRequest(f"{name} must be positive")
    return seconds


def _display_name(wanted: str) -> str:
    if not wanted:
        return "token"
    return re.sub(r"[^a-zA-Z0-9-]", "-", f"token-{wanted}").rstrip("-")


# -- prolonging --


def _renew(ctx: VaultContext, record: TokenRecord, text: str, increment_seconds: int) -> Response:
    if record.is_batch:
        raise InvalidRequest("batch tokens cannot be renewed")
    if not record.expires_ns:
        raise InvalidRequest("invalid lease ID")
    if not record.is_renewable:
        raise InvalidRequest("lease is not renewable")
    warnings: list[str] = []
    ttl = record.period_seconds or increment_seconds or record.last_ttl_seconds
    longest = record.explicit_max_ttl_seconds or record.max_ttl_seconds
    if not longest and not record.period_seconds:
        longest = ctx.mount.max_lease_ttl_seconds
    expires_ns = ctx.now_ns + ttl * NANOSECONDS
    if longest and expires_ns > record.created_ns + longest * NANOSECONDS:
        if ttl > longest or increment_seconds:
            warnings.append(_capped(ttl, longest))
        expires_ns = record.created_ns + longest * NANOSECONDS
        ttl = max(0, round((expires_ns - ctx.now_ns) / NANOSECONDS))
    renewed = renew_token(ctx.services, record, expires_ns)
    standing = standing_of(ctx.services, renewed.entity_id)
    return Response(auth=auth_of(renewed, text, ttl, standing), warnings=warnings)


# -- answers --


def _describe(ctx: VaultContext, record: TokenRecord, text: str) -> Response:
    data: dict[str, Any] = {
        "accessor": record.accessor,
        "creation_time": record.created_ns // NANOSECONDS,
        "creation_ttl": record.ttl_seconds,
        "display_name": record.display_name,
        "entity_id": record.entity_id,
        "expire_time": rfc3339(record.expires_ns) if record.expires_ns else None,
        "explicit_max_ttl": record.explicit_max_ttl_seconds,
        "id": text,
        "meta": record.meta,
        "num_uses": record.num_uses,
        "orphan": not record.parent,
        "path": record.path,
        "policies": record.policies,
        "ttl": record.ttl_left_seconds(ctx.now_ns),
        "type": record.type,
    }
    if record.path != FIRST_ROOT_PATH:
        data["issue_time"] = rfc3339(record.created_ns)
        data["renewable"] = record.is_renewable
    if record.renewed_ns:
        data["last_renewal"] = rfc3339(record.renewed_ns)
        data["last_renewal_time"] = record.renewed_ns // NANOSECONDS
    if record.period_seconds:
        data["period"] = record.period_seconds
    if record.role:
        data["role"] = record.role
    if record.bound_cidrs:
        data["bound_cidrs"] = record.bound_cidrs
    identity_policies = standing_of(ctx.services, record.entity_id).policies
    if identity_policies:
        data["identity_policies"] = list(identity_policies)
    return Response(data)
