"""Secrets of the key/value engine: put, get, patch, list, delete, undelete, destroy, rollback."""

from collections.abc import Mapping
from typing import Any, Final

from conclave.cli.command import ANY_NUMBER, FIELD, FORMAT, OUTPUT_FLAGS, Call, command, doing
from conclave.cli.errors import EXIT_OK, Refused, ServerError, UsageError
from conclave.cli.flags import Flag, Kind
from conclave.cli.kv_paths import MOUNT, KvPath, kv_path, nothing_at, version_numbers, versioned
from conclave.cli.output import (
    field_of,
    show_document,
    show_field,
    show_names,
    show_secret,
    show_warnings,
    show_written,
)
from conclave.cli.secret import Secret
from conclave.cli.table import data_width, heading, key_value_table, rows_of
from conclave.cli.values import parse_data

_VERSIONS: Final = Flag("versions", "The versions, separated by commas.", Kind.TEXTS)


@command(
    "kv put [options] KEY [DATA...]",
    *OUTPUT_FLAGS,
    MOUNT,
    Flag("cas", "Only if this is the newest version; 0: only if there is none.", Kind.INTEGER, -1),
    arguments=(1, ANY_NUMBER),
)
def put(call: Call) -> int:
    """Write a secret; a versioned engine keeps the versions before it.

    $ conclave kv put -mount=secret app user=bob password=@password.txt
    $ echo '{"user": "bob"}' | conclave kv put -mount=secret app -
    """
    data = parse_data(call.arguments[1:], call.stdin)
    if not data:
        raise UsageError("Must supply data")
    place = kv_path(call)
    options = {"cas": call.flags.integer("cas")} if call.flags.integer("cas") >= 0 else {}
    with doing(f"Error writing data to {place.api_path()}"):
        body = {"data": data, "options": options} if place.is_versioned else data
        secret = call.client.write(place.api_path(), body)
    return show_version(call, secret, place)


def show_version(call: Call, secret: Secret | None, place: KvPath) -> int:
    """Print what is known about a version that was written."""
    if secret is not None and call.format == "table" and not call.flags.text("field") and isinstance(secret.data, dict):
        call.out(path_heading("Secret Path", place.api_path()))
        call.out(section("Metadata", secret.data))
        show_warnings(call, secret.warnings)
        return EXIT_OK
    return show_written(call, secret, f"Success! Data written to: {place.api_path()}")


def path_heading(title: str, path: str) -> str:
    """Return a path under a heading, and an empty line."""
    return f"{heading(title, len(path))}\n{path}\n"


def section(title: str, data: Mapping[str, Any]) -> str:
    """Return a table under a heading."""
    return f"{heading(title, data_width(list(data)))}\n{key_value_table(rows_of(data))}"


@command(
    "kv get [options] KEY",
    *OUTPUT_FLAGS,
    MOUNT,
    Flag("version", "This version instead of the newest.", Kind.INTEGER),
    arguments=(1, 1),
)
def get(call: Call) -> int:
    """Read a secret.

    $ conclave kv get -mount=secret app
    $ conclave kv get -mount=secret -field=user app
    """
    place = kv_path(call)
    path, version = place.api_path(), call.flags.integer("version")
    with doing(f"Error reading {path}"):
        secret = call.client.read(path, {"version": str(version)} if version and place.is_versioned else None)
    if secret is None:
        raise nothing_at(path)
    if secret.wrap_info is not None:
        return show_secret(call, secret)
    if call.flags.text("field"):
        return _show_kv_field(call, secret, place)
    if show_document(call, secret.document()):
        return EXIT_OK
    show_warnings(call, secret.warnings)
    return _show_tables(call, secret, place)


def _show_kv_field(call: Call, secret: Secret, place: KvPath) -> int:
    name, data = call.flags.text("field"), secret.data if isinstance(secret.data, dict) else {}
    inner = data.get("data") if place.is_versioned else data
    if inner is None:
        raise ServerError(f"No data found at {place.api_path()}")
    return show_field(call, inner.get(name), missing=f'Field "{name}" not present in map')


def _show_tables(call: Call, secret: Secret, place: KvPath) -> int:
    data = secret.data if isinstance(secret.data, dict) else {}
    if not place.is_versioned:
        call.out(section("Data", data))
        return EXIT_OK
    call.out(path_heading("Secret Path", place.api_path()))
    if isinstance(data.get("metadata"), dict):
        call.out(section("Metadata", data["metadata"]) + "\n")
    if isinstance(data.get("data"), dict):
        call.out(section("Data", data["data"]))
    return EXIT_OK


@command(
    "kv patch [options] KEY [DATA...]",
    *OUTPUT_FLAGS,
    MOUNT,
    Flag("cas", "Only if this is the newest version.", Kind.INTEGER),
    Flag("method", '"patch" asks the server to merge; "rw" reads and writes back.'),
    Flag("remove-data", "A name to take out. Can be repeated.", Kind.TEXTS),
    arguments=(1, ANY_NUMBER),
)
def patch(call: Call) -> int:
    """Change some entries of a secret and keep the others.

    $ conclave kv patch -mount=secret app password=new
    """
    data = parse_data(call.arguments[1:], call.stdin)
    for name in call.flags.texts("remove-data"):
        data[name] = None
    if not data:
        raise UsageError("Must supply data")
    method = call.flags.text("method")
    if method not in ("", "patch", "rw"):
        raise UsageError(f'the method "{method}" is neither "patch" nor "rw"')
    place = versioned(call)
    secret = _merge_here(call, place, data) if method == "rw" else _merge_there(call, place, data)
    return show_version(call, secret, place)


def _merge_there(call: Call, place: KvPath, data: dict[str, Any]) -> Secret | None:
    options = {"cas": call.flags.integer("cas")} if call.flags.is_given("cas") else {}
    try:
        with doing(f"Error writing data to {place.api_path()}"):
            return call.client.patch(place.api_path(), {"data": data, "options": options})
    except Refused as error:
        # Older servers, and policies without the capability "patch", still allow a read and a write.
        if error.status not in (403, 405) or call.flags.text("method") == "patch":
            raise
    return _merge_here(call, place, data)


def _merge_here(call: Call, place: KvPath, data: dict[str, Any]) -> Secret | None:
    path = place.api_path()
    with doing(f"Error doing pre-read at {path}"):
        before = call.client.replaced(show="", wrap_ttl="").read(path)
    content = before.data if before is not None and isinstance(before.data, dict) else {}
    if not isinstance(content.get("data"), dict):
        raise nothing_at(path)
    merged = {**content["data"], **data}
    kept = {name: value for name, value in merged.items() if name not in data or value is not None}
    version = call.flags.integer("cas") if call.flags.is_given("cas") else content["metadata"]["version"]
    with doing(f"Error writing data to {path}"):
        return call.client.write(path, {"data": kept, "options": {"cas": version}})


@command("kv list [options] PATH", FORMAT, MOUNT, arguments=(0, 1))
def list_names(call: Call) -> int:
    """List the names of secrets; folders end in a slash.

    $ conclave kv list -mount=secret team/
    """
    return _list(call, "list")


@command("kv scan [options] PATH", FORMAT, MOUNT, arguments=(0, 1))
def scan(call: Call) -> int:
    """List the names of secrets, those in folders too.

    $ conclave kv scan -mount=secret team/
    """
    return _list(call, "scan")


def _list(call: Call, verb: str) -> int:
    if not call.arguments and not call.flags.text("mount"):
        raise UsageError("Not enough arguments (expected 1, got 0)")
    path = kv_path(call).api_path("metadata")
    with doing(f"Error listing {path}"):
        secret = call.client.list_names(path, verb=verb)
    return show_names(call, secret, path)


@command("kv delete [options] KEY", FIELD, FORMAT, MOUNT, _VERSIONS, arguments=(1, 1))
def delete(call: Call) -> int:
    """Delete the newest version of a secret, or some versions; `undelete` brings them back.

    $ conclave kv delete -mount=secret -versions=3,4 app
    """
    place = kv_path(call)
    numbers = version_numbers(call)
    path = place.api_path()
    with doing(f"Error deleting {path}"):
        if numbers and place.is_versioned:
            secret = call.client.write(place.api_path("delete"), {"versions": numbers})
        else:
            secret = call.client.delete(path)
    return show_written(call, secret, f"Success! Data deleted (if it existed) at: {path}")


@command("kv undelete [options] KEY", FORMAT, MOUNT, _VERSIONS, arguments=(1, 1))
def undelete(call: Call) -> int:
    """Bring deleted versions of a secret back.

    $ conclave kv undelete -mount=secret -versions=3 app
    """
    return _change_versions(call, "undelete")


@command("kv destroy [options] KEY", FORMAT, MOUNT, _VERSIONS, arguments=(1, 1))
def destroy(call: Call) -> int:
    """Remove the data of versions for ever.

    $ conclave kv destroy -mount=secret -versions=1,2 app
    """
    return _change_versions(call, "destroy")


def _change_versions(call: Call, family: str) -> int:
    numbers = version_numbers(call)
    if not numbers:
        raise UsageError(f"No versions provided: use -versions to say which ones to {family}")
    path = versioned(call).api_path(family)
    with doing(f"Error writing data to {path}"):
        secret = call.client.write(path, {"versions": numbers})
    return show_written(call, secret, f"Success! Data written to: {path}")


@command(
    "kv rollback [options] KEY",
    FORMAT,
    MOUNT,
    Flag("version", "The version whose data becomes the newest again.", Kind.INTEGER),
    arguments=(1, 1),
)
def rollback(call: Call) -> int:
    """Write the data of an older version as a new one.

    $ conclave kv rollback -mount=secret -version=2 app
    """
    wanted = call.flags.integer("version")
    if wanted <= 0:
        raise UsageError(f"Invalid version number {wanted}, must be greater than 0")
    path = versioned(call).api_path()
    client = call.client.replaced(show="", wrap_ttl="")
    with doing(f"Error doing pre-read at {path}"):
        newest, old = client.read(path), client.read(path, {"version": str(wanted)})
    if newest is None or old is None:
        raise nothing_at(path)
    metadata, data = field_of(newest, "metadata") or {}, field_of(old, "data")
    if data is None:
        raise ServerError(f"The version {wanted} at {path} is deleted or destroyed; undelete it first")
    with doing(f"Error writing data to {path}"):
        secret = call.client.write(path, {"data": data, "options": {"cas": metadata.get("version")}})
    return show_written(call, secret, f"Success! Data written to: {path}")


@command("kv enable-versioning [options] PATH", FORMAT, arguments=(1, 1))
def enable_versioning(call: Call) -> int:
    """Turn an unversioned key/value engine into a versioned one.

    $ conclave kv enable-versioning kv/
    """
    path = call.path_argument()
    with doing(f"Error tuning secrets engine {path}/"):
        call.client.request("POST", f"sys/mounts/{path}/tune", body={"options": {"version": "2"}})
    call.out(f"Success! Tuned the secrets engine at: {path}/")
    return EXIT_OK
