"""Our own transcripts: a cluster played by commands, told in our own words.

A file is a list of cases as in `datadriven`. What a command prints is what the members reported meanwhile (changes of role
and leader, votes, configurations, ignored messages), and then its own answer. `python -m tests.transcripts.own FILE...`
writes what is printed now into the files; read the difference before you commit it.

    cluster voters=3 [learners=N] [SETTING=N ...]    begin with so many members; settings are those of RaftConfig
    campaign N | elect N | resign N | forget N | connection-lost N | restart N [SETTING=N ...]
    tick COUNT [N ...]                               for these members, or all
    propose N WORD ... | change N [add=M] [learner=M] [remove=M] [transition=implicit] | leave-joint N
    transfer N to=M | unreachable N M | read N CONTEXT
    deliver | drop  [to=M] [from=M] [kind=K]         messages on their way, once, without those they bring about
    settle [without=(M,...)]                         until nobody has anything to say
    stuck N | write N [COUNT]                        a disk that finishes no write; let it finish the first of them
    sent | state | peers N | answers N | lease N     what is on its way; who is what; what a leader knows; reads; its lease
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from conclave.cluster.raft import (
    BecameCandidate,
    BecameFollower,
    BecameLeader,
    BecamePreCandidate,
    ConfChange,
    ConfChangeKind,
    ConfChangeTransition,
    ConfChangeV2,
    ConfigurationSwitched,
    ConfState,
    Entry,
    EntryKind,
    Event,
    Message,
    MessageIgnored,
    MessageKind,
    ProposalDropped,
    StepError,
    VoteGranted,
    VoteRefused,
    decode_conf_change,
)
from tests.cluster.raft.harness import Cluster
from tests.transcripts.datadriven import Case, read

FOLDER: Final = Path(__file__).parent
CHANGES: Final = {
    "add": ConfChangeKind.ADD_VOTER,
    "learner": ConfChangeKind.ADD_LEARNER,
    "remove": ConfChangeKind.REMOVE,
}


def files() -> list[Path]:
    """Return our transcripts."""
    return sorted(FOLDER.glob("*.txt"))


class Play:
    """The cluster of one file."""

    def __init__(self) -> None:
        self.cluster = Cluster()

    def run(self, case: Case) -> str:
        """Do what a case says; return what is to be printed."""
        command: Callable[[Case], list[str]] = getattr(self, "do_" + case.command.replace("-", "_"))
        answer = command(case)
        self._collect()
        return "\n".join([*self._news(), *answer])

    def _collect(self) -> None:
        """Let everybody do what there is to do, and tell of what led to nothing as well."""
        self.cluster.collect()
        for member in self.cluster.members.values():
            member.events += member.raft.ready().events

    def _news(self) -> list[str]:
        lines = []
        for member_id, member in sorted(self.cluster.members.items()):
            lines += [f"{member_id}: {event_text(event)}" for event in member.events]
            member.events.clear()
        return lines

    # -- what is done --

    def do_cluster(self, case: Case) -> list[str]:
        """Begin anew; what members report at their start is no news."""
        settings = _settings(case)
        voters, learners = settings.pop("voters"), settings.pop("learners", 0)
        self.cluster = Cluster(voters, learners, **settings)
        self._collect()
        self._news()
        return []

    def do_restart(self, case: Case) -> list[str]:
        self.cluster.members[_member(case)].restart(**_settings(case))
        self._collect()
        self._news()
        return []

    def do_campaign(self, case: Case) -> list[str]:
        self.cluster[_member(case)].campaign()
        return []

    def do_elect(self, case: Case) -> list[str]:
        self.cluster.elect(_member(case))
        return []

    def do_resign(self, case: Case) -> list[str]:
        self.cluster[_member(case)].resign()
        return []

    def do_forget(self, case: Case) -> list[str]:
        self.cluster[_member(case)].forget_leader()
        return []

    def do_connection_lost(self, case: Case) -> list[str]:
        self.cluster[_member(case)].leader_connection_lost()
        return []

    def do_tick(self, case: Case) -> list[str]:
        count, *members = (int(word) for word in case.positional)
        self.cluster.tick(count, *members)
        return []

    def do_propose(self, case: Case) -> list[str]:
        member, *words = case.positional
        return self._proposed(lambda: self.cluster[int(member)].propose([word.encode() for word in words])[1])

    def do_change(self, case: Case) -> list[str]:
        changes = [ConfChange(CHANGES[key], int(v)) for key, values in case.arguments if key in CHANGES for v in values]
        transition = ConfChangeTransition[case.flag("transition", "auto").upper()]
        change = ConfChangeV2(tuple(changes), transition)
        return self._proposed(lambda: self.cluster[_member(case)].propose_conf_change(change))

    def do_leave_joint(self, case: Case) -> list[str]:
        return self._proposed(lambda: self.cluster[_member(case)].propose_conf_change(ConfChangeV2()))

    @staticmethod
    def _proposed(propose: Callable[[], int]) -> list[str]:
        try:
            return [f"taken at index {propose()}"]
        except ProposalDropped as dropped:
            return [f"refused: {dropped}"]

    def do_transfer(self, case: Case) -> list[str]:
        self.cluster[_member(case)].transfer_leader(int(case.flag("to")))
        return []

    def do_unreachable(self, case: Case) -> list[str]:
        leader, peer = (int(word) for word in case.positional)
        self.cluster[leader].report_unreachable(peer)
        return []

    def do_read(self, case: Case) -> list[str]:
        member, context = (int(word) for word in case.positional)
        self.cluster[member].read_index(context)
        return []

    def do_deliver(self, case: Case) -> list[str]:
        lines = []
        for message in self._chosen(case):
            try:
                self.cluster.deliver(message)
            except StepError as error:
                lines.append(f"{message.to} refuses: {error}")
        return lines

    def do_drop(self, case: Case) -> list[str]:
        return [f"lost: {message_text(message)}" for message in self._chosen(case)]

    def _chosen(self, case: Case) -> list[Message]:
        kinds = [MessageKind[kind] for kind in case.values("kind")]
        to, source = case.flag("to"), case.flag("from")
        return self.cluster.take(*kinds, to=int(to) if to else None, source=int(source) if source else None)

    def do_settle(self, case: Case) -> list[str]:
        self.cluster.settle_without(*[int(member) for member in case.values("without")])
        return []

    def do_stuck(self, case: Case) -> list[str]:
        self.cluster.members[_member(case)].disk_is_stuck = True
        return []

    def do_write(self, case: Case) -> list[str]:
        member, *count = (int(word) for word in case.positional)
        self.cluster.members[member].write(*count)
        return []

    # -- what is asked --

    def do_sent(self, case: Case) -> list[str]:
        del case
        self.cluster.collect()
        return [message_text(message) for message in self.cluster.messages] or ["nothing"]

    def do_state(self, case: Case) -> list[str]:
        del case
        self.cluster.collect()
        return [
            f"{member_id} {member.raft.role.value} term={member.raft.term} leader={member.raft.leader} "
            f"commit={member.raft.commit_index} last={member.raft.last_index} "
            f"applied={' '.join(value.decode() for value in member.values) or '-'}"
            for member_id, member in sorted(self.cluster.members.items())
        ]

    def do_peers(self, case: Case) -> list[str]:
        return [
            f"{peer.id} {peer.state} match={peer.match} next={peer.next}"
            + " learner" * peer.is_learner
            + " paused" * peer.is_paused
            + " silent" * (not peer.recently_active)
            + f" inflight={peer.inflight}" * bool(peer.inflight)
            for peer in self.cluster[_member(case)].status().peers
        ]

    def do_answers(self, case: Case) -> list[str]:
        self.cluster.collect()
        reads = self.cluster.members[_member(case)].reads
        lines = [f"read {read.context} may be answered from index {read.index} on" for read in reads]
        reads.clear()
        return lines or ["none"]

    def do_lease(self, case: Case) -> list[str]:
        raft = self.cluster[_member(case)]
        usable = "usable" if raft.lease_usable else "not usable"
        return [f"{usable}; heartbeat {raft.confirmed_sequence} of {raft.heartbeat_sequence} is confirmed"]


def _member(case: Case) -> int:
    return int(case.positional[0])


def _settings(case: Case) -> dict[str, int]:
    return {key: int(values[0]) for key, values in case.arguments if values}


def event_text(event: Event) -> str:
    """Return an event in words."""
    match event:
        case BecameFollower(term=term, leader=leader):
            return f"follows {leader or 'nobody'} in term {term}"
        case BecamePreCandidate(term=term):
            return f"asks whether it could win term {term + 1}"
        case BecameCandidate(term=term):
            return f"stands for term {term}"
        case BecameLeader(term=term):
            return f"leads term {term}"
        case VoteGranted(candidate=candidate, term=term, pre_vote=is_pre):
            return f"{'would vote' if is_pre else 'votes'} for {candidate} in term {term}"
        case VoteRefused(candidate=candidate, term=term, pre_vote=is_pre):
            return f"{'would not vote' if is_pre else 'does not vote'} for {candidate} in term {term}"
        case ConfigurationSwitched(conf_state=state):
            return f"configuration is {configuration_text(state)}"
        case MessageIgnored(kind=kind, source=source, reason=reason):
            return f"ignores {kind.name if kind else 'a wish'} of {source}: {reason}"


def configuration_text(state: ConfState) -> str:
    """Return a configuration as `1 2 3 (from 1 2 4) learners 5`."""
    text = " ".join(map(str, state.voters))
    if state.voters_outgoing:
        text += f" (from {' '.join(map(str, state.voters_outgoing))})"
    if state.learners:
        text += f" learners {' '.join(map(str, state.learners))}"
    return text


def entry_text(entry: Entry) -> str:
    """Return an entry as `index:term=word`."""
    what = entry.data.decode() if entry.kind is EntryKind.NORMAL else _change_text(entry)
    return f"{entry.index}:{entry.term}={what or 'nothing'}"


def _change_text(entry: Entry) -> str:
    names = {kind: name for name, kind in CHANGES.items()}
    changes = decode_conf_change(entry).changes
    return "+".join(f"{names[change.kind]}-{change.node}" for change in changes) or "leave-joint"


def message_text(message: Message) -> str:
    """Return a message in one line; what a kind does not use is left out."""
    text = f"{message.source}>{message.to} {message.kind.name} term={message.term}"
    if message.index or message.log_term:
        text += f" at={message.index}:{message.log_term}"
    if message.commit:
        text += f" commit={message.commit}"
    if message.sequence:
        text += f" number={message.sequence}"
    if message.reject:
        text += f" refused hint={message.reject_hint}"
    if message.forced:
        text += " forced"
    return text + "".join(f" {entry_text(entry)}" for entry in message.entries)


def rewrite(path: Path) -> None:
    """Write what is printed now into a transcript."""
    play, lines = Play(), path.read_text().split("\n")
    for case in reversed([(case, play.run(case)) for case in read(path)]):
        start, printed = case[0].line, case[1]
        first = lines.index("----", start - 1) + 1
        last = first + len(case[0].expected.split("\n")) if case[0].expected else first
        lines[first:last] = printed.split("\n") if printed else []
    path.write_text("\n".join(lines))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        rewrite(Path(name))
