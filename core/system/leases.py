"""sys/leases: look at leases, list them, end them.

Every lease is a token's so far: those are looked at and ended here, and renewed through `auth/token/`. What a lease is:
`core/leases.py`; what ends with it: `core/revocation.py`. Revoking by prefix holds at once, however many leases lie below.

Source: Vault's API page "sys/leases"; texts and shapes recorded from a real server.
"""

from typing import Annotated

from msgspec import Meta, Struct

from conclave.core.contract import Engine, Response, operation
from conclave.core.durations import Seconds
from conclave.core.errors import InvalidRequest, NotFound, unsupported_path
from conclave.core.leases import LeaseRecord
from conclave.core.listing import Page, list_page
from conclave.core.privileged import VaultContext
from conclave.core.revocation import lookup_lease, revoke_lease, revoke_prefix
from conclave.core.services import AREA_LEASES
from conclave.core.timestamps import rfc3339


class WhichLease(Struct):
    """A lease."""

    lease_id: Annotated[str, Meta(description="Its id.")] = ""


class RevokeLease(WhichLease):
    """A lease to end."""

    sync: Annotated[bool, Meta(description="Has no meaning: it is over when this is answered.")] = True


class RenewLease(WhichLease):
    """A lease, and for how long."""

    increment: Annotated[Seconds, Meta(description="How long from now it shall be good for.")] = 0


class RevokePrefix(Struct):
    """How to end leases."""

    sync: Annotated[bool, Meta(description="Has no meaning: they are over when this is answered.")] = True


class Count(Struct):
    """Which leases to count."""

    type: Annotated[str, Meta(description="`irrevocable`: those that could not be ended.")] = ""


class LeaseOperations(Engine):
    """The leases' part of `sys/`; mixed into `System`."""

    type = "system-leases"

    @operation("leases/lookup", update=WhichLease, writes=False)
    def lookup_lease(self, ctx: VaultContext, body: WhichLease) -> Response:
        """Describe a lease."""
        lease = lookup_lease(ctx.services, _required(body.lease_id))
        if lease is None:
            raise InvalidRequest("invalid lease")
        return Response(_describe(lease, ctx.now_ns))

    @operation("leases/lookup", list=Page, sudo=True)
    @operation("leases/lookup/{prefix...}", list=Page, sudo=True)
    def list_leases(self, ctx: VaultContext, body: Page, prefix: str = "") -> Response:
        """List what lies directly below a prefix."""
        return list_page(ctx.services.area(AREA_LEASES), prefix, body)

    @operation("leases/renew", update=RenewLease)
    def renew_lease(self, ctx: VaultContext, body: RenewLease) -> Response:
        """Prolong a lease."""
        return _renew(ctx, _required(body.lease_id))

    @operation("leases/renew/{url_lease_id...}", update=RenewLease)
    def renew_named_lease(self, ctx: VaultContext, url_lease_id: str, body: RenewLease) -> Response:
        """Prolong the lease that the path names."""
        return _renew(ctx, _required(body.lease_id or url_lease_id))

    @operation("leases/revoke", update=RevokeLease)
    def revoke_lease(self, ctx: VaultContext, body: RevokeLease) -> Response:
        """End a lease and what it stands for."""
        return _revoke(ctx, _required(body.lease_id))

    @operation("leases/revoke/{url_lease_id...}", update=RevokeLease)
    def revoke_named_lease(self, ctx: VaultContext, url_lease_id: str, body: RevokeLease) -> Response:
        """End the lease that the path names."""
        return _revoke(ctx, _required(body.lease_id or url_lease_id))

    @operation("leases/revoke-prefix/{prefix...}", update=RevokePrefix, sudo=True)
    @operation("leases/revoke-force/{prefix...}", update=RevokePrefix, sudo=True)
    def revoke_prefix(self, ctx: VaultContext, prefix: str, body: RevokePrefix) -> Response:
        """End all leases below a prefix. No lease needs the outside world to end, so forcing it is the same."""
        del body
        if not prefix.strip("/"):
            raise unsupported_path()
        revoke_prefix(ctx.services, prefix)
        return Response()

    @operation("leases/count", read=Count)
    def count_leases(self, ctx: VaultContext, body: Count) -> Response:
        """Count the leases that could not be ended; none needs the outside world to end, so there are none."""
        del ctx
        return Response({"counts": {}, "lease_count": _no_irrevocable(body)})

    @operation("leases", read=Count, sudo=True)
    def irrevocable_leases(self, ctx: VaultContext, body: Count) -> Response:
        """List the leases that could not be ended."""
        del ctx
        return Response({"lease_count": _no_irrevocable(body), "leases": []})

    @operation("leases/tidy", update=True, writes=False)
    def tidy(self, ctx: VaultContext) -> Response:
        """Say that there is nothing to tidy by hand."""
        del ctx
        return Response(is_accepted=True, warnings=["Leases that are over are cleared all the time; nothing was left."])


def _required(lease_id: str) -> str:
    if not lease_id:
        raise InvalidRequest("lease_id must be specified")
    return lease_id


def _no_irrevocable(body: Count) -> int:
    """Return 0, the number of irrevocable leases; no other kind can be counted, as in Vault."""
    if body.type != "irrevocable":
        raise NotFound
    return 0


def _describe(lease: LeaseRecord, now_ns: int) -> dict[str, object]:
    return {
        "expire_time": rfc3339(lease.expires_ns),
        "id": lease.id,
        "issue_time": rfc3339(lease.issued_ns),
        "last_renewal": rfc3339(lease.renewed_ns) if lease.renewed_ns else None,
        "path": lease.id.rpartition("/")[0],
        "renewable": lease.is_renewable,
        "ttl": lease.ttl_left_seconds(now_ns),
    }


def _renew(ctx: VaultContext, lease_id: str) -> Response:
    if lookup_lease(ctx.services, lease_id) is None:
        raise InvalidRequest("lease not found")
    raise InvalidRequest("tokens cannot be renewed through this endpoint")


def _revoke(ctx: VaultContext, lease_id: str) -> Response:
    lease = lookup_lease(ctx.services, lease_id)
    if lease is not None:
        revoke_lease(ctx.services, lease)
    return Response()
