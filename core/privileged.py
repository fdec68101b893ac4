"""What the vault's own engines (`sys/`, `auth/token/`) are handed: a context that also reaches the vault's records."""

from typing import Final, Protocol

from conclave.core.acl import Acl
from conclave.core.contract import Context
from conclave.core.policies import Policy, PolicyStore, Rule
from conclave.core.services import AREA_POLICIES, Services
from conclave.core.tokens import TokenRecord

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


def acl_of(services: Services, record: TokenRecord) -> Acl:
    """Return what a token may do, by its policies as they are now."""
    if record.policies == [RESPONSE_WRAPPING]:
        return Acl.compile([_WRAPPING_POLICY])
    return Acl.compile(PolicyStore(services.area(AREA_POLICIES)).load_all(record.policies))
