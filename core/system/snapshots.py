"""sys/storage/raft/snapshot: the whole state as a file, and back.

The bodies are streams, of any length: `api/app.py` hands an upload to the handler and sends a download piece by piece.
What is done with them is `core/snapshots.py`; here are the permission, the audit record and the refusals, as for any other
operation.

* Any node saves, from its own state, once that holds everything acknowledged before.
* Only the leader restores. Another node passes the upload on to it, piece by piece; it does not redirect, for clients that
  stream their body take a redirection for success, having nothing left to send (seen with `bao`).
* `snapshot-force` also takes a state with other keys, on a node that is alone. The node is sealed before the answer leaves,
  and unsealed by that state's shares from then on.

Source: Vault's API page "sys/storage/raft"; recorded from a real server, whose answer to junk is a 500: ours a 400.
"""

from conclave.core.contract import Context, Engine, Response, operation
from conclave.core.errors import InvalidRequest, RequestError, Unavailable
from conclave.core.forwarding import NO_LEADER
from conclave.core.lifecycle import Lifecycle
from conclave.core.snapshots import Snapshots


class SnapshotOperations(Engine):
    """The part of `sys/` about snapshot files; mixed into `System`."""

    type = "system-snapshots"
    lifecycle: Lifecycle
    snapshots: Snapshots

    @operation("storage/raft/snapshot", read=True, is_local=True)
    async def save_snapshot(self, ctx: Context) -> Response:
        """Save the state of the whole vault, sealed, to a file."""
        del ctx
        return Response(download=await self.snapshots.save())

    @operation("storage/raft/snapshot", update=True, is_local=True)
    async def restore_snapshot(self, ctx: Context) -> Response:
        """Restore the state of the whole vault from a file that was saved by this cluster."""
        return await self._restore(ctx, is_forced=False)

    @operation("storage/raft/snapshot-force", update=True, is_local=True)
    async def force_snapshot(self, ctx: Context) -> Response:
        """Restore the state of the whole vault from a file, also of a vault with other keys, whose shares then unseal it."""
        return await self._restore(ctx, is_forced=True)

    async def _restore(self, ctx: Context, *, is_forced: bool) -> Response:
        vault, request = self.lifecycle.vault, ctx.request
        if request.upload is None:
            raise InvalidRequest("the snapshot has to be the request's body")
        if vault.is_active:
            await self.snapshots.restore(request.upload, is_forced=is_forced)
            return Response()
        if request.forwarded_by:
            raise Unavailable(NO_LEADER)  # whoever sent it here is to look again
        if request.is_forwarding_refused:
            raise vault.redirect(request)
        outcome = await vault.uploads.send(request)
        if isinstance(outcome, RequestError):
            raise outcome
        return outcome
