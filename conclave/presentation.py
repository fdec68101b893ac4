"""What is shown of a node's configuration: at its start, and at sys/config/state/sanitized. Pure.

Nothing secret comes out: no key text, no certificate text; files are named, not read.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from conclave.addresses import Addresses
from conclave.config import InmemStorage, RaftStorage, ServerConfig

LABEL_CHARACTERS: Final = 24
"""How far the labels of the banner reach."""
_PEM_TEXTS: Final = frozenset({"leader_ca_cert", "leader_client_cert", "leader_client_key"})


def banner(config: ServerConfig, where: Addresses, environment: Mapping[str, str]) -> str:
    """Return what is printed before the first log line.

    Args:
        config: of the node.
        where: its addresses.
        environment: further lines, label to value: versions, process id.
    """
    rows = {"Api Address": where.api, "Cluster Address": f"https://{where.cluster}"}
    for number, listener in enumerate(config.listener, start=1):
        tls = "disabled" if listener.tls_disable else "enabled"
        rows[f"Listener {number}"] = f'tcp (addr: "{listener.address}", tls: "{tls}")'
    rows |= {"Log Level": config.log_level, "Storage": storage_name(config)}
    if isinstance(config.storage, RaftStorage):
        rows["Data Folder"] = config.storage.path
    rows |= environment
    lines = [f"{label:>{LABEL_CHARACTERS}}: {value}" for label, value in sorted(rows.items())]
    return "==> Conclave server configuration:\n\n" + "\n".join(lines) + "\n"


def storage_name(config: ServerConfig) -> str:
    """Return the kind of storage as sys/seal-status says it."""
    return "inmem" if isinstance(config.storage, InmemStorage) else "raft"


def sanitized(config: ServerConfig, where: Addresses) -> dict[str, Any]:
    """Return the configuration as sys/config/state/sanitized shows it, in Vault's shape."""
    plain: dict[str, Any] = msgspec.to_builtins(config)
    storage = plain.pop("storage")
    for target in storage.get("retry_join", ()):
        for name in _PEM_TEXTS & target.keys():
            target[name] = bool(target[name])
    listeners = [{"type": "tcp", "config": listener} for listener in plain.pop("listener")]
    plain["seal"] = {"type": "shamir"}
    kind = storage_name(config)
    return {
        **plain,
        "api_addr": where.api,
        "cluster_addr": f"https://{where.cluster}",
        "listeners": listeners,
        "storage": {
            "type": kind,
            "redirect_addr": where.api,
            "cluster_addr": f"https://{where.cluster}",
            kind: storage,
        },
    }
