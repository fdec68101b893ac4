"""Development mode: one node in memory that is initialised, unsealed and has a kv-v2 engine at secret/.

It goes the way that an operator goes, through the same requests, so nothing here is a shortcut into the vault. For trials
on one's own machine only: the root token is printed, and everything is gone when the process ends.
"""

import os
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from conclave.api.handler import Handler, ask
from conclave.config import InmemStorage, Listener, ServerConfig
from conclave.core.contract import Operation, Request, Response
from conclave.core.crypto import new_uuid

LISTEN_ADDRESS: Final = "127.0.0.1:8200"
TOKEN_FILE: Final = ".vault-token"  # noqa: S105  (no password: a file's name)


class DevOptions(Struct, frozen=True):
    """How development mode is asked for.

    Attributes:
        root_token_id: the root token to have; "" for a random one.
        listen_address: host:port of the API.
        stores_token: write the root token where the command line looks for it.
    """

    root_token_id: str = ""
    listen_address: str = LISTEN_ADDRESS
    stores_token: bool = True


class DevVault(Struct, frozen=True):
    """What development mode has made."""

    unseal_key: str
    root_token: str


class DevFailed(Exception):
    """Development mode could not be prepared; the text says at what."""


def dev_config(options: DevOptions) -> ServerConfig:
    """Return the configuration of development mode."""
    return ServerConfig(
        storage=InmemStorage(),
        listener=(Listener(address=options.listen_address, tls_disable=True),),
        unsafe_allow_api_audit_creation=True,
    )


async def prepare(vault: Handler, options: DevOptions) -> DevVault:
    """Initialise and unseal a new node, and mount what everybody mounts.

    Raises:
        DevFailed: one of the requests was refused.
    """
    made = await _send(vault, "sys/init", {"secret_shares": 1, "secret_threshold": 1})
    key, token = made["keys_base64"][0], made["root_token"]
    await _send(vault, "sys/unseal", {"key": key})
    if options.root_token_id:
        wanted = {"id": options.root_token_id, "policies": ["root"], "no_parent": True, "display_name": "root"}
        await _send(vault, "auth/token/create", wanted, token)
        await _send(vault, "auth/token/revoke-self", {}, token)
        token = options.root_token_id
    mount = {"type": "kv", "options": {"version": "2"}, "description": "key/value secret storage"}
    await _send(vault, "sys/mounts/secret", mount, token)
    return DevVault(key, token)


def store_token(token: str, home: Path) -> None:
    """Write a token to the file that the command line reads, for its owner alone."""
    file = home / TOKEN_FILE
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        os.fchmod(descriptor, 0o600)
        opened.write(token)


def notice(made: DevVault, api_address: str) -> str:
    """Return what is printed once development mode is ready."""
    return f"""\
WARNING: development mode. One node, everything in memory and gone when it ends, unsealed, and its root token on your
screen. Never run it where something depends on it.

In another shell:

    export VAULT_ADDR='{api_address}'

Unseal Key: {made.unseal_key}
Root Token: {made.root_token}

A kv-v2 engine is mounted at secret/.
"""


async def _send(vault: Handler, path: str, body: dict[str, Any], token: str = "") -> Any:
    request = Request(
        id=new_uuid(os.urandom),
        operation=Operation.UPDATE,
        path=path,
        token=token,
        body=msgspec.json.encode(body),
        remote_address="127.0.0.1",
    )
    outcome = await ask(vault, request)
    if not isinstance(outcome, Response):
        raise DevFailed(f"{path}: {'; '.join(outcome.messages) or type(outcome).__name__}")
    return outcome.data
