"""Where a node listens and how others reach it, worked out from its configuration. Pure.

What is not said follows from what is, as in Vault: the API's URL from the first listener, the cluster port is the one
after the API's. A listener on every interface says nothing about how to reach it, so the host is then `own_host`.
"""

from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from conclave.config import ServerConfig

API_PORT: Final = 8200
_EVERYWHERE: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104  (compared with, not bound to)


class Addresses(Struct, frozen=True):
    """One node's addresses.

    Attributes:
        api: URL of the API, without a slash at its end.
        cluster: "host:port" at which peers reach this node.
        cluster_listen: host and port to listen on for them; host "" is every interface.
    """

    api: str
    cluster: str
    cluster_listen: tuple[str, int]


def addresses(config: ServerConfig, own_host: str) -> Addresses:
    """Work out a node's addresses.

    Args:
        config: has a listener at least.
        own_host: a name or address of this machine that other machines can use.
    """
    listener = config.listener[0]
    listen_host, listen_port = split(listener.address)
    scheme = "http" if listener.tls_disable else "https"
    api = config.api_addr.rstrip("/") or f"{scheme}://{join(_reachable(listen_host, own_host), listen_port)}"
    api_host, api_port = _host_of(api)
    if config.cluster_addr:
        cluster = join(*_host_of(config.cluster_addr, default_port=api_port + 1))
    elif listener.cluster_address:
        host, port = split(listener.cluster_address)
        cluster = join(_reachable(host, api_host), port)
    else:
        cluster = join(api_host, listen_port + 1)
    cluster_listen = split(listener.cluster_address) if listener.cluster_address else (listen_host, listen_port + 1)
    return Addresses(api, cluster, cluster_listen)


def split(address: str) -> tuple[str, int]:
    """Return host and port of "host:port"; brackets around an IPv6 address are taken off."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def join(host: str, port: int) -> str:
    """Return "host:port", with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reachable(host: str, otherwise: str) -> str:
    return otherwise if host in _EVERYWHERE else host


def _host_of(url: str, *, default_port: int | None = None) -> tuple[str, int]:
    parts = urlsplit(url)
    port = parts.port or default_port or (443 if parts.scheme == "https" else 80)
    return parts.hostname or "", port
