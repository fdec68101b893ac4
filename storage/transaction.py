"""One operation's view of the state: its own changes over the overlay, until they become one write set.

A transaction sees either what is committed (then it is read-only) or everything, also what is still on its way through
consensus; what it saw is committed once `overlay.last_proposed_index`, taken when it ends, has been applied. It lives
for one atomic step on the event loop, so nothing can change under it.
"""

from conclave.storage.errors import NotWritable
from conclave.storage.overlay import PREFIX_BYTES, Overlay, merged
from conclave.storage.writeset import WriteSet


class Transaction:
    """A `View` of the overlay that collects changes."""

    __slots__ = ("_changes", "_overlay", "_swapped_at", "_uncommitted")

    def __init__(self, overlay: Overlay, *, uncommitted: bool) -> None:
        """Begin; with `uncommitted` the transaction sees proposals and may write, without it does neither."""
        self._overlay = overlay
        self._uncommitted = uncommitted
        self._swapped_at = overlay.swapped_at
        self._changes: dict[bytes, bytes | None] = {}

    @property
    def is_writable(self) -> bool:
        """Whether `put` and `delete` are allowed."""
        return self._uncommitted

    @property
    def is_outdated(self) -> bool:
        """Whether a restored state has taken the place of the one that this transaction saw."""
        return self._swapped_at != self._overlay.swapped_at

    @property
    def has_changes(self) -> bool:
        """Whether anything was put or deleted."""
        return bool(self._changes)

    def get(self, key: bytes) -> bytes | None:
        """Return a key's value as this transaction sees it."""
        if self._changes and key in self._changes:
            return self._changes[key]
        return self._overlay.get(key, uncommitted=self._uncommitted)

    def keys(self, prefix: bytes, start: bytes = b"", limit: int | None = None) -> list[bytes]:
        """Return the keys under a 16-byte prefix from `start` on, in order, as this transaction sees them."""
        changes = {key: value for key, value in self._changes.items() if key[:PREFIX_BYTES] == prefix}
        # Each deletion of this transaction may hide one record, so that many more are asked for.
        wanted = None if limit is None else limit + sum(value is None for value in changes.values())
        below = self._overlay.keys(prefix, uncommitted=self._uncommitted, start=start, limit=wanted)
        return merged(below, changes, start, limit) if changes else below

    def has_records(self, prefix: bytes) -> bool:
        """Whether there is any record under a 16-byte prefix, as this transaction sees it."""
        changes = []
        for key, value in self._changes.items():
            if key[:PREFIX_BYTES] == prefix:
                if value is not None:
                    return True
                changes.append(key)
        return self._overlay.has_records(prefix, uncommitted=self._uncommitted, without=changes)

    def put(self, key: bytes, value: bytes) -> None:
        """Set a key's (sealed) value.

        Raises:
            NotWritable: this transaction reads only.
        """
        self._check_writable()
        self._changes[key] = value

    def delete(self, key: bytes) -> None:
        """Remove a key, if it is there.

        Raises:
            NotWritable: this transaction reads only.
        """
        self._check_writable()
        self._changes[key] = None

    def write_set(self, time_ns: int, *, request_id: bytes = b"", answer: bytes = b"") -> WriteSet | None:
        """Return everything that was changed, to be proposed as one entry; None if nothing was."""
        if not self._changes:
            return None
        return WriteSet(
            time_ns=time_ns,
            puts=[(key, value) for key, value in self._changes.items() if value is not None],
            deletes=[key for key, value in self._changes.items() if value is None],
            request_id=request_id,
            answer=answer,
        )

    def _check_writable(self) -> None:
        if not self._uncommitted:
            raise NotWritable("a read-only transaction was asked to change something")
