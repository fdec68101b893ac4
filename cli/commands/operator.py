"""Running a node: initialising, sealing and unsealing, encryption keys, members."""

from typing import Any, Final

from conclave.cli.command import FORMAT, Call, command, doing
from conclave.cli.commands.status import show_seal_status
from conclave.cli.document import cell, scalar
from conclave.cli.errors import EXIT_OK, EXIT_SERVER, CommandError
from conclave.cli.flags import Flag, Kind
from conclave.cli.output import record, show_document
from conclave.cli.table import columns, table

SHARES: Final = Flag("key-shares", "Into how many shares the unseal key is split.", Kind.INTEGER, 5, aliases=("n",))
THRESHOLD: Final = Flag("key-threshold", "How many of them open it again.", Kind.INTEGER, 3, aliases=("t",))
PGP_KEYS: Final = Flag("pgp-keys", "Comma-separated files of public keys, one a share, to encrypt the shares with.")


@command(
    "operator init [options]",
    FORMAT,
    SHARES,
    THRESHOLD,
    PGP_KEYS,
    Flag("root-token-pgp-key", "File of a public key to encrypt the root token with."),
    Flag("recovery-shares", "Shares of the recovery key, where the seal unseals by itself.", Kind.INTEGER, 5),
    Flag("recovery-threshold", "How many of them are needed.", Kind.INTEGER, 3),
    Flag("recovery-pgp-keys", "As -pgp-keys, for recovery shares."),
    Flag("status", "Only tell whether the server is initialised: 0 yes, 2 no, 1 unknown.", Kind.BOOLEAN),
)
def init(call: Call) -> int:
    """Initialise a new cluster.

    Makes the keys and the first root token, and shows them once. Who holds enough key shares can unseal the nodes;
    the server keeps none of them.

        $ conclave operator init -key-shares=5 -key-threshold=3
    """
    if call.flags.boolean("status"):
        return _init_status(call)
    body = {
        "secret_shares": call.flags.integer("key-shares"),
        "secret_threshold": call.flags.integer("key-threshold"),
        "pgp_keys": public_keys(call.flags.text("pgp-keys")),
        "root_token_pgp_key": (public_keys(call.flags.text("root-token-pgp-key")) or [""])[0],
    }
    with doing("Error initializing"):
        if _seal_is_automatic(call):
            body = {
                "recovery_shares": call.flags.integer("recovery-shares"),
                "recovery_threshold": call.flags.integer("recovery-threshold"),
                "recovery_pgp_keys": public_keys(call.flags.text("recovery-pgp-keys")),
                "root_token_pgp_key": body["root_token_pgp_key"],
            }
        answer = call.client.fetch("PUT", "sys/init", {name: value for name, value in body.items() if value})
    return _show_init(call, answer, body)


def _init_status(call: Call) -> int:
    with doing("Error checking init status"):
        is_initialized = bool(call.client.fetch("GET", "sys/init").get("initialized"))
    if not show_document(call, {"initialized": is_initialized}):
        call.out(f"Vault is {'' if is_initialized else 'not '}initialized")
    return EXIT_OK if is_initialized else EXIT_SERVER


def _seal_is_automatic(call: Call) -> bool:
    """With a seal that unseals by itself, shares are for recovery."""
    return not call.client.settings.show and bool(call.client.fetch("GET", "sys/seal-status").get("recovery_seal"))


def public_keys(names: str) -> list[str]:
    """Read files of public keys into the form the server takes: base64 of the binary key.

    Raises:
        CommandError: a file cannot be read.
    """
    import base64
    from pathlib import Path

    keys = []
    for name in filter(None, (part.strip().removeprefix("@") for part in names.split(","))):
        try:
            content = Path(name).read_bytes()
        except OSError as error:
            raise CommandError(f"cannot read the public key {name}: {error.strerror}") from error
        is_text = content.isascii()
        keys.append(content.decode().strip() if is_text else base64.b64encode(content).decode())
    return keys


def _show_init(call: Call, answer: dict[str, Any], sent: dict[str, Any]) -> int:
    shown = record(
        unseal_keys_b64=answer.get("keys_base64") or [],
        unseal_keys_hex=answer.get("keys") or [],
        unseal_shares=sent.get("secret_shares", 0),
        unseal_threshold=sent.get("secret_threshold", 0),
        recovery_keys_b64=answer.get("recovery_keys_base64"),
        recovery_keys_hex=answer.get("recovery_keys"),
        recovery_keys_shares=sent.get("recovery_shares", 0),
        recovery_keys_threshold=sent.get("recovery_threshold", 0),
        root_token=answer.get("root_token", ""),
    )
    if show_document(call, shown):
        return EXIT_OK
    for title, keys in (("Unseal Key", shown["unseal_keys_b64"]), ("Recovery Key", shown["recovery_keys_b64"] or [])):
        for number, key in enumerate(keys, 1):
            call.out(f"{title} {number}: {key}")
    call.out(f"\nInitial Root Token: {shown['root_token']}\n")
    count, threshold = len(shown["unseal_keys_b64"]), shown["unseal_threshold"]
    if count:
        call.out(
            f"The unseal key has been split into {count} share(s), of which {threshold} open it. Give each share\n"
            "to somebody else. After every start, restart or sealing of a node, that many are\n"
            f"needed before it serves.\n\nNothing keeps the shares but you: with fewer than {threshold} left, the data can\n"
            'never be read again. "conclave operator rotate-keys" makes new ones from the old.'
        )
    return EXIT_OK


@command(
    "operator unseal [options] [KEY]",
    FORMAT,
    Flag("reset", "Forget the shares given so far.", Kind.BOOLEAN),
    Flag("migrate", "The share belongs to a move to another kind of seal.", Kind.BOOLEAN),
    arguments=(0, 1),
)
def unseal(call: Call) -> int:
    """Give a node one share of the unseal key.

    Without KEY the share is asked for without being shown; "-" reads it from stdin. Shares may be base64 or hex, in any
    order; after enough of them the node is unsealed.

        $ conclave operator unseal
    """
    body: dict[str, Any] = {"reset": True}
    if not call.flags.boolean("reset"):
        key = call.argument(0)
        if key == "-":
            key = call.stdin.read()
        key = key.strip() or call.ask_hidden("Unseal Key (will be hidden): ")
        body = {"key": key, "migrate": call.flags.boolean("migrate")}
    with doing("Error unsealing"):
        answer = call.client.fetch("PUT", "sys/unseal", body)
    show_seal_status(call, answer)
    return EXIT_OK


@command("operator seal [options]")
def seal(call: Call) -> int:
    """Seal a node: it forgets its keys and serves no more until it is unsealed."""
    with doing("Error sealing"):
        call.client.request("PUT", "sys/seal")
    call.out("Success! Vault is sealed.")
    return EXIT_OK


@command("operator step-down [options]")
def step_down(call: Call) -> int:
    """Make the active node hand over to a standby."""
    with doing("Error stepping down"):
        call.client.request("PUT", "sys/step-down")
    call.out(f"Success! Stepped down: {call.client.settings.address}")
    return EXIT_OK


@command("operator key-status [options]", FORMAT)
def key_status(call: Call) -> int:
    """Print the term and age of the key that data is encrypted with."""
    with doing("Error reading key status"):
        answer = call.client.fetch("GET", "sys/key-status")
    return _show_key_status(call, answer.get("data") or answer)


def _show_key_status(call: Call, data: dict[str, Any]) -> int:
    shown = record(
        term=data.get("term", 0), install_time=data.get("install_time", ""), encryptions=data.get("encryptions", 0)
    )
    if show_document(call, shown):
        return EXIT_OK
    rows = [
        ["Key Term", cell(shown["term"])],
        ["Install Time", _short_time(str(shown["install_time"]))],
        ["Encryption Count", cell(shown["encryptions"])],
    ]
    call.out(columns(rows))
    return EXIT_OK


def _short_time(stamp: str) -> str:
    """2026-11-24T00:09:49.3Z as 24 Nov 26 00:09 UTC."""
    from datetime import datetime

    try:
        return datetime.fromisoformat(stamp[:19] + "+00:00").strftime("%d %b %y %H:%M UTC")
    except ValueError:
        return stamp


@command("operator rotate [options]", FORMAT)
def rotate(call: Call) -> int:
    """Add a new term to the keys that data is encrypted with; older data stays readable."""
    with doing("Error rotating key"):
        call.client.request("POST", "sys/rotate")
    with doing("Error reading key status"):
        answer = call.client.fetch("GET", "sys/key-status")
    if call.format == "table":
        call.out("Success! Rotated key\n")
    return _show_key_status(call, answer.get("data") or answer)


@command("operator members [options]", FORMAT)
def members(call: Call) -> int:
    """List the unsealed nodes of the cluster."""
    with doing("Error reading the cluster's nodes"):
        answer = call.client.fetch("GET", "sys/ha-status")
    content = answer.get("data") or answer
    if show_document(call, content):
        return EXIT_OK
    titles = ["Host Name", "API Address", "Cluster Address", "Active Node", "Version", "Upgrade Version", "Last Echo"]
    names = ["hostname", "api_address", "cluster_address", "active_node", "version", "upgrade_version", "last_echo"]
    nodes = sorted(content.get("nodes") or [], key=lambda node: str(node.get("api_address")))
    rows = [[_node_cell(name, node.get(name)) for name in names] for node in nodes]
    call.out(table(titles, rows))
    return EXIT_OK


def _node_cell(name: str, value: Any) -> str:
    text = scalar(value, none="")
    return text.partition(".")[0].rstrip("Z") + "Z" if name == "last_echo" and text else text
