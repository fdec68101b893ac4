"""What the vault's own engines (`sys/`, `auth/token/`) are handed: a context that also reaches the vault's records."""

from typing import Final, Protocol

from conclave.core.acl import Acl
from conclave.core.contract import Context
from conclave.core.errors import PermissionDenied
from conclave.core.identity import NOBODY, Identities, Standing
from conclave.core.policies import Policy, PolicyStore, Rule
from conclave.core.services import AREA_IDENTITY, AREA_POLICIES, AREA_TOKENS, Services
from conclave.core.templates import ForbiddenValue, Person, fill
from conclave.core.tokens import BarrierSealer, TokenRecord, Tokens

RESPONSE_WRAPPING: Final = "response-wrapping"
"""The policy of wrapping tokens. It is not stored, cannot be changed, and no other token can have it."""
_WRAPPING_POLICY: Final = Policy(
    RESPONSE_WRAPPING,
    (
        Rule("cubbyhole/response", frozenset({"create", "read"})),
        Rule("sys/wrapping/unwrap", frozenset({"update"})),
        Rule("sys/wrapping/rewrap", frozenset({"update"})),
    ),
)


class VaultContext(Context, Protocol):
    """A context with the vault's records, in the transaction of the request."""

    @property
    def services(self) -> Services:
        """Mounts, policies, tokens, leases."""

    @property
    def token_record(self) -> TokenRecord | None:
        """The record of the token used, as it is after this use; None in an unauthenticated operation."""

    @property
    def acl(self) -> Acl | None:
        """What that token may do; None in an unauthenticated operation."""


def standing_of(services: Services, entity_id: str) -> Standing:
    """Return what an entity's tokens may count on now."""
    if not entity_id:
        return NOBODY
    return Identities(services.area(AREA_IDENTITY), services.random, services.now_ns).standing(entity_id)


def policies_of(record: TokenRecord, standing: Standing) -> tuple[str, ...]:
    """Return the policies that count for a token: its own, and those of whom it stands for."""
    if not standing.policies:
        return tuple(record.policies)
    return tuple(sorted({*record.policies, *standing.policies}))


def acl_of(services: Services, record: TokenRecord) -> Acl:
    """Return what a token may do, by its policies and its entity's as they are now."""
    policies = policies_of(record, standing_of(services, record.entity_id))
    return compile_acl(services, policies, record.entity_id)


def compile_acl(services: Services, policies: tuple[str, ...], entity_id: str) -> Acl:
    """Return what these policies allow an entity together, as they are now.

    Raises:
        PermissionDenied: something that is known of the entity must not stand in a policy's path.
    """
    if policies == (RESPONSE_WRAPPING,):
        return Acl.compile([_WRAPPING_POLICY])
    person: list[Person | None] = []  # looked up once, and only if there is a template to fill

    def fill_for_entity(path: str) -> str | None:
        if not person:
            person.append(_person(services, entity_id))
        return fill(path, person[0])

    try:
        return Acl.compile(PolicyStore(services.area(AREA_POLICIES)).load_all(policies), fill_for_entity)
    except ForbiddenValue as error:
        raise PermissionDenied(f"1 error occurred:\n\t* error parsing templated policy: {error}\n\n") from None


def _person(services: Services, entity_id: str) -> Person | None:
    """Return what is known of an entity; None for nobody."""
    if not entity_id:
        return None
    identities = Identities(services.area(AREA_IDENTITY), services.random, services.now_ns)
    entity = identities.entity(entity_id)
    if entity is None:
        return None
    return Person(entity, identities.aliases_of(entity), identities.groups_of(entity_id))


def acl_of_caller(ctx: VaultContext) -> Acl | None:
    """Return what the token may do that came with an operation that needs none; None without one.

    Raises:
        PermissionDenied: the token is not good.
    """
    if not ctx.request.token:
        return None
    services = ctx.services
    tokens = Tokens(services.random, BarrierSealer(services.barrier))
    record = tokens.lookup(services.area(AREA_TOKENS), ctx.request.token, ctx.now_ns)
    if record is None:
        raise PermissionDenied("permission denied")
    return acl_of(services, record)
