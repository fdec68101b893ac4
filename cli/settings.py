"""The client's settings from flags, environment and the token file.

Flags come first, then BAO_ variables, then VAULT_ variables. The token is BAO_TOKEN (VAULT_TOKEN), else what `login` kept
in `~/.vault-token` (0600, no newline), a file that Vault's own clients share.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from conclave.cli.client import TIMEOUT_SECONDS, Settings
from conclave.cli.durations import NANOSECONDS, go_duration, parse_duration
from conclave.cli.errors import UsageError
from conclave.cli.flags import Values, setting


def client_settings(flags: Values, environment: Mapping[str, str]) -> Settings:
    """Work out where requests go and what goes with them.

    Raises:
        UsageError: a variable or a header is not what it should be.
    """
    headers = flags.pairs("header")
    for name in headers:
        if name.lower().startswith("x-vault-"):
            raise UsageError(f"-header must not set {name}: headers that start with X-Vault- are the client's own")
    namespace = flags.text("namespace").strip("/ ")
    wrap_ns = flags.integer("wrap-ttl")
    show = "curl" if flags.boolean("output-curl-string") else "policy" if flags.boolean("output-policy") else ""
    if flags.boolean("output-curl-string") and flags.boolean("output-policy"):
        raise UsageError("cannot specify both -output-curl-string and -output-policy")
    return Settings(
        address=flags.text("agent-address") or flags.text("address") or Settings().address,
        token=read_token(environment),
        namespace=namespace + "/" if namespace else "",
        wrap_ttl=go_duration(wrap_ns) if wrap_ns else "",
        mfa=tuple(flags.texts("mfa")),
        unlock_key=flags.text("unlock-key"),
        headers=tuple(headers.items()),
        ca_cert=flags.text("ca-cert"),
        ca_path=flags.text("ca-path"),
        client_cert=flags.text("client-cert"),
        client_key=flags.text("client-key"),
        tls_server_name=flags.text("tls-server-name"),
        is_tls_checked=not flags.boolean("tls-skip-verify"),
        are_redirects_followed=not flags.boolean("disable-redirects"),
        retries_max=_number(environment, "MAX_RETRIES"),
        timeout_seconds=_timeout_seconds(environment),
        show=show,
    )


def _number(environment: Mapping[str, str], name: str) -> int:
    text = setting(environment, name)
    if text and not (text.isascii() and text.isdigit()):
        raise UsageError(f"BAO_{name} must be a number, not {text!r}")
    return int(text or "0")


def _timeout_seconds(environment: Mapping[str, str]) -> float:
    text = setting(environment, "CLIENT_TIMEOUT")
    try:
        return parse_duration(text) / NANOSECONDS if text else TIMEOUT_SECONDS
    except ValueError as error:
        raise UsageError(f"BAO_CLIENT_TIMEOUT: {error}") from error


def token_file(environment: Mapping[str, str]) -> Path:
    """Return where the token is kept between commands."""
    return Path(environment.get("HOME") or "/") / ".vault-token"


def read_token(environment: Mapping[str, str]) -> str:
    """Return the token of the environment, else of the token file, else ""."""
    named = setting(environment, "TOKEN")
    if named:
        return named
    try:
        return token_file(environment).read_text(encoding="utf-8").strip()
    except OSError:  # Most often there is none; one that cannot be read helps no more.
        return ""


def store_token(environment: Mapping[str, str], token: str) -> None:
    """Keep a token for later commands, readable by its owner alone, replacing another in one step.

    Raises:
        OSError: it cannot be written.
    """
    target = token_file(environment)
    fresh = target.with_name(f"{target.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(token)
        fresh.replace(target)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
