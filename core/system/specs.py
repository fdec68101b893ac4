"""sys/internal/specs/openapi, and help on any path: what can be asked of this server, made from the declarations.

Both show a caller the mounts that its token may use, and those that are shown to everybody. Help is asked for as
`GET <path>?help=1`; the API hands that over as `sys/internal/help/<path>`.
"""

from typing import Annotated

from msgspec import Meta, Struct

import conclave
from conclave.core import specs
from conclave.core.contract import Engine, Response, operation
from conclave.core.errors import NotFound, PermissionDenied, unsupported_path
from conclave.core.mounts import Mount, MountTable
from conclave.core.privileged import VaultContext, acl_of_caller
from conclave.core.router import Router, no_handler
from conclave.core.services import AREA_MOUNTS


class SpecFields(Struct):
    """Which document."""

    generic_mount_paths: Annotated[bool, Meta(description="Has no effect: paths are those of the mounts.")] = False
    context: Annotated[str, Meta(description="Has no effect.")] = ""


class SpecOperations(Engine):
    """The describing part of `sys/`; mixed into `System`."""

    type = "system-specs"

    @operation("internal/specs/openapi", read=SpecFields, authenticated=False)
    @operation("internal/specs/openapi", update=SpecFields, writes=False, authenticated=False)
    def describe_api(self, ctx: VaultContext, body: SpecFields) -> Response:
        """Describe all paths that the caller may know of, as OpenAPI."""
        del body
        acl = acl_of_caller(ctx)
        mounts = []
        for mount in MountTable(ctx.services.area(AREA_MOUNTS)).all():
            is_shown = (acl is not None and acl.reaches(mount.path)) or mount.listing_visibility == "unauth"
            engine = _engine_of(ctx, mount)
            if is_shown and engine is not None:
                mounts.append((mount.path, type(engine)))
        return Response(specs.openapi(mounts, conclave.__version__), is_bare=True)

    @operation("internal/help/{path...}", read=True, authenticated=False)
    def help_on_path(self, ctx: VaultContext, path: str) -> Response:
        """Describe one path."""
        if acl_of_caller(ctx) is None:
            raise PermissionDenied("permission denied")
        routed = Router(MountTable(ctx.services.area(AREA_MOUNTS)).all()).route(path)
        if routed is None:
            raise no_handler(path)
        engine = _engine_of(ctx, routed.mount)
        if engine is None:
            raise NotFound
        text = specs.help_text(type(engine), routed.relative_path)
        if text is None:
            raise unsupported_path()
        document = specs.openapi([(routed.mount.path, type(engine))], conclave.__version__)
        return Response({"help": text, "see_also": None, "openapi": document}, is_bare=True)


def _engine_of(ctx: VaultContext, mount: Mount) -> Engine | None:
    registry = ctx.services.methods if mount.is_auth else ctx.services.engines
    return registry.get(mount.engine_key)
