"""`operator generate-root`: a new root token, made by enough holders of key shares together."""

import secrets
from typing import Any, Final

from conclave.cli.ceremony import Endpoints, fetch_data, give_share
from conclave.cli.command import FORMAT, Call, command, doing
from conclave.cli.commands.operator import public_keys
from conclave.cli.document import Fields, cell, scalar
from conclave.cli.errors import EXIT_OK, CommandError, UsageError
from conclave.cli.flags import Flag, Kind
from conclave.cli.output import record, show_document, show_field
from conclave.cli.table import columns

_AT: Final = Endpoints("sys/generate-root-token/attempt", "sys/generate-root-token/update")
_OTP_NOTICE: Final = """\
The field OTP holds a one-time password made for you. The new token comes encrypted with
it, and -decode needs it: keep it until then."""
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


@command(
    "operator generate-root [options] [KEY]",
    FORMAT,
    Flag("init", "Start it.", Kind.BOOLEAN),
    Flag("status", "Print how far it is.", Kind.BOOLEAN),
    Flag("cancel", "Cancel it; shares given so far are forgotten.", Kind.BOOLEAN),
    Flag("decode", "Decrypt this encoded token with -otp; - reads it from stdin."),
    Flag("generate-otp", "Print a one-time password of the right length.", Kind.BOOLEAN),
    Flag("otp", "The one-time password to start with, or to decode with."),
    Flag("pgp-key", "File of a public key to encrypt the token with instead."),
    Flag("nonce", "Which ceremony the share is for."),
    arguments=(0, 1),
)
def generate_root(call: Call) -> int:
    """Make a root token from enough key shares.

    Start it, let the holders of shares give theirs, then decode what the last one sees.

        $ conclave operator generate-root -init
        $ conclave operator generate-root -nonce=...
        $ conclave operator generate-root -decode=... -otp=...
    """
    flags = call.flags
    if flags.boolean("generate-otp"):
        with doing("Error reading the length of a token"):
            length = fetch_data(call, "GET", _AT.state).get("otp_length") or 26
        return show_field(call, "".join(secrets.choice(_LETTERS) for _ in range(length)), missing="")
    if flags.is_given("decode"):
        return _decode(call)
    if flags.boolean("init"):
        key = (public_keys(flags.text("pgp-key")) or [""])[0]
        with doing("Error initializing root generation"):
            data = fetch_data(call, "PUT", _AT.state, {"otp": flags.text("otp"), "pgp_key": key})
        if data.get("otp"):
            call.warn(_OTP_NOTICE)
        return _show(call, data)
    if flags.boolean("status"):
        with doing("Error getting root generation status"):
            return _show(call, fetch_data(call, "GET", _AT.state))
    if flags.boolean("cancel"):
        with doing("Error canceling root token generation"):
            call.client.request("DELETE", _AT.state)
        call.out("Success! Root token generation canceled (if it was started)")
        return EXIT_OK
    nothing_runs = "No root generation is in progress; start one with -init"
    return _show(call, give_share(call, _AT, failure="Error posting the key share", nothing_runs=nothing_runs))


def _decode(call: Call) -> int:
    otp = call.flags.text("otp")
    encoded = call.flags.text("decode")
    encoded = (call.stdin.readline() if encoded == "-" else encoded).strip()
    if not otp:
        raise UsageError("-decode needs the one-time password: -otp")
    token = decode_token(encoded, otp)
    return EXIT_OK if show_document(call, {"token": token}) else show_field(call, token, missing="")


def decode_token(encoded: str, otp: str) -> str:
    """Decrypt a token: base64 without padding, combined bit by bit (XOR) with the one-time password.

    Raises:
        CommandError: it does not fit the password, or is no base64.
    """
    import base64
    import binascii

    try:
        raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        if len(raw) != len(otp.encode()):
            raise CommandError(
                f"Error decoding root token: it has {len(raw)} bytes, the one-time password {len(otp.encode())}"
            )
        return bytes(a ^ b for a, b in zip(raw, otp.encode(), strict=True)).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise CommandError("Error decoding root token: it does not belong to this one-time password") from error


def _state(data: dict[str, Any]) -> Fields:
    return record(
        nonce=data.get("nonce", ""),
        started=bool(data.get("started")),
        progress=data.get("progress", 0),
        required=data.get("required", 0),
        complete=bool(data.get("complete")),
        encoded_token=data.get("encoded_token", ""),
        encoded_root_token=data.get("encoded_root_token", ""),
        pgp_fingerprint=data.get("pgp_fingerprint", ""),
        otp=data.get("otp", ""),
        otp_length=data.get("otp_length", 0),
    )


def _show(call: Call, data: dict[str, Any]) -> int:
    shown = _state(data)
    if show_document(call, shown):
        return EXIT_OK
    rows = [
        ["Nonce", shown["nonce"]],
        ["Started", scalar(shown["started"], none="")],
        ["Progress", f"{shown['progress']}/{shown['required']}"],
        ["Complete", scalar(shown["complete"], none="")],
    ]
    for title, name in (("PGP Fingerprint", "pgp_fingerprint"), ("Encoded Token", "encoded_token"), ("OTP", "otp")):
        if shown[name]:
            rows.append([title, shown[name]])
    if shown["otp_length"]:
        rows.append(["OTP Length", cell(shown["otp_length"])])
    call.out(columns(rows))
    return EXIT_OK
