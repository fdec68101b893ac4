"""Audit devices: enable, disable, list."""

from conclave.cli.command import ANY_NUMBER, FORMAT, Call, command, doing
from conclave.cli.errors import EXIT_OK, EXIT_SERVER, UsageError
from conclave.cli.flags import Flag, Kind
from conclave.cli.output import show_document
from conclave.cli.table import table
from conclave.cli.values import parse_params


@command(
    "audit enable [options] TYPE [K=V...]",
    Flag("description", "A line for people."),
    Flag("local", "Keep it out of replication.", Kind.BOOLEAN),
    Flag("path", "Its name; the type if not set."),
    arguments=(0, ANY_NUMBER),
)
def enable(call: Call) -> int:
    """Switch an audit device on.

    $ conclave audit enable file file_path=/var/log/conclave/audit.log
    """
    if not call.arguments:
        raise UsageError("Error enabling audit device: say which type: file, socket or syslog")
    device = call.argument(0).strip()
    path = (call.flags.text("path") or device).strip("/ ")
    body = {
        "type": device,
        "description": call.flags.text("description"),
        "options": parse_params(call.arguments[1:], call.stdin),
        "local": call.flags.boolean("local"),
    }
    with doing("Error enabling audit device"):
        call.client.request("PUT", f"sys/audit/{path}", body=body)
    call.out(f"Success! Enabled the {device} audit device at: {path}/")
    return EXIT_OK


@command("audit disable [options] PATH", arguments=(1, 1))
def disable(call: Call) -> int:
    """Switch an audit device off. Hashes in its log cannot be compared any more.

    $ conclave audit disable file/
    """
    path = call.path_argument()
    with doing("Error disabling audit device"):
        call.client.request("DELETE", f"sys/audit/{path}")
    call.out(f"Success! Disabled audit device (if it was enabled) at: {path}/")
    return EXIT_OK


@command("audit list [options]", FORMAT, Flag("detailed", "Show all that is known.", Kind.BOOLEAN))
def list_devices(call: Call) -> int:
    """List the audit devices. Exits with 2 when there are none, except as JSON or YAML."""
    with doing("Error listing audits"):
        devices = call.client.fetch("GET", "sys/audit").get("data") or {}
    if call.format != "table":
        show_document(call, devices)
        return EXIT_OK
    if not devices:
        call.out("No audit devices are enabled.")
        return EXIT_SERVER
    titles = ["Path", "Type", "Description"]
    rows = [
        [path, str(device.get("type")), str(device.get("description") or "")]
        for path, device in sorted(devices.items())
    ]
    if call.flags.boolean("detailed"):
        titles += ["Replication", "Options"]
        for row in rows:
            device = devices[row[0]]
            options = device.get("options") or {}
            shown = " ".join(f"{name}={options[name]}" for name in sorted(options))
            row += ["local" if device.get("local") else "replicated", shown]
    call.out(table(titles, rows))
    return EXIT_OK
