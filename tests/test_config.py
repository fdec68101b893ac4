"""conclave/config.py and config_reader.py: what files and environment variables say, and what is said about them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis.strategies import text
from msgspec import structs

from conclave.config import (
    ENVIRONMENT,
    NO_EFFECT,
    UNSUPPORTED,
    InmemStorage,
    Listener,
    RaftStorage,
    ServerConfig,
    Snapshots,
)
from conclave.config_reader import ConfigError, Loaded, load

MINIMAL = """\
storage "inmem" {}
listener "tcp" { tls_disable = true }
"""
FULL = """\
ui = false
disable_mlock = true
unsafe_allow_api_audit_creation = true
cluster_name = "prod"
log_level = "DEBUG"
default_lease_ttl = "24h"
max_lease_ttl = 90000
api_addr = "https://node-a.example:8200"
cluster_addr = "https://node-a.example:8201"
storage "raft" {
  path = "/data"
  node_id = "a"
  performance_multiplier = "2"
  retry_join { leader_api_addr = "https://node-b.example:8200" }
  retry_join {
    leader_api_addr = "https://node-c.example:8200"
    leader_ca_cert_file = "/ca.pem"
  }
}
listener "tcp" {
  address = "[::]:8200"
  tls_cert_file = "/cert.pem"
  tls_key_file = "/key.pem"
  max_request_duration = "30s"
  telemetry { unauthenticated_metrics_access = "true" }
}
listener "tcp" {
  address = "127.0.0.1:8202"
  tls_disable = 1
}
telemetry { prometheus_retention_time = "30s" }
snapshots {
  path     = "/backup"
  interval = "6h"
  retain   = 28
}
"""
Loader = Callable[..., Loaded]


@pytest.fixture
def loading(tmp_path: Path) -> Loader:
    """Load one text as a file named `a.hcl`."""

    def load_text(content: str, environment: dict[str, str] | None = None) -> Loaded:
        file = tmp_path / "a.hcl"
        file.write_text(content)
        return load([file], environment or {})

    return load_text


def test_every_kind_of_key_is_read(loading: Loader) -> None:
    loaded = loading(FULL)

    config = loaded.config
    assert loaded.warnings == ()
    assert isinstance(config.storage, RaftStorage)
    assert (config.storage.path, config.storage.node_id, config.storage.performance_multiplier) == ("/data", "a", 2)
    assert [each.leader_api_addr for each in config.storage.retry_join] == [
        "https://node-b.example:8200",
        "https://node-c.example:8200",
    ]
    assert config.storage.retry_join[1].leader_ca_cert_file == "/ca.pem"
    assert [each.address for each in config.listener] == ["[::]:8200", "127.0.0.1:8202"]
    assert config.listener[0].max_request_duration_seconds == 30
    assert config.listener[0].telemetry.unauthenticated_metrics_access
    assert config.listener[1].tls_disable
    assert (config.default_lease_ttl_seconds, config.max_lease_ttl_seconds) == (86_400, 90_000)
    assert (config.log_level, config.cluster_name) == ("debug", "prod")
    assert config.telemetry.prometheus_retention_time_seconds == 30
    assert config.snapshots == Snapshots(path="/backup", interval_seconds=21_600, retain=28)


def test_what_is_not_said_has_vaults_defaults(loading: Loader) -> None:
    config = loading(MINIMAL).config

    assert config.storage == InmemStorage()
    assert config.listener == (Listener(tls_disable=True),)
    assert config.default_lease_ttl_seconds == 768 * 3600
    assert config.listener[0].max_request_size_bytes == 32 << 20


def test_json_says_the_same(loading: Loader) -> None:
    config = loading(
        '{"storage": {"raft": {"path": "/data", "retry_join": [{"leader_api_addr": "http://a:1"}]}},'
        ' "listener": [{"tcp": {"address": "127.0.0.1:1", "tls_disable": "true"}}, {"tcp": {"tls_disable": true}}]}'
    ).config

    assert isinstance(config.storage, RaftStorage)
    assert config.storage.retry_join[0].leader_api_addr == "http://a:1"
    assert [each.address for each in config.listener] == ["127.0.0.1:1", "127.0.0.1:8200"]


def test_backend_is_another_name_of_storage(loading: Loader) -> None:
    assert loading(MINIMAL.replace("storage", "backend")).config.storage == InmemStorage()


def test_an_unknown_key_is_a_warning_with_its_place(loading: Loader, tmp_path: Path) -> None:
    loaded = loading(MINIMAL + 'colour = "red"\n')

    assert loaded.warnings == (f"{tmp_path}/a.hcl:3: colour: unknown key, ignored",)


def test_an_unknown_key_in_a_block_is_a_warning_with_its_place(loading: Loader, tmp_path: Path) -> None:
    loaded = loading('storage "inmem" {}\nlistener "tcp" {\n  tls_disable = true\n  hue = 1\n}')

    assert loaded.warnings == (f"{tmp_path}/a.hcl:4: hue: unknown key, ignored",)


@pytest.mark.parametrize("key", sorted(NO_EFFECT))
def test_a_key_that_changes_nothing_is_taken_silently(loading: Loader, key: str) -> None:
    assert loading(f"{MINIMAL}{key} = true").warnings == ()


@pytest.mark.parametrize("key", sorted(UNSUPPORTED))
def test_a_key_that_is_not_supported_is_named_with_what_to_do(loading: Loader, key: str) -> None:
    assert UNSUPPORTED[key] in loading(f"{MINIMAL}{key} = true").warnings[0]


@pytest.mark.parametrize(
    ("content", "line", "problem"),
    [
        (MINIMAL + "disable_mlock = maybe", 3, "expected a value, found 'maybe'"),
        (
            MINIMAL + 'unsafe_allow_api_audit_creation = "maybe"',
            3,
            "unsafe_allow_api_audit_creation: 'maybe' is neither true nor false",
        ),
        (MINIMAL + 'max_lease_ttl = "soon"', 3, 'max_lease_ttl: time: invalid duration "soon"'),
        (MINIMAL + "max_lease_ttl = -1", 3, "max_lease_ttl: a duration cannot be negative"),
        (MINIMAL + "max_lease_ttl = []", 3, 'max_lease_ttl: a duration like "30s" is wanted here'),
        (MINIMAL + 'log_level = "loud"', 3, "log_level: 'loud' is none of trace, debug, info, warn, error"),
        (MINIMAL + 'api_addr = "node"', 3, "api_addr: 'node' is no URL like https://10.0.0.1:8200"),
        (MINIMAL + "cluster_name = []", 3, "cluster_name: a text is wanted here"),
        (MINIMAL + 'listener "unix" {}', 3, 'listener "unix" is not supported: use "tcp"'),
        (MINIMAL + 'seal "awskms" {}', 3, 'seal "awskms" is not supported: use "shamir"'),
        (MINIMAL + "snapshots { retain = 0 }", 3, "retain: 0 is not between 1 and 10000"),
        (MINIMAL + "telemetry = 1", 3, "'telemetry' must be a block without a label"),
        ('\nstorage "raft" {}', 2, "storage: path is missing"),
        ('storage "consul" {}', 1, 'storage "consul" is not supported: use "raft" or "inmem"'),
        (
            'storage "raft" {\n  path = "/d"\n  performance_multiplier = 11\n}',
            3,
            "performance_multiplier: 11 is not between 0 and 10",
        ),
        (
            'storage "raft" {\n  path = "/d"\n  performance_multiplier = "x"\n}',
            3,
            "performance_multiplier: 'x' is no whole number",
        ),
        ('listener "tcp" {\n  address = "here"\n}', 2, "address: 'here' is no address like 127.0.0.1:8200"),
        ('listener "tcp" {\n  address = "a:70000"\n}', 2, "address: 'a:70000' is no address like 127.0.0.1:8200"),
        ('storage "inmem" {}\nstorage "inmem" {}', 2, "storage: one block is wanted, not 2"),
    ],
)
def test_a_wrong_value_is_an_error_with_its_place(
    loading: Loader, tmp_path: Path, content: str, line: int, problem: str
) -> None:
    with pytest.raises(ConfigError) as refusal:
        loading(content)

    assert str(refusal.value) == f"{tmp_path}/a.hcl:{line}: {problem}"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "there is no storage block"),
        ('storage "inmem" {}', "there is no listener block"),
        ('storage "inmem" {}\nlistener "tcp" {}', "set tls_cert_file and tls_key_file, or tls_disable = true"),
        (MINIMAL + 'default_lease_ttl = "2h"\nmax_lease_ttl = "1h"', "default_lease_ttl is longer than max_lease_ttl"),
        (
            MINIMAL + 'listener "tcp" { tls_disable = true, tls_disable_client_certs = true, '
            "tls_require_and_verify_client_cert = true }",
            "exclude each other",
        ),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(loading: Loader, content: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        loading(content)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.hcl: No such file or directory"):
        load([tmp_path / "none.hcl"], {})


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.hcl").write_bytes(b"ui = \xff")

    with pytest.raises(ConfigError, match="is not UTF-8 at byte 5"):
        load([tmp_path / "a.hcl"], {})


def test_a_folder_is_read_in_order_and_later_files_go_over_earlier_ones(tmp_path: Path) -> None:
    (tmp_path / "1.hcl").write_text(MINIMAL + 'cluster_name = "one"')
    (tmp_path / "2.json").write_text('{"cluster_name": "two", "listener": {"tcp": {"tls_disable": true}}}')
    (tmp_path / "3.txt").write_text("not read")

    config = load([tmp_path], {}).config

    assert config.cluster_name == "two"
    assert len(config.listener) == 2


def test_a_folder_without_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no file that ends in \.hcl or \.json"):
        load([tmp_path], {})


def test_the_environment_goes_over_files_and_bao_over_vault(loading: Loader) -> None:
    config = loading(
        FULL,
        {
            "VAULT_API_ADDR": "http://vault:1",
            "BAO_API_ADDR": "http://bao:1",
            "VAULT_RAFT_NODE_ID": "z",
            "BAO_RAFT_PATH": "/elsewhere",
            "VAULT_LOG_LEVEL": "warn",
            "BAO_LOG_LEVEL": "",
        },
    ).config

    assert isinstance(config.storage, RaftStorage)
    assert (config.api_addr, config.log_level) == ("http://bao:1", "warn")
    assert (config.storage.node_id, config.storage.path) == ("z", "/elsewhere")


def test_a_wrong_variable_is_named(loading: Loader) -> None:
    with pytest.raises(ConfigError, match=r"^VAULT_API_ADDR: api_addr: 'x' is no URL"):
        loading(MINIMAL, {"VAULT_API_ADDR": "x"})


def test_every_variable_goes_over_a_key_that_exists() -> None:
    keys = {field.encode_name for field in structs.fields(ServerConfig)}
    keys |= {f"storage.{field.encode_name}" for field in structs.fields(RaftStorage)}

    assert set(ENVIRONMENT.values()) <= keys


@given(text())
def test_no_text_raises_anything_but_config_error(tmp_path_factory: pytest.TempPathFactory, content: str) -> None:
    file = tmp_path_factory.getbasetemp() / "any.hcl"
    file.write_text(content, errors="replace")

    with pytest.raises(ConfigError):
        load([file], {})
