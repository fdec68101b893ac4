"""Reads that wait for the leader to be confirmed (dissertation, section 6.4).

Each round of heartbeats has a number of the leader's own making, monotone within its term. A read that comes while round
n was the last one sent is confirmed when a quorum has acknowledged round n + 1 or a later one; so one round confirms all
reads before it, and nothing that a caller chose is ever taken for a confirmation (etcd had stale reads from that until
2026). The same numbers tell how long a lease is good for.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from conclave.cluster.raft.messages import Message

if TYPE_CHECKING:
    from conclave.cluster.raft.tracker import Tracker


class Reads:
    """What a leader has to answer, and which heartbeats were acknowledged, in one term."""

    __slots__ = ("_acknowledged", "_postponed", "_waiting")

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, int, Message]] = deque()
        self._postponed: list[Message] = []
        self._acknowledged: dict[int, int] = {}

    def reset(self) -> None:
        """Forget everything; callers ask again."""
        self._waiting.clear()
        self._postponed.clear()
        self._acknowledged.clear()

    def postpone(self, request: Message) -> None:
        """Keep a read that came before the first commit of the term."""
        self._postponed.append(request)

    def take_postponed(self) -> list[Message]:
        """Return the postponed reads, and forget them."""
        postponed, self._postponed = self._postponed, []
        return postponed

    def add(self, request: Message, index: int, needed_sequence: int) -> bool:
        """Queue a read of `index`; return whether its round has to be started (no earlier read waits for it)."""
        is_first = not self._waiting or self._waiting[-1][0] < needed_sequence
        self._waiting.append((needed_sequence, index, request))
        return is_first

    @property
    def is_waiting(self) -> bool:
        """Whether any read waits for a confirmation."""
        return bool(self._waiting)

    def acknowledge(self, peer: int, sequence: int) -> None:
        """Take in that a peer has answered a round."""
        if sequence > self._acknowledged.get(peer, 0):
            self._acknowledged[peer] = sequence

    def confirmed(self, tracker: Tracker, own_id: int, own_sequence: int) -> int:
        """Return the newest round that a quorum has acknowledged; this node acknowledges its own."""
        return min(tracker.joint_index({**self._acknowledged, own_id: own_sequence}), own_sequence)

    def release(self, confirmed_sequence: int) -> list[tuple[int, Message]]:
        """Return the reads that are confirmed now, with their indexes, in order of their arrival."""
        released = []
        while self._waiting and self._waiting[0][0] <= confirmed_sequence:
            _, index, request = self._waiting.popleft()
            released.append((index, request))
        return released
