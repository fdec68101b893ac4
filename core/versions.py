"""Which versions of the program have led this cluster, and since when: for `sys/version-history`."""

from typing import Final

from msgspec import Struct

from conclave.core.records import Records
from conclave.core.services import AREA_CLUSTER, Services

_DIRECTORY: Final = "version"


class Installed(Struct, array_like=True, frozen=True):
    """A version, when it first led, and the one before it. New fields come last, with defaults."""

    version: str
    installed_ns: int
    previous: str = ""


def history(services: Services) -> list[Installed]:
    """Return every version that has led, the oldest first."""
    cluster = services.area(AREA_CLUSTER)
    found = (cluster.get(f"{_DIRECTORY}/{name}", Installed) for name in cluster.list(_DIRECTORY))
    return sorted((each for each in found if each is not None), key=lambda each: each.installed_ns)


def note_version(services: Services, version: str) -> int:
    """Write down that this version leads, if that is new; return whether it was (0 or 1). A background step."""
    cluster: Records = services.area(AREA_CLUSTER)
    if cluster.get(f"{_DIRECTORY}/{version}") is not None:
        return 0
    before = history(services)
    installed = Installed(version, services.now_ns, before[-1].version if before else "")
    cluster.put(f"{_DIRECTORY}/{version}", installed)
    return 1
