"""What a versioned key/value engine knows about a secret beside its data: `kv metadata get, put, patch, delete`."""

from typing import Any, Final

from conclave.cli.command import FORMAT, Call, command, doing
from conclave.cli.commands.kv import path_heading, section
from conclave.cli.durations import go_duration
from conclave.cli.errors import EXIT_OK, ServerError
from conclave.cli.flags import Flag, Kind, Values
from conclave.cli.kv_paths import MOUNT, nothing_at, versioned
from conclave.cli.output import show_document, show_written

_SETTINGS: Final = (
    Flag("cas-required", "Whether every write has to say -cas.", Kind.BOOLEAN),
    Flag("custom-metadata", "A pair of your own, as name=value. Can be repeated.", Kind.PAIRS),
    Flag("delete-version-after", "How long versions live before they are deleted.", Kind.DURATION),
    Flag("max-versions", "How many versions are kept; 0: as the engine says.", Kind.INTEGER),
)
_REMOVE: Final = Flag("remove-custom-metadata", "A name of your own to take out. Can be repeated.", Kind.TEXTS)


@command("kv metadata get [options] KEY", FORMAT, MOUNT, arguments=(1, 1))
def get(call: Call) -> int:
    """Print the settings and the versions of a secret.

    $ conclave kv metadata get -mount=secret app
    """
    path = versioned(call).api_path("metadata")
    with doing(f"Error reading {path}"):
        secret = call.client.read(path)
    if secret is None:
        raise nothing_at(path)
    if show_document(call, secret.document()):
        return EXIT_OK
    if not isinstance(secret.data, dict):
        raise ServerError(f"The answer for {path} holds no metadata")
    versions = secret.data.get("versions") or {}
    call.out(path_heading("Metadata Path", path))
    call.out(section("Metadata", {name: value for name, value in secret.data.items() if name != "versions"}))
    for number in sorted(versions, key=int):
        call.out("\n" + section(f"Version {number}", versions[number]))
    return EXIT_OK


@command("kv metadata put [options] KEY", FORMAT, MOUNT, *_SETTINGS, arguments=(1, 1))
def put(call: Call) -> int:
    """Set what holds for all versions of a secret, before or after there are any.

    $ conclave kv metadata put -mount=secret -max-versions=5 -custom-metadata=owner=ops app
    """
    path = versioned(call).api_path("metadata")
    with doing(f"Error writing data to {path}"):
        secret = call.client.write(path, settings_body(call.flags))
    return show_written(call, secret, f"Success! Data written to: {path}")


@command("kv metadata patch [options] KEY", FORMAT, MOUNT, *_SETTINGS, _REMOVE, arguments=(1, 1))
def patch(call: Call) -> int:
    """Change some settings of a secret and keep the others.

    $ conclave kv metadata patch -mount=secret -custom-metadata=team=blue app
    """
    path = versioned(call).api_path("metadata")
    with doing(f"Error writing data to {path}"):
        secret = call.client.patch(path, settings_body(call.flags))
    return show_written(call, secret, f"Success! Data written to: {path}")


def settings_body(flags: Values) -> dict[str, Any]:
    """Return the request that the flags describe: what was not given is left out."""
    body: dict[str, Any] = {}
    if flags.is_given("cas-required"):
        body["cas_required"] = flags.boolean("cas-required")
    if flags.is_given("delete-version-after"):
        body["delete_version_after"] = go_duration(flags.integer("delete-version-after"))
    if flags.is_given("max-versions"):
        body["max_versions"] = flags.integer("max-versions")
    removed = dict.fromkeys(flags.texts("remove-custom-metadata"))
    if flags.pairs("custom-metadata") or removed:
        body["custom_metadata"] = {**flags.pairs("custom-metadata"), **removed}
    return body


@command("kv metadata delete [options] KEY", MOUNT, arguments=(1, 1))
def delete(call: Call) -> int:
    """Delete a secret with all its versions.

    $ conclave kv metadata delete -mount=secret app
    """
    path = versioned(call).api_path("metadata")
    with doing(f"Error deleting {path}"):
        secret = call.client.delete(path)
    return show_written(call, secret, f"Success! Data deleted (if it existed) at: {path}")
