"""A member's way back to peers that have moved, as it has itself: it meets nodes over their APIs.

As long as there is a voter that this node cannot reach, the nodes of `retry_join` are asked about once a second, a few at a
time. Two that have met dial each other; what they know of the others goes with it, and the rest is said over their own
connections. One that can reach all voters asks nobody, whoever tells it to.

What is said in a meeting, and what is believed of it, is `cluster/finding.py`; how it is carried, `core/joining.py`.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from conclave.cluster.replica import Membership
from conclave.core import joining
from conclave.core.errors import InternalError
from conclave.core.joining import JoinFailed, JoinTarget

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.3
"""How often this node looks whether it lacks anybody; one that has not moved is connected by the first time."""
ASK_AGAIN_SECONDS: Final = 1.0
"""Pause before the same nodes are asked again, with jitter downwards."""
ASK_LATER_SECONDS: Final = 5.0
"""The same after one of them has answered: whoever is still missing is down, and asks by itself when it is back."""
ASKED_AT_ONCE: Final = 3
REASON_CHARACTERS_MAX: Final = 500
"""So much of what a node answers is told in the log."""
NOT_MET: Final = (
    "failed to join raft cluster: this node is a member of one already, and has not met a node of that one there; "
    "its log says why"
)


class Finder:
    """How one member finds the others again.

    Args:
        membership: knows whom it lacks.
        spawn: runs a task that somebody else owns.
    """

    def __init__(
        self,
        membership: Membership,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._membership = membership
        self._spawn = spawn
        self._targets: tuple[JoinTarget, ...] = ()
        self._named: JoinTarget | None = None  # by a client, the last one, until nobody is lacking
        self._turn = asyncio.Lock()  # whoever names nodes that swallow everything may hold up one thread, and no more
        self._looking: asyncio.Task[None] | None = None
        self._told: dict[JoinTarget, str] = {}  # what came of asking it the last time; empty: they have met

    @property
    def is_needed(self) -> bool:
        """Whether this node is a member that lacks others."""
        finding = self._membership.finding
        return finding is not None and finding.is_needed

    async def begin(self, target: JoinTarget, *, keep_trying: bool) -> None:
        """Meet one node, if this one lacks any.

        Raises:
            InternalError: they have not met, and trying on was not asked for.
        """
        if not self.is_needed:
            return
        async with self._turn:
            outcome = await self._meet(target)
        _tell(target, outcome)
        if not outcome:
            return
        if not keep_trying:
            raise InternalError(NOT_MET)
        self._named = target
        self._look()

    def look(self, targets: Sequence[JoinTarget]) -> None:
        """Meet these nodes whenever this one lacks others, for good."""
        self._targets = tuple(targets)
        self._look()

    def _look(self) -> None:
        self._told.clear()
        if self._looking is None or self._looking.done():
            self._looking = self._spawn(self._keep_looking())

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if not self.is_needed:
                self._told.clear()
                self._named = None
            elif await self._meets_any():
                await asyncio.sleep(ASK_LATER_SECONDS * random.uniform(0.5, 1.0))
            else:
                await asyncio.sleep(ASK_AGAIN_SECONDS * random.uniform(0.3, 0.7))

    async def _meets_any(self) -> bool:
        turns = asyncio.Semaphore(ASKED_AT_ONCE)

        async def meets(target: JoinTarget) -> bool:
            async with turns:
                outcome = await self._meet(target)
            if self._told.get(target) != outcome:
                self._told[target] = outcome
                _tell(target, outcome)
            return not outcome

        named = () if self._named is None else (self._named,)
        return any(await asyncio.gather(*(meets(target) for target in (*self._targets, *named))))

    async def _meet(self, target: JoinTarget) -> str:
        """Meet a node, and return why not; empty if they have met."""
        finding = self._membership.finding
        if finding is None:
            return "this node takes no part in a cluster any more"
        try:
            await joining.meet(target, finding)
        except JoinFailed as error:
            return str(error)[:REASON_CHARACTERS_MAX]
        return ""


def _tell(target: JoinTarget, outcome: str) -> None:
    fields = {"leader_api_address": target.leader_api_address}
    if outcome:
        log.info("cannot meet a node", extra=fields | {"reason": outcome})
    else:
        log.info("has met a member", extra=fields)
