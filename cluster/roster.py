"""What one node knows of the others: who is a member (the log says so), and what each was last heard to say.

From the two come the answers for operators (`peers`), for autopilot (`observations`) and for handing over
(`successors`). It decides nothing and sends nothing; all times come in as arguments.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from conclave.cluster.autopilot import Observation, is_healthy
from conclave.cluster.frames import Announce
from conclave.cluster.membership import Member, MembershipRecord
from conclave.cluster.replica import AutopilotRules, Peer

WATCH_GAP_SECONDS_MAX: Final = 5.0
"""A leader that has looked away for longer (it was suspended, say) counts everybody's silence anew."""

_WHOLE, _DAMAGED, _UNKNOWN = range(3)
"""How good successors are, best first: unsealed and whole, unsealed, and those who have not said yet whether they are."""


class _Known:
    """What was heard of one member; seconds of the monotone clock unless they say otherwise."""

    __slots__ = (
        "address",
        "announce",
        "has_told_address",
        "healthy_since",
        "heard_at",
        "held_index",
        "is_healthy",
        "is_older_copy",
        "match",
        "stable_since_ns",
    )

    def __init__(self) -> None:
        self.announce: Announce | None = None
        self.address = ""  # where it is, as was last said: by itself, or as long as it has not, by another member
        self.has_told_address = False
        self.heard_at: float | None = None
        self.held_index = 0  # committed, and on its disk, as it has said itself
        self.is_older_copy = False
        self.match = 0
        self.is_healthy = False
        self.healthy_since = 0.0
        self.stable_since_ns: int | None = None


class Roster:
    """The members as one node sees them.

    Args:
        raft_id: this node.
        rules: when a member counts as healthy.
    """

    def __init__(self, raft_id: int, rules: AutopilotRules) -> None:
        self.raft_id = raft_id
        self.rules = rules
        self.record = MembershipRecord()
        self._known: dict[int, _Known] = {}
        self._watching_since: float | None = None
        self._watched_at = 0.0

    def set_record(self, record: MembershipRecord) -> None:
        """Take in who is a member now; what was heard of others is forgotten."""
        self.record = record
        self._known = {member.raft_id: self._known.get(member.raft_id) or _Known() for member in record.members}

    def heard(self, raft_id: int, now: float) -> bool:
        """Note that somebody has said something; return whether it is a member."""
        known = self._known.get(raft_id)
        if known is None:
            return False
        known.heard_at = now
        return True

    def announced(self, raft_id: int, announce: Announce) -> None:
        """Keep what a member tells about itself.

        One that begins anew with a log that ends before what it had applied runs on an older copy of its data directory
        (applied is only what is on its own disk): entries that it has acknowledged are gone from it.
        """
        known = self._known.get(raft_id)
        if known is None:
            return
        before, known.announce = known.announce, announce
        is_new = before is not None and before.session != announce.session != 0
        if is_new and announce.began_with_index < known.held_index:
            known.is_older_copy = True
        known.held_index = max(known.held_index, announce.applied_index)
        self.is_at(raft_id, announce.cluster_address)

    def is_at(self, raft_id: int, address: str) -> None:
        """Keep where a member says that it is; empty if it does not say."""
        known = self._known.get(raft_id)
        if known is not None and address:
            known.address, known.has_told_address = address, True

    def may_be_at(self, raft_id: int, address: str) -> None:
        """Keep where another member has heard a member to be, unless it was heard here."""
        known = self._known.get(raft_id)
        if known is not None and not known.has_told_address:
            known.address = address

    def heard_addresses(self) -> dict[int, str]:
        """Return where the members are that have said so."""
        return {raft_id: known.address for raft_id, known in self._known.items() if known.has_told_address}

    def is_older_copy(self, raft_id: int) -> bool:
        """Tell whether a member has come back on an older copy of its data directory."""
        known = self._known.get(raft_id)
        return known is not None and known.is_older_copy

    def assess(self, matches: Mapping[int, int], commit: int, *, now: float, wall_clock_ns: int) -> list[Peer]:
        """Judge every member's health, and return those whose health has changed.

        Args:
            matches: how far each member's log is, as far as a leader knows; without it, what they said counts.
            commit: the commit index.
            now: of the monotone clock, seconds.
            wall_clock_ns: the same moment as nanoseconds since 1970.
        """
        changed = []
        for raft_id, known in self._known.items():
            if raft_id == self.raft_id:
                known.heard_at = now
            announced = known.announce.last_index if known.announce is not None else 0
            known.match = matches.get(raft_id, announced)
            contact = None if known.heard_at is None else now - known.heard_at
            healthy = is_healthy(self.rules, match=known.match, commit=commit, last_contact_seconds=contact)
            if healthy != known.is_healthy:
                changed.append(raft_id)
            if healthy != known.is_healthy or known.stable_since_ns is None:
                known.is_healthy = healthy
                known.healthy_since = now
                known.stable_since_ns = wall_clock_ns
        return [peer for raft_id in changed if (peer := self.peer(raft_id, 0, now)) is not None]

    def watch(self, now: float, *, leads: bool) -> None:
        """Note that this node looks at the members, several times a second; what counts as silence begins with leading."""
        if not leads:
            self._watching_since = None
        elif self._watching_since is None or now - self._watched_at > WATCH_GAP_SECONDS_MAX:
            self._watching_since = now
        self._watched_at = now

    def _silent_seconds(self, known: _Known, now: float) -> float:
        if self._watching_since is None:
            return 0.0
        last = known.heard_at if known.heard_at is not None else known.healthy_since
        return max(0.0, now - max(last, self._watching_since))

    def reachable(self, now: float) -> list[int]:
        """Return the members, this node included, that were heard of within the time after which one is not healthy."""
        seconds_max = self.rules.last_contact_threshold_seconds
        return [
            raft_id
            for raft_id, known in self._known.items()
            if raft_id == self.raft_id or (known.heard_at is not None and now - known.heard_at <= seconds_max)
        ]

    def observations(self, now: float) -> list[Observation]:
        """Return what autopilot judges by, as of the last `assess`."""
        return [
            Observation(
                raft_id=member.raft_id,
                is_voter=self.record.is_voter(member.raft_id),
                may_vote=member.may_vote,
                match=known.match,
                last_contact_seconds=None if known.heard_at is None else now - known.heard_at,
                healthy_seconds=now - known.healthy_since if known.is_healthy else 0.0,
                silent_seconds=self._silent_seconds(known, now),
            )
            for member in self.record.members
            for known in (self._known[member.raft_id],)
        ]

    def successors(self, matches: Mapping[int, int], *, now: float, contact_seconds_max: float) -> Sequence[int]:
        """Return who could lead instead of this node, best first: unsealed voters heard of lately, the newest log first.

        Whoever has not answered this leader yet (`matches`: 0) may have died with the leader before it.
        """
        candidates = [
            raft_id
            for raft_id, known in self._known.items()
            if raft_id != self.raft_id
            and self.record.is_voter(raft_id)
            and not known.is_older_copy
            and known.announce is not None
            and known.announce.is_sealed is not True
            and matches.get(raft_id, 0) > 0
            and known.heard_at is not None
            and now - known.heard_at <= contact_seconds_max
        ]
        # What is damaged serves as far as it can; what never said that it is unsealed may be about to be.
        return sorted(candidates, key=lambda raft_id: (self._rank(raft_id), -matches.get(raft_id, 0), raft_id))

    def unsealed_successors(
        self, matches: Mapping[int, int], *, now: float, contact_seconds_max: float
    ) -> Sequence[int]:
        """Return those of `successors` that have said that they are unsealed."""
        found = self.successors(matches, now=now, contact_seconds_max=contact_seconds_max)
        return [raft_id for raft_id in found if self._rank(raft_id) <= _DAMAGED]

    def whole_successors(self, matches: Mapping[int, int], *, now: float, contact_seconds_max: float) -> Sequence[int]:
        """Return those of `unsealed_successors` that are healthy, and have not said that they are damaged."""
        found = self.successors(matches, now=now, contact_seconds_max=contact_seconds_max)
        return [raft_id for raft_id in found if self._rank(raft_id) == _WHOLE and self._known[raft_id].is_healthy]

    def _rank(self, raft_id: int) -> int:
        announce = self._known[raft_id].announce
        if announce is None or announce.is_sealed is not False:
            return _UNKNOWN
        return _DAMAGED if announce.is_damaged else _WHOLE

    def address_of(self, member: Member) -> str:
        """Return where to find a member: as was last said, or as it is recorded."""
        return self._known[member.raft_id].address or member.cluster_address

    def changed_member(self) -> Member | None:
        """Return a member as it should be recorded, if what it says about its addresses differs from the record."""
        for member in self.record.members:
            announce = self._known[member.raft_id].announce
            if announce is None or not announce.cluster_address:
                continue
            said = (announce.cluster_address, announce.api_address or member.api_address)
            if said != (member.cluster_address, member.api_address):
                return Member(member.raft_id, member.node_id, *said, member.incarnation, member.may_vote)
        return None

    def peers(self, leader: int, now: float) -> list[Peer]:
        """Return all members in order of their node ids, as of the last `assess`."""
        found = [self._peer(member, leader, now) for member in self.record.members]
        return sorted(found, key=lambda peer: peer.node_id)

    def peer(self, raft_id: int, leader: int, now: float) -> Peer | None:
        """Return one member; None if it is none."""
        member = self.record.member(raft_id)
        return None if member is None else self._peer(member, leader, now)

    def _peer(self, member: Member, leader: int, now: float) -> Peer:
        known = self._known[member.raft_id]
        said = known.announce
        contact = None if known.heard_at is None else max(0.0, now - known.heard_at)
        return Peer(
            node_id=member.node_id,
            raft_id=member.raft_id,
            cluster_address=member.cluster_address,
            api_address=(said.api_address if said is not None else "") or member.api_address,
            is_voter=self.record.is_voter(member.raft_id),
            is_leader=member.raft_id == leader,
            is_sealed=said.is_sealed if said is not None else None,
            version=said.version if said is not None else "",
            hostname=said.hostname if said is not None else "",
            last_index=known.match,
            last_term=said.last_term if said is not None else 0,
            last_contact_seconds=0.0 if member.raft_id == self.raft_id else contact,
            is_healthy=known.is_healthy,
            stable_since_ns=known.stable_since_ns,
            may_vote=member.may_vote,
        )
