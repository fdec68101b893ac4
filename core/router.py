"""Routing: which mount a path belongs to. Pure; made anew when the mounts change."""

from collections.abc import Iterable

from msgspec import Struct

from conclave.core.contract import MountInfo
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

    __slots__ = ("_by_path", "_infos", "_segments_max")

    def __init__(self, mounts: Iterable[Mount]) -> None:
        self._by_path = {mount.path: mount for mount in mounts}
        self._infos: dict[str, MountInfo] = {}
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

    def info(self, mount: Mount, default_lease_ttl_seconds: int, max_lease_ttl_seconds: int) -> MountInfo:
        """Return what the engine of one of these mounts may know, given the system's lifetimes, which are always the same."""
        known = self._infos.get(mount.path)
        if known is None:
            known = self._infos[mount.path] = mount.info(default_lease_ttl_seconds, max_lease_ttl_seconds)
        return known


def no_handler(path: str) -> NotFound:
    """Return the refusal of a path below which nothing is mounted."""
    return NotFound(f'no handler for route "{path}". route entry not found.')
