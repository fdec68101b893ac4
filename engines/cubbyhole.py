"""Each token's own records: readable with that token alone, and gone when it ends.

Where they lie is told by a hash of the token's accessor; emptying that place is done when the token ends
(`core/revocation.py`). Source: Vault's page "Cubbyhole secrets engine".
"""

import msgspec

from conclave.core.bodies import bounded, canonical_object
from conclave.core.contract import Context, Engine, Response, operation
from conclave.core.cubbyholes import cubbyhole_of
from conclave.core.errors import InvalidRequest, NotFound
from conclave.core.listing import Page, list_page


class Cubbyhole(Engine):
    """Secrets that belong to one token."""

    type = "cubbyhole"

    def exists(self, ctx: Context, path: str) -> bool | None:
        """Tell create from update."""
        return bool(path) and not path.endswith("/") and ctx.storage.exists(_place(ctx, path))

    @operation("{path...}", read=True)
    def read(self, ctx: Context, path: str) -> Response:
        """Read a record of this token."""
        data = None if not path or path.endswith("/") else ctx.storage.get(_place(ctx, path))
        if data is None:
            raise NotFound
        return Response(msgspec.Raw(data))

    @operation("{path...}", update=True)
    def write(self, ctx: Context, path: str) -> Response:
        """Write a record of this token."""
        if not path or path.endswith("/"):
            raise InvalidRequest("cannot write to a path ending in '/'")
        data = canonical_object(ctx.request.body)
        if data == b"{}":
            raise InvalidRequest("missing data fields")
        ctx.storage.put(_place(ctx, path), bounded(data))
        return Response()

    @operation("{path...}", delete=True)
    def delete(self, ctx: Context, path: str) -> Response:
        """Remove a record of this token."""
        if path and not path.endswith("/"):
            ctx.storage.delete(_place(ctx, path))
        return Response()

    @operation("{path...}", list=Page)
    def list_names(self, ctx: Context, path: str, body: Page) -> Response:
        """List the names of this token's records."""
        return list_page(ctx.storage, _place(ctx, path), body)


def _place(ctx: Context, path: str) -> str:
    """Return where a record of the token used lies."""
    if ctx.token is None or not ctx.token.accessor:
        raise InvalidRequest('cubbyhole operations are only supported by "service" type tokens')
    return f"{cubbyhole_of(ctx.token.accessor)}/{path}"
