"""Histories about one disk, played by hand: crashes at the worst moment, syncs that fail, and flipped bits."""

from collections.abc import Callable
from random import Random
from typing import Final

from conclave.cluster.persistence import Compact
from conclave.cluster.raft import AppendJob, ConfState, Entry, HardState, Snapshot, SnapshotMeta
from conclave.storage.errors import Fenced
from tests.simulator.disk import Disk

LAST_INDEX = 150
COMPACTED_INDEX = 120
STEPS_MAX = 8
SEEDS = 20
LARGE = bytes(range(1, 251)) * 6


def compaction_cut_short() -> None:
    """A process dies after each step of a compaction that removes segments, and the power may fail with it."""
    for steps in range(STEPS_MAX):
        for loses_power in (False, True):
            disk = _disk_of_several_segments(steps)
            disk.state = Snapshot(SnapshotMeta(COMPACTED_INDEX, 1, ConfState((1,))))
            disk.waiting.append(Compact(COMPACTED_INDEX))
            disk.begin(0.0)

            disk.end_process(loses_power=loses_power, steps=steps)

            assert disk.log.first_index in (2, COMPACTED_INDEX + 1)
            assert disk.log.last_index == LAST_INDEX, "entries were lost"


def snapshot_cut_short() -> None:
    """The power fails after each step of a snapshot's installation: log and state are both before it, or both behind it."""
    meta = SnapshotMeta(LAST_INDEX + 50, 1, ConfState((1,)))
    for steps in range(2 * STEPS_MAX):
        for seed in range(SEEDS // 4):
            disk = _disk_of_several_segments(seed)
            disk.waiting.append(AppendJob(HardState(1, 0, meta.index), (), Snapshot(meta), (), must_sync=True))
            disk.begin(0.0)

            disk.end_process(loses_power=True, steps=steps)

            assert (disk.state.meta.index, disk.log.last_index) in ((1, LAST_INDEX), (meta.index, meta.index))


def torn_batch() -> None:
    """The power fails before a batch of several sectors is synced; a smaller one follows in its place."""
    for seed in range(SEEDS):
        disk = _disk_of_several_segments(seed)
        _begin(disk, LAST_INDEX + 1, LARGE)
        disk.end_process(loses_power=True, steps=1)
        last_index = disk.log.last_index + 1
        _begin(disk, last_index, b"small")
        disk.finish()

        disk.end_process(loses_power=False)

        assert disk.log.last_index == last_index, "what was synced is gone"


def failed_sync() -> None:
    """A sync fails, the next process finds what memory shows, leans on it, and the power fails."""
    for seed in range(SEEDS):
        disk = _disk_of_several_segments(seed)
        _begin(disk, LAST_INDEX + 1, LARGE)
        disk.files.fails_sync = True
        try:
            disk.finish()
        except Fenced:
            disk.fail()
            disk.end_process(loses_power=False)
        believed_index = disk.log.last_index

        disk.end_process(loses_power=True)

        assert disk.log.last_index == believed_index, "what was taken for durable is gone"


def flipped_bit() -> None:
    """A bit flips somewhere in the log; the next process sees it, or all is there."""
    for seed in range(SEEDS):
        disk = _disk_of_several_segments(seed)
        assert disk.files.flip_bit()

        disk.end_process(loses_power=False)

        assert disk.is_damaged or disk.log.last_index == LAST_INDEX, "damage was taken for a crash"


def _disk_of_several_segments(seed: int) -> Disk:
    disk = Disk(1, Snapshot(SnapshotMeta(1, 1, ConfState((1,)))), Random(seed))
    for index in range(2, LAST_INDEX + 1):
        _begin(disk, index, b"value %d" % index)
        disk.finish()
    return disk


def _begin(disk: Disk, index: int, data: bytes) -> None:
    entry = Entry(1, index, data=data)
    disk.waiting.append(AppendJob(HardState(1, 0, index - 1), (entry,), None, (), must_sync=True))
    disk.begin(0.0)


DISK_HISTORIES: Final[tuple[Callable[[], None], ...]] = (
    compaction_cut_short,
    snapshot_cut_short,
    torn_batch,
    failed_sync,
    flipped_bit,
)
