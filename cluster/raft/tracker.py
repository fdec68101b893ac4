"""The configuration in force, and the progress of each of its members.

`Configuration` is immutable and knows who counts; `Tracker` is what a core keeps of it while it runs: progress, votes,
and the same sets in ascending order, since nothing may ever be done in the order of a hash table.
"""

from collections.abc import Mapping

import msgspec

from conclave.cluster.raft import quorum
from conclave.cluster.raft.messages import ConfState
from conclave.cluster.raft.progress import Inflights, Progress
from conclave.cluster.raft.quorum import VoteResult


class Configuration(msgspec.Struct, frozen=True):
    """Who takes part, and how.

    Rules: learners are voters of neither half; `learners_next` are voters of the outgoing half that become learners when
    the joint configuration is left; outside a joint configuration `outgoing` and `learners_next` are empty.
    """

    incoming: frozenset[int] = frozenset()
    outgoing: frozenset[int] = frozenset()
    learners: frozenset[int] = frozenset()
    learners_next: frozenset[int] = frozenset()
    auto_leave: bool = False

    @property
    def is_joint(self) -> bool:
        """Tell whether two majorities are needed."""
        return bool(self.outgoing)

    def conf_state(self) -> ConfState:
        """Return the stored form."""
        return ConfState(
            tuple(sorted(self.incoming)),
            tuple(sorted(self.outgoing)),
            tuple(sorted(self.learners)),
            tuple(sorted(self.learners_next)),
            self.auto_leave,
        )


class Tracker:
    """Members with their progress, and the votes of an election."""

    __slots__ = (
        "_incoming",
        "_max_inflight_bytes",
        "_max_inflight_messages",
        "_outgoing",
        "conf_state",
        "configuration",
        "members",
        "progress",
        "voters",
        "votes",
    )

    def __init__(self, max_inflight_messages: int, max_inflight_bytes: int) -> None:
        self._max_inflight_messages = max_inflight_messages
        self._max_inflight_bytes = max_inflight_bytes
        self.votes: dict[int, bool] = {}
        self.install(Configuration(), {})

    def install(self, configuration: Configuration, progress: Mapping[int, Progress]) -> None:
        """Put a configuration into force."""
        self.configuration = configuration
        self.conf_state = configuration.conf_state()
        self.progress = dict(sorted(progress.items()))
        self.members = tuple(self.progress)
        self.voters = tuple(sorted(configuration.incoming | configuration.outgoing))
        self._incoming = self.conf_state.voters
        self._outgoing = self.conf_state.voters_outgoing

    def new_progress(self, next_index: int, *, recently_active: bool = False) -> Progress:
        """Return the progress of a peer of which nothing is known yet."""
        inflights = Inflights(self._max_inflight_messages, self._max_inflight_bytes)
        return Progress(next_index, inflights, recently_active=recently_active)

    def reset_progress(self, next_index: int) -> None:
        """Forget what was known of the members, as a new term demands."""
        for member in self.members:
            self.progress[member] = self.new_progress(next_index)

    def is_learner(self, member: int) -> bool:
        """Tell whether a member has no vote."""
        return member in self.configuration.learners

    @property
    def is_singleton(self) -> bool:
        """Tell whether one voter decides alone."""
        return len(self._incoming) == 1 and not self._outgoing

    def committed_index(self) -> int:
        """Return the highest index that the voters hold."""
        progress = self.progress
        if not self._outgoing:
            # The same as below for the common case, without an intermediate table.
            held = sorted([progress[voter].match for voter in self._incoming])
            return held[(len(held) - 1) // 2] if held else quorum.UNLIMITED_INDEX
        return self.joint_index({voter: progress[voter].match for voter in self.voters})

    def joint_index(self, held: Mapping[int, int]) -> int:
        """Return the highest number that the voters hold of `held`."""
        return quorum.joint_committed_index(self._incoming, self._outgoing, held)

    def quorum_is_active(self, own_id: int) -> bool:
        """Tell whether a quorum of voters answered lately; this node counts as active."""
        votes = {voter: voter == own_id or self.progress[voter].recently_active for voter in self.voters}
        return quorum.joint_vote_result(self._incoming, self._outgoing, votes) is VoteResult.WON

    def record_vote(self, voter: int, granted: bool) -> None:
        """Note a vote; only the first answer of each voter counts."""
        self.votes.setdefault(voter, granted)

    def is_split(self) -> bool:
        """Whether a vote was refused, and at most one voter owes an answer: it may be the leader that is gone.

        More than one may well be voters whose disks are slow, and who make a winner yet.
        """
        return False in self.votes.values() and sum(voter not in self.votes for voter in self.voters) <= 1

    def vote_result(self) -> VoteResult:
        """Return how the election stands."""
        return quorum.joint_vote_result(self._incoming, self._outgoing, self.votes)
