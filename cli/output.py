"""How answers are printed: as a table, as JSON, as YAML, or one field alone.

Warnings of the server go to stderr, and only beside tables: a program that reads JSON finds them inside. A single field is
printed without a newline when stdout is not a terminal, so that it can be piped.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from conclave.cli import table
from conclave.cli.command import Call
from conclave.cli.document import Fields, cell, pretty_json, quoted_list, scalar, yaml_document
from conclave.cli.durations import human_seconds
from conclave.cli.errors import EXIT_OK, EXIT_SERVER, CommandError, ServerError, UsageError
from conclave.cli.secret import Secret

_TOKEN_FIELDS: Final = {
    "token": "client_token",
    "token_accessor": "accessor",
    "token_duration": "lease_duration",
    "token_renewable": "renewable",
    "token_policies": "token_policies",
    "identity_policies": "identity_policies",
    "policies": "policies",
}
_WRAPPING_FIELDS: Final = {
    "wrapping_token": "token",
    "wrapping_accessor": "accessor",
    "wrapping_token_ttl": "ttl",
    "wrapping_token_creation_time": "creation_time",
    "wrapping_token_creation_path": "creation_path",
    "wrapped_accessor": "wrapped_accessor",
}


def show_document(call: Call, value: Any) -> bool:
    """Print a value as JSON or YAML if that is the format; False when a table is wanted.

    Raises:
        UsageError: the format is "raw" or "pretty", which only some commands have.
    """
    if call.format == "json":
        call.out(pretty_json(value))
    elif call.format == "yaml":
        call.out(yaml_document(value))
    elif call.format == "raw":
        raise UsageError("This command does not support the -format=raw option.")
    elif call.format == "pretty":
        raise UsageError("Could not parse output: cannot use the pretty formatter for this type")
    return call.format != "table"


def show_secret(call: Call, secret: Secret) -> int:
    """Print an answer as the flags ask for."""
    field = call.flags.text("field")
    if field:
        return show_field(call, field_of(secret, field), missing=f'Field "{field}" not present in secret')
    if show_document(call, secret.document()):
        return EXIT_OK
    rows = secret_rows(secret)
    if rows:
        call.out(table.key_value_table(rows))
    show_warnings(call, secret.warnings)
    return EXIT_OK


def show_field(call: Call, value: Any, *, missing: str) -> int:
    """Print one value alone.

    Raises:
        CommandError: it is not there, with the text `missing`.
    """
    if value is None:
        raise CommandError(missing)
    if call.format == "json":
        call.out(pretty_json(value), end="")
    elif call.format == "yaml":
        call.out(yaml_document(value))
    else:
        text = value if isinstance(value, str) else cell(value)
        call.out(text, end="\n" if call.stdout.isatty() else "")
    return EXIT_OK


def field_of(secret: Secret, name: str) -> Any:
    """Return a field by the name that tables show it under; None when it is not there."""
    if secret.auth is not None and name in _TOKEN_FIELDS:
        return secret.auth.get(_TOKEN_FIELDS[name])
    if secret.wrap_info is not None and name in _WRAPPING_FIELDS:
        return secret.wrap_info.get(_WRAPPING_FIELDS[name])
    if name in ("lease_id", "lease_duration", "lease_renewable", "refresh_interval") and secret.lease_duration:
        return {"lease_id": secret.lease_id, "lease_renewable": secret.renewable}.get(name, secret.lease_duration)
    if isinstance(secret.data, dict):
        return secret.data.get(name)
    return secret.data if name == "data" else None


def secret_rows(secret: Secret) -> list[list[str]]:
    """Return the rows of an answer: its lease, its token, its wrapping token, its data."""
    rows = _lease_rows(secret)
    if secret.auth is not None:
        rows += auth_rows(secret.auth)
    if secret.wrap_info is not None:
        rows += wrapping_rows(secret.wrap_info)
    if isinstance(secret.data, dict):
        rows += table.rows_of(secret.data)
    return rows


def _lease_rows(secret: Secret) -> list[list[str]]:
    if secret.lease_duration <= 0:
        return []
    length = human_seconds(secret.lease_duration)
    if not secret.lease_id:
        return [["refresh_interval", length]]
    renewable = scalar(secret.renewable, none="")
    return [["lease_id", secret.lease_id], ["lease_duration", length], ["lease_renewable", renewable]]


def auth_rows(auth: Mapping[str, Any]) -> list[list[str]]:
    """Return the rows of a token that was made."""
    seconds = auth.get("lease_duration") or 0
    rows = [
        ["token", auth.get("client_token") or ""],
        ["token_accessor", auth.get("accessor") or ""],
        ["token_duration", human_seconds(seconds) if seconds else "∞"],
        ["token_renewable", scalar(bool(auth.get("renewable")), none="")],
        *([name, quoted_list(auth.get(name))] for name in ("token_policies", "identity_policies", "policies")),
    ]
    metadata = auth.get("metadata") or {}
    return [*rows, *([f"token_meta_{name}", cell(metadata[name])] for name in sorted(metadata))]


def wrapping_rows(wrapping: Mapping[str, Any]) -> list[list[str]]:
    """Return the rows of a wrapping token."""
    rows = [
        ["wrapping_token:", wrapping.get("token") or ""],
        ["wrapping_accessor:", wrapping.get("accessor") or ""],
        ["wrapping_token_ttl:", human_seconds(wrapping.get("ttl") or 0)],
        ["wrapping_token_creation_time:", _go_time(str(wrapping.get("creation_time") or ""))],
        ["wrapping_token_creation_path:", wrapping.get("creation_path") or ""],
    ]
    accessor = wrapping.get("wrapped_accessor")
    return [*rows, ["wrapped_accessor:", accessor]] if accessor else rows


def _go_time(stamp: str) -> str:
    """2026-11-24T00:13:02.4Z as Go prints a time: 2026-11-24 00:13:02.4 +0000 UTC."""
    return stamp.replace("T", " ").removesuffix("Z") + " +0000 UTC" if stamp.endswith("Z") else stamp


def show_warnings(call: Call, warnings: Sequence[str] | None) -> None:
    """Print the server's warnings to stderr."""
    if warnings:
        texts = "\n".join(table.wrapped("* " + text, "  ") for text in warnings)
        call.warn(f"WARNING! The following warnings were returned from Conclave:\n\n{texts}\n")


def show_names(call: Call, secret: Secret | None, path: str) -> int:
    """Print the names of a listing: a bare array, or one a line.

    Raises:
        ServerError: there is nothing.
    """
    names = secret.data.get("keys") if secret is not None and isinstance(secret.data, dict) else None
    if secret is not None and secret.wrap_info is not None:
        return show_secret(call, secret)
    if not names:
        if call.format == "table":
            raise ServerError(f"No value found at {path}")
        show_document(call, {})
        return EXIT_SERVER
    if not show_document(call, names):
        call.out("\n".join(["Keys", "----", *map(str, names)]))
        show_warnings(call, secret.warnings if secret is not None else None)
    return EXIT_OK


def show_rows(call: Call, rows: Sequence[Sequence[str]]) -> int:
    """Print rows of two cells as a table."""
    call.out(table.key_value_table(rows))
    return EXIT_OK


def show_written(call: Call, secret: Secret | None, done: str) -> int:
    """Print what a write answered, or, when it had nothing to say, that it is done."""
    if secret is None or (secret.data is None and secret.auth is None and secret.wrap_info is None):
        if not call.flags.text("field"):
            show_warnings(call, secret.warnings if secret is not None else None)
            call.out(done)
        return EXIT_OK
    return show_secret(call, secret)


def record(**values: Any) -> Fields:
    """Return an object whose keys keep this order in every format that has an order."""
    return Fields(values)
