"""Ordered tables: sealed rows in order of a time, for work that is due (lease expiry).

A row's storage key is the table's id (16 bytes), the time (8, big endian, nanoseconds since 1970) and a keyed hash of
the row's ident (16). The time stands in clear, so that what is due can be found without opening what is not; nothing
else does. Finding what is due costs what is due, not what exists.
"""

from typing import Final

from conclave.storage.barrier import Barrier
from conclave.storage.tree import View, sealed_at

ID_BYTES: Final = 16
_TIME_END: Final = ID_BYTES + 8


class OrderedTable:
    """One table over a view."""

    __slots__ = ("_barrier", "_view", "id")

    def __init__(self, view: View, barrier: Barrier, table_id: bytes) -> None:
        """Look at the table with this id (16 bytes)."""
        assert len(table_id) == ID_BYTES, "a table's id has 16 bytes"
        self._view = view
        self._barrier = barrier
        self.id = table_id

    def put(self, time_ns: int, ident: bytes, value: bytes) -> None:
        """Set the row of `ident` at a time (0 to 2**64 - 1); one at another time stays where it is."""
        key = self._barrier.row_key(self.id, time_ns, ident)
        self._view.put(key, self._barrier.seal_record(key, value))

    def delete(self, time_ns: int, ident: bytes) -> None:
        """Remove the row of `ident` at a time, if it is there."""
        self._view.delete(self._barrier.row_key(self.id, time_ns, ident))

    def delete_key(self, key: bytes) -> None:
        """Remove the row that `due` returned with this key."""
        assert key.startswith(self.id), "the row belongs to another table"
        self._view.delete(key)

    def due(self, until_ns: int, limit: int) -> list[tuple[int, bytes, bytes]]:
        """Return rows whose time is `until_ns` or earlier, earliest first, as (time, storage key, value).

        Raises:
            Corrupt: a row does not open.
        """
        rows: list[tuple[int, bytes, bytes]] = []
        for key in self._view.keys(self.id, limit=limit):
            time_ns = _time_of(key)
            if time_ns > until_ns:
                break
            rows.append((time_ns, key, self._barrier.open_record(key, sealed_at(self._view, key))))
        return rows

    def next_time(self) -> int | None:
        """Return the earliest time in the table, or None if it is empty."""
        first = self._view.keys(self.id, limit=1)
        return _time_of(first[0]) if first else None


def _time_of(key: bytes) -> int:
    return int.from_bytes(key[ID_BYTES:_TIME_END], "big")
