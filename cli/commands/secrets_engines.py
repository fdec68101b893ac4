"""Secrets engines: enable, disable, tune, move, list."""

from conclave.cli.command import FORMAT, Call, command, doing
from conclave.cli.document import scalar
from conclave.cli.errors import EXIT_OK
from conclave.cli.flags import Flag, Kind
from conclave.cli.mounting import (
    DETAILED_END,
    ENABLE_FLAGS,
    TUNE_FLAGS,
    detailed_end,
    detailed_row,
    enable_body,
    tune_body,
)
from conclave.cli.moving import move_mount
from conclave.cli.output import show_document
from conclave.cli.table import table


@command(
    "secrets enable [options] TYPE",
    *ENABLE_FLAGS,
    Flag("force-no-cache", "Do not cache what the engine reads.", Kind.BOOLEAN),
    arguments=(1, 1),
)
def enable(call: Call) -> int:
    """Mount a secrets engine.

    $ conclave secrets enable -path=secret kv-v2
    """
    engine_type = call.argument(0).strip()
    path = (call.flags.text("path") or engine_type).strip("/ ")
    with doing("Error enabling"):
        call.client.request("POST", f"sys/mounts/{path}", body=enable_body(call.flags, engine_type))
    call.out(f"Success! Enabled the {engine_type} secrets engine at: {path}/")
    return EXIT_OK


@command("secrets disable [options] PATH", arguments=(1, 1))
def disable(call: Call) -> int:
    """Unmount a secrets engine and delete all its data.

    $ conclave secrets disable secret/
    """
    path = call.path_argument()
    with doing(f"Error disabling secrets engine at {path}/"):
        call.client.request("DELETE", f"sys/mounts/{path}")
    call.out(f"Success! Disabled the secrets engine (if it existed) at: {path}/")
    return EXIT_OK


@command("secrets tune [options] PATH", *TUNE_FLAGS, arguments=(1, 1))
def tune(call: Call) -> int:
    """Change the settings of a mounted secrets engine.

    $ conclave secrets tune -default-lease-ttl=24h database/
    """
    path = call.path_argument()
    with doing(f"Error tuning secrets engine {path}/"):
        call.client.request("POST", f"sys/mounts/{path}/tune", body=tune_body(call.flags))
    call.out(f"Success! Tuned the secrets engine at: {path}/")
    return EXIT_OK


@command("secrets move [options] SOURCE DESTINATION", arguments=(2, 2))
def move(call: Call) -> int:
    """Move a secrets engine to another path. Its leases are revoked.

    $ conclave secrets move secret/ generic/
    """
    return move_mount(call, "secrets engine", call.path_argument(0), call.path_argument(1))


@command("secrets list [options]", FORMAT, Flag("detailed", "Show all that is known.", Kind.BOOLEAN))
def list_engines(call: Call) -> int:
    """List the mounted secrets engines."""
    with doing("Error listing secrets engines"):
        answer = call.client.fetch("GET", "sys/mounts")
    mounts = answer.get("data") or {}
    if show_document(call, mounts):
        return EXIT_OK
    if call.flags.boolean("detailed"):
        titles = ["Path", "Plugin", "Accessor", "Default TTL", "Max TTL", "Force No Cache", *DETAILED_END]
        rows = []
        for path, mount in sorted(mounts.items()):
            no_cache = scalar(bool((mount.get("config") or {}).get("force_no_cache")), none="")
            rows.append([*detailed_row(path, mount), no_cache, *detailed_end(mount)])
    else:
        titles = ["Path", "Type", "Accessor", "Description"]
        rows = [
            [path, *(str(mount.get(name) or "") for name in ("type", "accessor", "description"))]
            for path, mount in sorted(mounts.items())
        ]
    call.out(table(titles, rows))
    return EXIT_OK
