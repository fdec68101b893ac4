"""New key shares for the seal: `rotate-keys`, and its older, unauthenticated sibling `rekey`."""

from typing import Any, Final, NamedTuple

from conclave.cli.ceremony import Endpoints, fetch_data, give_share
from conclave.cli.command import FORMAT, Call, command, doing
from conclave.cli.commands.operator import PGP_KEYS, SHARES, THRESHOLD, public_keys
from conclave.cli.document import Fields, cell, scalar
from conclave.cli.errors import EXIT_OK, UsageError
from conclave.cli.flags import Flag, Kind
from conclave.cli.output import record, show_document, show_rows

_FLAGS: Final = (
    FORMAT,
    SHARES,
    THRESHOLD,
    PGP_KEYS,
    Flag("init", "Start it.", Kind.BOOLEAN),
    Flag("status", "Print how far it is.", Kind.BOOLEAN),
    Flag("cancel", "Cancel it; shares given so far are forgotten.", Kind.BOOLEAN),
    Flag("verify", "The share is a new one, given to prove that it was kept; with -init: ask for that.", Kind.BOOLEAN),
    Flag("nonce", "Which ceremony the share is for."),
    Flag("target", "barrier or recovery.", default="barrier"),
    Flag("backup", "Let the server keep a copy of the new shares, encrypted with -pgp-keys.", Kind.BOOLEAN),
    Flag("backup-retrieve", "Print that copy.", Kind.BOOLEAN),
    Flag("backup-delete", "Delete that copy.", Kind.BOOLEAN),
)
_WARNING: Final = """\
WARNING! The new shares are shown once, in clear, when the last old share has been given. Who loses
them loses the data. Cancel and start again with -pgp-keys (and -backup) to have them encrypted."""


class _Words(NamedTuple):
    """What a ceremony is called in messages."""

    noun: str
    canceled: str


_ROTATION: Final = _Words("rotation", "Success! Canceled rotation (if it was started)")
_REKEY: Final = _Words("rekey", "Success! Canceled rekeying (if it was started)")


@command("operator rotate-keys [options] [KEY]", *_FLAGS, arguments=(0, 1))
def rotate_keys(call: Call) -> int:
    """Make new key shares from enough of the old ones.

    Start it, then let the holders of the old shares give theirs; the last one sees the new shares.

        $ conclave operator rotate-keys -init -key-shares=5 -key-threshold=3
        $ conclave operator rotate-keys -nonce=...
    """
    target = _target(call)
    base = "sys/rotate/recovery" if target == "recovery" else "sys/rotate/root"
    return _run(call, _ROTATION, base, f"{base}/backup")


@command("operator rekey [options] [KEY]", *_FLAGS, arguments=(0, 1))
def rekey(call: Call) -> int:
    """Make new key shares over the unauthenticated endpoints, where a server still has them switched on."""
    is_recovery = _target(call) == "recovery"
    backup = "sys/rekey/recovery-key-backup" if is_recovery else "sys/rekey/backup"
    return _run(call, _REKEY, "sys/rekey-recovery-key" if is_recovery else "sys/rekey", backup)


def _target(call: Call) -> str:
    target = call.flags.text("target")
    if target not in ("barrier", "recovery"):
        raise UsageError(f'Unknown target "{target}": it is barrier or recovery')
    return target


def _run(call: Call, words: _Words, base: str, backup: str) -> int:
    flags = call.flags
    is_verification = flags.boolean("verify") and not flags.boolean("init")
    state = f"{base}/verify" if is_verification else f"{base}/init"
    if flags.boolean("init"):
        with doing(f"Error initializing {words.noun}"):
            data = fetch_data(call, "POST", state, _start_body(call))
        if not data.get("pgp_fingerprints"):
            call.warn(_WARNING)
        return _show_state(call, data)
    if flags.boolean("status"):
        with doing(f"Error reading {words.noun} status"):
            return _show_state(call, fetch_data(call, "GET", state))
    if flags.boolean("cancel"):
        with doing(f"Error canceling {words.noun}"):
            call.client.request("DELETE", state)
        call.out(words.canceled)
        return EXIT_OK
    if flags.boolean("backup-retrieve"):
        with doing("Error retrieving the stored shares"):
            return _show_keys(call, fetch_data(call, "GET", backup))
    if flags.boolean("backup-delete"):
        with doing("Error deleting the stored shares"):
            call.client.request("DELETE", backup)
        call.out("Success! Deleted the stored shares (if there were any)")
        return EXIT_OK
    at = Endpoints(state, f"{base}/verify" if is_verification else f"{base}/update")
    data = give_share(
        call,
        at,
        failure=f"Error posting {words.noun} key",
        nothing_runs=f"No {words.noun} is in progress; start one with -init",
    )
    return _show_keys(call, data) if data.get("complete") else _show_state(call, data)


def _start_body(call: Call) -> dict[str, Any]:
    return {
        "secret_shares": call.flags.integer("key-shares"),
        "secret_threshold": call.flags.integer("key-threshold"),
        "pgp_keys": public_keys(call.flags.text("pgp-keys")) or None,
        "backup": call.flags.boolean("backup"),
        "require_verification": call.flags.boolean("verify"),
    }


def _state(data: dict[str, Any]) -> Fields:
    return record(
        nonce=data.get("nonce", ""),
        started=bool(data.get("started")),
        t=data.get("t", 0),
        n=data.get("n", 0),
        progress=data.get("progress", 0),
        required=data.get("required", 0),
        pgp_fingerprints=data.get("pgp_fingerprints"),
        backup=bool(data.get("backup")),
        verification_required=bool(data.get("verification_required")),
        verification_nonce=data.get("verification_nonce", ""),
    )


def _show_state(call: Call, data: dict[str, Any]) -> int:
    shown = _state(data)
    if show_document(call, shown):
        return EXIT_OK
    rows = [["Nonce", shown["nonce"]], ["Started", scalar(shown["started"], none="")]]
    if shown["started"]:
        rows += [
            ["Progress", f"{shown['progress']}/{shown['required']}"],
            ["New Shares", cell(shown["n"])],
            ["New Threshold", cell(shown["t"])],
            ["Verification Required", scalar(shown["verification_required"], none="")],
        ]
        if shown["verification_nonce"]:
            rows.append(["Verification Nonce", shown["verification_nonce"]])
    if shown["pgp_fingerprints"]:
        rows += [["PGP Fingerprints", cell(shown["pgp_fingerprints"])], ["Backup", scalar(shown["backup"], none="")]]
    return show_rows(call, rows)


def _show_keys(call: Call, data: dict[str, Any]) -> int:
    keys = data.get("keys_base64") or []
    shown = record(nonce=data.get("nonce", ""), complete=bool(data.get("complete")), keys=data.get("keys"))
    shown["keys_base64"] = data.get("keys_base64")
    shown["pgp_fingerprints"] = data.get("pgp_fingerprints")
    shown["backup"] = bool(data.get("backup"))
    shown["verification_required"] = bool(data.get("verification_required"))
    if data.get("verification_nonce"):
        shown["verification_nonce"] = data["verification_nonce"]
    if show_document(call, shown):
        return EXIT_OK
    for number, key in enumerate(keys, 1):
        call.out(f"Key {number}: {key}")
    call.out(f"\nOperation nonce: {shown['nonce']}")
    if shown["verification_required"]:
        call.out("\nThe new shares hold when enough of them have been given back with -verify and this nonce:")
        call.out(f"Verification nonce: {shown.get('verification_nonce', '')}")
    elif keys:
        call.out(f"\nThe {len(keys)} new shares hold from now on; the old ones open nothing any more.")
    return EXIT_OK
