"""sys/version-history and sys/locked-users: what has run here, and who has been locked out.

Shapes recorded from a real server; source: Vault's API pages "sys/version-history" and "sys/locked-users".
"""

from typing import Annotated, Any

from msgspec import Meta, Struct

from conclave.core import versions
from conclave.core.contract import Engine, Response, operation
from conclave.core.errors import NotFound
from conclave.core.lifecycle import Lifecycle
from conclave.core.privileged import VaultContext
from conclave.core.timestamps import rfc3339


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
