"""Membership changes, pure: a configuration and its progress in, the next ones out, or an error and nothing changed.

A *simple* change may alter one voter at most, so that any majority before and any after it meet. Everything else goes
through a *joint* configuration that needs both majorities, and is then left. A member that stays keeps its progress, in
whatever role.

Source: Ongaro's dissertation, chapter 4; the details (idempotent changes, demotion by way of `learners_next`) as in etcd's
`confchange` package, whose test data is our judge.
"""

from collections.abc import Callable, Iterable, Mapping

from conclave.cluster.raft.errors import ConfChangeError
from conclave.cluster.raft.messages import (
    NO_NODE,
    ConfChange,
    ConfChangeKind,
    ConfChangeTransition,
    ConfChangeV2,
    ConfState,
)
from conclave.cluster.raft.progress import Progress
from conclave.cluster.raft.tracker import Configuration

Members = tuple[Configuration, dict[int, Progress]]
"""A configuration and the progress of exactly its members."""


def enters_joint(change: ConfChangeV2) -> bool:
    """Tell whether a change goes through a joint configuration."""
    return change.transition is not ConfChangeTransition.AUTO or len(change.changes) > 1


def leaves_joint(change: ConfChangeV2) -> bool:
    """Tell whether a change is the one that leaves a joint configuration."""
    return not change.changes and change.transition is ConfChangeTransition.AUTO


class Changer:
    """Works out what a change makes of one configuration.

    Args:
        configuration: the one in force.
        progress: of each of its members.
        new_progress: makes the progress of a member that is added.
    """

    def __init__(
        self,
        configuration: Configuration,
        progress: Mapping[int, Progress],
        new_progress: Callable[[], Progress],
    ) -> None:
        self._before = configuration
        self._incoming = set(configuration.incoming)
        self._outgoing = set(configuration.outgoing)
        self._learners = set(configuration.learners)
        self._learners_next = set(configuration.learners_next)
        self._progress = dict(progress)
        self._new_progress = new_progress

    def apply(self, change: ConfChangeV2) -> Members:
        """Return what `change` leads to.

        Raises:
            ConfChangeError: it is not possible from here.
        """
        if leaves_joint(change):
            return self.leave_joint()
        if enters_joint(change):
            return self.enter_joint(change.changes, auto_leave=change.transition is not ConfChangeTransition.EXPLICIT)
        return self.simple(change.changes)

    def simple(self, changes: Iterable[ConfChange]) -> Members:
        """Return what changes that alter one voter at most lead to.

        Raises:
            ConfChangeError: the configuration is joint, or more voters would change, or none would be left.
        """
        if self._before.is_joint:
            raise ConfChangeError("can't apply simple config change in joint config")
        self._alter(changes)
        if len(self._incoming ^ self._before.incoming) > 1:
            raise ConfChangeError("more than one voter changed without entering joint config")
        return self._result(auto_leave=False)

    def enter_joint(self, changes: Iterable[ConfChange], *, auto_leave: bool) -> Members:
        """Return the joint configuration of the present one and what `changes` make of it.

        Raises:
            ConfChangeError: it is joint already, or has no voters, or none would be left.
        """
        if self._before.is_joint:
            raise ConfChangeError("config is already joint")
        if not self._incoming:
            raise ConfChangeError("can't make a zero-voter config joint")
        self._outgoing = set(self._incoming)
        self._alter(changes)
        return self._result(auto_leave=auto_leave)

    def leave_joint(self) -> Members:
        """Return the incoming half, with the learners that waited for this.

        Raises:
            ConfChangeError: the configuration is not joint.
        """
        if not self._before.is_joint:
            raise ConfChangeError("can't leave a non-joint config")
        self._learners |= self._learners_next
        self._learners_next = set()
        for member in self._outgoing - self._incoming - self._learners:
            del self._progress[member]
        self._outgoing = set()
        return self._result(auto_leave=False)

    def _alter(self, changes: Iterable[ConfChange]) -> None:
        alter = {
            ConfChangeKind.ADD_VOTER: self._make_voter,
            ConfChangeKind.ADD_LEARNER: self._make_learner,
            ConfChangeKind.REMOVE: self._remove,
            ConfChangeKind.UPDATE: self._update,
        }
        for change in changes:
            # The application turns down a change by setting its node to nobody.
            if change.node != NO_NODE:
                alter[change.kind](change.node)
        if not self._incoming:
            raise ConfChangeError("removed all voters")

    def _make_voter(self, member: int) -> None:
        self._learners.discard(member)
        self._learners_next.discard(member)
        self._incoming.add(member)
        if member not in self._progress:
            self._progress[member] = self._new_progress()

    def _make_learner(self, member: int) -> None:
        if member in self._learners:
            return
        progress = self._progress.get(member) or self._new_progress()
        self._remove(member)
        # A voter of the outgoing half stays one until the joint configuration is left.
        (self._learners_next if member in self._outgoing else self._learners).add(member)
        self._progress[member] = progress

    def _remove(self, member: int) -> None:
        self._incoming.discard(member)
        self._learners.discard(member)
        self._learners_next.discard(member)
        if member not in self._outgoing:
            self._progress.pop(member, None)

    def _update(self, _member: int) -> None:
        """Nothing: the caller keeps what it wants to know of a member elsewhere."""

    def _result(self, *, auto_leave: bool) -> Members:
        after = Configuration(
            frozenset(self._incoming),
            frozenset(self._outgoing),
            frozenset(self._learners),
            frozenset(self._learners_next),
            auto_leave,
        )
        check(after, self._progress)
        return after, self._progress


def check(configuration: Configuration, progress: Mapping[int, Progress]) -> None:
    """Assert the rules of `Configuration`."""
    voters = configuration.incoming | configuration.outgoing
    assert set(progress) == voters | configuration.learners, "a member without progress, or progress without a member"
    assert not configuration.learners & voters, "a learner votes"
    assert configuration.learners_next <= configuration.outgoing, "who becomes a learner later is no outgoing voter"
    assert configuration.is_joint or not configuration.auto_leave, "nothing to leave"


def restore(conf_state: ConfState, new_progress: Callable[[], Progress]) -> Members:
    """Return the configuration that a stored one stands for, by the changes that lead to it.

    Raises:
        ConfChangeError: no changes lead there.
    """
    members: Members = (Configuration(), {})

    def added(node: int) -> ConfChange:
        return ConfChange(ConfChangeKind.ADD_VOTER, node)

    incoming = [ConfChange(ConfChangeKind.REMOVE, node) for node in conf_state.voters_outgoing]
    incoming += [added(node) for node in conf_state.voters]
    incoming += [ConfChange(ConfChangeKind.ADD_LEARNER, node) for node in conf_state.learners]
    incoming += [ConfChange(ConfChangeKind.ADD_LEARNER, node) for node in conf_state.learners_next]
    if conf_state.voters_outgoing:
        for node in conf_state.voters_outgoing:
            members = Changer(*members, new_progress).simple([added(node)])
        members = Changer(*members, new_progress).enter_joint(incoming, auto_leave=conf_state.auto_leave)
    else:
        for change in incoming:
            members = Changer(*members, new_progress).simple([change])
    assert members[0].conf_state() == conf_state, "a stored configuration is not reached by changes"
    return members
