"""The leader's lease: until when no other node can have been elected, so that reads need ask nobody.

A node that heard a heartbeat promises for a time L to help nobody else to be elected (`raft`: `lease_ticks`). So when a
quorum has acknowledged heartbeat n, nobody else can win before L has passed since n was *sent*, whenever the answers came.
The lease is shorter than L, because the clocks of two machines need not run alike.

It does not know whether this node may use it: a transfer, entries not applied yet and the like are the driver's business.
Source: raft.md section 3; Ongaro's dissertation, section 6.4.1, with the promise instead of the election timeout.
"""

from collections import deque
from typing import Final

SENT_MAX: Final = 256
"""Heartbeats remembered while none is acknowledged; CheckQuorum ends a leader long before so many."""


class Lease:
    """What one leader has sent, and what follows from the answers. All times are of one monotone clock, in seconds.

    Attributes:
        until: the end of the lease; 0.0: there is none.
    """

    __slots__ = ("_duration_seconds", "_sent", "_sequence", "until")

    def __init__(self, duration_seconds: float) -> None:
        self.until = 0.0
        self._duration_seconds = duration_seconds
        self._sent: deque[tuple[int, float]] = deque(maxlen=SENT_MAX)
        self._sequence = 0

    def reset(self) -> None:
        """Forget everything: this node leads no more, or leads another term."""
        self.until = 0.0
        self._sent.clear()
        self._sequence = 0

    def void(self, sequence: int) -> None:
        """Count only heartbeats after `sequence`: another quorum decides from now on."""
        self.until = 0.0
        self._sent.clear()
        self._sequence = sequence

    def sent(self, sequence: int, now: float) -> None:
        """Note, before it leaves, that a heartbeat is sent; repeating one changes nothing."""
        if sequence > self._sequence:
            self._sequence = sequence
            self._sent.append((sequence, now))

    def confirmed(self, sequence: int) -> None:
        """Take in that a quorum has acknowledged heartbeat `sequence`."""
        sent = self._sent
        while sent and sent[0][0] <= sequence:
            self.until = sent.popleft()[1] + self._duration_seconds
