"""What an auth method has found out (`Login`) becomes a token: its lifetimes, its record, its lease, its `auth` block.

The method says what its role says of tokens; the mount and the system bound that. A token of a login has no parent and
is named by the path of the login, so that `sys/leases/revoke-prefix/auth/userpass/` ends all that came by that mount.

Source: Vault's page "Tokens", "Token time-to-live, periodic tokens, and explicit max TTLs".
"""

from collections.abc import Callable

from msgspec import UNSET

from conclave.core.contract import Auth, Login, MountInfo, TokenParameters
from conclave.core.durations import format_short
from conclave.core.errors import InvalidRequest, PermissionDenied
from conclave.core.identity import NOBODY, Identities, Standing
from conclave.core.policies import ROOT
from conclave.core.privileged import RESPONSE_WRAPPING, policies_of
from conclave.core.revocation import register_token, tokens_of
from conclave.core.services import AREA_IDENTITY, AREA_TOKENS, Services
from conclave.core.tokens import BATCH, SERVICE, TokenRecord, with_default

_TYPES = {"": SERVICE, "service": SERVICE, "default-service": SERVICE, "batch": BATCH, "default-batch": BATCH}


def complete_login(
    services: Services,
    mount: MountInfo,
    mount_token_type: str,
    login: Login,
    path: str,
    standing_of: Callable[[str], Standing],
) -> tuple[Auth, list[str]]:
    """Make the token of a login and return its `auth` block with warnings.

    Args:
        services: in a transaction that writes.
        mount: the auth method's.
        mount_token_type: what it was tuned to give where the role says nothing; may be empty.
        login: what the method found out.
        path: of the request: "auth/userpass/login/bob".
        standing_of: what an entity's tokens may count on, as the transaction sees it by then.

    Raises:
        InvalidRequest: no such token may be made.
        PermissionDenied: the entity behind it is disabled.
    """
    parameters = login.parameters
    token_type = _token_type(parameters, mount_token_type)
    policies = with_default(parameters.policies, no_default=parameters.no_default_policy)
    if ROOT in policies:
        raise InvalidRequest("auth methods cannot create root tokens")
    if RESPONSE_WRAPPING in policies:
        raise InvalidRequest(f'cannot assign policy "{RESPONSE_WRAPPING}"')
    ttl_seconds, longest_seconds, warnings = lifetimes(parameters, mount)
    is_batch = token_type == BATCH
    entity_id, standing = _entity_of(services, mount, login, standing_of)
    text, record = tokens_of(services).create(
        services.area(AREA_TOKENS),
        now_ns=services.now_ns,
        policies=policies,
        path=path,
        ttl_seconds=ttl_seconds,
        explicit_max_ttl_seconds=0 if is_batch else parameters.explicit_max_ttl_seconds,
        max_ttl_seconds=0 if is_batch else longest_seconds,
        period_seconds=0 if is_batch else parameters.period_seconds,
        num_uses=0 if is_batch else parameters.num_uses,
        token_type=token_type,
        is_renewable=login.is_renewable and not is_batch,
        display_name=login.display_name,
        meta=login.metadata or None,
        entity_id=entity_id,
        bound_cidrs=parameters.bound_cidrs,
    )
    register_token(services, record)
    return auth_of(record, text, ttl_seconds, standing), warnings


def _entity_of(
    services: Services, mount: MountInfo, login: Login, standing_of: Callable[[str], Standing]
) -> tuple[str, Standing]:
    """Return who it is that logs in, made now if the name was never seen at that mount."""
    if not login.alias_name:
        return "", NOBODY
    identities = Identities(services.area(AREA_IDENTITY), services.random, services.now_ns)
    entity = identities.logged_in(mount.accessor, login.alias_name, login.metadata)
    standing = standing_of(entity.id)
    if not standing.is_good:
        raise PermissionDenied("permission denied")
    return entity.id, standing


def lifetimes(parameters: TokenParameters, mount: MountInfo) -> tuple[int, int, list[str]]:
    """Return how long a new token is good for, what its age never exceeds by renewal (0: no bound), and warnings."""
    explicit = parameters.explicit_max_ttl_seconds
    if parameters.period_seconds:
        wanted, longest = parameters.period_seconds, explicit
    else:
        wanted = parameters.ttl_seconds or mount.default_lease_ttl_seconds
        bounds = (mount.max_lease_ttl_seconds, parameters.max_ttl_seconds, explicit)
        longest = min((bound for bound in bounds if bound), default=0)
    if not longest or wanted <= longest:
        return wanted, longest, []
    is_asked_for = bool(parameters.ttl_seconds or parameters.period_seconds)
    return longest, longest, [capped(wanted, longest)] if is_asked_for else []


def capped(ttl_seconds: int, longest_seconds: int) -> str:
    """Return the warning that a token does not get the lifetime that was asked for."""
    return (
        f'TTL of "{format_short(ttl_seconds)}" exceeded the effective max_ttl of "{format_short(longest_seconds)}"; '
        "TTL value is capped accordingly"
    )


def auth_of(record: TokenRecord, text: str, lease_seconds: int, standing: Standing = NOBODY) -> Auth:
    """Return the `auth` block of an answer that hands a token out or prolongs it.

    Args:
        record: the token's.
        text: what is handed out; empty where its accessor was all that was known.
        lease_seconds: how long it is good for.
        standing: of the entity that it stands for.
    """
    return Auth(
        client_token=text,
        accessor=record.accessor,
        policies=list(policies_of(record, standing)),
        token_policies=record.policies,
        identity_policies=list(standing.policies) or UNSET,
        metadata=record.meta,
        lease_duration=lease_seconds,
        renewable=record.is_renewable,
        entity_id=record.entity_id,
        token_type=record.type,
        orphan=not record.parent,
        num_uses=record.num_uses,
    )


def _token_type(parameters: TokenParameters, mount_token_type: str) -> str:
    """Return the type that the role says, unless the mount says one that no role changes."""
    if mount_token_type in ("service", "batch"):
        return mount_token_type
    wanted = parameters.type or mount_token_type
    if wanted not in _TYPES:
        raise InvalidRequest("invalid 'token_type' value")
    return _TYPES[wanted]
