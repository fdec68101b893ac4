"""How far the log may be cut. Pure: the driver asks once a second and cuts.

Kept are, behind the newest entry, a trail of entries for peers that were away for a moment (by count and by bytes,
whatever is less), everything that the state does not hold durably, what active peers still lack, and what a snapshot under
way will be continued with. Peers and snapshots count for nothing beyond a hard cap, or one of them could fill the disk.

Source: raft-details.md section 6.4.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from operator import itemgetter
from typing import Final

from msgspec import Struct

TRAILING_ENTRIES: Final = 10_000
TRAILING_BYTES: Final = 64 << 20
HARD_CAP_ENTRIES: Final = 500_000
HARD_CAP_BYTES: Final = 4 << 30
CUT_ENTRIES_MIN: Final = 512
"""A cut below this is not worth a transaction."""
MARK_BYTES: Final = 1 << 20
MARKS_MAX: Final = 8192


class LogFacts(Struct, frozen=True):
    """What the decision depends on.

    Attributes:
        first: the first index that can be read.
        last: the newest index.
        durable: what the state machine holds without the log.
        trail: the first index of the trail by bytes; see `Trail`.
        cap: the first index that the hard cap by bytes leaves, likewise.
        matches: how far each recently active peer is.
        pinned: a snapshot under way stands for this index.
    """

    first: int
    last: int
    durable: int
    trail: int = 0
    cap: int = 0
    matches: tuple[int, ...] = ()
    pinned: int | None = None


def compaction_index(facts: LogFacts, *, trailing_entries: int = TRAILING_ENTRIES) -> int | None:
    """Return the index up to which the log is to be cut, itself included; None if it stays as it is."""
    behind_trail = max(facts.last - trailing_entries, facts.trail - 1)
    wanted = min(facts.durable, behind_trail, *facts.matches, *(() if facts.pinned is None else (facts.pinned,)))
    forced = min(facts.durable, max(facts.last - HARD_CAP_ENTRIES, facts.cap - 1))
    index = max(wanted, forced)
    step = min(CUT_ENTRIES_MIN, max(1, trailing_entries))
    return index if index - facts.first + 1 >= step else None


class Trail:
    """Where in the log the newest so many bytes begin, by what it is told of: first what is stored, then what comes.

    Args:
        trailing_bytes: what is kept for peers that were away for a moment.
        cap_bytes: what is kept at most.
    """

    def __init__(self, trailing_bytes: int = TRAILING_BYTES, cap_bytes: int = HARD_CAP_BYTES) -> None:
        self._trailing_bytes = trailing_bytes
        self._cap_bytes = cap_bytes
        self._total = 0
        self._marks: deque[tuple[int, int]] = deque(maxlen=MARKS_MAX)  # last index, bytes up to and including it

    def appended(self, last_index: int, sizes: Iterable[int]) -> None:
        """Note entries that were appended; what they replaced counts as well, so this errs on the side of less."""
        self._total += sum(sizes)
        if not self._marks or self._total - self._marks[-1][1] >= MARK_BYTES:
            self._marks.append((last_index, self._total))

    @property
    def first(self) -> int:
        """The first index of the trail; 0 while everything that was appended belongs to it."""
        return self._first_of(self._trailing_bytes)

    @property
    def cap(self) -> int:
        """The first index that the hard cap leaves; 0 while that is everything."""
        return self._first_of(self._cap_bytes)

    def _first_of(self, newest_bytes: int) -> int:
        behind = bisect_right(self._marks, self._total - newest_bytes, key=itemgetter(1))
        return self._marks[behind - 1][0] + 1 if behind else 0
