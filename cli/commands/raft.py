"""The members of the cluster: join, list, promote, demote, remove."""

from conclave.cli.command import FORMAT, Call, command, doing
from conclave.cli.document import scalar
from conclave.cli.errors import EXIT_OK, ServerError
from conclave.cli.flags import Flag, Kind
from conclave.cli.output import record, show_document, show_rows
from conclave.cli.table import table
from conclave.cli.values import text_or_file


@command(
    "operator raft join [options] [LEADER-API-ADDRESS]",
    FORMAT,
    Flag("auto-join-port", "Port for discovered leaders.", Kind.COUNT, 8200),
    Flag("auto-join-scheme", "Scheme for discovered leaders.", default="https"),
    Flag("leader-ca-cert", "Certificates (PEM) that vouch for the leader; @file reads a file."),
    Flag("leader-client-cert", "The client certificate to show to the leader; @file reads a file."),
    Flag("leader-client-key", "The private key of it; @file reads a file."),
    Flag("non-voter", "Join without a vote, until promoted.", Kind.BOOLEAN),
    Flag("retry", "Try again until it works.", Kind.BOOLEAN),
    arguments=(0, 1),
)
def join(call: Call) -> int:
    """Let a node join the cluster of a leader.

    It is a member after it has been unsealed with the keys of that cluster.

        $ conclave operator raft join https://leader.example:8200
    """
    body = {
        "leader_api_addr": call.argument(0).strip(),
        "leader_ca_cert": text_or_file(call.flags.text("leader-ca-cert"), call.stdin),
        "leader_client_cert": text_or_file(call.flags.text("leader-client-cert"), call.stdin),
        "leader_client_key": text_or_file(call.flags.text("leader-client-key"), call.stdin),
        "retry": call.flags.boolean("retry"),
        "non_voter": call.flags.boolean("non-voter"),
    }
    with doing("Error joining the node to the Raft cluster"):
        answer = call.client.fetch("POST", "sys/storage/raft/join", body)
    shown = record(joined=bool(answer.get("joined")))
    return EXIT_OK if show_document(call, shown) else show_rows(call, [["Joined", scalar(shown["joined"], none="")]])


@command("operator raft list-peers [options]", FORMAT)
def list_peers(call: Call) -> int:
    """List the members of the cluster."""
    with doing("Error reading the raft cluster configuration"):
        secret = call.client.read("sys/storage/raft/configuration")
    if secret is None or not isinstance(secret.data, dict):
        raise ServerError("No raft cluster configuration found")
    if show_document(call, secret.document()):
        return EXIT_OK
    rows = [
        [
            str(peer.get("node_id")),
            str(peer.get("address")),
            "leader" if peer.get("leader") else "follower",
            scalar(bool(peer.get("voter")), none=""),
        ]
        for peer in secret.data.get("config", {}).get("servers") or []
    ]
    call.out(table(["Node", "Address", "State", "Voter"], rows))
    return EXIT_OK


@command("operator raft remove-peer [options] NODE-ID", FORMAT, arguments=(1, 1))
def remove_peer(call: Call) -> int:
    """Remove a member from the cluster.

    $ conclave operator raft remove-peer node-3
    """
    with doing("Error removing the peer from raft cluster"):
        call.client.request("POST", "sys/storage/raft/remove-peer", body={"server_id": call.argument(0).strip()})
    call.out("Peer removed successfully!")
    return EXIT_OK


@command("operator raft promote [options] NODE-ID", FORMAT, arguments=(1, 1))
def promote(call: Call) -> int:
    """Give a member without a vote one, as soon as it has caught up."""
    with doing("Error promoting the peer"):
        call.client.request("POST", "sys/storage/raft/promote", body={"server_id": call.argument(0).strip()})
    call.out("Peer promoted successfully!")
    return EXIT_OK


@command("operator raft demote [options] NODE-ID", FORMAT, arguments=(1, 1))
def demote(call: Call) -> int:
    """Take a member's vote away until it is promoted; it goes on replicating."""
    with doing("Error demoting the peer"):
        call.client.request("POST", "sys/storage/raft/demote", body={"server_id": call.argument(0).strip()})
    call.out("Peer demoted successfully!")
    return EXIT_OK
