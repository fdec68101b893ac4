"""conclave/presentation.py: what is shown of a configuration, and what never is."""

import json

from conclave.addresses import addresses
from conclave.config import Listener, RaftStorage, RetryJoin, ServerConfig
from conclave.presentation import banner, sanitized

CONFIG = ServerConfig(
    storage=RaftStorage(
        path="/data",
        node_id="a",
        retry_join=(RetryJoin("https://b:8200", leader_client_key="-----BEGIN PRIVATE KEY-----"),),
    ),
    listener=(Listener(address="127.0.0.1:8200", tls_disable=True), Listener(address="127.0.0.1:8300")),
)
WHERE = addresses(CONFIG, "10.0.0.1")


def test_the_banner_names_every_listener_and_where_data_is() -> None:
    text = banner(CONFIG, WHERE, {"Version": "Conclave v0"})

    assert text.startswith("==> Conclave server configuration:\n")
    assert "             Api Address: http://127.0.0.1:8200\n" in text
    assert '              Listener 2: tcp (addr: "127.0.0.1:8300", tls: "enabled")' in text
    assert "             Data Folder: /data" in text


def test_the_sanitized_configuration_has_vaults_shape() -> None:
    shown = sanitized(CONFIG, WHERE)

    assert [each["type"] for each in shown["listeners"]] == ["tcp", "tcp"]
    assert shown["storage"]["type"] == "raft"
    assert shown["storage"]["raft"]["node_id"] == "a"
    assert shown["cluster_addr"] == "https://127.0.0.1:8201"


def test_no_key_text_is_shown() -> None:
    shown = json.dumps(sanitized(CONFIG, WHERE)) + banner(CONFIG, WHERE, {})

    assert "PRIVATE KEY" not in shown
