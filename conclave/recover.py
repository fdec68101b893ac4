"""Getting a cluster back that has lost its quorum for good, on the data of one survivor whose node is stopped.

Two ways in, both ending in `cluster.recovery`, which says what happens and why it is safe:

* `conclave operator raft recover -path=DATA` shows what this survivor holds and what would be lost, and with `-apply` makes
  it the only member.
* A `peers.json` in the data folder, as Vault takes it, does the same when the node starts, and is renamed after that. It
  may name this node alone: several survivors that each go on from their own log would not have the same past.
"""

import textwrap
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from conclave.cluster.errors import RecoveryRefused
from conclave.cluster.recovery import Survivor, examine, recover
from conclave.storage.log import LogStore
from conclave.storage.overlay import Overlay
from conclave.storage.state import StateStore

PEERS_FILES: Final = ("peers.json", "raft/peers.json")
"""Where in the data folder that file may lie; the second is Vault's place."""
USED_SUFFIX: Final = ".used"
SHOWN_COLUMNS: Final = 118
"""How long a line may be: as long as those of the advice below it."""
ADVICE: Final = """
Nothing has been changed. If a majority of these members is gone for good, compare this with what every other survivor
shows: the one with the highest last term and, among those, the highest last index knows most. Recover that node alone,
with -apply; wipe the data folders of all others and let them join again. Members that are still running must be stopped
first.
"""
DONE: Final = """
This node is the only member now. Start and unseal it; wipe the data folders of all others and let them join again.
"""


class _Peer(Struct):
    """One line of peers.json."""

    id: str
    address: str
    non_voter: bool = False


def recover_stores(log: LogStore, state: StateStore, *, is_dry: bool) -> str:
    """Make this survivor the only member, or only look; return what to tell its operator.

    Raises:
        RecoveryRefused: it can be no survivor.
        StorageError: its data is damaged, or could not be written.
        ValueError: its records are damaged, or a newer version wrote them.
    """
    overlay = Overlay(state)
    survivor = examine(log, overlay)
    if is_dry:
        return describe(survivor) + "\n" + foretell(survivor) + ADVICE
    _apply(log, overlay, survivor)
    return describe(survivor) + DONE


def use_peers_file(folder: Path, log: LogStore, state: StateStore) -> bool:
    """Do what a peers.json in the data folder asks for, and rename it; return whether there was one.

    Raises:
        RecoveryRefused: it asks for something that is not done; the text says what to do instead.
        OSError: it cannot be read or renamed.
        StorageError, ValueError: as for `recover_stores`.
    """
    file = next((folder / name for name in PEERS_FILES if (folder / name).is_file()), None)
    if file is None:
        return False
    try:
        peers = msgspec.json.decode(file.read_bytes(), type=list[_Peer])
    except msgspec.DecodeError as error:
        raise RecoveryRefused(f"{file} is no list of peers: {error}") from error
    overlay = Overlay(state)
    survivor = examine(log, overlay)
    node_id = survivor.identity.node_id
    if [peer.id for peer in peers if not peer.non_voter] != [node_id] or len(peers) != 1:
        raise RecoveryRefused(
            f"{file} must name this node ({node_id!r}) alone, as a voter: several survivors would go on from different "
            "logs; recover the one that knows most, and let the others join again"
        )
    _apply(log, overlay, survivor, peers[0].address)
    file.rename(file.with_name(file.name + USED_SUFFIX))
    return True


def describe(survivor: Survivor) -> str:
    """Return what a survivor holds, for its operator."""
    identity = survivor.identity
    rows = [
        ("Node ID", identity.node_id),
        ("Cluster ID", identity.cluster_id),
        ("Last Term", survivor.last_term),
        ("Last Index", survivor.last_index),
        ("Commit Index", survivor.commit_index),
        ("Applied Index", survivor.applied_index),
    ]
    lines = [f"{name:<17}{value}" for name, value in rows]
    lines.append("Members")
    for member in survivor.record.members:
        vote = "voter" if survivor.record.is_voter(member.raft_id) else "non-voter"
        this = "  (this node)" if member.raft_id == identity.raft_id else ""
        lines.append(f"   {member.node_id}  {member.cluster_address}  {vote}{this}")
    return "\n".join(lines) + "\n"


def foretell(survivor: Survivor) -> str:
    """Return what a recovery keeps, what it decides and what it loses, as exactly as this survivor can know.

    Behind its commit index it can know nothing of others: they may hold more entries, or, from a later term, other ones in
    the place of its own, and any of those may have been acknowledged.
    """
    commit, last, unsure = survivor.commit_index, survivor.last_index, survivor.unsure_entries
    removed = ", ".join(member.node_id for member in survivor.removed)
    lost = f"what was acknowledged behind index {last} and only removed members hold"
    if unsure:
        lost += f"; also what they hold of a later term in the place of {_range(commit + 1, last)}"
    rows = [
        ("Removed", f"{removed}: refused from then on" if removed else "nobody: this node is the only member"),
        ("Kept", f"everything up to index {commit}, which this node knows to be committed"),
        ("Committed", f"{_unsure(survivor)}, acknowledged or not" if unsure else "nothing else: this log ends there"),
        ("Lost", f"{lost}. How much that is cannot be seen from here" if removed else "nothing by this"),
    ]
    return "\n".join(["With -apply", *(_folded(name, text) for name, text in rows)]) + "\n"


def _folded(name: str, text: str) -> str:
    return textwrap.fill(
        text, SHOWN_COLUMNS, initial_indent=f"   {name:<14}", subsequent_indent=" " * 17, break_on_hyphens=False
    )


def _unsure(survivor: Survivor) -> str:
    count, changes = survivor.unsure_entries, survivor.unsure_changes
    entries = "1 entry" if count == 1 else f"{count} entries"
    note = f", {changes} of the membership" if changes else ""
    span = _range(survivor.commit_index + 1, survivor.last_index)
    return f"{entries} ({span}{note}) that this log holds and this node does not know to be committed"


def _range(first: int, last: int) -> str:
    return f"{first}" if first == last else f"{first} to {last}"


def _apply(log: LogStore, overlay: Overlay, survivor: Survivor, address: str = "") -> None:
    recover(log, overlay, survivor, address)
    job = overlay.begin_flush()
    if job is not None:
        job.run()
        overlay.finish_flush(job)
