"""The care of the cluster's members: `operator raft autopilot state, get-config, set-config`."""

from typing import Any, Final

from conclave.cli.command import FORMAT, Call, command, doing
from conclave.cli.document import cell
from conclave.cli.durations import go_duration
from conclave.cli.errors import EXIT_OK, UsageError
from conclave.cli.flags import Flag, Kind
from conclave.cli.output import show_document, show_rows

_CONFIGURATION: Final = "sys/storage/raft/autopilot/configuration"
_ROWS: Final = (
    ("Cleanup Dead Servers", "cleanup_dead_servers"),
    ("Last Contact Threshold", "last_contact_threshold"),
    ("Dead Server Last Contact Threshold", "dead_server_last_contact_threshold"),
    ("Server Stabilization Time", "server_stabilization_time"),
    ("Min Quorum", "min_quorum"),
    ("Max Trailing Logs", "max_trailing_logs"),
)
_SERVER_ROWS: Final = (
    ("Name", "name"),
    ("Address", "address"),
    ("Status", "status"),
    ("Node Status", "node_status"),
    ("Healthy", "healthy"),
    ("Last Contact", "last_contact"),
    ("Last Term", "last_term"),
    ("Last Index", "last_index"),
    ("Version", "version"),
    ("Node Type", "node_type"),
)


@command("operator raft autopilot get-config [options]", FORMAT)
def get_config(call: Call) -> int:
    """Print when members count as healthy, stable or dead."""
    with doing("Error reading the autopilot configuration"):
        config = call.client.fetch("GET", _CONFIGURATION).get("data") or {}
    if show_document(call, config):
        return EXIT_OK
    return show_rows(call, [[title, cell(config.get(name, ""))] for title, name in _ROWS])


@command(
    "operator raft autopilot set-config [options]",
    FORMAT,
    Flag("cleanup-dead-servers", "Whether dead members are removed.", Kind.BOOLEAN),
    Flag("dead-server-last-contact-threshold", "After how long a silent member counts as dead.", Kind.DURATION),
    Flag("last-contact-threshold", "How long a silent member is still healthy.", Kind.DURATION),
    Flag("max-trailing-logs", "How many entries a healthy member may lag behind.", Kind.COUNT),
    Flag("min-quorum", "How many voters clean-up leaves at least.", Kind.COUNT),
    Flag("server-stabilization-time", "How long a new member has to be healthy before it votes.", Kind.DURATION),
)
def set_config(call: Call) -> int:
    """Change when members count as healthy, stable or dead.

    $ conclave operator raft autopilot set-config -cleanup-dead-servers -min-quorum=3
    """
    flags = call.flags
    body: dict[str, Any] = {}
    if flags.is_given("cleanup-dead-servers"):
        body["cleanup_dead_servers"] = flags.boolean("cleanup-dead-servers")
    for name in ("max-trailing-logs", "min-quorum"):
        if flags.is_given(name):
            body[name.replace("-", "_")] = flags.integer(name)
    for name in ("dead-server-last-contact-threshold", "last-contact-threshold", "server-stabilization-time"):
        if flags.is_given(name):
            body[name.replace("-", "_")] = go_duration(flags.integer(name))
    if not body:
        raise UsageError("Nothing to set: give at least one of the flags that -h lists")
    with doing("Error updating the autopilot configuration"):
        call.client.request("PUT", _CONFIGURATION, body=body)
    return EXIT_OK


@command("operator raft autopilot state [options]", FORMAT)
def state(call: Call) -> int:
    """Print the health of the cluster and of each member."""
    with doing("Error checking autopilot state"):
        shown = call.client.fetch("GET", "sys/storage/raft/autopilot/state").get("data") or {}
    if not show_document(call, shown):
        call.out(state_text(shown))
    return EXIT_OK


def state_text(shown: dict[str, Any]) -> str:
    """Return the indented listing of `state`."""
    lines = [f"{title + ':':<33}{cell(shown.get(name))}" for title, name in _STATE_ROWS]
    lines += ["Voters:", *(f"   {node}" for node in shown.get("voters") or []), "Servers:"]
    servers = shown.get("servers") or {}
    for node in sorted(servers):
        lines.append(f"   {node}")
        lines += [f"      {title + ':':<19}{cell(servers[node].get(name))}" for title, name in _SERVER_ROWS]
    return "\n".join(lines) + "\n"


_STATE_ROWS: Final = (("Healthy", "healthy"), ("Failure Tolerance", "failure_tolerance"), ("Leader", "leader"))
