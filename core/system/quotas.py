"""sys/quotas: rate limits by path, and what is fixed about them.

How they work: `core/quotas.py`. Lease-count quotas do not exist, as in OpenBao, and a limit cannot be bound to the role of
a login. Source: Vault's API pages "sys/quotas/rate-limit" and "sys/quotas/config"; recorded from a real server.
"""

import math
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from conclave.core.contract import Context, Engine, Response, operation
from conclave.core.durations import parse_seconds
from conclave.core.errors import InvalidRequest, NotFound
from conclave.core.mounts import MountTable
from conclave.core.privileged import VaultContext
from conclave.core.quotas import EXEMPT_PATHS, RateLimit, RateLimitTable
from conclave.core.router import Router
from conclave.core.services import AREA_MOUNTS, AREA_QUOTAS

RATE_MAX: Final = 1e9
"""More requests in an interval than anybody can make."""
INTERVAL_SECONDS_MAX: Final = 366 * 24 * 3600
_ALWAYS_EXEMPT: Final = frozenset({"sys/health", "sys/seal-status", "sys/unseal"})


class RateLimitWrite(Struct):
    """A limit to make or change."""

    rate: Annotated[float, Meta(description="How many requests an address may make within the interval.")] = 0.0
    path: Annotated[str, Meta(description="A mount, or a path in one; nothing: all requests.")] = ""
    interval: Annotated[str, Meta(description="The interval, a second by default.")] = ""
    block_interval: Annotated[str, Meta(description="How long who has made too many is refused.")] = ""
    type: Annotated[str, Meta(description="Always `rate-limit`.")] = ""
    role: Annotated[str, Meta(description="Refused: limits know no roles.")] = ""
    inheritable: Annotated[bool | None, Meta(description="Has no meaning without namespaces.")] = None


class QuotaOperations(Engine):
    """The quotas' part of `sys/`; mixed into `System`."""

    type = "system-quotas"

    @operation("quotas/config", read=True)
    def read_quota_config(self, ctx: Context) -> Response:
        """Show what holds for all limits."""
        del ctx
        return Response(
            {
                "enable_rate_limit_audit_logging": False,
                "enable_rate_limit_response_headers": False,
                "rate_limit_exempt_paths": sorted(EXEMPT_PATHS | _ALWAYS_EXEMPT),
            }
        )

    @operation("quotas/rate-limit", list=True)
    def list_rate_limits(self, ctx: VaultContext) -> Response:
        """List the names of all limits."""
        names = _table(ctx).names()
        if not names:
            raise NotFound
        return Response({"keys": names})

    @operation("quotas/rate-limit/{name}", read=True)
    def read_rate_limit(self, ctx: VaultContext, name: str) -> Response:
        """Show a limit."""
        limit = _table(ctx).at(name)
        if limit is None:
            raise NotFound
        return Response(_describe(limit))

    @operation("quotas/rate-limit/{name}", update=RateLimitWrite)
    def write_rate_limit(self, ctx: VaultContext, name: str, body: RateLimitWrite) -> Response:
        """Make or change a limit; what was counted is forgotten."""
        if not 0 < body.rate <= RATE_MAX or not math.isfinite(body.rate):
            raise InvalidRequest("'rate' is invalid")
        if body.type not in ("", "rate-limit"):
            raise InvalidRequest(f'quota type "{body.type}" is not rate-limit')
        if body.role:
            raise InvalidRequest("a rate limit cannot be bound to a role")
        interval_seconds = _interval("interval", body.interval)
        limit = RateLimit(
            name,
            _checked_path(ctx, body.path),
            body.rate,
            interval_seconds or 1,
            _interval("block_interval", body.block_interval),
        )
        _table(ctx).put(limit)
        return Response()

    @operation("quotas/rate-limit/{name}", delete=True)
    def delete_rate_limit(self, ctx: VaultContext, name: str) -> Response:
        """Remove a limit."""
        _table(ctx).remove(name)
        return Response()


def _table(ctx: VaultContext) -> RateLimitTable:
    return RateLimitTable(ctx.services.area(AREA_QUOTAS))


def _checked_path(ctx: VaultContext, path: str) -> str:
    path = path.lstrip("/")
    if not path:
        return ""
    routed = Router(MountTable(ctx.services.area(AREA_MOUNTS)).all()).route(path)
    if routed is None:
        raise InvalidRequest(f'invalid mount path "{path}"')
    return f"{path}/" if f"{path}/" == routed.mount.path else path


def _interval(name: str, given: str) -> int:
    try:
        seconds = parse_seconds(given) if given else 0
    except ValueError as error:
        raise InvalidRequest(str(error)) from None
    if not 0 <= seconds <= INTERVAL_SECONDS_MAX:
        raise InvalidRequest(f"'{name}' is invalid")
    return seconds


def _describe(limit: RateLimit) -> dict[str, Any]:
    return {
        "block_interval": limit.block_interval_seconds,
        "inheritable": not limit.path,
        "interval": limit.interval_seconds,
        "name": limit.name,
        "path": limit.path,
        "rate": int(limit.rate) if limit.rate == int(limit.rate) else limit.rate,
        "role": "",
        "type": "rate-limit",
    }
