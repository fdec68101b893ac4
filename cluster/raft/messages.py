"""What the Raft core stores and sends: entries, hard state, configurations, snapshots and messages.

Rules kept here: every type is an immutable msgspec array, so that it is small on the wire and can be shared without
copies; new fields go last and have defaults; the numbers of an enum never change. Nothing here decides anything.

Source: the extended Raft paper, figure 2, and the message contract of etcd's Raft library; `sequence` and `RESIGNED` are
ours (docs/adr/0001-own-raft-instead-of-raftos.md).
"""

from enum import IntEnum
from typing import Final

import msgspec

NO_NODE: Final = 0
"""The id that is nobody's: "no leader", "no vote"."""

ENTRY_OVERHEAD_BYTES: Final = 16
"""What an entry costs beside its payload, on the wire and in a batch; an upper bound that is never 0."""


class EntryKind(IntEnum):
    """What an entry's data means."""

    NORMAL = 0
    CONF_CHANGE = 1
    CONF_CHANGE_V2 = 2


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One log entry. Empty data in a normal entry is the marker with which a leader opens its term."""

    term: int
    index: int
    kind: EntryKind = EntryKind.NORMAL
    data: bytes = b""


def entry_size(entry: Entry) -> int:
    """Return the bytes that an entry counts for in a message or a batch (an upper estimate, at least 1)."""
    return len(entry.data) + ENTRY_OVERHEAD_BYTES


class HardState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a node must never forget. The commit index alone may be re-learnt, so it needs no sync of its own."""

    term: int = 0
    vote: int = NO_NODE
    commit: int = 0


class ConfState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A configuration as it is stored; every tuple is in ascending order.

    `voters_outgoing` is empty outside a joint configuration. `learners_next` are voters of the outgoing half that become
    learners when the joint configuration is left.
    """

    voters: tuple[int, ...] = ()
    voters_outgoing: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    learners_next: tuple[int, ...] = ()
    auto_leave: bool = False


class SnapshotMeta(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The place in the log that a snapshot stands for, and the configuration in force there."""

    index: int = 0
    term: int = 0
    conf_state: ConfState = ConfState()


class Snapshot(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A snapshot as the core sees it: `data` is a small descriptor, the state itself travels beside the core."""

    meta: SnapshotMeta
    data: bytes = b""


class MessageKind(IntEnum):
    """Kinds of messages. Those from `STORAGE_APPEND_RESPONSE` on never leave the node."""

    APPEND = 1
    APPEND_RESPONSE = 2
    HEARTBEAT = 3
    HEARTBEAT_RESPONSE = 4
    VOTE = 5
    VOTE_RESPONSE = 6
    PRE_VOTE = 7
    PRE_VOTE_RESPONSE = 8
    SNAPSHOT = 9
    TIMEOUT_NOW = 10
    TRANSFER_LEADER = 11
    READ_INDEX = 12
    READ_INDEX_RESPONSE = 13
    PROPOSE = 14
    RESIGNED = 15
    STORAGE_APPEND_RESPONSE = 16
    STORAGE_APPLY_RESPONSE = 17


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One message between two nodes, or from a node's storage back to its core.

    Attributes:
        source: the sender. The transport must have checked that it is who it says.
        term: the sender's term; 0 where a kind has none (PROPOSE, READ_INDEX, storage apply). A vote carries the term
            campaigned for.
        log_term: term of the entry at `index` (APPEND, VOTE), or at `reject_hint` (a rejecting APPEND_RESPONSE; 0:
            unknown).
        index: the entry before `entries` (APPEND), the last entry of the candidate (VOTE), the last matching or the
            refused entry (APPEND_RESPONSE), the read index (READ_INDEX_RESPONSE).
        commit: the commit index that the receiver may take over; in votes and their answers, if it has that entry.
        reject_hint: the last entry of the follower that may match.
        sequence: the leader's heartbeat number (HEARTBEAT and its response), or the caller's number of a read
            (READ_INDEX and its response).
        commit_term: term of the entry at `commit` (votes and their answers).
        forced: this election was asked for by the leader: promises to that leader don't stand against it.
    """

    kind: MessageKind
    to: int
    source: int
    term: int = 0
    log_term: int = 0
    index: int = 0
    commit: int = 0
    entries: tuple[Entry, ...] = ()
    reject: bool = False
    reject_hint: int = 0
    sequence: int = 0
    forced: bool = False
    snapshot: Snapshot | None = None
    commit_term: int = 0


class ConfChangeKind(IntEnum):
    """What happens to one member."""

    ADD_VOTER = 0
    REMOVE = 1
    UPDATE = 2
    ADD_LEARNER = 3


class ConfChangeTransition(IntEnum):
    """How a change takes effect.

    AUTO uses a simple change where one is enough, and otherwise a joint configuration that is left by itself; IMPLICIT
    always goes through such a joint configuration; EXPLICIT stays joint until an empty change is proposed.
    """

    AUTO = 0
    IMPLICIT = 1
    EXPLICIT = 2


class ConfChange(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A change of one member. As an entry of its own it is kind CONF_CHANGE and takes effect in one step."""

    kind: ConfChangeKind
    node: int


class ConfChangeV2(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A change of several members at once; without any it leaves a joint configuration.

    `context` is the caller's, is carried along and not looked at.
    """

    changes: tuple[ConfChange, ...] = ()
    transition: ConfChangeTransition = ConfChangeTransition.AUTO
    context: bytes = b""


_encode = msgspec.msgpack.Encoder().encode
_decode_v1 = msgspec.msgpack.Decoder(ConfChange).decode
_decode_v2 = msgspec.msgpack.Decoder(ConfChangeV2).decode


def encode_conf_change(change: ConfChange | ConfChangeV2) -> tuple[EntryKind, bytes]:
    """Return the entry kind and data that carry `change`; the change that leaves a joint configuration is empty."""
    if isinstance(change, ConfChange):
        return EntryKind.CONF_CHANGE, _encode(change)
    return EntryKind.CONF_CHANGE_V2, b"" if change == ConfChangeV2() else _encode(change)


def decode_conf_change(entry: Entry) -> ConfChangeV2:
    """Return the change that an entry of kind CONF_CHANGE or CONF_CHANGE_V2 carries.

    Raises:
        msgspec.DecodeError: the data is no such change.
    """
    if entry.kind is EntryKind.CONF_CHANGE:
        return ConfChangeV2((_decode_v1(entry.data),))
    return _decode_v2(entry.data) if entry.data else ConfChangeV2()
