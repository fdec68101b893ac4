"""Routing: which mount a path belongs to. Pure; made anew when the mounts change."""

from collections.abc import Iterable

from msgspec import Struct

from conclave.core.errors import NotFound
from conclave.core.mounts import Mount


class Routed(Struct, frozen=True):
    """A mount, and what the path is within it."""

    mount: Mount
    relative_path: str


class Router:
    """Finds mounts by the longest prefix, one dictionary lookup a segment of the path.

    Args:
        mounts: all of them.
    """

    __slots__ = ("_by_path", "_segments_max")

    def __init__(self, mounts: Iterable[Mount]) -> None:
        self._by_path = {mount.path: mount for mount in mounts}
        self._segments_max = max((path.count("/") for path in self._by_path), default=0)

    def route(self, path: str) -> Routed | None:
        """Return where a path ("secret/data/app") leads; None if nothing is mounted there.

        A mount's own path may be given without its slash ("secret").
        """
        found: Routed | None = None
        end = -1
        for _ in range(self._segments_max):
            end = path.find("/", end + 1)
            prefix = path[: end + 1] if end >= 0 else path + "/"
            mount = self._by_path.get(prefix)
            if mount is not None:
                found = Routed(mount, path[len(prefix) :])
            if end < 0:
                break
        return found


def no_handler(path: str) -> NotFound:
    """Return the refusal of a path below which nothing is mounted."""
    return NotFound(f'no handler for route "{path}". route entry not found.')
