"""Namespaces: create, look up, patch, list, delete."""

from typing import Any, Final

from conclave.cli.command import FORMAT, OUTPUT_FLAGS, Call, command, doing
from conclave.cli.document import cell
from conclave.cli.errors import EXIT_OK, ServerError
from conclave.cli.flags import Flag, Kind
from conclave.cli.kv_paths import nothing_at
from conclave.cli.output import show_document, show_names, show_secret, show_written
from conclave.cli.table import table

_METADATA: Final = Flag("custom-metadata", "A pair of your own, as name=value. Can be repeated.", Kind.PAIRS)
_REMOVE: Final = Flag("remove-custom-metadata", "A name of your own to take out. Can be repeated.", Kind.TEXTS)


@command("namespace create [options] PATH", *OUTPUT_FLAGS, _METADATA, arguments=(1, 1))
def create(call: Call) -> int:
    """Create a namespace below the one of the request.

    $ conclave namespace create team-a/
    """
    path = call.path_argument()
    body = {"custom_metadata": call.flags.pairs("custom-metadata")}
    with doing("Error creating namespace"):
        secret = call.client.write(f"sys/namespaces/{path}", body, method="POST")
    return show_written(call, secret, f"Success! Namespace created at: {path}/")


@command("namespace patch [options] PATH", *OUTPUT_FLAGS, _METADATA, _REMOVE, arguments=(1, 1))
def patch(call: Call) -> int:
    """Change what is noted about a namespace.

    $ conclave namespace patch -custom-metadata=owner=ops team-a/
    """
    path = call.path_argument()
    metadata: dict[str, Any] = {
        **call.flags.pairs("custom-metadata"),
        **dict.fromkeys(call.flags.texts("remove-custom-metadata")),
    }
    with doing("Error patching namespace"):
        secret = call.client.patch(f"sys/namespaces/{path}", {"custom_metadata": metadata})
    return show_written(call, secret, f"Success! Namespace patched at: {path}/")


@command("namespace lookup [options] PATH", FORMAT, arguments=(1, 1))
def lookup(call: Call) -> int:
    """Print what is known about a namespace."""
    path = call.path_argument()
    with doing("Error looking up namespace"):
        secret = call.client.read(f"sys/namespaces/{path}")
    if secret is None:
        raise nothing_at(f"sys/namespaces/{path}")
    return show_secret(call, secret)


@command("namespace list [options]", FORMAT, Flag("detailed", "Show what is known about each.", Kind.BOOLEAN))
def list_namespaces(call: Call) -> int:
    """List the namespaces right below the one of the request."""
    with doing("Error listing namespaces"):
        secret = call.client.list_names("sys/namespaces")
    if secret is None and call.format == "table":
        raise ServerError("No namespaces found")
    data = secret.data if secret is not None and isinstance(secret.data, dict) else {}
    infos = data.get("key_info") or {}
    if not (call.flags.boolean("detailed") and infos):
        return show_names(call, secret, "sys/namespaces")
    if not show_document(call, infos):
        fields = sorted({field for info in infos.values() for field in info})
        rows = [[name, *(cell(infos.get(name, {}).get(field)) for field in fields)] for name in data["keys"]]
        call.out(table(["Keys", *fields], rows))
    return EXIT_OK


@command("namespace delete [options] PATH", arguments=(1, 1))
def delete(call: Call) -> int:
    """Delete a namespace with all that it holds.

    $ conclave namespace delete team-a/
    """
    path = call.path_argument()
    with doing("Error deleting namespace"):
        secret = call.client.delete(f"sys/namespaces/{path}")
    is_scheduled = secret is not None and secret.data is not None
    call.out(f"Success! Namespace {'deletion scheduled' if is_scheduled else 'deleted (if it existed) at'}: {path}/")
    return EXIT_OK
