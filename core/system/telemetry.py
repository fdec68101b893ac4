"""sys/metrics: who may read this node's metrics. The page itself is made by `api/exposition.py`.

Which form the page has, and whether a token is needed at all, is the listener's configuration; here is the permission
only, so that it goes through policy like any other. Source: Vault's API page "sys/metrics".
"""

from typing import Annotated

from msgspec import Meta, Struct

from conclave.core.contract import Context, Engine, Response, operation


class MetricsParameters(Struct):
    """How the metrics are wanted; looked at by the API alone."""

    format: Annotated[str, Meta(description='"prometheus" for its text format, else JSON.')] = ""


class TelemetryOperations(Engine):
    """The part of `sys/` about measuring; mixed into `System`."""

    type = "system-telemetry"

    @operation("metrics", read=MetricsParameters, is_local=True)
    def metrics(self, ctx: Context, body: MetricsParameters) -> Response:
        """Return this node's metrics."""
        del ctx, body
        return Response()
