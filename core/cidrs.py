"""Address ranges: from where a token, a role or a secret id may be used. Pure; IPv4 and IPv6."""

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

from conclave.core.errors import InvalidRequest

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def check_cidrs(texts: Sequence[str]) -> list[str]:
    """Return address ranges as they are kept: "10.0.0.0/8"; a single address gets its full length left out.

    Raises:
        InvalidRequest: one is no address and no range.
    """
    checked: list[str] = []
    for text in texts:
        try:
            network = ipaddress.ip_network(text.strip(), strict=False)
        except ValueError:
            raise InvalidRequest(f'error parsing address "{text}": Unable to convert to a CIDR address') from None
        is_single = network.prefixlen == network.max_prefixlen
        checked.append(str(network.network_address) if is_single else str(network))
    return checked


def contains(cidrs: Sequence[str], address: str) -> bool:
    """Whether an address lies in one of the ranges; any address does where there are none."""
    if not cidrs:
        return True
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return any(ip in _network(cidr) for cidr in cidrs)


def are_within(inner: Sequence[str], outer: Sequence[str]) -> bool:
    """Whether each of some ranges lies in one of others; any range does where there are no others."""
    return not outer or all(any(_is_within(_network(one), _network(other)) for other in outer) for one in inner)


def _is_within(inner: Network, outer: Network) -> bool:
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]  # of one version, as asked


@lru_cache(maxsize=1024)
def _network(cidr: str) -> Network:
    return ipaddress.ip_network(cidr, strict=False)
