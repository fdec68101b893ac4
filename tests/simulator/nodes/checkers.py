"""What must never happen, whatever goes wrong; checked while it could happen, by one observer who sees all nodes.

The first broken promise is kept as `failure`: it is found in the middle of a node's own turn, whose edges catch everything.
"""

import logging
import zlib
from collections.abc import Callable

from conclave.cluster.membership import MembershipRecord, decode_record
from conclave.cluster.replica import Standing
from tests.simulator.linearizability import Operation
from tests.simulator.nodes.disk import Disk


class Checkers:
    """The observer. A disk that was lost counts with what it held: a majority is to survive its loss.

    Args:
        now: the world's time, in seconds.
        note: is told what happens.

    Attributes:
        failure: the first broken promise; empty so far.
        history: what clients did, for the judge of histories.
        pending: what they are doing, by client, as if nobody would ever answer.
    """

    def __init__(self, now: Callable[[], float], note: Callable[[str, str], None]) -> None:
        self.failure = ""
        self.history: list[Operation] = []
        self.pending: dict[int, Operation] = {}
        self.leaders: dict[int, int] = {}
        self.writes = 0
        self.reads = 0
        self.snapshots = 0
        self.disks: dict[int, Disk] = {}
        self._now = now
        self._note = note
        self._entries: dict[int, tuple[int, int]] = {}
        self._digests: dict[int, int] = {}
        self._last_of_term: dict[int, int] = {}
        self._executed: dict[tuple[int, int], int] = {}
        self._records: list[MembershipRecord] = []
        self._recorded_index = 0
        self._removed: set[int] = set()

    def fail(self, text: str) -> None:
        """Keep a broken promise, if it is the first."""
        self._note("broken", text)
        self.failure = self.failure or f"at {1000 * self._now():.0f} ms: {text}"

    # -- what is applied --

    def applied(self, name: str, index: int, term: int, content: bytes, digest: int) -> None:
        """Every node applies the same at the same index, and holds the same afterwards."""
        entry = (term, zlib.crc32(content))
        if self._entries.setdefault(index, entry) != entry:
            self.fail(f"{name} applies another entry at {index}, of term {term}, than was applied there before")
        self._last_of_term[term] = max(index, self._last_of_term.get(term, 0))
        self.holds(name, index, digest)

    def holds(self, name: str, index: int, digest: int) -> None:
        """Every node holds the same at the same index."""
        if index and self._digests.setdefault(index, digest) != digest:
            self.fail(f"{name} holds another state at {index} than others did")

    def executed(self, client: int, sequence: int, index: int) -> None:
        """Each request takes effect at most once."""
        if self._executed.setdefault((client, sequence), index) != index:
            first = self._executed[client, sequence]
            self.fail(f"request {sequence} of client {client} took effect at {first} and again at {index}")

    def membership(self, index: int, membership: bytes) -> None:
        """Remember the configurations, and who was removed."""
        if index > self._recorded_index:
            self._recorded_index = index
            self._records.append(decode_record(membership))
            self._removed |= set(self._records[-1].removed)

    # -- who is what --

    def standing_changed(self, name: str, raft_id: int, standing: Standing, term: int, applied_index: int) -> None:
        """One leader a term, none that was removed before, and each has applied all that earlier terms committed."""
        self._note("standing", f"{name} {standing.name} {term}")
        if standing is not Standing.LEADER:
            return
        if self.leaders.setdefault(term, raft_id) != raft_id:
            self.fail(f"{name} leads term {term}, which another node led before")
        committed = max((index for earlier, index in self._last_of_term.items() if earlier < term), default=0)
        if committed > applied_index:
            self.fail(f"{name} leads term {term} before it has applied entry {committed}: it is at {applied_index}")
        if raft_id in self._removed:
            self.fail(f"{name} leads term {term} although it was removed")

    def started(self, name: str, *, was_removed: bool, standing: Standing) -> None:
        """Who knows that it was removed stays so."""
        if was_removed and standing is not Standing.REMOVED:
            self.fail(f"{name} was removed, and begins again as {standing.name}")

    # -- what clients are told --

    def acknowledged(self, index: int, term: int) -> None:
        """What is acknowledged is durable on a majority of the voters: of those now, or before the last change."""
        self.writes += 1
        if not any(self._is_held(record, index, term) for record in self._records[-2:]):
            self.fail(f"the write at {index} of term {term} is acknowledged, but not durable on a majority")

    def _is_held(self, record: MembershipRecord, index: int, term: int) -> bool:
        voters = record.conf_state.voters
        held = 0
        for voter in voters:
            disk = self.disks.get(voter)
            if disk is None:
                continue
            log = disk.log
            is_in_log = log.first_index <= index <= log.last_index and log.term(index) == term
            held += is_in_log or disk.state.applied[0] >= index
        return 2 * held > len(voters)


class LogWatch(logging.Handler):
    """Hears what the nodes log: nothing critical and no exception, unless a disk that failed is the reason."""

    EXPECTED = ("the disk failed", "the disk does not answer")

    def __init__(self, checkers: Checkers, note: Callable[[str, str], None]) -> None:
        super().__init__(logging.DEBUG)
        self._checkers = checkers
        self._note = note

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        reason = getattr(record, "reason", "")
        self._note("log", f"{record.getMessage()} {reason}")
        is_bad = record.levelno >= logging.CRITICAL or record.exc_info is not None
        if is_bad and record.getMessage() not in self.EXPECTED:
            error = record.exc_info[1] if record.exc_info else reason
            self._checkers.fail(f"logged: {record.getMessage()}: {error!r}")
