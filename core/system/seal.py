"""sys/init, seal-status, unseal, seal: the operations that carry a node from nothing to serving, and back.

All but `seal` are answered by any node in any state, by the node addressed, and without the envelope, as in Vault
(recorded in the API documentation, "System backend"). What they decide is in `core/lifecycle.py`.
"""

from typing import Annotated

from msgspec import Meta, Struct

from conclave.core.contract import Context, Engine, Response, operation
from conclave.core.errors import InvalidRequest
from conclave.core.lifecycle import Lifecycle


class Initialize(Struct):
    """How the unseal key is split."""

    secret_shares: Annotated[int, Meta(description="Into how many shares the unseal key is split: 1 to 255.")] = 0
    secret_threshold: Annotated[int, Meta(description="How many shares unseal a node.")] = 0
    pgp_keys: Annotated[list[str], Meta(description="Not supported; refused unless empty.")] = []
    root_token_pgp_key: Annotated[str, Meta(description="Not supported; refused unless empty.")] = ""
    stored_shares: Annotated[int, Meta(description="Has no meaning for Shamir seals; ignored, as in Vault.")] = 0
    recovery_shares: Annotated[int, Meta(description="Has no meaning for Shamir seals; refused unless 0.")] = 0
    recovery_threshold: Annotated[int, Meta(description="Has no meaning for Shamir seals; refused unless 0.")] = 0
    recovery_pgp_keys: Annotated[list[str], Meta(description="Not supported; refused unless empty.")] = []


class Unseal(Struct):
    """One key share, or a new start."""

    key: Annotated[str, Meta(description="One share, in hex or base64.")] = ""
    reset: Annotated[bool, Meta(description="Forget the shares given so far.")] = False
    migrate: Annotated[bool, Meta(description="Seal migration; refused, for there is one kind of seal.")] = False


class SealOperations(Engine):
    """The seal part of `sys/`; mixed into `System`, which provides the lifecycle."""

    type = "system-seal"
    lifecycle: Lifecycle

    @operation("init", read=True, authenticated=False, while_sealed=True)
    def read_init(self, ctx: Context) -> Response:
        """Tell whether the cluster has been initialized."""
        del ctx
        return Response({"initialized": self.lifecycle.is_initialized}, is_bare=True)

    @operation("init", update=Initialize, authenticated=False, while_sealed=True)
    async def initialize(self, ctx: Context, body: Initialize) -> Response:
        """Found a cluster: make its keys, split the unseal key, and return the shares and the root token, once."""
        del ctx
        if body.pgp_keys or body.root_token_pgp_key or body.recovery_pgp_keys:
            raise InvalidRequest("encrypting shares with PGP keys is not supported")
        if body.recovery_shares or body.recovery_threshold:
            raise InvalidRequest("recovery shares need an auto-unseal, which is not configured")
        made = await self.lifecycle.initialize(body.secret_shares, body.secret_threshold)
        data = {"keys": made.shares_hex, "keys_base64": made.shares_base64, "root_token": made.root_token}
        return Response(data, is_bare=True)

    @operation("seal-status", read=True, authenticated=False, while_sealed=True)
    def seal_status(self, ctx: Context) -> Response:
        """Return the seal's configuration and the progress of unsealing."""
        del ctx
        return Response(self.lifecycle.seal_status(), is_bare=True)

    @operation("unseal", update=Unseal, authenticated=False, while_sealed=True)
    async def unseal(self, ctx: Context, body: Unseal) -> Response:
        """Give one key share to this node."""
        del ctx
        if body.migrate:
            raise InvalidRequest("seal migration is not supported: there is one kind of seal")
        if body.reset:
            self.lifecycle.reset_progress()
        elif not body.key:
            raise InvalidRequest("'key' must be specified in request body as JSON, or 'reset' set to true")
        else:
            await self.lifecycle.unseal(body.key)
        return Response(self.lifecycle.seal_status(), is_bare=True)

    @operation("seal", update=True, sudo=True, is_local=True)
    async def seal(self, ctx: Context) -> Response:
        """Drop this node's keys; leadership goes to another node first."""
        del ctx
        await self.lifecycle.seal()
        return Response()
