"""Policies: write, read, list, delete, and `fmt`."""

from pathlib import Path

from conclave.cli.command import FORMAT, Call, command, doing
from conclave.cli.errors import EXIT_OK, CommandError, ServerError
from conclave.cli.output import show_document


@command("policy write [options] NAME PATH", arguments=(2, 2))
def write(call: Call) -> int:
    """Upload a policy from a file, or from stdin with "-".

    $ conclave policy write app app.hcl
    """
    name = call.argument(0).strip().lower()
    rules = call.stdin.read() if call.argument(1) == "-" else _content(Path(call.argument(1)).expanduser())
    with doing("Error uploading policy"):
        call.client.request("PUT", f"sys/policies/acl/{name}", body={"policy": rules})
    call.out(f"Success! Uploaded policy: {name}")
    return EXIT_OK


def _content(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise CommandError(f"Error opening policy file: open {file}: {(error.strerror or '').lower()}") from error


@command("policy read [options] NAME", FORMAT, arguments=(1, 1))
def read(call: Call) -> int:
    """Print a policy."""
    name = call.argument(0).strip().lower()
    with doing(f"Error reading policy named {name}"):
        secret = call.client.read(f"sys/policies/acl/{name}")
    data = secret.data if secret is not None and isinstance(secret.data, dict) else {}
    rules = str(data.get("policy") or data.get("rules") or "")
    if not rules:
        raise ServerError(f"No policy named: {name}")
    if not show_document(call, {"policy": rules}):
        call.out(rules.strip())
    return EXIT_OK


@command("policy list [options]", FORMAT)
def list_policies(call: Call) -> int:
    """List the names of all policies."""
    with doing("Error listing policies"):
        secret = call.client.list_names("sys/policies/acl")
    data = secret.data if secret is not None and isinstance(secret.data, dict) else {}
    names = sorted(map(str, data.get("keys") or data.get("policies") or []))
    if not show_document(call, names):
        call.out("\n".join(names))
    return EXIT_OK


@command("policy delete [options] NAME", arguments=(1, 1))
def delete(call: Call) -> int:
    """Delete a policy; tokens that have it lose what it granted at once."""
    name = call.argument(0).strip().lower()
    with doing(f"Error deleting {name}"):
        call.client.request("DELETE", f"sys/policies/acl/{name}")
    call.out(f"Success! Deleted policy: {name}")
    return EXIT_OK


@command("policy fmt PATH", arguments=(1, 1), is_http=False)
def fmt(call: Call) -> int:
    """Write a policy file anew in the usual layout.

    $ conclave policy fmt app.hcl
    """
    from conclave.cli.policy_format import format_policy

    file = Path(call.argument(0)).expanduser()
    text = _content(file)
    try:
        file.write_text(format_policy(text), encoding="utf-8")
    except ValueError as error:
        raise CommandError(f"Error formatting policy: {error}") from error
    except OSError as error:
        raise CommandError(f"Error writing policy: {error.strerror}") from error
    call.out(f"Success! Formatted policy: {call.argument(0)}")
    return EXIT_OK
