"""Where a key of a key/value engine lies: people name `secret/app`, a versioned engine keeps `secret/data/app`.

The server says which mount a path belongs to and whether it is versioned; a token without rights there is told so.
"""

from typing import Final, NamedTuple

from conclave.cli.command import Call
from conclave.cli.errors import Refused, ServerError, UsageError
from conclave.cli.flags import Flag

MOUNT: Final = Flag("mount", "Where the engine is mounted; the argument is then the key alone.")


class KvPath(NamedTuple):
    """A key at an engine.

    Attributes:
        mount: without a slash at its end.
        key: below the mount, may be "".
        is_versioned: whether the engine keeps versions.
    """

    mount: str
    key: str
    is_versioned: bool

    def api_path(self, family: str = "data") -> str:
        """Return the path of a request: family "data", "metadata", "delete"... of a versioned engine, or the bare key."""
        parts = (self.mount, family, self.key) if self.is_versioned else (self.mount, self.key)
        return "/".join(part for part in parts if part)


def kv_path(call: Call, position: int = 0) -> KvPath:
    """Ask the server where the key lies that an argument names.

    Raises:
        Refused: the token may do nothing there, or there is no such mount.
    """
    named, mount = call.argument(position).strip().strip("/"), call.flags.text("mount").strip("/ ")
    asked = mount or named
    client = call.client.replaced(show="", wrap_ttl="")
    try:
        answer = client.fetch("GET", f"sys/internal/ui/mounts/{asked}").get("data") or {}
    except Refused as error:
        if error.status != 404:
            raise
        # A server too old to know the question has unversioned engines only; the first part of the path is the mount.
        first, _, rest = asked.partition("/")
        return KvPath(mount or first, named if mount else rest, is_versioned=False)
    found = str(answer.get("path") or "").strip("/")
    is_versioned = str((answer.get("options") or {}).get("version") or "") == "2"
    key = named if mount else named.removeprefix(found).strip("/")
    return KvPath(found or mount, key, is_versioned)


def versioned(call: Call, position: int = 0) -> KvPath:
    """Like `kv_path`, for commands that need versions.

    Raises:
        UsageError: the engine keeps none.
    """
    found = kv_path(call, position)
    if not found.is_versioned:
        raise UsageError("This command needs a versioned key/value engine (version 2)")
    return found


def version_numbers(call: Call) -> list[str]:
    """Return the version numbers of -versions.

    Raises:
        UsageError: there are none, or one is no number.
    """
    numbers = [part.strip() for text in call.flags.texts("versions") for part in text.split(",") if part.strip()]
    wrong = next((number for number in numbers if not (number.isascii() and number.isdigit())), None)
    if wrong is not None:
        raise UsageError(f'"{wrong}" in -versions is no version number')
    return numbers


def nothing_at(path: str) -> ServerError:
    """Say that nothing was found."""
    return ServerError(f"No value found at {path}")
