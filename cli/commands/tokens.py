"""Tokens: create, look up, renew, revoke, capabilities."""

from typing import Any, Final

from conclave.cli.command import FORMAT, OUTPUT_FLAGS, Call, command, doing
from conclave.cli.durations import go_duration
from conclave.cli.errors import EXIT_OK, ServerError, UsageError
from conclave.cli.flags import Flag, Kind
from conclave.cli.output import show_document, show_secret
from conclave.cli.secret import Secret

_LENGTHS: Final = {"ttl": "ttl", "period": "period", "explicit-max-ttl": "explicit_max_ttl"}


@command(
    "token create [options]",
    *OUTPUT_FLAGS,
    Flag("display-name", "A name for audit logs."),
    Flag("entity-alias", "The alias to bind the token to; needs -role."),
    Flag("explicit-max-ttl", "The end of its life, whatever is renewed.", Kind.DURATION),
    Flag("id", "The token itself; made by the server if not set."),
    Flag("metadata", "A pair that goes with it, as name=value. Can be repeated.", Kind.PAIRS),
    Flag("no-default-policy", 'Leave out the policy "default".', Kind.BOOLEAN),
    Flag("orphan", "Let it outlive its parent.", Kind.BOOLEAN),
    Flag("period", "Make it periodic: every renewal gives this time again.", Kind.DURATION),
    Flag("policy", "A policy of the token. Can be repeated.", Kind.TEXTS),
    Flag("renewable", "Whether it can be renewed.", Kind.BOOLEAN, default=True),
    Flag("role", "Create it by this role."),
    Flag("ttl", "Its lifetime.", Kind.DURATION),
    Flag("type", "service or batch.", default="service"),
    Flag("use-limit", "How often it can be used.", Kind.INTEGER),
)
def create(call: Call) -> int:
    """Make a token, a child of the client's own.

    $ conclave token create -policy=app -ttl=1h
    """
    flags = call.flags
    body: dict[str, Any] = {
        "policies": flags.texts("policy"),
        "meta": flags.pairs("metadata"),
        "display_name": flags.text("display-name"),
        "num_uses": flags.integer("use-limit"),
        "id": flags.text("id"),
        "entity_alias": flags.text("entity-alias"),
        "no_parent": flags.boolean("orphan"),
        "no_default_policy": flags.boolean("no-default-policy"),
        "renewable": flags.boolean("renewable"),
        "type": flags.text("type"),
        **{key: _length(flags.integer(name)) for name, key in _LENGTHS.items()},
    }
    role = flags.text("role").strip("/")
    with doing("Error creating token"):
        path = f"auth/token/create/{role}" if role else "auth/token/create"
        kept = {name: value for name, value in body.items() if value or name == "renewable"}
        secret = call.client.write(path, kept, method="POST")
    return show_secret(call, _found(secret))


def _length(nanoseconds: int) -> str:
    return go_duration(nanoseconds) if nanoseconds else ""


def _found(secret: Secret | None) -> Secret:
    if secret is None:
        raise ServerError("the server answered without a token")
    return secret


@command(
    "token lookup [options] [TOKEN | ACCESSOR]",
    *OUTPUT_FLAGS,
    Flag("accessor", "The argument is an accessor.", Kind.BOOLEAN),
    arguments=(0, 1),
)
def lookup(call: Call) -> int:
    """Print what a token is; the client's own if none is named.

    $ conclave token lookup
    """
    token = call.argument(0).strip()
    is_accessor = call.flags.boolean("accessor")
    if is_accessor and not token:
        raise UsageError("Not enough arguments with -accessor (expected 1, got 0)")
    with doing("Error looking up token"):
        if is_accessor:
            secret = call.client.write("auth/token/lookup-accessor", {"accessor": token}, method="POST")
        elif token:
            secret = call.client.write("auth/token/lookup", {"token": token}, method="POST")
        else:
            secret = call.client.read("auth/token/lookup-self")
    return show_secret(call, _found(secret))


@command(
    "token renew [options] [TOKEN | ACCESSOR]",
    FORMAT,
    Flag("accessor", "The argument is an accessor.", Kind.BOOLEAN),
    Flag("increment", "The lifetime to ask for.", Kind.DURATION, aliases=("i",)),
    arguments=(0, 1),
)
def renew(call: Call) -> int:
    """Renew a token; the client's own if none is named.

    $ conclave token renew -increment=30m
    """
    token = call.argument(0).strip()
    increment = _length(call.flags.integer("increment"))
    body = {"increment": increment} if increment else {}
    if call.flags.boolean("accessor") and not token:
        raise UsageError("Not enough arguments with -accessor (expected 1, got 0)")
    with doing("Error renewing token"):
        if call.flags.boolean("accessor"):
            secret = call.client.write("auth/token/renew-accessor", {"accessor": token, **body})
        elif token:
            secret = call.client.write("auth/token/renew", {"token": token, **body})
        else:
            secret = call.client.write("auth/token/renew-self", body)
    return show_secret(call, _found(secret))


@command(
    "token revoke [options] [TOKEN | ACCESSOR]",
    Flag("accessor", "The argument is an accessor.", Kind.BOOLEAN),
    Flag("mode", '"orphan" spares its children, "path" takes all tokens made at a path.'),
    Flag("self", "Revoke the client's own token.", Kind.BOOLEAN),
    arguments=(0, 1),
)
def revoke(call: Call) -> int:
    """Revoke a token and its children.

    $ conclave token revoke hvs.CAES...
    """
    token, mode = call.argument(0).strip(), call.flags.text("mode")
    is_accessor, is_self = call.flags.boolean("accessor"), call.flags.boolean("self")
    if is_self and (token or is_accessor or mode):
        raise UsageError("-self goes with neither an argument nor -accessor or -mode")
    if not is_self and not token:
        raise UsageError("Not enough arguments (expected 1 without -self, got 0)")
    with doing("Error revoking token"):
        path, body = _revocation(token, mode, is_accessor=is_accessor, is_self=is_self)
        call.client.request("PUT", path, body=body)
    call.out("Success! Revoked token (if it existed)")
    return EXIT_OK


def _revocation(token: str, mode: str, *, is_accessor: bool, is_self: bool) -> tuple[str, dict[str, str] | None]:
    """The path and the body of the request that revokes."""
    if is_self:
        return "auth/token/revoke-self", None
    if mode == "path" and not is_accessor:
        return f"sys/revoke-prefix/{token.strip('/')}", None
    if mode == "orphan" and not is_accessor:
        return "auth/token/revoke-orphan", {"token": token}
    if mode:
        raise UsageError(f'the mode "{mode}" is neither "orphan" nor "path", or does not go with -accessor')
    if is_accessor:
        return "auth/token/revoke-accessor", {"accessor": token}
    return "auth/token/revoke", {"token": token}


@command("token capabilities [options] [TOKEN] PATH", FORMAT, arguments=(1, 2))
def capabilities(call: Call) -> int:
    """Print what a token may do at a path; the client's own if none is named.

    $ conclave token capabilities secret/data/app
    """
    path = call.arguments[-1].strip()
    with doing("Error listing capabilities"):
        if len(call.arguments) == 1:
            answer = call.client.fetch("POST", "sys/capabilities-self", {"path": path})
        else:
            answer = call.client.fetch("POST", "sys/capabilities", {"token": call.argument(0).strip(), "path": path})
    data = answer.get("data") or answer
    granted = sorted(map(str, data.get("capabilities") or data.get(path) or []))
    if not show_document(call, granted):
        call.out(", ".join(granted))
    return EXIT_OK
