"""`login`: get a token from an auth method and keep it for later commands."""

from collections.abc import Callable
from typing import Any, Final

from conclave.cli.command import ANY_NUMBER, OUTPUT_FLAGS, Call, command, doing
from conclave.cli.errors import EXIT_OK, CommandError, ServerError, UsageError
from conclave.cli.flags import Flag, Kind, setting
from conclave.cli.output import auth_rows, field_of, show_document, show_field, show_rows, show_secret, show_warnings
from conclave.cli.secret import Secret
from conclave.cli.values import parse_data

_DONE: Final = """\
Success! You are now authenticated. The token information displayed below is
already stored in the token helper. You do NOT need to run "conclave login" again.
Future Conclave requests will automatically use this token.
"""
_NOT_STORED: Final = """\
The token was not stored in token helper. Set the BAO_TOKEN environment
variable or pass the token below with each request to Conclave.
"""
_SHADOWED: Final = """\
WARNING! The {name} environment variable is set, and comes before the token that
this login stores. Unset it, or set it to the new token.
"""


@command(
    "login [options] [TOKEN | K=V...]",
    *OUTPUT_FLAGS,
    Flag("method", "The type of auth method.", default="token"),
    Flag("path", "Where it is mounted; the type if not set."),
    Flag("no-store", "Do not keep the token.", Kind.BOOLEAN),
    Flag("no-print", "Do not print the token.", Kind.BOOLEAN),
    Flag("token-only", "Print the token alone and do not keep it.", Kind.BOOLEAN),
    arguments=(0, ANY_NUMBER),
)
def login(call: Call) -> int:
    """Get a token and keep it for later commands.

    With the method "token" (the default) the argument is a token that exists; "-" reads it from stdin, and without
    one it is asked for. Other methods take their credentials as K=V pairs.

        $ conclave login hvs.CAES...
        $ conclave login -method=userpass username=alice
        $ conclave login -method=approle role_id=... secret_id=...
    """
    secret = _authenticate(call)
    if secret.auth is None and secret.wrap_info is None:
        raise ServerError("Error authenticating: the server answered without a token")
    if secret.wrap_info is not None and not call.flags.boolean("no-store") and not call.flags.boolean("token-only"):
        secret = _unwrapped(call, secret.wrap_info["token"])
    if secret.auth is not None and (secret.auth.get("mfa_requirement") or {}).get("mfa_request_id"):
        return _ask_for_more(call, secret)
    if call.flags.boolean("token-only"):
        holder = secret.auth or {}
        token = holder.get("client_token") or (secret.wrap_info or {}).get("token", "")
        return show_field(call, token, missing="the server answered without a token")
    is_stored = secret.auth is not None and not call.flags.boolean("no-store")
    if is_stored and secret.auth is not None:
        _store(call, secret.auth["client_token"])
    return EXIT_OK if call.flags.boolean("no-print") else _show(call, secret, is_stored=is_stored)


def _authenticate(call: Call) -> Secret:
    method = call.flags.text("method").lower()
    if method == "token":
        if len(call.arguments) > 1 or (call.arguments and "=" in call.arguments[0]):
            raise UsageError('the method "token" takes one token and no K=V pairs')
        return _look_up(call)
    if method not in _BODIES:
        raise UsageError(
            f'Unknown auth method: {method}. Use "conclave auth list" to see which are enabled; '
            "some can be used over HTTP alone."
        )
    data = parse_data(["password=-" if word == "-" else word for word in call.arguments], call.stdin)
    path = (call.flags.text("path") or data.pop("mount", "") or method).strip("/")
    suffix, body = _BODIES[method](call, data)
    with doing("Error authenticating"):
        secret = call.client.replaced(token="").write(f"auth/{path}/login{suffix}", body)
    return secret or Secret()


def _look_up(call: Call) -> Secret:
    """A login with a token makes nothing: it reads what the token is, in the shape of a login."""
    token = call.argument(0)
    token = call.stdin.readline() if token == "-" else token  # noqa: S105 -- "-" means stdin
    token = token.strip() or call.ask_hidden("Token (will be hidden): ")
    client = call.client.replaced(token=token, wrap_ttl="")
    with doing("Error authenticating"), doing("error looking up token"):
        secret = client.read("auth/token/lookup-self")
    data = secret.data if secret is not None and isinstance(secret.data, dict) else {}
    policies = list(data.get("policies") or [])
    identity = data.get("identity_policies")
    auth = {
        "client_token": token,
        "accessor": data.get("accessor", ""),
        "policies": sorted({*policies, *(identity or [])}) if identity else policies,
        "token_policies": policies,
        "identity_policies": identity,
        "metadata": data.get("meta"),
        "orphan": False,
        "entity_id": "",
        "lease_duration": data.get("ttl") or 0,
        "renewable": bool(data.get("renewable")),
    }
    return Secret(auth=auth)


def _unwrapped(call: Call, token: str) -> Secret:
    with doing("Error unwrapping the token"):
        return call.client.replaced(token=token, wrap_ttl="").write("sys/wrapping/unwrap") or Secret()


# What each method sends: the rest of the path, and the body.
_Body = Callable[[Call, dict[str, Any]], tuple[str, dict[str, Any]]]


def _user_and_password(call: Call, data: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    username = data.pop("username", "") or setting(call.environment, "USERNAME") or call.environment.get("USER", "")
    if not username:
        raise UsageError("Error authenticating: 'username' must be given")
    data["password"] = data.get("password") or call.ask_hidden("Password (will be hidden): ")
    return f"/{username}", data


def _as_given(_call: Call, data: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return "", data


def _certificate(_call: Call, data: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return "", {"name": data.get("name", "")}


_BODIES: Final[dict[str, _Body]] = {
    "userpass": _user_and_password,
    "ldap": _user_and_password,
    "radius": _user_and_password,
    "approle": _as_given,
    "jwt": _as_given,
    "kubernetes": _as_given,
    "cert": _certificate,
}


def _store(call: Call, token: str) -> None:
    from conclave.cli.settings import store_token

    for name in ("BAO_TOKEN", "VAULT_TOKEN"):
        if call.environment.get(name):
            call.warn(_SHADOWED.format(name=name))
            break
    try:
        store_token(call.environment, token)
    except OSError as error:
        raise CommandError(f"Error storing token: {error.strerror}") from error


def _show(call: Call, secret: Secret, *, is_stored: bool) -> int:
    if call.flags.text("field"):
        name = call.flags.text("field")
        return show_field(call, field_of(secret, name), missing=f'Field "{name}" not present in secret')
    if call.format != "table" or secret.auth is None:
        return show_secret(call, secret)
    call.out(_DONE)
    if not is_stored:
        call.warn(_NOT_STORED)
    show_rows(call, auth_rows(secret.auth))
    show_warnings(call, secret.warnings)
    return EXIT_OK


def _ask_for_more(call: Call, secret: Secret) -> int:
    """The login waits for a second factor, which `write sys/mfa/validate` gives."""
    if show_document(call, secret.document()):
        return EXIT_OK
    requirement = (secret.auth or {}).get("mfa_requirement") or {}
    call.out(
        "A second factor is needed. Send it with:\n\n"
        f"    conclave write sys/mfa/validate mfa_request_id={requirement.get('mfa_request_id')} mfa_payload=...\n"
    )
    return EXIT_OK
