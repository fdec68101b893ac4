"""Changing who belongs to the cluster: what only a leader may do, one change at a time.

Each change is one entry that carries the member it is about, and is done when this node has applied it. Whoever asks hears
of it then; if leadership is lost meanwhile, he hears that, and that it may have happened. Asking again is safe: a node that
was added and never got its ticket gets another one, and removing a member that is gone says so.

A change that would leave no majority of reachable voters is refused: it could never be undone.

What may join is decided in `join.py`, who is promoted or dead in `autopilot.py`, what a record looks like in
`membership.py`.
"""

import asyncio
import datetime as dt
import logging
from collections.abc import Callable
from typing import Final

from msgspec import structs

from conclave.cluster.autopilot import choose_promotion, choose_removal, has_caught_up
from conclave.cluster.certificates import is_authority_key, sign_request
from conclave.cluster.driver import Driver
from conclave.cluster.errors import JoinRefused, NoQuorum, NotLeader, RemovalRefused
from conclave.cluster.join import Admission, decide_admission
from conclave.cluster.membership import Identity, Member, change_for, encode_record, majority_is_among
from conclave.cluster.raft import ConfChangeKind
from conclave.cluster.replica import JoinTicket
from conclave.cluster.roster import Roster
from conclave.cluster.surroundings import Surroundings

log = logging.getLogger(__name__)

CHANGE_SECONDS_MAX: Final = 10.0
"""How long a membership change may take, and how long it may have to wait for the one before."""


class Members:
    """The membership operations of one node.

    Args:
        identity: of this node, as it is now.
        driver: puts changes into the log.
        roster: who belongs now.
        validity: of the certificates of new members.
        surroundings: time and randomness.
    """

    def __init__(
        self,
        identity: Callable[[], Identity],
        driver: Driver,
        roster: Roster,
        *,
        validity: dt.timedelta,
        surroundings: Surroundings,
    ) -> None:
        self._identity = identity
        self._driver = driver
        self._roster = roster
        self._validity = validity
        self._clock = surroundings.clock
        self._surroundings = surroundings
        self._changed_at: float | None = None
        self._turn = asyncio.Lock()  # a change is decided on what the one before has left

    async def admit(
        self,
        *,
        node_id: str,
        cluster_address: str,
        request_pem: bytes,
        incarnation: bytes,
        is_voter: bool,
        authority_key_pem: bytes,
    ) -> JoinTicket:
        """Add a node as a learner and return its ticket; see `replica.Membership.admit`.

        Raises:
            NoQuorum: it was not confirmed in time; it may still happen, and may be asked for again.
        """
        async with self._turn:
            self._check_leads()
            identity = self._identity()
            if not is_authority_key(identity.authority_pem, authority_key_pem):
                raise JoinRefused("the key of this cluster's authority is not at hand; see this node's log")
            admission, member = decide_admission(
                self._driver.record,
                node_id=node_id,
                cluster_address=cluster_address,
                incarnation=incarnation,
                has_taken_part=self._has_taken_part(node_id),
            )
            raft_id = member.raft_id if member is not None else new_raft_id(self._surroundings.random_bytes)
            certificate_pem = sign_request(
                request_pem,
                cluster_id=identity.cluster_id,
                raft_id=raft_id,
                node_id=node_id,
                authority_pem=identity.authority_pem,
                authority_key_pem=authority_key_pem,
                now=self._surroundings.utc_now(),
                validity=self._validity,
            )
            if admission is Admission.ADD:
                new = Member(raft_id, node_id, cluster_address, "", incarnation, is_voter)
                await self._change(ConfChangeKind.ADD_LEARNER, new)
                log.info("added a node", extra={"node_id": node_id, "raft_id": raft_id})
            record = encode_record(self._driver.record)
            return JoinTicket(identity.cluster_id, raft_id, certificate_pem, identity.authority_pem, record)

    async def remove(self, node_id: str) -> bool:
        """Remove a member; see `replica.Membership.remove`.

        Raises:
            RemovalRefused: what would be left is no reachable majority.
            NoQuorum: it was not confirmed in time; it may still happen.
        """
        async with self._turn:
            self._check_leads()
            member = self._driver.record.named(node_id)
            if member is None:
                return False
            self.check_is_dispensable(node_id, "be removed")
            await self._change(ConfChangeKind.REMOVE, member)
            log.info("removed a node", extra={"node_id": node_id, "raft_id": member.raft_id})
            return True

    async def promote(self, node_id: str) -> bool:
        """Let a member vote; see `replica.Membership.promote`.

        Raises:
            NoQuorum: it was not confirmed in time; it may still happen.
        """
        async with self._turn:
            self._check_leads()
            record = self._driver.record
            member = record.named(node_id)
            if member is None:
                return False
            wanted = structs.replace(member, may_vote=True)
            seen = next(seen for seen in self._roster.observations(self._clock()) if seen.raft_id == member.raft_id)
            if not record.is_voter(member.raft_id) and has_caught_up(
                self._roster.rules, seen, commit=self._driver.commit_index
            ):
                await self._change(ConfChangeKind.ADD_VOTER, wanted)
                log.info("promoted a node to a voter", extra={"node_id": node_id, "raft_id": member.raft_id})
            elif not member.may_vote:
                await self._change(ConfChangeKind.UPDATE, wanted)
            return True

    async def demote(self, node_id: str) -> bool:
        """Take a member's vote; see `replica.Membership.demote`.

        Raises:
            RemovalRefused: what would be left is no reachable majority.
            NoQuorum: it was not confirmed in time; it may still happen.
        """
        async with self._turn:
            self._check_leads()
            record = self._driver.record
            member = record.named(node_id)
            if member is None:
                return False
            wanted = structs.replace(member, may_vote=False)
            if record.is_voter(member.raft_id):
                self.check_is_dispensable(node_id, "lose its vote")
                await self._change(ConfChangeKind.ADD_LEARNER, wanted)
                log.info("took the vote of a node", extra={"node_id": node_id, "raft_id": member.raft_id})
            elif member.may_vote:
                await self._change(ConfChangeKind.UPDATE, wanted)
            return True

    def check_is_dispensable(self, node_id: str, what: str) -> None:
        """See that the cluster can do without a member's vote.

        Args:
            node_id: the name of a member.
            what: becomes of it, for the text: "be removed".

        Raises:
            RemovalRefused: it cannot.
        """
        member = self._driver.record.named(node_id)
        assert member is not None, "asked for members only"
        voters = self._driver.record.conf_state.voters
        if voters == (member.raft_id,):
            raise RemovalRefused(f"node {member.node_id!r} is the only voter of this cluster and cannot {what}")
        remaining = [voter for voter in voters if voter != member.raft_id]
        reachable = self._roster.reachable(self._clock())
        if member.raft_id in voters and not majority_is_among(remaining, reachable):
            raise RemovalRefused(
                f"node {member.node_id!r} cannot {what}: of the {len(remaining)} voters that would be left, no majority "
                "can be reached; remove the dead ones first"
            )

    async def promote_chosen(self, now: float) -> None:
        """Make the learner a voter that autopilot has chosen, if there is one."""
        async with self._turn:
            self._check_leads()
            observations = self._roster.observations(now)
            raft_id = choose_promotion(self._roster.rules, observations, commit=self._driver.commit_index)
            member = self._driver.record.member(raft_id)
            if member is not None:
                await self._change(ConfChangeKind.ADD_VOTER, member)
                log.info("promoted a node to a voter", extra={"node_id": member.node_id, "raft_id": raft_id})

    async def remove_dead(self, now: float) -> None:
        """Remove the member that autopilot holds for dead, if there is one; never soon after another change."""
        quiet_seconds = self._roster.rules.server_stabilization_time_seconds
        if self._changed_at is not None and now - self._changed_at < quiet_seconds:
            return
        async with self._turn:
            self._check_leads()
            observations = self._roster.observations(now)
            raft_id = choose_removal(self._roster.rules, observations, commit=self._driver.commit_index)
            member = self._driver.record.member(raft_id)
            if member is not None:
                log.warning("removes a dead node", extra={"node_id": member.node_id, "raft_id": raft_id})
                await self._change(ConfChangeKind.REMOVE, member)

    async def correct_addresses(self) -> None:
        """Record the addresses of a member that says it has others than the log knows."""
        async with self._turn:
            self._check_leads()
            member = self._roster.changed_member()
            if member is not None:
                await self._change(ConfChangeKind.UPDATE, member)
                address = member.cluster_address
                log.info(
                    "recorded the addresses of a node", extra={"node_id": member.node_id, "cluster_address": address}
                )

    def _check_leads(self) -> None:
        if not self._driver.is_leader:
            raise NotLeader("this node does not lead")

    def _has_taken_part(self, node_id: str) -> bool:
        member = self._driver.record.named(node_id)
        return member is not None and self._driver.matches().get(member.raft_id, 0) > 0

    async def _change(self, kind: ConfChangeKind, member: Member) -> None:
        driver, watch = self._driver, self._driver.watch
        if not await watch.until(lambda: driver.may_change, timeout_seconds=CHANGE_SECONDS_MAX):
            raise NoQuorum("another membership change does not come to its end")
        self._changed_at = self._clock()
        ticket = driver.propose_change(change_for(kind, member))
        is_settled = await watch.until(
            lambda: driver.has_changed(ticket) or not driver.is_leader, timeout_seconds=CHANGE_SECONDS_MAX
        )
        if not is_settled:
            raise NoQuorum("the membership change was not confirmed in time; it may still happen")
        if not driver.has_changed(ticket):
            raise NotLeader("leadership was lost; whether the membership has changed is for the next leader to say")


def new_raft_id(random_bytes: Callable[[int], bytes]) -> int:
    """Return a random id of 63 bits, never 0."""
    return (int.from_bytes(random_bytes(8)) >> 1) or 1
