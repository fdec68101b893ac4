"""What a node does without being asked, a few times a second: none of it is on the way of any request.

Every node: announce itself, cut its log, drop snapshots that nobody takes, renew its certificate. A leader besides: judge
its members, promote learners, remove the dead if it may, record new addresses, offer a snapshot anew if its taker went
silent, and, while it is sealed or damaged, hand over to somebody who is not.
"""

import asyncio
import datetime as dt
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from conclave.cluster.compaction import LogFacts, compaction_index
from conclave.cluster.driver import Driver
from conclave.cluster.errors import ClusterError
from conclave.cluster.frames import Announce
from conclave.cluster.links import Links
from conclave.cluster.members import Members
from conclave.cluster.persistence import Compact, Writer
from conclave.cluster.renewal import Renewal
from conclave.cluster.replica import Peer, Standing, StateMachine
from conclave.cluster.roster import Roster
from conclave.cluster.transfer import SnapshotSender
from conclave.storage.log import LogStore

log = logging.getLogger(__name__)

ROUND_SECONDS: Final = 0.1
SLOW_ROUND_SECONDS: Final = 1.0
SUCCESSOR_CONTACT_SECONDS_MAX: Final = 1.0
LED_SECONDS_MIN: Final = 15.0
"""A damaged leader goes on for so long: whoever made it lead, by stopping or on purpose, is done with that then."""
RELIEF_PAUSE_SECONDS: Final = 60.0
"""Pause between two attempts of a damaged leader to be relieved, for nothing is written meanwhile."""
CUT_ENTRIES: Final = 512
"""Entries cut by one job of the writer, so that appends get in between."""


class Upkeep:
    """The periodic work of one node; owned, and stopped, by its participation."""

    def __init__(
        self,
        *,
        driver: Driver,
        links: Links,
        members: Members,
        renewal: Renewal,
        roster: Roster,
        sender: SnapshotSender,
        writer: Writer,
        log: LogStore,
        machine: StateMachine,
        announcement: Callable[[], Announce],
        trailing_entries: int,
        clock: Callable[[], float],
        utc_now: Callable[[], dt.datetime],
    ) -> None:
        self._driver = driver
        self._links = links
        self._members = members
        self._renewal = renewal
        self._roster = roster
        self._sender = sender
        self._writer = writer
        self._log = log
        self._machine = machine
        self._announcement = announcement
        self._trailing_entries = trailing_entries
        self._clock = clock
        self._utc_now = utc_now
        self._tasks: list[asyncio.Task[None]] = []
        self._in_snapshot_since: dict[int, float] = {}
        self._is_cutting = False
        self._led_since: float | None = None
        self._relief_at = 0.0  # not before then

    def start(self) -> None:
        """Begin."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._repeat(ROUND_SECONDS, self._look_after_leadership), name="leadership upkeep"),
            loop.create_task(self._repeat(ROUND_SECONDS, self._look_after_members), name="membership upkeep"),
            loop.create_task(self._repeat(SLOW_ROUND_SECONDS, self._look_after_log), name="log upkeep"),
            loop.create_task(self._repeat(SLOW_ROUND_SECONDS, self._renewal.attempt), name="certificate upkeep"),
        ]

    async def stop(self) -> None:
        """End."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _repeat(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while not self._driver.is_halted:
            try:
                await work()
            except ClusterError as error:
                log.debug("tried again soon", extra={"reason": str(error)})
            except Exception:  # the edge of this loop: one thing that fails must not end all that is to come
                log.exception("periodic work failed")
            await asyncio.sleep(seconds)

    # -- leadership --

    async def _look_after_leadership(self) -> None:
        now = self._clock()
        matches = self._driver.matches()
        self._roster.announced(self._roster.raft_id, self._announcement())
        self._roster.watch(now, leads=self._driver.standing is Standing.LEADER)
        wall_clock_ns = int(self._utc_now().timestamp() * 1e9)
        changed = self._roster.assess(matches, self._driver.commit_index, now=now, wall_clock_ns=wall_clock_ns)
        if not self._driver.is_leader:
            self._led_since = None
            return
        if self._led_since is None:
            self._led_since = now
        for peer in changed:
            _tell_health(peer)
        self._offer_snapshots_anew(now)
        if not self._driver.is_handing_over:
            self._consider_handing_over(now, now - self._led_since, matches)

    def _consider_handing_over(self, now: float, led_seconds: float, matches: Mapping[int, int]) -> None:
        """Let somebody else lead who serves better. This node may have had to: nobody else had the newest log, or was up."""
        own = self._announcement()
        if own.is_sealed:
            find = self._roster.unsealed_successors
        elif own.is_damaged and led_seconds >= LED_SECONDS_MIN and now >= self._relief_at:
            find = self._roster.whole_successors
        else:
            return
        found = find(matches, now=now, contact_seconds_max=SUCCESSOR_CONTACT_SECONDS_MAX)
        if found:
            self._relief_at = now + RELIEF_PAUSE_SECONDS
            self._driver.transfer(found[0])

    def _offer_snapshots_anew(self, now: float) -> None:
        taking = self._driver.peers_in_snapshot()
        self._in_snapshot_since = {peer: self._in_snapshot_since.get(peer, now) for peer in taking}
        for peer, since in self._in_snapshot_since.items():
            if self._sender.is_silent(peer, since):
                self._driver.snapshot_failed(peer)
                self._in_snapshot_since[peer] = now

    async def _look_after_members(self) -> None:
        if self._driver.standing is Standing.LEADER:
            await self._members.promote_chosen(self._clock())
            await self._members.remove_dead(self._clock())
            await self._members.correct_addresses()

    # -- the log --

    async def _look_after_log(self) -> None:
        self._links.announce()
        self._sender.expire(has_taker=bool(self._driver.peers_in_snapshot()))
        if self._is_cutting:
            return
        facts = LogFacts(
            first=self._log.first_index,
            last=self._log.last_index,
            durable=self._machine.durable_index,
            trail=self._driver.trail_first,
            cap=self._driver.cap_first,
            matches=tuple(self._driver.active_matches()),
            pinned=self._sender.pinned_index,
        )
        index = compaction_index(facts, trailing_entries=self._trailing_entries)
        if index is not None:
            self._is_cutting = True
            self._cut(index)

    def _cut(self, index: int) -> None:
        """Cut the log up to an index, a piece at a time."""
        piece = min(index, self._log.first_index - 1 + CUT_ENTRIES)

        def done() -> None:
            if piece < index and not self._driver.is_halted:
                self._cut(index)
            else:
                self._is_cutting = False

        self._writer.submit(Compact(piece), done)


def _tell_health(peer: Peer) -> None:
    if peer.is_healthy:
        log.info("a member is healthy", extra={"node_id": peer.node_id})
    else:
        silent_seconds = None if peer.last_contact_seconds is None else round(peer.last_contact_seconds, 1)
        log.warning(
            "a member is not healthy",
            extra={"node_id": peer.node_id, "silent_seconds": silent_seconds, "last_index": peer.last_index},
        )
