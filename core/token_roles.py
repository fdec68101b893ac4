"""Token roles: what `auth/token/create/<role>` may give, whoever asks.

A role bounds the policies of the tokens made through it and says how long they live, how often and from where they can be
used. Policies that it allows need not be the caller's own, so whoever may write roles may hand out policies.

    allowed lists      a policy must be in one of them; asked for none, the token gets all of `allowed_policies`
    disallowed lists   a policy in one of them is refused, `default` left out
    neither            as without a role: the caller's policies, or some of them

Stored in the token mount's storage as `role/<name>`. Source: Vault's API page "Token auth method", "Create/update token
role"; rules and texts measured on a real server.
"""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final, TypeVar

from msgspec import Meta, Struct

from conclave.core.cidrs import check_cidrs
from conclave.core.durations import Seconds
from conclave.core.errors import InvalidRequest
from conclave.core.policies import DEFAULT
from conclave.core.tokens import BATCH, with_default

T = TypeVar("T")

NAMES_MAX: Final = 1024
"""How many entries each list of a role can have."""
TYPES: Final = ("service", "batch", "default-service", "default-batch")
_PATH_SUFFIX: Final = re.compile(r"\w[\w.-]+\w", re.ASCII)


class RoleFields(Struct):
    """What a role says; None leaves a field as it is."""

    allowed_policies: Annotated[list[str] | None, Meta(description="Policies that its tokens can have.")] = None
    allowed_policies_glob: Annotated[list[str] | None, Meta(description="The same, with `*` for any text.")] = None
    disallowed_policies: Annotated[list[str] | None, Meta(description="Policies that its tokens cannot have.")] = None
    disallowed_policies_glob: Annotated[list[str] | None, Meta(description="The same, with `*` for any text.")] = None
    allowed_entity_aliases: Annotated[list[str] | None, Meta(description="Names that `entity_alias` can take.")] = None
    orphan: Annotated[bool | None, Meta(description="Whether its tokens outlive the token that makes them.")] = None
    renewable: Annotated[bool | None, Meta(description="Whether its tokens can be prolonged.")] = None
    path_suffix: Annotated[str | None, Meta(description="Put behind the path of its tokens' leases.")] = None
    token_type: Annotated[str | None, Meta(description="`service`, `batch`, or one of them by default.")] = None
    token_period: Annotated[Seconds | None, Meta(description="What each renewal gives, without a maximum.")] = None
    token_explicit_max_ttl: Annotated[Seconds | None, Meta(description="After which no renewal helps.")] = None
    token_num_uses: Annotated[int | None, Meta(description="How often its tokens can be used.")] = None
    token_bound_cidrs: Annotated[list[str] | None, Meta(description="From where its tokens can be used.")] = None
    token_no_default_policy: Annotated[bool | None, Meta(description="Whether `default` is left out.")] = None
    period: Annotated[Seconds | None, Meta(description="The older name of `token_period`.")] = None
    explicit_max_ttl: Annotated[Seconds | None, Meta(description="The older name of `token_explicit_max_ttl`.")] = None
    bound_cidrs: Annotated[list[str] | None, Meta(description="The older name of `token_bound_cidrs`.")] = None


class TokenRole(Struct, array_like=True, frozen=True):
    """A role as it is kept. New fields come last, with defaults."""

    name: str
    allowed_policies: list[str] = []
    allowed_policies_glob: list[str] = []
    disallowed_policies: list[str] = []
    disallowed_policies_glob: list[str] = []
    allowed_entity_aliases: list[str] = []
    is_orphan: bool = False
    is_renewable: bool = True
    path_suffix: str = ""
    type: str = "default-service"
    period_seconds: int = 0
    explicit_max_ttl_seconds: int = 0
    num_uses: int = 0
    bound_cidrs: list[str] = []
    no_default_policy: bool = False
    older_names: list[str] = []  # fields that were last set by their older name, and are shown by it too

    @property
    def bounds_policies(self) -> bool:
        """Whether it decides about policies; otherwise the caller's count."""
        lists = (self.disallowed_policies, self.disallowed_policies_glob)
        return self._allows_by_list or any(lists)

    @property
    def _allows_by_list(self) -> bool:
        return bool(self.allowed_policies or self.allowed_policies_glob)

    def policies(self, wanted: list[str], callers: list[str], *, no_default: bool) -> list[str]:
        """Return the policies of a token that is made through this role.

        Args:
            wanted: what was asked for; may be empty.
            callers: the policies of the token that asks.
            no_default: whether `default` was unwanted.

        Raises:
            InvalidRequest: the role does not allow one of them.
        """
        no_default = no_default or self.no_default_policy or self._disallows(DEFAULT)
        found = with_default(
            wanted or (self.allowed_policies if self._allows_by_list else callers), no_default=no_default
        )
        allowed = with_default(self.allowed_policies, no_default=no_default)
        if self._allows_by_list and not all(
            policy in allowed or _fits(policy, self.allowed_policies_glob) for policy in found
        ):
            raise InvalidRequest(
                f"token policies ({_listed(found)}) must be subset of the role's allowed policies ({_listed(allowed)}) "
                f"or glob policies ({_listed(self.allowed_policies_glob)})"
            )
        for policy in found:
            if self._disallows(policy):
                raise InvalidRequest(f'token policy "{policy}" is disallowed by this role')
        return found

    def _disallows(self, policy: str) -> bool:
        return policy in self.disallowed_policies or _fits(policy, self.disallowed_policies_glob)

    def token_type(self, wanted: str) -> str:
        """Return the type of a token: the role's, or what was asked for where the role only has a default."""
        if not self.type.startswith("default-"):
            return self.type
        return wanted or self.type.removeprefix("default-")

    def allows_alias(self, name: str) -> bool:
        """Whether a token can be made for this name; case does not matter."""
        return _fits(name.lower(), self.allowed_entity_aliases)

    def describe(self) -> dict[str, Any]:
        """Return it as a read shows it."""
        older = set(self.older_names)
        described: dict[str, Any] = {
            "allowed_entity_aliases": self.allowed_entity_aliases or None,
            "allowed_policies": self.allowed_policies,
            "allowed_policies_glob": self.allowed_policies_glob,
            "disallowed_policies": self.disallowed_policies,
            "disallowed_policies_glob": self.disallowed_policies_glob,
            "explicit_max_ttl": self.explicit_max_ttl_seconds if "explicit_max_ttl" in older else 0,
            "name": self.name,
            "orphan": self.is_orphan,
            "path_suffix": self.path_suffix,
            "period": self.period_seconds if "period" in older else 0,
            "renewable": self.is_renewable,
            "token_explicit_max_ttl": self.explicit_max_ttl_seconds,
            "token_no_default_policy": self.no_default_policy,
            "token_period": self.period_seconds,
            "token_type": self.type,
        }
        if self.bound_cidrs:
            described["token_bound_cidrs"] = self.bound_cidrs
        if "bound_cidrs" in older:
            described["bound_cidrs"] = self.bound_cidrs
        if self.num_uses:
            described["token_num_uses"] = self.num_uses
        return described


def merged(before: TokenRole, sent: RoleFields) -> TokenRole:
    """Return a role after a write: what was sent, over what was there.

    Raises:
        InvalidRequest: a field makes no sense, alone or with the others.
    """
    cidrs = _either(sent.token_bound_cidrs, sent.bound_cidrs)
    role = TokenRole(
        name=before.name,
        allowed_policies=_names(sent.allowed_policies, before.allowed_policies),
        allowed_policies_glob=_names(sent.allowed_policies_glob, before.allowed_policies_glob),
        disallowed_policies=_names(sent.disallowed_policies, before.disallowed_policies),
        disallowed_policies_glob=_names(sent.disallowed_policies_glob, before.disallowed_policies_glob),
        allowed_entity_aliases=_names(sent.allowed_entity_aliases, before.allowed_entity_aliases),
        is_orphan=_first(sent.orphan, before.is_orphan),
        is_renewable=_first(sent.renewable, before.is_renewable),
        path_suffix=_first(sent.path_suffix, before.path_suffix),
        type=_first(sent.token_type, before.type) or "default-service",
        period_seconds=_first(_either(sent.token_period, sent.period), before.period_seconds),
        explicit_max_ttl_seconds=_first(
            _either(sent.token_explicit_max_ttl, sent.explicit_max_ttl), before.explicit_max_ttl_seconds
        ),
        num_uses=_first(sent.token_num_uses, before.num_uses),
        bound_cidrs=before.bound_cidrs if cidrs is None else check_cidrs(cidrs),
        no_default_policy=_first(sent.token_no_default_policy, before.no_default_policy),
        older_names=_older_names(before, sent),
    )
    _check(role)
    return role


def _check(role: TokenRole) -> None:
    if role.type not in TYPES:
        raise InvalidRequest(f"invalid 'token_type' value \"{role.type}\"")
    if role.num_uses < 0:
        raise InvalidRequest("error parsing role fields: 'token_num_uses' cannot be negative")
    if role.path_suffix and not _PATH_SUFFIX.fullmatch(role.path_suffix):
        raise InvalidRequest(r"given role path suffix contains invalid characters; must match \w[\w-.]+\w")
    if ".." in role.path_suffix:
        raise InvalidRequest("error registering path suffix: path cannot contain parent references")
    if role.type == BATCH:
        for is_set, what in (
            (not role.is_orphan, "non-orphan tokens"),
            (role.period_seconds, "periodic tokens"),
            (role.is_renewable, "renewable tokens"),
            (role.explicit_max_ttl_seconds, "tokens with an explicit max TTL"),
            (role.num_uses, "tokens with a limited number of uses"),
        ):
            if is_set:
                raise InvalidRequest(f"'token_type' cannot be 'batch' when role is set to generate {what}")


def _older_names(before: TokenRole, sent: RoleFields) -> list[str]:
    names = set(before.older_names)
    for older in ("period", "explicit_max_ttl", "bound_cidrs"):
        if getattr(sent, f"token_{older}") is not None:
            names.discard(older)
        elif getattr(sent, older) is not None:
            names.add(older)
    return sorted(names)


def _names(sent: list[str] | None, before: list[str]) -> list[str]:
    if sent is None:
        return before
    if len(sent) > NAMES_MAX:
        raise InvalidRequest(f"a list of a role has at most {NAMES_MAX} entries")
    return sorted({name.strip().lower() for name in sent} - {""})


def _either(one: T | None, other: T | None) -> T | None:
    return other if one is None else one


def _first(sent: T | None, before: T) -> T:
    return before if sent is None else sent


def _fits(name: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(name, _only_star(glob)) for glob in globs)


def _only_star(glob: str) -> str:
    """Return a glob in which nothing but `*` has a meaning."""
    return glob.replace("[", "[[]").replace("?", "[?]")


def _listed(names: Iterable[str]) -> str:
    """Return names as Go prints a quoted list: ["a" "b"]."""
    return "[" + " ".join(f'"{name}"' for name in names) + "]"
