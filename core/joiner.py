"""The new node's side of joining: meet a cluster, then prove to it that this node holds the unseal key.

Meeting a cluster tells how many shares unseal it; nothing is changed by that, on either side. The proof is given when
enough shares have been: a challenge is fetched anew then, for the first one may have grown old, opened with the key that
the shares restore, and the answer makes this node a member. `retry_join` meets whichever of several nodes answers first.

What is asked and answered over HTTP is `core/joining.py`, what a proof is worth `core/unsealing.py`.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from msgspec import Struct

from conclave.cluster.replica import JoinTicket, Membership
from conclave.core import joining, unsealing
from conclave.core.errors import InternalError, InvalidRequest
from conclave.core.joining import JoinFailed, JoinTarget
from conclave.storage.seal import SealConfig

log = logging.getLogger(__name__)

RETRY_SECONDS: Final = 2.0
"""Pause before the nodes of `retry_join` are asked again."""
WRONG_KEY: Final = (
    "unable to retrieve stored keys: invalid key: failed to decrypt keys from storage: "
    "cipher: message authentication failed"
)
NO_CHALLENGE: Final = "failed to join raft cluster: failed to get raft challenge"


class Met(Struct, frozen=True):
    """A cluster that has told what unsealing takes, and that this node will ask to take it."""

    targets: tuple[JoinTarget, ...]  # whoever answered first, then the others that may be asked
    seal_config: SealConfig
    is_voter: bool


class Joiner:
    """How one node comes into a cluster.

    Args:
        node_id: how it will be called there.
        membership: makes it a member.
        may_join: whether this node belongs to no cluster and founds none.
        spawn: runs a task that somebody else owns.
    """

    def __init__(
        self,
        node_id: str,
        membership: Membership,
        may_join: Callable[[], bool],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self.met: Met | None = None
        self._node_id = node_id
        self._membership = membership
        self._may_join = may_join
        self._spawn = spawn
        self._retrying: asyncio.Task[None] | None = None

    async def begin(self, target: JoinTarget, *, is_voter: bool, keep_trying: bool) -> None:
        """Meet a cluster; see `Lifecycle.begin_join`."""
        try:
            await self._meet([target], is_voter=is_voter)
        except JoinFailed as error:
            log.warning("cannot join yet", extra={"reason": str(error)})
            if not keep_trying:
                raise InternalError(NO_CHALLENGE) from error
            self.retry([target], is_voter=is_voter)

    def retry(self, targets: Sequence[JoinTarget], *, is_voter: bool) -> None:
        """Ask these nodes in turn, again and again, until one of them answers or this node belongs to a cluster."""
        if self._retrying is not None:
            self._retrying.cancel()
        self._retrying = self._spawn(self._keep_meeting(targets, is_voter=is_voter))

    async def _keep_meeting(self, targets: Sequence[JoinTarget], *, is_voter: bool) -> None:
        while self.met is None and self._may_join():
            try:
                await self._meet(targets, is_voter=is_voter)
            except JoinFailed as error:
                log.info("cannot join yet", extra={"reason": str(error)})
                await asyncio.sleep(RETRY_SECONDS)

    async def _meet(self, targets: Sequence[JoinTarget], *, is_voter: bool) -> None:
        """Meet the first of these that answers.

        Raises:
            JoinFailed: none did; the last one's reason.
        """
        failed = JoinFailed("there is no node to ask")
        for target in targets:
            try:
                challenge = await joining.ask_challenge(target, self._node_id)
            except JoinFailed as error:
                failed = error
                continue
            if self._may_join():
                others = (other for other in targets if other != target)
                self.met = Met((target, *others), challenge.seal_config, is_voter)
                log.info("will join a cluster when unsealed", extra={"leader_api_address": target.leader_api_address})
            return
        raise failed

    async def prove(self, unseal_key: bytes) -> None:
        """Prove to the cluster that this node holds the unseal key, and become a member.

        Raises:
            InvalidRequest: this is not its key, or it refuses this node; the text says why.
            InternalError: none of its nodes could be asked.
        """
        met = self.met
        assert met is not None, "a detached node that is initialized has met a cluster"
        failed = JoinFailed("there is no node to ask")
        for target in met.targets:
            try:
                private_key_pem, ticket = await self._ask_to_be_admitted(target, unseal_key, is_voter=met.is_voter)
            except JoinFailed as error:
                failed = error
                if error.is_refusal:
                    break
                continue
            await self._membership.join(ticket, private_key_pem)
            log.info("joined", extra={"cluster_id": ticket.cluster_id})
            return
        refused = InvalidRequest if failed.is_refusal else InternalError
        raise refused(f"failed to join raft cluster: {failed}") from failed

    async def _ask_to_be_admitted(
        self, target: JoinTarget, unseal_key: bytes, *, is_voter: bool
    ) -> tuple[bytes, JoinTicket]:
        challenge = await joining.ask_challenge(target, self._node_id)
        answer = unsealing.open_challenge(unsealing.join_key(unseal_key), self._node_id, challenge.challenge)
        if answer is None:
            raise InvalidRequest(WRONG_KEY)
        request = self._membership.join_request()
        petition = unsealing.Petition(request.cluster_address, request.request_pem, request.incarnation, is_voter)
        proof = unsealing.prove(answer, petition)
        return request.private_key_pem, await joining.hand_in(target, request, proof, is_voter=is_voter)
