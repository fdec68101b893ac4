"""Auth methods: enable, disable, tune, move, list, help."""

from typing import Final

from conclave.cli.command import FORMAT, Call, command, doing
from conclave.cli.errors import EXIT_OK, UsageError
from conclave.cli.flags import Flag, Kind
from conclave.cli.mount_kinds import AUTH
from conclave.cli.mounting import ENABLE_FLAGS, TOKEN_TYPE, TUNE_FLAGS
from conclave.cli.moving import move_mount


@command("auth enable [options] TYPE", *ENABLE_FLAGS, TOKEN_TYPE, arguments=(1, 1))
def enable(call: Call) -> int:
    """Mount an auth method.

    $ conclave auth enable -path=people userpass
    """
    method = call.argument(0).strip()
    with doing(f"Error enabling {method} auth"):
        path = AUTH.enable(call, method)
    call.out(f"Success! Enabled {method} auth method at: {path}/")
    return EXIT_OK


@command("auth disable [options] PATH", arguments=(1, 1))
def disable(call: Call) -> int:
    """Unmount an auth method; all its tokens are revoked.

    $ conclave auth disable people/
    """
    return AUTH.disable(call)


@command(
    "auth tune [options] PATH",
    *TUNE_FLAGS,
    TOKEN_TYPE,
    Flag("user-lockout-threshold", "How many wrong passwords lock a user out.", Kind.COUNT),
    Flag("user-lockout-duration", "How long a user is locked out.", Kind.DURATION),
    Flag("user-lockout-counter-reset-duration", "After which time wrong passwords are forgotten.", Kind.DURATION),
    Flag("user-lockout-disable", "Lock nobody out.", Kind.BOOLEAN),
    arguments=(1, 1),
)
def tune(call: Call) -> int:
    """Change the settings of a mounted auth method.

    $ conclave auth tune -default-lease-ttl=1h people/
    """
    return AUTH.tune(call)


@command("auth move [options] SOURCE DESTINATION", arguments=(2, 2))
def move(call: Call) -> int:
    """Move an auth method to another path. Its tokens are revoked.

    $ conclave auth move people/ staff/
    """
    source, target = (AUTH.prefix + call.path_argument(i).removeprefix(AUTH.prefix) for i in (0, 1))
    return move_mount(call, AUTH.noun, source, target)


@command("auth list [options]", FORMAT, Flag("detailed", "Show all that is known.", Kind.BOOLEAN))
def list_methods(call: Call) -> int:
    """List the mounted auth methods."""
    return AUTH.show_all(call)


_HELP: Final = {
    "approle": "role_id=... secret_id=...: for machines.",
    "cert": "[name=ROLE]: by the client certificate of -client-cert and -client-key.",
    "jwt": "role=... jwt=...: by a signed token of another system.",
    "kubernetes": "role=... jwt=@/var/run/secrets/kubernetes.io/serviceaccount/token: for pods.",
    "ldap": "username=... [password=...]: by a directory; the password is asked for when it is not given.",
    "radius": "username=... [password=...]: by a RADIUS server.",
    "token": "TOKEN: a token that exists; asked for when it is not given.",
    "userpass": "username=... [password=...]: the password is asked for when it is not given.",
}


@command("auth help [options] TYPE", arguments=(1, 1))
def help_method(call: Call) -> int:
    """Print what `login` takes for a type of auth method, or for the method mounted at a path."""
    named = call.path_argument()
    if named not in _HELP:
        named = str((AUTH.mounted(call).get(named + "/") or {}).get("type") or named)
    if named not in _HELP:
        raise UsageError(f"`login` knows no auth method of the type {named}; it may be used over HTTP")
    call.out(f"Usage: conclave login -method={named} {_HELP[named]}")
    return EXIT_OK
