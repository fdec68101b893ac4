"""Auth methods: enable, disable, tune, move, list, help."""

from typing import Final

from conclave.cli.command import FORMAT, Call, command, doing
from conclave.cli.errors import EXIT_OK, UsageError
from conclave.cli.flags import Flag, Kind
from conclave.cli.mounting import (
    DETAILED_END,
    ENABLE_FLAGS,
    TOKEN_TYPE,
    TUNE_FLAGS,
    detailed_end,
    detailed_row,
    enable_body,
    tune_body,
)
from conclave.cli.moving import move_mount
from conclave.cli.output import show_document
from conclave.cli.table import table


@command("auth enable [options] TYPE", *ENABLE_FLAGS, TOKEN_TYPE, arguments=(1, 1))
def enable(call: Call) -> int:
    """Mount an auth method.

    $ conclave auth enable -path=people userpass
    """
    method = call.argument(0).strip()
    path = (call.flags.text("path") or method).strip("/ ")
    with doing(f"Error enabling {method} auth"):
        call.client.request("POST", f"sys/auth/{path}", body=enable_body(call.flags, method))
    call.out(f"Success! Enabled {method} auth method at: {path}/")
    return EXIT_OK


@command("auth disable [options] PATH", arguments=(1, 1))
def disable(call: Call) -> int:
    """Unmount an auth method; all its tokens are revoked.

    $ conclave auth disable people/
    """
    path = call.path_argument()
    with doing(f"Error disabling auth method at {path}/"):
        call.client.request("DELETE", f"sys/auth/{path}")
    call.out(f"Success! Disabled the auth method (if it existed) at: {path}/")
    return EXIT_OK


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
    path = call.path_argument()
    with doing(f"Error tuning auth method {path}/"):
        call.client.request("POST", f"sys/mounts/auth/{path}/tune", body=tune_body(call.flags))
    call.out(f"Success! Tuned the auth method at: {path}/")
    return EXIT_OK


@command("auth move [options] SOURCE DESTINATION", arguments=(2, 2))
def move(call: Call) -> int:
    """Move an auth method to another path. Its tokens are revoked.

    $ conclave auth move people/ staff/
    """
    source, target = (f"auth/{call.path_argument(i).removeprefix('auth/')}" for i in (0, 1))
    return move_mount(call, "auth method", source, target)


@command("auth list [options]", FORMAT, Flag("detailed", "Show all that is known.", Kind.BOOLEAN))
def list_methods(call: Call) -> int:
    """List the mounted auth methods."""
    with doing("Error listing enabled authentications"):
        methods = call.client.fetch("GET", "sys/auth").get("data") or {}
    if show_document(call, methods):
        return EXIT_OK
    if call.flags.boolean("detailed"):
        titles = ["Path", "Plugin", "Accessor", "Default TTL", "Max TTL", "Token Type", *DETAILED_END]
        rows = []
        for path, method in sorted(methods.items()):
            token_type = str((method.get("config") or {}).get("token_type") or "")
            rows.append([*detailed_row(path, method), token_type, *detailed_end(method)])
    else:
        titles = ["Path", "Type", "Accessor", "Description", "Version"]
        names = ("type", "accessor", "description", "plugin_version")
        rows = [[path, *(str(method.get(name) or "") for name in names)] for path, method in sorted(methods.items())]
    call.out(table(titles, rows))
    return EXIT_OK


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
        with doing("Error listing enabled authentications"):
            methods = call.client.fetch("GET", "sys/auth").get("data") or {}
        named = str((methods.get(named + "/") or {}).get("type") or named)
    if named not in _HELP:
        raise UsageError(f"`login` knows no auth method of the type {named}; it may be used over HTTP")
    call.out(f"Usage: conclave login -method={named} {_HELP[named]}")
    return EXIT_OK
