"""Commands that know nothing of the engine behind a path: read, write, patch, delete, list, scan, unwrap, path-help."""

from typing import Final

from conclave.cli.command import ANY_NUMBER, FORMAT, OUTPUT_FLAGS, Call, command, doing
from conclave.cli.errors import EXIT_OK, CommandError, ServerError, UsageError
from conclave.cli.flags import Flag, Kind
from conclave.cli.output import show_document, show_names, show_secret, show_written
from conclave.cli.values import parse_data, parse_params

_FORCE: Final = Flag("force", "Write although there is no data.", Kind.BOOLEAN, aliases=("f",))
_PAGE: Final = (
    Flag("after", "Only names after this one."),
    Flag("limit", "At most this many names.", Kind.INTEGER, -1),
    Flag("detailed", "Show what is known about each name, where the server tells.", Kind.BOOLEAN),
)


@command("read [options] PATH [K=V...]", *OUTPUT_FLAGS, arguments=(1, ANY_NUMBER))
def read(call: Call) -> int:
    """Read data from a path.

    K=V pairs become the query of the request.

        $ conclave read secret/data/app
        $ conclave read secret/data/app version=2
    """
    path = call.path_argument()
    params = parse_params(call.arguments[1:], call.stdin)
    with doing(f"Error reading {path}"):
        if call.format == "raw":
            call.out(call.client.request("GET", path, params=params).body.decode(errors="replace"))
            return EXIT_OK
        secret = call.client.read(path, params)
    if secret is None:
        raise ServerError(f"No value found at {path}")
    return show_secret(call, secret)


@command("write [options] PATH [K=V...]", *OUTPUT_FLAGS, _FORCE, arguments=(1, ANY_NUMBER))
def write(call: Call) -> int:
    """Write data to a path.

    Values are texts; "@file" and "-" (stdin) read JSON, "key=@file" and "key=-" the content of a value.

        $ conclave write transit/encrypt/orders plaintext=aGVsbG8=
        $ conclave write -f transit/keys/orders
    """
    path = call.path_argument()
    data = parse_data(call.arguments[1:], call.stdin)
    if not data and not call.flags.boolean("force"):
        raise UsageError("Must supply data or use -force")
    with doing(f"Error writing data to {path}"):
        secret = call.client.write(path, data or None)
    return show_written(call, secret, f"Success! Data written to: {path}")


@command("patch [options] PATH [K=V...]", *OUTPUT_FLAGS, _FORCE, arguments=(1, ANY_NUMBER))
def patch(call: Call) -> int:
    """Change some fields of what is at a path.

    $ conclave patch identity/entity/name/alice disabled=true
    """
    path = call.path_argument()
    data = parse_data(call.arguments[1:], call.stdin)
    if not data and not call.flags.boolean("force"):
        raise UsageError("Must supply data or use -force")
    with doing(f"Error patching data at {path}"):
        secret = call.client.patch(path, data)
    return show_written(call, secret, f"Success! Data written to: {path}")


@command("delete [options] PATH [K=V...]", *OUTPUT_FLAGS, arguments=(1, ANY_NUMBER))
def delete(call: Call) -> int:
    """Delete what is at a path.

    $ conclave delete secret/metadata/app
    """
    path = call.path_argument()
    params = parse_params(call.arguments[1:], call.stdin)
    with doing(f"Error deleting {path}"):
        secret = call.client.delete(path, params)
    return show_written(call, secret, f"Success! Data deleted (if it existed) at: {path}")


@command("list [options] PATH", FORMAT, *_PAGE, arguments=(1, 1))
def list_names(call: Call) -> int:
    """List the names at a path.

    $ conclave list secret/metadata
    """
    return _list(call, "list")


@command("scan [options] PATH", FORMAT, *_PAGE, arguments=(1, 1))
def scan(call: Call) -> int:
    """List the names at a path and in all folders below it.

    $ conclave scan secret/metadata
    """
    return _list(call, "scan")


def _list(call: Call, verb: str) -> int:
    path = call.path_argument()
    params = {name: call.flags.text(name) for name in ("after",) if call.flags.text(name)}
    if call.flags.is_given("limit"):
        params["limit"] = str(call.flags.integer("limit"))
    with doing(f"Error {verb}ning {path}" if verb == "scan" else f"Error {verb}ing {path}"):
        secret = call.client.list_names(path, params, verb=verb)
    return show_names(call, secret, path)


@command("unwrap [options] [TOKEN]", *OUTPUT_FLAGS, arguments=(0, 1))
def unwrap(call: Call) -> int:
    """Take out what a wrapping token holds; it can be done once.

    Without TOKEN the client's own token is the wrapping token.

        $ conclave unwrap hvs.CAES...
    """
    own, token = call.client.settings.token, call.argument(0).strip()
    body = {"token": token} if own and token and token != own else None
    client = call.client if own else call.client.replaced(token=token)
    with doing("Error unwrapping"):
        secret = client.write("sys/wrapping/unwrap", body)
    if secret is None:
        raise ServerError("Could not find wrapped response")
    return show_secret(call, secret)


@command("path-help [options] PATH", FORMAT, arguments=(1, 1))
def path_help(call: Call) -> int:
    """Print what the server says about a path.

    $ conclave path-help secret
    """
    path = call.path_argument()
    with doing("Error retrieving help"):
        answer = call.client.fetch("GET", path, params={"help": "1"})
    text = answer.get("help")
    if not isinstance(text, str):
        raise CommandError(f"there is no help for {path}")
    if not show_document(call, answer):
        call.out(text.strip("\n"))
    return EXIT_OK
