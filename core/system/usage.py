"""sys/version-history, sys/locked-users, sys/internal/counters: what has run here, who is locked out, how much there is.

Shapes recorded from a real server; source: Vault's API pages "sys/version-history", "sys/locked-users" and
"sys/internal/counters".
"""

import asyncio
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from conclave.core import versions
from conclave.core.contract import Engine, Response, operation
from conclave.core.errors import NotFound
from conclave.core.lifecycle import Lifecycle
from conclave.core.privileged import VaultContext
from conclave.core.services import AREA_IDENTITY, AREA_TOKENS
from conclave.core.timestamps import rfc3339

COUNTED_MAX: Final = 1000
"""How many names are counted before other requests have their turn."""


class WhichLocked(Struct):
    """Whose."""

    mount_accessor: Annotated[str, Meta(description="Only those of this auth mount.")] = ""


class UsageOperations(Engine):
    """What has run and who is locked out; mixed into `System`, which provides the lifecycle."""

    type = "system-usage"
    lifecycle: Lifecycle

    @operation("version-history", list=True)
    def version_history(self, ctx: VaultContext) -> Response:
        """List the versions that have led this cluster."""
        found = versions.history(ctx.services)
        if not found:
            raise NotFound
        shown = {
            each.version: {
                "build_date": "",
                "previous_version": each.previous or None,
                "timestamp_installed": rfc3339(each.installed_ns),
            }
            for each in found
        }
        return Response({"key_info": shown, "keys": list(shown)})

    @operation("locked-users", read=WhichLocked, writes=True)
    def locked_users(self, ctx: VaultContext, body: WhichLocked) -> Response:
        """List who has failed to log in too often lately; the leader counts that."""
        locked = self.lifecycle.vault.pipeline.lockouts.locked(ctx.now_ns)
        accessors: list[dict[str, Any]] = [
            {"mount_accessor": accessor, "counts": len(names), "alias_identifiers": names}
            for accessor, names in locked.items()
            if body.mount_accessor in ("", accessor)
        ]
        total = sum(entry["counts"] for entry in accessors)
        namespace = {"namespace_id": "root", "namespace_path": "", "counts": total, "mount_accessors": accessors}
        return Response({"by_namespace": [namespace] if total else [], "total": total})

    @operation("locked-users/{mount_accessor}/unlock/{alias_identifier...}", update=True)
    def unlock(self, ctx: VaultContext, mount_accessor: str, alias_identifier: str) -> Response:
        """Let somebody try again."""
        del ctx
        self.lifecycle.vault.pipeline.lockouts.succeeded(mount_accessor, alias_identifier)
        return Response()

    @operation("internal/counters/tokens", read=True, writes=True)
    async def count_tokens(self, ctx: VaultContext) -> Response:
        """Count the service tokens that there are."""
        total = await _count(ctx, AREA_TOKENS, "accessor")
        return Response({"counters": {"service_tokens": {"total": total}}})

    @operation("internal/counters/entities", read=True, writes=True)
    async def count_entities(self, ctx: VaultContext) -> Response:
        """Count the entities that there are."""
        total = await _count(ctx, AREA_IDENTITY, "entity")
        return Response({"counters": {"entities": {"total": total}}})

    @operation("internal/counters/requests", read=True)
    def count_requests(self, ctx: VaultContext) -> Response:
        """Say that requests are not counted here; sys/metrics has them."""
        del ctx
        raise NotFound("The functionality has been removed on this path")


async def _count(ctx: VaultContext, area: str, path: str) -> int:
    """Count the names in a directory, in pieces."""
    directory = ctx.services.area(area).directory
    total, cursor = 0, b""
    while True:
        names, cursor = directory.list_piece(path, cursor, limit=COUNTED_MAX)
        total += len(names)
        if not cursor:
            return total
        await asyncio.sleep(0)
