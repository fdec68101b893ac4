"""Secrets engines: enable, disable, tune, move, list."""

from conclave.cli.command import FORMAT, Call, command, doing
from conclave.cli.errors import EXIT_OK
from conclave.cli.flags import Flag, Kind
from conclave.cli.mount_kinds import SECRETS
from conclave.cli.mounting import ENABLE_FLAGS, TUNE_FLAGS
from conclave.cli.moving import move_mount


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
    with doing("Error enabling"):
        path = SECRETS.enable(call, engine_type)
    call.out(f"Success! Enabled the {engine_type} secrets engine at: {path}/")
    return EXIT_OK


@command("secrets disable [options] PATH", arguments=(1, 1))
def disable(call: Call) -> int:
    """Unmount a secrets engine and delete all its data.

    $ conclave secrets disable secret/
    """
    return SECRETS.disable(call)


@command("secrets tune [options] PATH", *TUNE_FLAGS, arguments=(1, 1))
def tune(call: Call) -> int:
    """Change the settings of a mounted secrets engine.

    $ conclave secrets tune -default-lease-ttl=24h database/
    """
    return SECRETS.tune(call)


@command("secrets move [options] SOURCE DESTINATION", arguments=(2, 2))
def move(call: Call) -> int:
    """Move a secrets engine to another path. Its leases are revoked.

    $ conclave secrets move secret/ generic/
    """
    return move_mount(call, SECRETS.noun, call.path_argument(0), call.path_argument(1))


@command("secrets list [options]", FORMAT, Flag("detailed", "Show all that is known.", Kind.BOOLEAN))
def list_engines(call: Call) -> int:
    """List the mounted secrets engines."""
    return SECRETS.show_all(call)
