"""What is proposed in one turn: it waits to be appended as one batch, and there is a limit to what waits to be committed.

Rules enforced here:

* The index of a proposal is known when it is made. So whatever waits here is appended before the core appends anything
  else: the driver flushes first.
* What is not committed yet is bounded, by bytes and by entries; a proposal beyond is refused before it has an index.

Whether this node may propose at all is the driver's business.
"""

import logging
from typing import Final

from conclave.cluster.errors import Overloaded
from conclave.cluster.raft import ProposalDropped, Raft
from conclave.cluster.replica import Ticket

log = logging.getLogger(__name__)

UNCOMMITTED_BYTES_MAX: Final = 64 << 20
UNCOMMITTED_ENTRIES_MAX: Final = 16_384


class Proposals:
    """The batch that forms for one core, whose log must not grow otherwise while it does."""

    __slots__ = ("_bytes", "_count_before", "_count_looked", "_datas", "_raft")

    def __init__(self, raft: Raft) -> None:
        self._raft = raft
        self._datas: list[bytes] = []
        self._bytes = 0
        self._count_looked = 0  # of the batch, at the last look
        self._count_before = 0  # of the batch before

    def __bool__(self) -> bool:
        """Whether anything waits to be appended."""
        return bool(self._datas)

    def look(self) -> bool:
        """Tell whether the batch has grown since the last look, and is not likely to be the only proposal of its time."""
        count, before = len(self._datas), self._count_looked
        self._count_looked = count
        return count > before and max(count, self._count_before) > 1

    def add(self, data: bytes, applied_index: int) -> Ticket:
        """Take an entry into the batch, and return where it will stand.

        Raises:
            Overloaded: too much waits to be committed, or to be applied; nothing was proposed.
        """
        raft = self._raft
        index = raft.last_index + len(self._datas) + 1
        size = len(data)
        if (
            raft.uncommitted_bytes + self._bytes + size > UNCOMMITTED_BYTES_MAX
            or index - applied_index > UNCOMMITTED_ENTRIES_MAX
        ):
            raise Overloaded("too many writes wait to be committed")
        self._datas.append(data)
        self._bytes += size
        return Ticket(raft.term, index)

    def flush(self) -> None:
        """Append what was proposed since the last time."""
        if not self._datas:
            return
        datas, self._datas, self._bytes = self._datas, [], 0
        self._count_before, self._count_looked = len(datas), 0
        try:
            self._raft.propose(datas)
        except ProposalDropped as dropped:
            # Their tickets are settled like those of any other entry that was never appended: by what comes there.
            log.warning("proposals were dropped", extra={"reason": str(dropped), "count": len(datas)})
