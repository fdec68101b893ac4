"""Histories about one disk, played by hand: crashes after each step of a job that is rarely under way, and flipped bits."""

from collections.abc import Callable
from random import Random
from typing import Final

from conclave.cluster.persistence import Compact
from conclave.cluster.raft import AppendJob, ConfState, Entry, HardState, Snapshot, SnapshotMeta
from tests.simulator.disk import Disk

LAST_INDEX = 150
COMPACTED_INDEX = 120
STEPS_MAX = 8
FLIPS = 20


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


def flipped_bit() -> None:
    """A bit flips somewhere in the log; the next process sees it, or all is there."""
    for seed in range(FLIPS):
        disk = _disk_of_several_segments(seed)
        assert disk.files.flip_bit()

        disk.end_process(loses_power=False)

        assert disk.is_damaged or disk.log.last_index == LAST_INDEX, "damage was taken for a crash"


def _disk_of_several_segments(seed: int) -> Disk:
    disk = Disk(1, Snapshot(SnapshotMeta(1, 1, ConfState((1,)))), Random(seed))
    for index in range(2, LAST_INDEX + 1):
        entry = Entry(1, index, data=b"value %d" % index)
        disk.waiting.append(AppendJob(HardState(1, 0, index - 1), (entry,), None, (), must_sync=True))
        disk.begin(0.0)
        disk.finish()
    return disk


DISK_HISTORIES: Final[tuple[Callable[[], None], ...]] = (compaction_cut_short, flipped_bit)
