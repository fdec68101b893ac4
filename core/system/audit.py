"""sys/audit and sys/audit-hash: which audit devices there are, and how a value looks in their logs.

Source: Vault's API page "/sys/audit"; shapes recorded from a real server.
"""

from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from conclave.core import audit
from conclave.core.audit import AuditDevice, AuditTable
from conclave.core.audit_records import Subject, hasher
from conclave.core.contract import Engine, Operation, Request, Response, operation
from conclave.core.errors import InvalidRequest
from conclave.core.lifecycle import Lifecycle
from conclave.core.privileged import VaultContext
from conclave.core.services import AREA_AUDIT

CREATION_REFUSED: Final = (
    "cannot enable audit device via API; use declarative, config-based audit device management instead"
)
"""In the words of a server whose configuration does not say `unsafe_allow_api_audit_creation`."""


class EnableAudit(Struct):
    """The device to be added."""

    type: Annotated[str, Meta(description="`file` or `socket`.")] = ""
    description: Annotated[str, Meta(description="For people.")] = ""
    options: Annotated[
        dict[str, Any],
        Meta(description="`file_path`, `mode`; or `address`, `socket_type`; and `log_raw`, `hmac_accessor`, `prefix`."),
    ] = {}
    local: Annotated[bool, Meta(description="Has no meaning without replication between clusters; kept.")] = False


class HashInput(Struct):
    """A value."""

    input: Annotated[str, Meta(description="The value.")] = ""


class AuditOperations(Engine):
    """The audit part of `sys/`; mixed into `System`."""

    type = "system-audit"
    lifecycle: Lifecycle

    @operation("audit", read=True, sudo=True)
    def list_devices(self, ctx: VaultContext) -> Response:
        """List the audit devices."""
        devices = {device.path: _describe(device) for device in _table(ctx).all()}
        return Response(devices, is_doubled=True)

    @operation("audit/{path...}", update=EnableAudit, sudo=True)
    def enable(self, ctx: VaultContext, path: str, body: EnableAudit) -> Response:
        """Add an audit device, once a test record could be written to it."""
        if not self.lifecycle.allowances.audit_creation:
            raise InvalidRequest(CREATION_REFUSED)
        name = path.strip("/") + "/"
        if name == "/":
            raise InvalidRequest("backend path must be specified")
        if _table(ctx).at(name) is not None:
            raise InvalidRequest("path already in use")
        device = AuditDevice(
            path=name,
            type=body.type,
            description=body.description,
            options=audit.options_of(body.options),
            key=ctx.random(audit.KEY_BYTES),
            is_local=body.local,
        )
        request = Request(ctx.request.id, Operation.UPDATE, audit.TEST_PATH)
        subject = Subject(request, Operation.UPDATE)
        audit.probe(device, subject, self.lifecycle.vault.auditor.forbidden, ctx.now_ns)
        _table(ctx).put(device)
        return Response()

    @operation("audit/{path...}", delete=True, sudo=True)
    def disable(self, ctx: VaultContext, path: str) -> Response:
        """Remove an audit device; what it has written stays."""
        _table(ctx).remove(path.strip("/") + "/")
        return Response()

    @operation("audit-hash/{path...}", update=HashInput, writes=False)
    def hash_input(self, ctx: VaultContext, path: str, body: HashInput) -> Response:
        """Return how a value looks in the log of a device."""
        if not body.input:
            raise InvalidRequest('the "input" parameter is empty')
        device = _table(ctx).at(path.strip("/") + "/")
        if device is None:
            raise InvalidRequest(f'unknown audit backend "{path.strip("/")}/"')
        return Response({"hash": hasher(device.key)(body.input)}, is_doubled=True)


def _table(ctx: VaultContext) -> AuditTable:
    return AuditTable(ctx.services.area(AREA_AUDIT))


def _describe(device: AuditDevice) -> dict[str, Any]:
    return {
        "description": device.description,
        "local": device.is_local,
        "options": device.options,
        "path": device.path,
        "type": device.type,
    }
