"""What a node says about itself: `status`, `version-history`; and `print token`."""

from typing import Any

from conclave.cli.command import FORMAT, OUTPUT_FLAGS, Call, command
from conclave.cli.document import Fields, cell, scalar
from conclave.cli.errors import EXIT_LOCAL, EXIT_OK, EXIT_SERVER, Refused, ServerError, UsageError
from conclave.cli.output import record, show_document, show_field, show_rows, show_warnings
from conclave.cli.table import table


@command("status [options]", *OUTPUT_FLAGS)
def status(call: Call) -> int:
    """Print seal and leadership of a node.

    Exits with 0 when the node is unsealed, 1 when it cannot be asked, and 2 when it is sealed.

        $ conclave status
    """
    try:
        seal = call.client.fetch("GET", "sys/seal-status")
    except ServerError as error:
        call.warn(f"Error checking seal status: {error}")
        return EXIT_LOCAL
    show_seal_status(call, seal)
    return EXIT_SERVER if seal.get("sealed") else EXIT_OK


def show_seal_status(call: Call, seal: dict[str, Any]) -> None:
    """Print a node's answer about its seal, together with what it says about leadership.

    Raises:
        CommandError: -field names what is not there.
    """
    shown = seal_document(seal, _leadership(call))
    field = call.flags.text("field")
    if field:
        show_field(call, shown.get(field), missing=f'Field "{field}" not present in secret')
    elif not show_document(call, shown):
        show_rows(call, status_rows(shown))
        show_warnings(call, seal.get("warnings"))


def _leadership(call: Call) -> dict[str, Any]:
    """A sealed node does not say who leads; that is no error here."""
    try:
        return call.client.fetch("GET", "sys/leader")
    except Refused:
        return {"ha_enabled": True}


def seal_document(seal: dict[str, Any], leadership: dict[str, Any]) -> Fields:
    """Put both answers into the one object that `status -format=json` prints."""
    shown = record(
        type=seal.get("type", ""),
        initialized=bool(seal.get("initialized")),
        sealed=bool(seal.get("sealed")),
        t=seal.get("t", 0),
        n=seal.get("n", 0),
        progress=seal.get("progress", 0),
        nonce=seal.get("nonce", ""),
        version=seal.get("version", ""),
        commit_date=seal.get("commit_date", ""),
        migration=bool(seal.get("migration")),
    )
    for name in ("cluster_name", "cluster_id"):
        if seal.get(name):
            shown[name] = seal[name]
    shown["recovery_seal"] = bool(seal.get("recovery_seal"))
    shown["storage_type"] = seal.get("storage_type", "")
    shown["build_date"] = seal.get("build_date", "")
    shown["ha_enabled"] = bool(leadership.get("ha_enabled"))
    no_time = leadership.get("active_time", "").startswith("0001-")
    for name in ("is_self", "active_time", "leader_address", "leader_cluster_address"):
        if leadership.get(name) and not (name == "active_time" and no_time):
            shown[name] = leadership[name]
    for name in ("raft_committed_index", "raft_applied_index"):
        if leadership.get(name):
            shown[name] = leadership[name]
    return shown


def status_rows(shown: dict[str, Any]) -> list[list[str]]:
    """Return the rows of `status`."""
    is_sealed = shown["sealed"]
    rows = [
        ["Seal Type", shown["type"]],
        ["Initialized", scalar(shown["initialized"], none="")],
        ["Sealed", scalar(is_sealed, none="")],
        ["Total Recovery Shares" if shown["recovery_seal"] else "Total Shares", cell(shown["n"])],
        ["Threshold", cell(shown["t"])],
    ]
    if is_sealed:
        rows += [["Unseal Progress", f"{shown['progress']}/{shown['t']}"], ["Unseal Nonce", shown["nonce"]]]
    if shown["migration"]:
        rows.append(["Seal Migration in Progress", "true"])
    rows.append(["Version", shown["version"]])
    if shown["commit_date"]:
        rows.append(["Commit Date", shown["commit_date"]])
    rows.append(["Storage Type", shown["storage_type"]])
    if "cluster_name" in shown:
        rows += [["Cluster Name", shown["cluster_name"]], ["Cluster ID", shown.get("cluster_id", "")]]
    rows.append(["HA Enabled", scalar(shown["ha_enabled"], none="")])
    return rows if is_sealed or not shown["ha_enabled"] else rows + _leader_rows(shown)


def _leader_rows(shown: dict[str, Any]) -> list[list[str]]:
    rows = [["HA Cluster", shown.get("leader_cluster_address", "")]]
    if shown.get("is_self"):
        rows += [["HA Mode", "active"], ["Active Since", shown.get("active_time", "")]]
    else:
        rows.append(["HA Mode", "standby"])
        if shown.get("leader_cluster_address"):
            rows.append(["Active Node Address", shown.get("leader_address", "")])
    for name, title in (("raft_committed_index", "Raft Committed Index"), ("raft_applied_index", "Raft Applied Index")):
        if name in shown:
            rows.append([title, cell(shown[name])])
    return rows


@command("version-history [options]", FORMAT)
def version_history(call: Call) -> int:
    """Print which versions this server's data has been served by."""
    answer = call.client.fetch("GET", "sys/version-history", params={"list": "true"})
    data = answer.get("data") or {}
    if show_document(call, answer):
        return EXIT_OK
    infos = data.get("key_info") or {}
    fields = ("timestamp_installed", "commit_date")
    rows = [[name, *(str(infos.get(name, {}).get(f) or "") for f in fields)] for name in data.get("keys") or []]
    call.out(table(["Version", "Installation Time", "Commit Date"], rows, gap="  "))
    return EXIT_OK


@command("print token", is_http=False)
def print_token(call: Call) -> int:
    """Print the token that the next request would carry."""
    from conclave.cli.settings import read_token

    token = read_token(call.environment)
    if not token:
        raise UsageError("Error: no token is set; log in, or set BAO_TOKEN")
    call.out(token)
    return EXIT_OK
