"""Secrets by path, version 1 of the key/value engine: one value a path, the whole body of the write.

The body is kept as JSON text (canonical, number literals untouched) and answered unchanged. A field `ttl` or `lease` in
it tells readers how long to keep it; nothing expires here. Source: Vault's API page "KV secrets engine, version 1".
"""

import msgspec

from conclave.core.bodies import bounded, canonical_object
from conclave.core.contract import Context, Engine, Lease, Response, operation
from conclave.core.durations import parse_seconds
from conclave.core.errors import InvalidRequest, NotFound
from conclave.core.listing import Page, list_page


class KvV1(Engine):
    """Unversioned secrets by path."""

    type = "kv"

    def exists(self, ctx: Context, path: str) -> bool | None:
        """Tell create from update."""
        return bool(path) and not path.endswith("/") and ctx.storage.exists(f"data/{path}")

    @operation("{path...}", read=True)
    def read(self, ctx: Context, path: str) -> Response:
        """Read a secret."""
        data = None if not path or path.endswith("/") else ctx.storage.get(f"data/{path}")
        if data is None:
            raise NotFound
        return Response(
            msgspec.Raw(data), lease=Lease("", _ttl_seconds(data) or ctx.mount.default_lease_ttl_seconds, False)
        )

    @operation("{path...}", update=True)
    def write(self, ctx: Context, path: str) -> Response:
        """Write a secret."""
        if not path or path.endswith("/"):
            raise InvalidRequest("cannot write to a path ending in '/'")
        data = canonical_object(ctx.request.body)
        if data == b"{}":
            raise InvalidRequest("missing data fields")
        ctx.storage.put(f"data/{path}", bounded(data))
        return Response()

    @operation("{path...}", delete=True)
    def delete(self, ctx: Context, path: str) -> Response:
        """Remove a secret."""
        if path and not path.endswith("/"):
            ctx.storage.delete(f"data/{path}")
        return Response()

    @operation("{path...}", list=Page)
    def list_names(self, ctx: Context, path: str, body: Page) -> Response:
        """List the names of secrets and directories."""
        return list_page(ctx.storage, f"data/{path}", body)


def _ttl_seconds(data: bytes) -> int:
    """Return what the secret itself says of its lifetime; 0 if it says nothing that can be understood."""
    if b'"ttl"' not in data and b'"lease"' not in data:
        return 0
    fields = msgspec.json.decode(data)
    value = fields.get("ttl", fields.get("lease"))
    try:
        return max(0, parse_seconds(value)) if isinstance(value, (str, int, float)) else 0
    except ValueError:
        return 0
