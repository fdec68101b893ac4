"""Whole clusters as transcripts: the judge's commands, played with our core, printed in the judge's spelling.

Nodes with a log in memory, one list of messages in flight, and for asynchronous storage two queues of work a node. What
the library logs is not printed: the comparison leaves those lines out (see the judge's README).
"""

import random
from collections.abc import Callable

from conclave.cluster.raft import (
    NO_LIMIT,
    AppendJob,
    ApplyJob,
    ConfChange,
    ConfChangeError,
    ConfChangeTransition,
    ConfChangeV2,
    ConfState,
    EntryKind,
    HardState,
    MemoryStorage,
    Message,
    MessageKind,
    ProposalDropped,
    Raft,
    RaftConfig,
    ReadOnly,
    Ready,
    Role,
    Snapshot,
    SnapshotMeta,
    UnknownPeer,
    decode_conf_change,
)
from tests.transcripts.datadriven import Case
from tests.transcripts.printing import CHANGE_KINDS, ROLE, entry_text, message_text, progress_text, snapshot_text

APPEND_THREAD, APPLY_THREAD = "AppendThread", "ApplyThread"
ELECTION_TICKS, HEARTBEAT_TICKS = 3, 1


class Node:
    """One node with its storage, its state machine (the data applied so far), and its queues."""

    def __init__(self, config: RaftConfig, storage: MemoryStorage, *, is_async: bool) -> None:
        self.raft = Raft(config, storage, random.Random(1))
        self.storage = storage
        self.is_async = is_async
        self.append_work: list[tuple[AppendJob, HardState | None]] = []
        self.apply_work: list[ApplyJob] = []
        self.state = storage.snapshot().data
        self.handed = self.raft._hard_state()

    def store(self, job: AppendJob) -> None:
        self.storage.set_hard_state(job.hard_state)
        if job.snapshot is not None:
            self.storage.apply_snapshot(job.snapshot)
            self.state = job.snapshot.data
        if job.entries:
            self.storage.append(job.entries)

    def apply(self, job: ApplyJob) -> None:
        for entry in job.entries:
            if entry.kind is EntryKind.NORMAL:
                self.state += entry.data
            else:
                change = decode_conf_change(entry)
                self.raft.apply_conf_change(change)
                self.state += change.context
            self.storage.create_snapshot(entry.index, self.raft.conf_state, self.state)


class Environment:
    """The cluster of one file."""

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}
        self.messages: list[Message] = []
        self.out: list[str] = []
        self.is_quiet = False

    def run(self, case: Case) -> str:
        self.out = []
        command: Callable[[Case], None] = getattr(self, "do_" + case.command.replace("-", "_"))
        command(case)
        return "\n".join(self.out)

    def say(self, text: str, indent: str = "") -> None:
        self.out += [indent + line for line in text.split("\n")]

    @staticmethod
    def ids(case: Case) -> list[int]:
        return [int(word) for word in case.positional if word.isdigit()]

    def node(self, case: Case) -> Node:
        return self.nodes[self.ids(case)[0]]

    # -- commands --

    def do_add_nodes(self, case: Case) -> None:
        index = int(case.flag("index", "0"))
        voters, learners = (tuple(int(v) for v in case.values(kind)) for kind in ("voters", "learners"))
        for _ in range(self.ids(case)[0]):
            snapshot = None
            if index or voters or learners:
                state = ConfState(voters, (), learners)
                snapshot = Snapshot(SnapshotMeta(index, 1, state), case.flag("content").encode())
            new_id = len(self.nodes) + 1
            per_ready = case.flag("max-committed-size-per-ready")
            config = RaftConfig(
                id=new_id,
                election_ticks=ELECTION_TICKS,
                heartbeat_ticks=HEARTBEAT_TICKS,
                max_size_per_message=NO_LIMIT,
                max_inflight_messages=int(case.flag("inflight", str(2**31 - 1))),
                max_committed_bytes_per_ready=int(per_ready) if per_ready else None,
                pre_vote=case.flag("prevote") == "true",
                check_quorum=case.flag("checkquorum") == "true",
                read_only=ReadOnly.LEASE if case.flag("read-only") == "lease-based" else ReadOnly.SAFE,
                step_down_on_removal=case.flag("step-down-on-removal") == "true",
                disable_conf_change_validation=case.flag("disable-conf-change-validation") == "true",
                disable_proposal_forwarding=False,
                asks_for_votes_early=True,
                synchronous_storage=case.flag("async-storage-writes") != "true",
            )
            is_async = case.flag("async-storage-writes") == "true"
            self.nodes[new_id] = Node(config, MemoryStorage(snapshot), is_async=is_async)

    def do_campaign(self, case: Case) -> None:
        self.node(case).raft.campaign()

    def do_propose(self, case: Case) -> None:
        self._propose(lambda: self.node(case).raft.propose([case.positional[1].encode()]))

    def do_propose_conf_change(self, case: Case) -> None:
        changes = tuple(ConfChange(CHANGE_KINDS[word[0]], int(word[1:])) for word in case.input.split())
        change: ConfChange | ConfChangeV2
        if case.flag("v1") == "true":
            change = changes[0]
        else:
            transition = case.flag("transition", "auto")
            change = ConfChangeV2(changes, ConfChangeTransition[transition.upper()])
        self._propose(lambda: self.node(case).raft.propose_conf_change(change))

    def _propose(self, propose: Callable[[], object]) -> None:
        try:
            propose()
        except ProposalDropped:
            self.say("raft proposal dropped")

    def do_process_ready(self, case: Case) -> None:
        for node_id in self.ids(case):
            if len(self.ids(case)) > 1:
                self.say(f"> {node_id} handling Ready")
            self.handle_ready(node_id, "  " if len(self.ids(case)) > 1 else "")

    def do_process_append_thread(self, case: Case) -> None:
        self._process(case, "append", self.handle_append)

    def do_process_apply_thread(self, case: Case) -> None:
        self._process(case, "apply", self.handle_apply)

    def _process(self, case: Case, name: str, handle: Callable[[int, str], None]) -> None:
        for node_id in self.ids(case):
            if len(self.ids(case)) > 1:
                self.say(f"> {node_id} processing {name} thread")
            handle(node_id, "  " if len(self.ids(case)) > 1 else "")

    def do_deliver_msgs(self, case: Case) -> None:
        dropped = [int(v) for v in case.values("drop")]
        kind = case.flag("type")
        count = sum(self.deliver(node_id, kind, "") for node_id in self.ids(case))
        count += sum(self.deliver(node_id, kind, "", drop=True) for node_id in dropped)
        if count == 0:
            self.say("no messages")

    def do_stabilize(self, case: Case) -> None:
        ids = self.ids(case) or sorted(self.nodes)
        if case.flag("log-level") == "none":
            self.is_quiet, before = True, list(self.out)
            self._stabilize(ids)
            self.is_quiet, self.out = False, before
        else:
            self._stabilize(ids)

    def _stabilize(self, ids: list[int]) -> None:
        is_busy = True
        while is_busy:
            is_busy = False
            for node_id in ids:
                if self.nodes[node_id].raft.has_ready():
                    is_busy = True
                    self.say(f"> {node_id} handling Ready")
                    self.handle_ready(node_id, "  ")
            for node_id in ids:
                if any(message.to == node_id for message in self.messages):
                    is_busy = True
                    self.say(f"> {node_id} receiving messages")
                    self.deliver(node_id, "", "  ")
            for node_id in ids:
                if self.nodes[node_id].append_work:
                    is_busy = True
                    self.say(f"> {node_id} processing append thread")
                while self.nodes[node_id].append_work:
                    self.handle_append(node_id, "  ")
            for node_id in ids:
                if self.nodes[node_id].apply_work:
                    is_busy = True
                    self.say(f"> {node_id} processing apply thread")
                while self.nodes[node_id].apply_work:
                    self.handle_apply(node_id, "  ")

    def do_tick_election(self, case: Case) -> None:
        for _ in range(ELECTION_TICKS):
            self.node(case).raft.tick()

    def do_tick_heartbeat(self, case: Case) -> None:
        for _ in range(HEARTBEAT_TICKS):
            self.node(case).raft.tick()

    def do_set_randomized_election_timeout(self, case: Case) -> None:
        self.node(case).raft.randomized_election_ticks = int(case.flag("timeout"))

    def do_transfer_leadership(self, case: Case) -> None:
        self.nodes[int(case.flag("from"))].raft.transfer_leader(int(case.flag("to")))

    def do_forget_leader(self, case: Case) -> None:
        self.node(case).raft.forget_leader()

    def do_report_unreachable(self, case: Case) -> None:
        reporter, peer = self.ids(case)
        self.nodes[reporter].raft.report_unreachable(peer)

    def do_send_snapshot(self, case: Case) -> None:
        source, to = self.ids(case)
        raft = self.nodes[source].raft
        snapshot = self.nodes[source].storage.snapshot()
        message = Message(MessageKind.SNAPSHOT, to, source, raft.term, snapshot=snapshot)
        self.messages.append(message)
        self.say(message_text(message))

    def do_compact(self, case: Case) -> None:
        node_id, index = self.ids(case)
        self.nodes[node_id].storage.compact(index)
        self._say_log(self.nodes[node_id])

    def do_raft_log(self, case: Case) -> None:
        self._say_log(self.node(case))

    def _say_log(self, node: Node) -> None:
        first, last = node.storage.first_index(), node.storage.last_index()
        if last < first:
            self.say(f"log is empty: first index={first}, last index={last}")
            return
        for entry in node.storage.entries(first, last + 1, NO_LIMIT):
            self.say(entry_text(entry))

    def do_raft_state(self, case: Case) -> None:
        del case
        for node_id, node in sorted(self.nodes.items()):
            raft = node.raft
            voters = (*raft.conf_state.voters, *raft.conf_state.voters_outgoing)
            kind = "(Voter)" if node_id in voters else "(Non-Voter)"
            self.say(f"{node_id}: {ROLE[raft.role]} {kind} Term:{raft.term} Lead:{raft.leader}")

    def do_status(self, case: Case) -> None:
        raft = self.node(case).raft
        if raft.role is Role.LEADER:
            for peer, progress in raft.tracker.progress.items():
                self.say(f"{peer}: {progress_text(progress, is_learner=raft.tracker.is_learner(peer))}")

    def do_log_level(self, case: Case) -> None:
        self.is_quiet = case.positional[0] == "none"

    # -- work --

    def handle_ready(self, node_id: int, indent: str) -> None:
        node = self.nodes[node_id]
        if not node.raft.has_ready():
            self.say("<empty Ready>", indent)
            return
        ready = node.raft.ready()
        job = ready.append
        hard = None
        if job is not None and job.hard_state != node.handed:
            hard = node.handed = job.hard_state
        self._say_ready(node, ready, hard, indent)
        if node.is_async:
            self.messages += ready.messages
            if job is not None and (job.entries or job.snapshot or job.responses or hard):
                node.append_work.append((job, hard))
            if ready.apply is not None:
                node.apply_work.append(ready.apply)
            return
        if job is not None:
            node.store(job)
        own = [m for m in job.responses if m.to == node_id] if job is not None else []
        self.messages += ready.messages
        self.messages += [m for m in job.responses if m.to != node_id] if job is not None else []
        if ready.apply is not None:
            node.apply(ready.apply)
        for response in own:
            node.raft.step(response)
        if ready.apply is not None:
            for response in ready.apply.responses:
                node.raft.step(response)

    def _say_ready(self, node: Node, ready: Ready, hard: HardState | None, indent: str) -> None:
        job, me = ready.append, node.raft.id
        lines = []
        if ready.soft is not None:
            lines.append(f"Lead:{ready.soft.leader} State:{ROLE[ready.soft.role]}")
        if hard is not None:
            vote = f" Vote:{hard.vote}" if hard.vote else ""
            lines.append(f"HardState Term:{hard.term}{vote} Commit:{hard.commit}")
        if job is not None and job.entries:
            lines += ["Entries:", *[entry_text(entry) for entry in job.entries]]
        if job is not None and job.snapshot is not None:
            lines.append("Snapshot " + snapshot_text(job.snapshot))
        if ready.apply is not None:
            lines += ["CommittedEntries:", *[entry_text(entry) for entry in ready.apply.entries]]
        messages = [message_text(message) for message in ready.messages]
        if node.is_async:
            if job is not None and (job.entries or job.snapshot or job.responses or hard):
                messages.append(append_text(job, hard, me, with_responses=True))
            if ready.apply is not None:
                messages.append(apply_text(ready.apply, me, with_responses=True))
        elif job is not None:
            messages += [message_text(message) for message in job.responses if message.to != me]
        if messages:
            lines += ["Messages:", *messages]
        # The judge's flag is about entries, term and vote; ours is also set by a snapshot, which the judge stores apart.
        must_sync = job is not None and job.must_sync and (bool(job.entries) or job.snapshot is None)
        self.say(f"Ready MustSync={str(must_sync).lower()}:", indent)
        for line in lines:
            self.say(line, indent)

    def handle_append(self, node_id: int, indent: str) -> None:
        node = self.nodes[node_id]
        if not node.append_work:
            self.say("no append work to perform", indent)
            return
        job, hard = node.append_work.pop(0)
        self.say("Processing:", indent)
        self.say(append_text(job, hard, node_id, with_responses=False), indent)
        node.store(job)
        self.say("Responses:", indent)
        for response in job.responses:
            self.say(response_text(response), indent)
        self.messages += job.responses

    def handle_apply(self, node_id: int, indent: str) -> None:
        node = self.nodes[node_id]
        if not node.apply_work:
            self.say("no apply work to perform", indent)
            return
        job = node.apply_work.pop(0)
        self.say("Processing:", indent)
        self.say(apply_text(job, node_id, with_responses=False), indent)
        node.apply(job)
        self.say("Responses:", indent)
        for response in job.responses:
            self.say(response_text(response), indent)
        self.messages += job.responses

    def deliver(self, node_id: int, kind: str, indent: str, *, drop: bool = False) -> int:
        mine: list[Message] = []
        rest: list[Message] = []
        for message in self.messages:
            fits = message.to == node_id and (not kind or message_text(message).split(" ")[1] == kind)
            (mine if fits and not (drop and message.source == node_id) else rest).append(message)
        self.messages = rest
        for message in mine:
            text = response_text(message)
            if drop:
                self.say("dropped: " + text, indent)
                continue
            self.say(text, indent)
            try:
                self.nodes[node_id].raft.step(message)
            except UnknownPeer:
                self.say("raft: cannot step as peer not found", indent)
            except ConfChangeError as error:
                self.say(str(error), indent)
        return len(mine)


def response_text(message: Message) -> str:
    if message.kind is MessageKind.STORAGE_APPEND_RESPONSE:
        return message_text(message, source=APPEND_THREAD)
    if message.kind is MessageKind.STORAGE_APPLY_RESPONSE:
        return message_text(message, source=APPLY_THREAD)
    return message_text(message)


def _responses(responses: tuple[Message, ...]) -> str:
    return " Responses:[" + "".join("\n  " + response_text(r).replace("\n", "\n  ") for r in responses) + "\n]"


def append_text(job: AppendJob, hard: HardState | None, me: int, *, with_responses: bool) -> str:
    state = hard or HardState()
    message = Message(
        MessageKind.APPEND, me, me, state.term, commit=state.commit, entries=job.entries, snapshot=job.snapshot
    )
    suffix = _responses(job.responses) if with_responses and job.responses else ""
    return message_text(message, to=APPEND_THREAD, name="MsgStorageAppend", vote=state.vote, suffix=suffix)


def apply_text(job: ApplyJob, me: int, *, with_responses: bool) -> str:
    message = Message(MessageKind.APPEND, me, me, 0, entries=job.entries)
    suffix = _responses(job.responses) if with_responses else ""
    return message_text(message, to=APPLY_THREAD, name="MsgStorageApply", suffix=suffix)
