"""What leaves at once: each message on its connection, and word of commits once more is to be said or a moment has passed.

Rules enforced here:

* Appends and offers of snapshots go on the bulk connection, a frame for each, and leave before the rest. So appends of one
  leader stay in order: one that overtakes another looks like a gap.
* Everything else goes on the control connection, what is for one peer together.
* An append without entries only tells how far is committed (a notice). It waits a moment for one with entries, which tells
  the same. It does not wait if the peer lacks entries, if its reader waits, or while a membership change is under way.
* The core hears of appends and offers that could not be sent; whatever else is lost will be repeated.

What promises that something is durable comes here only when it is: see `append_jobs`.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from conclave.cluster.frames import Frame, Lane, Messages
from conclave.cluster.raft import Message, MessageKind, ProgressState, Raft, Role

MESSAGES_IN_FRAME_MAX: Final = 1024
COMMIT_NOTICE_SECONDS: Final = 0.01
"""How long word of a new commit index may wait for entries to go with. A read on the follower does not wait for it."""
EARLY_SECONDS: Final = 0.001
"""By how much less it may wait: a timer may fire a little early, by the resolution of the loop's clock or by rounding."""

Send = Callable[[int, Lane, Frame], bool]


class Outbox:
    """The sending side of one node.

    Args:
        raft: the core, which may be another one after a snapshot was abandoned.
        send: sends a frame to a peer; False if it was dropped.
        may_change: tells whether no membership change is under way.
    """

    def __init__(self, raft: Callable[[], Raft], send: Send, may_change: Callable[[], bool]) -> None:
        self._raft = raft
        self._send = send
        self._may_change = may_change
        self._loop = asyncio.get_running_loop()
        self._notices: dict[int, Message] = {}
        self._held_since_seconds = 0.0  # since when some notice has been waiting, by the loop's clock
        self._is_timer_set = False
        self._is_closed = False

    def send_all(self, messages: Sequence[Message]) -> None:
        """Send messages of the core, each to the peer that it names."""
        control: dict[int, list[Message]] = {}
        for message in messages:
            if message.kind is MessageKind.APPEND:
                if self._can_wait(message):
                    self._hold_notice(message)
                    continue
                self._notices.pop(message.to, None)  # this one says the same, and more
                if not self._send(message.to, Lane.BULK, Messages([message])):
                    self._raft().report_unreachable(message.to)
            elif message.kind is MessageKind.SNAPSHOT:
                if not self._send(message.to, Lane.BULK, Messages([message])):
                    self._raft().report_snapshot(message.to, ok=False)
            else:
                if message.kind is MessageKind.READ_INDEX_RESPONSE:
                    self._send_notice(message.to)  # whoever reads there waits for it
                control.setdefault(message.to, []).append(message)
        for peer, batch in control.items():
            for start in range(0, len(batch), MESSAGES_IN_FRAME_MAX):
                self._send(peer, Lane.CONTROL, Messages(batch[start : start + MESSAGES_IN_FRAME_MAX]))

    def _can_wait(self, message: Message) -> bool:
        """Tell whether an APPEND only says how far is committed, to a peer that has what is."""
        raft = self._raft()
        if message.entries or raft.role is not Role.LEADER or not self._may_change():
            return False  # whoever a membership change removes must hear of it while it is still talked to
        progress = raft.tracker.progress.get(message.to)
        return progress is not None and progress.state is ProgressState.REPLICATE

    def forget_notices(self) -> None:
        """Drop the notices that wait: this node leads no more, or its core has begun anew."""
        self._notices.clear()

    def close(self) -> None:
        """Let no notice out any more that waits for its time."""
        self._is_closed = True

    def _hold_notice(self, message: Message) -> None:
        if not self._notices:
            self._held_since_seconds = self._loop.time()
            self._set_timer(COMMIT_NOTICE_SECONDS)
        self._notices[message.to] = message

    def _set_timer(self, seconds: float) -> None:
        # One that is set goes on: most notices leave before it, and a timer for each would wake the loop for nothing.
        if not self._is_timer_set:
            self._is_timer_set = True
            self._loop.call_later(seconds, self._time_is_up)

    def _time_is_up(self) -> None:
        self._is_timer_set = False
        if not self._notices:
            return
        left = self._held_since_seconds + COMMIT_NOTICE_SECONDS - self._loop.time()
        if left > EARLY_SECONDS:
            self._set_timer(left)
        else:
            self._send_notices()

    def _send_notices(self) -> None:
        if not self._is_closed:
            for peer in list(self._notices):
                self._send_notice(peer)

    def _send_notice(self, peer: int) -> None:
        notice = self._notices.pop(peer, None)
        if notice is not None and not self._send(peer, Lane.BULK, Messages([notice])):
            self._raft().report_unreachable(peer)
