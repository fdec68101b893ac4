"""Our types in the judge's spelling."""

from conclave.cluster.raft import (
    ConfChangeKind,
    ConfState,
    Entry,
    EntryKind,
    Message,
    MessageKind,
    Role,
    Snapshot,
    decode_conf_change,
)
from conclave.cluster.raft.progress import Progress, ProgressState
from conclave.cluster.raft.tracker import Configuration

KIND = {
    MessageKind.APPEND: "MsgApp",
    MessageKind.APPEND_RESPONSE: "MsgAppResp",
    MessageKind.HEARTBEAT: "MsgHeartbeat",
    MessageKind.HEARTBEAT_RESPONSE: "MsgHeartbeatResp",
    MessageKind.VOTE: "MsgVote",
    MessageKind.VOTE_RESPONSE: "MsgVoteResp",
    MessageKind.PRE_VOTE: "MsgPreVote",
    MessageKind.PRE_VOTE_RESPONSE: "MsgPreVoteResp",
    MessageKind.SNAPSHOT: "MsgSnap",
    MessageKind.TIMEOUT_NOW: "MsgTimeoutNow",
    MessageKind.TRANSFER_LEADER: "MsgTransferLeader",
    MessageKind.READ_INDEX: "MsgReadIndex",
    MessageKind.READ_INDEX_RESPONSE: "MsgReadIndexResp",
    MessageKind.PROPOSE: "MsgProp",
    MessageKind.STORAGE_APPEND_RESPONSE: "MsgStorageAppendResp",
    MessageKind.STORAGE_APPLY_RESPONSE: "MsgStorageApplyResp",
}
ROLE = {
    Role.FOLLOWER: "StateFollower",
    Role.PRE_CANDIDATE: "StatePreCandidate",
    Role.CANDIDATE: "StateCandidate",
    Role.LEADER: "StateLeader",
}
STATE = {
    ProgressState.PROBE: "StateProbe",
    ProgressState.REPLICATE: "StateReplicate",
    ProgressState.SNAPSHOT: "StateSnapshot",
}
CHANGE = {
    ConfChangeKind.ADD_VOTER: "v",
    ConfChangeKind.ADD_LEARNER: "l",
    ConfChangeKind.REMOVE: "r",
    ConfChangeKind.UPDATE: "u",
}

_VOTES = (MessageKind.VOTE, MessageKind.VOTE_RESPONSE, MessageKind.PRE_VOTE, MessageKind.PRE_VOTE_RESPONSE)
"""The judge's votes do not tell what is committed."""
CHANGE_KINDS = {letter: kind for kind, letter in CHANGE.items()}


def _ids(ids: frozenset[int]) -> str:
    return "(" + " ".join(str(i) for i in sorted(ids)) + ")"


def configuration_line(configuration: Configuration) -> str:
    """Return a configuration as `voters=(1 2)&&(1) learners=(3)`."""
    text = f"voters={_ids(configuration.incoming)}"
    if configuration.outgoing:
        text += f"&&{_ids(configuration.outgoing)}"
    if configuration.learners:
        text += f" learners={_ids(configuration.learners)}"
    if configuration.learners_next:
        text += f" learners_next={_ids(configuration.learners_next)}"
    return text + (" autoleave" if configuration.auto_leave else "")


def progress_text(progress: Progress, *, is_learner: bool) -> str:
    """Return what is known of a peer, without its id."""
    text = f"{STATE[progress.state]} match={progress.match} next={progress.next}"
    if is_learner:
        text += " learner"
    if progress.is_paused:
        text += " paused"
    if progress.pending_snapshot > 0:
        text += f" pendingSnap={progress.pending_snapshot}"
    if not progress.recently_active:
        text += " inactive"
    count = len(progress.inflights)
    if count > 0:
        text += f" inflight={count}" + ("[full]" if progress.inflights.is_full else "")
    return text


def progress_line(node: int, progress: Progress, configuration: Configuration) -> str:
    """Return what is known of a peer."""
    return f"{node}: {progress_text(progress, is_learner=node in configuration.learners)}"


def _list(ids: tuple[int, ...]) -> str:
    return "[" + " ".join(str(i) for i in ids) + "]"


def conf_state_text(state: ConfState) -> str:
    """Return a stored configuration."""
    return (
        f"Voters:{_list(state.voters)} VotersOutgoing:{_list(state.voters_outgoing)} Learners:{_list(state.learners)} "
        f"LearnersNext:{_list(state.learners_next)} AutoLeave:{str(state.auto_leave).lower()}"
    )


def snapshot_text(snapshot: Snapshot) -> str:
    """Return a snapshot's place."""
    meta = snapshot.meta
    return f"Index:{meta.index} Term:{meta.term} ConfState:{conf_state_text(meta.conf_state)}"


def entry_text(entry: Entry) -> str:
    """Return an entry as `1/2 EntryNormal "data"`."""
    name = {
        EntryKind.NORMAL: "EntryNormal",
        EntryKind.CONF_CHANGE: "EntryConfChange",
        EntryKind.CONF_CHANGE_V2: "EntryConfChangeV2",
    }[entry.kind]
    head = f"{entry.term}/{entry.index} {name}"
    if entry.kind is EntryKind.NORMAL:
        quoted = entry.data.decode().replace("\\", "\\\\").replace('"', '\\"')
        return f'{head} "{quoted}"' if entry.data else f'{head} ""'
    words = " ".join(f"{CHANGE[change.kind]}{change.node}" for change in decode_conf_change(entry).changes)
    return f"{head} {words}" if words else head


def message_text(
    message: Message, *, to: str = "", source: str = "", name: str = "", suffix: str = "", vote: int = 0
) -> str:
    """Return a message as `1->2 MsgApp Term:1 Log:1/2 …`."""
    text = f"{source or f'{message.source:x}'}->{to or f'{message.to:x}'} {name or KIND[message.kind]}"
    text += f" Term:{message.term} Log:{message.log_term}/{message.index}"
    if message.reject:
        text += f" Rejected (Hint: {message.reject_hint})"
    if message.commit != 0 and message.kind not in _VOTES:
        text += f" Commit:{message.commit}"
    if vote:
        text += f" Vote:{vote}"
    if len(message.entries) == 1:
        text += f" Entries:[{entry_text(message.entries[0])}]"
    elif message.entries:
        text += " Entries:[" + "".join(f"\n  {entry_text(entry)}" for entry in message.entries) + "\n]"
    if message.snapshot is not None:
        text += f"\n  Snapshot: {snapshot_text(message.snapshot)}"
    return text + suffix
