"""conclave/addresses.py: what follows from what is said."""

import pytest

from conclave.addresses import Addresses, addresses, join, split
from conclave.config import InmemStorage, Listener, ServerConfig


def worked_out(listener: Listener, **keys: str) -> Addresses:
    return addresses(ServerConfig(storage=InmemStorage(), listener=(listener,), **keys), "10.1.2.3")  # type: ignore[arg-type]  # texts only


def test_the_cluster_port_follows_the_api_port() -> None:
    found = worked_out(Listener(address="127.0.0.1:8200", tls_disable=True))

    assert found == Addresses("http://127.0.0.1:8200", "127.0.0.1:8201", ("127.0.0.1", 8201))


def test_a_listener_on_every_interface_is_reached_at_this_hosts_address() -> None:
    found = worked_out(Listener(address="[::]:8200", cluster_address="[::]:8301"))

    assert found == Addresses("https://10.1.2.3:8200", "10.1.2.3:8301", ("::", 8301))


def test_what_is_said_counts() -> None:
    found = worked_out(
        Listener(address="0.0.0.0:8200", tls_disable=True),
        api_addr="https://vault.example/",
        cluster_addr="https://a.example:9201",
    )

    assert found == Addresses("https://vault.example", "a.example:9201", ("0.0.0.0", 8201))


def test_a_cluster_address_without_a_port_takes_the_one_after_the_apis() -> None:
    found = worked_out(Listener(), api_addr="http://a.example:9200", cluster_addr="https://b.example")

    assert found.cluster == "b.example:9201"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:8200", ":8200", "a.example:443"])
def test_an_address_comes_apart_and_together(address: str) -> None:
    assert join(*split(address)) == address
