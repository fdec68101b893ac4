"""What the core refuses, as types.

A `StepError` is about a message that somebody else sent: drop it (and count it). A `ProposalDropped` is about a request
of our own node: the caller may try again. A `CorruptLog` is about our own disk: the node must stop taking part.
"""

from enum import Enum


class RaftError(Exception):
    """Base of everything that the core raises on purpose."""


class StepError(RaftError):
    """The message was not taken in; nothing has changed."""


class UnknownPeer(StepError):
    """An answer came from a node that is not in the configuration."""


class MalformedMessage(StepError):
    """The message contradicts itself or was not meant for this node."""


class DropReason(Enum):
    """Why a proposal was not accepted."""

    NOT_LEADER = "this node is not the leader"
    REMOVED = "this leader is no longer a member"
    TRANSFERRING = "leadership is being transferred"
    FULL = "too many bytes wait to be committed"


class ProposalDropped(RaftError):
    """The proposal is not in the log and never will be; it is safe to try again."""

    def __init__(self, reason: DropReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class ConfChangeError(RaftError):
    """The change makes no sense in the configuration in force."""


class CorruptLog(RaftError):
    """The stored log contradicts what this node has promised; an operator must decide what becomes of its disk."""


class StorageError(Exception):
    """Base of what a `LogStorage` raises."""


class Compacted(StorageError):
    """The entries asked for are behind the snapshot."""


class Unavailable(StorageError):
    """The entries asked for are not stored (yet)."""


class SnapshotTemporarilyUnavailable(StorageError):
    """There is no snapshot right now; ask again later."""
