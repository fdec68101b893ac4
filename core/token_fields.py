"""The `token_*` fields that every auth method's roles and users have, and what becomes of them.

A role's Struct derives from `TokenFields`; `merged` lays what was sent over what is kept, so that a field that is not sent
stays as it is. Source: Vault's page "Tokens", section on token parameters; shapes recorded from a real server.
"""

from typing import Annotated, Any, Final, TypeVar

from msgspec import Meta, Struct

from conclave.core.cidrs import check_cidrs
from conclave.core.contract import TokenParameters
from conclave.core.durations import Seconds
from conclave.core.errors import InvalidRequest
from conclave.core.policies import ROOT

T = TypeVar("T")

TOKEN_TYPES: Final = ("", "default", "service", "batch", "default-service", "default-batch")


class TokenFields(Struct):
    """What tokens that are given out shall be like."""

    token_policies: Annotated[list[str] | None, Meta(description="Their policies.")] = None
    token_ttl: Annotated[Seconds | None, Meta(description="How long they are good for.")] = None
    token_max_ttl: Annotated[Seconds | None, Meta(description="How long they can be prolonged.")] = None
    token_explicit_max_ttl: Annotated[Seconds | None, Meta(description="After which no renewal helps.")] = None
    token_period: Annotated[Seconds | None, Meta(description="What each renewal gives, without a maximum.")] = None
    token_num_uses: Annotated[int | None, Meta(description="How often they can be used; 0 for any number.")] = None
    token_bound_cidrs: Annotated[list[str] | None, Meta(description="From where they can be used.")] = None
    token_no_default_policy: Annotated[bool | None, Meta(description="Whether `default` is left out.")] = None
    token_type: Annotated[str | None, Meta(description="`service`, `batch`, or as the mount says.")] = None
    policies: Annotated[list[str] | None, Meta(description="The older name of token_policies.")] = None
    ttl: Annotated[Seconds | None, Meta(description="The older name of token_ttl.")] = None
    max_ttl: Annotated[Seconds | None, Meta(description="The older name of token_max_ttl.")] = None
    period: Annotated[Seconds | None, Meta(description="The older name of token_period.")] = None
    bound_cidrs: Annotated[list[str] | None, Meta(description="The older name of token_bound_cidrs.")] = None


def merged(before: TokenParameters, sent: TokenFields) -> TokenParameters:
    """Return the parameters after a write.

    Raises:
        InvalidRequest: a field makes no sense, alone or with the others.
    """
    policies = _first(sent.token_policies, sent.policies)
    parameters = TokenParameters(
        policies=before.policies if policies is None else _clean_policies(policies),
        ttl_seconds=_either(_first(sent.token_ttl, sent.ttl), before.ttl_seconds),
        max_ttl_seconds=_either(_first(sent.token_max_ttl, sent.max_ttl), before.max_ttl_seconds),
        explicit_max_ttl_seconds=_either(sent.token_explicit_max_ttl, before.explicit_max_ttl_seconds),
        period_seconds=_either(_first(sent.token_period, sent.period), before.period_seconds),
        num_uses=_either(sent.token_num_uses, before.num_uses),
        bound_cidrs=before.bound_cidrs
        if (cidrs := _first(sent.token_bound_cidrs, sent.bound_cidrs)) is None
        else check_cidrs(cidrs),
        no_default_policy=before.no_default_policy
        if sent.token_no_default_policy is None
        else sent.token_no_default_policy,
        type=before.type if sent.token_type is None else sent.token_type,
    )
    _check(parameters)
    return parameters


def describe(parameters: TokenParameters) -> dict[str, Any]:
    """Return the fields as a read of a role shows them."""
    return {
        "token_bound_cidrs": parameters.bound_cidrs,
        "token_explicit_max_ttl": parameters.explicit_max_ttl_seconds,
        "token_max_ttl": parameters.max_ttl_seconds,
        "token_no_default_policy": parameters.no_default_policy,
        "token_num_uses": parameters.num_uses,
        "token_period": parameters.period_seconds,
        "token_policies": parameters.policies,
        "token_strictly_bind_ip": False,
        "token_ttl": parameters.ttl_seconds,
        "token_type": parameters.type or "default",
    }


def _first(one: T | None, other: T | None) -> T | None:
    return other if one is None else one


def _either(sent: int | None, before: int) -> int:
    return before if sent is None else sent


def _clean_policies(policies: list[str]) -> list[str]:
    cleaned: list[str] = []
    for policy in policies:
        name = policy.strip().lower()
        if name and name not in cleaned:
            cleaned.append(name)
    return cleaned


def _check(parameters: TokenParameters) -> None:
    for name, seconds in (
        ("token_ttl", parameters.ttl_seconds),
        ("token_max_ttl", parameters.max_ttl_seconds),
        ("token_explicit_max_ttl", parameters.explicit_max_ttl_seconds),
        ("token_period", parameters.period_seconds),
    ):
        if seconds < 0:
            raise InvalidRequest(f"'{name}' cannot be negative")
    if parameters.num_uses < 0:
        raise InvalidRequest("'token_num_uses' cannot be negative")
    if 0 < parameters.max_ttl_seconds < parameters.ttl_seconds:
        raise InvalidRequest("'token_ttl' cannot be greater than 'token_max_ttl'")
    if parameters.type not in TOKEN_TYPES:
        raise InvalidRequest(f"invalid 'token_type' value {parameters.type!r}")
    if parameters.type == "batch" and (parameters.period_seconds or parameters.num_uses):
        raise InvalidRequest("'token_type' cannot be 'batch' when 'token_period' or 'token_num_uses' is set")
    if ROOT in parameters.policies:
        raise InvalidRequest("'root' is no policy that a login can give")
