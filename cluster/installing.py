"""Replacing this node's state by a snapshot, so that a crash between any two steps loses nothing.

    fetch into a second environment ▸ end the flush ▸ note the intent in the identity ▸ swap the state ▸ reset the log

The intent (`Identity.installing`) says which snapshot; whether the state is that one says how far it had come. Until the
log has been reset nothing behind the snapshot is written or applied, so both are either before it or exactly at it.

Source: raft-details.md section 6.4.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from msgspec import structs

from conclave.cluster.membership import Identity, encode_identity
from conclave.cluster.persistence import Job, Reset, SaveIdentity, Writer
from conclave.cluster.raft import HardState, SnapshotMeta
from conclave.cluster.replica import StateMachine
from conclave.storage.log import HardStateRecord
from conclave.storage.state import StateStore

NOTHING: Final = (0, 0)
READER_POLL_SECONDS: Final = 0.05


async def written(writer: Writer, job: Job) -> None:
    """Wait until a job is durable; for ever if the disk fails, which the writer's owner hears of."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    writer.submit(job, lambda: None if future.done() else future.set_result(None))
    await future


async def install(
    meta: SnapshotMeta,
    hard_state: HardState,
    *,
    identity: Identity,
    state: StateStore,
    machine: StateMachine,
    writer: Writer,
    close_readers: Callable[[], Awaitable[None]],
) -> None:
    """Put a snapshot that has been fetched completely in the place of state and log.

    Args:
        meta: where in the log the snapshot stands.
        hard_state: to be kept with the new log.
        identity: of this node, as it is stored.
        state: holds the completed installation.
        machine: told before and after.
        writer: of the log environment.
        close_readers: ends what still reads the old state.
    """
    await machine.prepare_replacement()
    await close_readers()
    intent = structs.replace(identity, installing=(meta.index, meta.term))
    await written(writer, SaveIdentity(encode_identity(intent)))
    while state.has_readers:  # noqa: ASYNC110  # readers live in other threads, and have no event
        await asyncio.sleep(READER_POLL_SECONDS)  # somebody saves a snapshot of the old state; nothing else goes on
    # On the loop, although it waits for the disk: in between a read would find no state, and none may see half of it.
    state.install()
    machine.state_replaced()
    record = (hard_state.term, hard_state.vote, max(hard_state.commit, meta.index))
    await written(writer, _reset((meta.index, meta.term), record, identity))


def recovery(identity: Identity, applied: tuple[int, int], hard_state: HardStateRecord) -> Job | None:
    """Return what is to be written before anything else, if a crash came in the middle of `install`.

    Args:
        identity: as it is stored.
        applied: index and term of what the state holds.
        hard_state: as it is stored.
    """
    if identity.installing == NOTHING:
        return None
    finished = structs.replace(identity, installing=NOTHING)
    if applied != identity.installing:
        return SaveIdentity(encode_identity(finished))  # the old state is in its place: nothing has happened
    index, snapshot_term = applied
    term, vote, commit = hard_state
    if term < snapshot_term:
        term, vote = snapshot_term, 0  # this node had heard of that term, but not written so yet
    return _reset(applied, (term, vote, max(commit, index)), finished)


def _reset(place: tuple[int, int], hard_state: HardStateRecord, identity: Identity) -> Reset:
    return Reset(*place, hard_state, encode_identity(structs.replace(identity, installing=NOTHING)))
