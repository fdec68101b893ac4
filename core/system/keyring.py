"""sys/key-status, rotate, rotate/keyring: the keys that the barrier seals with.

What rotating means is in `core/rotation.py`. Shapes recorded from a real server; source: Vault's API pages
"sys/key-status", "sys/rotate" and "sys/rotate/config".
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from conclave.core import rotation
from conclave.core.contract import Engine, Response, operation
from conclave.core.durations import Seconds
from conclave.core.errors import InvalidRequest
from conclave.core.keys import Keys
from conclave.core.lifecycle import Lifecycle
from conclave.core.privileged import VaultContext
from conclave.core.timestamps import rfc3339


class Rotation(Struct):
    """When the keyring is rotated by itself."""

    enabled: Annotated[bool | None, Meta(description="Whether it is at all.")] = None
    interval: Annotated[Seconds | None, Meta(description="After how long; 0 for not by time.")] = None
    max_operations: Annotated[int | None, Meta(description="After how many records sealed under one key.")] = None


class KeyringOperations(Engine):
    """The keyring's part of `sys/`; mixed into `System`, which provides the lifecycle."""

    type = "system-keyring"
    lifecycle: Lifecycle

    @operation("key-status", read=True, writes=True)
    def key_status(self, ctx: VaultContext) -> Response:
        """Tell which key term is in use, since when, and for how many records; the leader counts them."""
        del ctx
        barrier = self._keys().barrier
        active = barrier.keyring.active
        data: dict[str, Any] = {
            "term": active,
            "install_time": rfc3339(barrier.keyring.terms[active].install_time_ns),
            "encryptions": barrier.encryption_count,
        }
        return Response(data, is_doubled=True)

    @operation("rotate", update=True, sudo=True)
    @operation("rotate/keyring", update=True, sudo=True)
    def rotate(self, ctx: VaultContext) -> Response:
        """Add a key term; everything is sealed under it from now on, and nothing is sealed again."""
        rotation.rotate(ctx.services, self._keys())
        return Response()

    @operation("rotate/config", read=True, sudo=True)
    @operation("rotate/keyring/config", read=True, sudo=True)
    def read_rotation_config(self, ctx: VaultContext) -> Response:
        """Show when the keyring is rotated by itself."""
        config = rotation.read_config(ctx.services)
        return Response(
            {
                "enabled": config.enabled,
                "interval": config.interval_seconds,
                "max_operations": config.max_operations,
            }
        )

    @operation("rotate/config", update=Rotation, sudo=True)
    @operation("rotate/keyring/config", update=Rotation, sudo=True)
    def write_rotation_config(self, ctx: VaultContext, body: Rotation) -> Response:
        """Set when the keyring is rotated by itself."""
        given = {
            "enabled": body.enabled,
            "interval_seconds": body.interval,
            "max_operations": body.max_operations,
        }
        if body.max_operations is not None:
            _check_operations(body.max_operations)
        if body.interval and body.interval < rotation.INTERVAL_SECONDS_MIN:
            raise InvalidRequest("interval must be at least 24 hours, or 0")
        set_fields = {name: value for name, value in given.items() if value is not None}
        rotation.write_config(ctx.services, msgspec.structs.replace(rotation.read_config(ctx.services), **set_fields))
        return Response()

    def _keys(self) -> Keys:
        keys = self.lifecycle.vault.keys
        assert keys is not None, "these operations are answered by an unsealed node"
        return keys


def _check_operations(count: int) -> None:
    if not rotation.OPERATIONS_MIN <= count <= rotation.OPERATIONS_MAX:
        raise InvalidRequest(f"max_operations must be between {rotation.OPERATIONS_MIN} and {rotation.OPERATIONS_MAX}")
