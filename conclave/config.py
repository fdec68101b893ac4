"""What a server can be told: every configuration key as a field, with its unit and default.

The keys are Vault's, so that its configuration files load unchanged. A field's name is its key; where a key has a unit,
the field says so at its end (`default_lease_ttl_seconds` holds the key `default_lease_ttl`). Rules:

* A key that does not exist is a warning with its place: a configuration written for Vault must not keep a node down.
* A value that cannot be right is an error with its place: a typing error must not become a default.
* What another server would do and this one does not is said, never silently left out: `NO_EFFECT` where nothing is
  lost by it, `UNSUPPORTED` where something is (`config_reader.py` reports those).
* Environment variables go over files: `BAO_…`, then `VAULT_…`.

How text becomes these is in `config_reader.py`. Source: Vault's documentation, "Configuration".
"""

from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta, Struct, field

SNAPSHOT_INTERVAL_SECONDS: Final = 24 * 3600.0
SNAPSHOT_INTERVAL_SECONDS_MAX: Final = 366 * 24 * 3600
SNAPSHOTS_RETAINED_MAX: Final = 10_000
LEASE_TTL_SECONDS: Final = 768 * 3600
"""Vault's default and longest lease: 32 days."""
REQUEST_BYTES_MAX: Final = 32 << 20
"""Vault's bound on a request's body: 32 MiB."""
REQUEST_SECONDS_MAX: Final = 90
PERFORMANCE_MULTIPLIER_MAX: Final = 10

LogLevel: TypeAlias = Literal["trace", "debug", "info", "warn", "error"]
LogFormat: TypeAlias = Literal["standard", "json"]


class RetryJoin(Struct, frozen=True):
    """One node of a cluster to be joined; all of them are tried in turn until one answers."""

    leader_api_addr: Annotated[str, Meta(description="API address of a node of the cluster.")]
    leader_ca_cert_file: Annotated[str, Meta(description="PEM file of the CA that signed its certificate.")] = ""
    leader_ca_cert: Annotated[str, Meta(description="The same, as PEM text.")] = ""
    leader_client_cert_file: Annotated[str, Meta(description="PEM file of a client certificate for that API.")] = ""
    leader_client_cert: Annotated[str, Meta(description="The same, as PEM text.")] = ""
    leader_client_key_file: Annotated[str, Meta(description="PEM file of the client certificate's key.")] = ""
    leader_client_key: Annotated[str, Meta(description="The same, as PEM text.")] = ""
    leader_tls_servername: Annotated[str, Meta(description="The name to expect in the node's certificate.")] = ""


class RaftStorage(Struct, frozen=True):
    """`storage "raft"`: this node's part of the replicated log and state, in a folder of its own."""

    path: Annotated[str, Meta(description="The data folder: created with mode 0700, files 0600.")]
    node_id: Annotated[
        str, Meta(description="This node's name in the cluster; drawn at random, once, if it is not given.")
    ] = ""
    performance_multiplier: Annotated[
        int, Meta(ge=0, le=PERFORMANCE_MULTIPLIER_MAX, description="Stretches every Raft timer; 0 means 1.")
    ] = 0
    retry_join: Annotated[
        tuple[RetryJoin, ...],
        Meta(description="Nodes to ask: to join, while this node belongs to no cluster; else where its peers are now."),
    ] = ()
    retry_join_as_non_voter: Annotated[bool, Meta(description="Join without a vote.")] = False


class InmemStorage(Struct, frozen=True):
    """`storage "inmem"`: one node without a disk; everything is gone when it ends. For trials only."""


class ListenerTelemetry(Struct, frozen=True):
    """`telemetry` of a listener."""

    unauthenticated_metrics_access: Annotated[bool, Meta(description="Answer sys/metrics without a token.")] = False


class Listener(Struct, frozen=True):
    """`listener "tcp"`: one address at which the API is served. There may be several."""

    address: Annotated[str, Meta(description="host:port to listen on.")] = "127.0.0.1:8200"
    cluster_address: Annotated[
        str, Meta(description="host:port for the other nodes, mutual TLS; the port after `address` if not given.")
    ] = ""
    tls_disable: Annotated[bool, Meta(description="Serve plain HTTP.")] = False
    tls_cert_file: Annotated[
        str, Meta(description="PEM file: certificate, then intermediates. Read anew at SIGHUP.")
    ] = ""
    tls_key_file: Annotated[str, Meta(description="PEM file of its private key. Read anew at SIGHUP.")] = ""
    tls_min_version: Annotated[
        Literal["tls12", "tls13"], Meta(description="The oldest TLS version that is spoken.")
    ] = "tls12"
    tls_client_ca_file: Annotated[str, Meta(description="PEM file of CAs whose client certificates count.")] = ""
    tls_require_and_verify_client_cert: Annotated[
        bool, Meta(description="Refuse clients without a certificate of that CA.")
    ] = False
    tls_disable_client_certs: Annotated[bool, Meta(description="Do not even ask clients for a certificate.")] = False
    max_request_size_bytes: Annotated[
        int, Meta(description="The largest body that is read; 413 above it. 0: the default.")
    ] = field(default=REQUEST_BYTES_MAX, name="max_request_size")
    max_request_duration_seconds: Annotated[
        float, Meta(description="A request that takes longer is given up. 0: the default.")
    ] = field(default=REQUEST_SECONDS_MAX, name="max_request_duration")
    disable_unauthed_rekey_endpoints: Annotated[
        bool, Meta(description="Refuse sys/rekey/… without a token; sys/rotate/root/… takes its place.")
    ] = True
    disable_unauthed_generate_root_endpoints: Annotated[
        bool, Meta(description="Refuse sys/generate-root/… without a token; sys/generate-root-token/… takes its place.")
    ] = True
    telemetry: Annotated[ListenerTelemetry, Meta(description="Who may read metrics here.")] = ListenerTelemetry()


class Telemetry(Struct, frozen=True):
    """`telemetry`: what sys/metrics answers."""

    prometheus_retention_time_seconds: Annotated[
        float, Meta(description="Above 0, sys/metrics?format=prometheus is answered.")
    ] = field(default=0.0, name="prometheus_retention_time")


class Snapshots(Struct, frozen=True):
    """`snapshots`: files of the whole state, sealed, that this node saves by itself while it is unsealed."""

    path: Annotated[
        str, Meta(description="The folder, created with mode 0700; nothing is saved if it is not given.")
    ] = ""
    interval_seconds: Annotated[
        float, Meta(ge=1, le=SNAPSHOT_INTERVAL_SECONDS_MAX, description="How long after one the next is saved.")
    ] = field(default=SNAPSHOT_INTERVAL_SECONDS, name="interval")
    retain: Annotated[int, Meta(ge=1, le=SNAPSHOTS_RETAINED_MAX, description="How many of the newest are kept.")] = 7


class ShamirSeal(Struct, frozen=True):
    """`seal "shamir"`: key shares, given by people, unseal a node. The only kind there is, and the default."""


class ServerConfig(Struct, frozen=True):
    """The whole configuration of one node."""

    storage: Annotated[
        RaftStorage | InmemStorage,
        Meta(description='Where data is kept: "raft" or "inmem"; `backend` is another name.'),
    ]
    listener: Annotated[tuple[Listener, ...], Meta(description='Where the API is served: "tcp", one or several.')]
    seal: Annotated[ShamirSeal, Meta(description='How the root key is protected: "shamir".')] = ShamirSeal()
    telemetry: Annotated[Telemetry, Meta(description="Metrics.")] = Telemetry()
    snapshots: Annotated[Snapshots, Meta(description="Backups that the node saves by itself.")] = Snapshots()
    api_addr: Annotated[
        str,
        Meta(description="URL of this node's API as clients and peers reach it; from the first listener if not given."),
    ] = ""
    cluster_addr: Annotated[
        str, Meta(description="URL at which peers reach this node; from api_addr, one port on, if not given.")
    ] = ""
    cluster_name: Annotated[str, Meta(description="The cluster's name, for people; made up if not given.")] = ""
    log_level: Annotated[LogLevel, Meta(description="The least important messages to log.")] = "info"
    log_format: Annotated[LogFormat, Meta(description="One readable line for each message, or one JSON object.")] = (
        "standard"
    )
    log_file: Annotated[str, Meta(description="Log to this file (0600) besides standard error.")] = ""
    pid_file: Annotated[str, Meta(description="Write this process's id here, and remove it at the end.")] = ""
    default_lease_ttl_seconds: Annotated[
        float, Meta(description="Lifetime of tokens and leases that nothing else is said about.")
    ] = field(default=LEASE_TTL_SECONDS, name="default_lease_ttl")
    max_lease_ttl_seconds: Annotated[
        float, Meta(description="The longest lifetime that a token or lease can be renewed to.")
    ] = field(default=LEASE_TTL_SECONDS, name="max_lease_ttl")
    unsafe_allow_api_audit_creation: Annotated[
        bool, Meta(description="Let sys/audit/… make audit devices, which write to files of the server's host.")
    ] = False


NO_EFFECT: Final[Mapping[str, str]] = {
    "disable_mlock": "memory is never locked; turn swap off or encrypt it",
    "disable_cache": "caches are dropped by the log itself and never stale",
    "cache_size": "caches are bounded by constants",
    "disable_clustering": "a node without peers makes no use of clustering",
    "disable_performance_standby": "every standby answers reads, and none of them stale",
    "disable_standby_reads": "every standby answers reads, and none of them stale",
    "disable_sealwrap": "there is one seal, and no second wrapping",
    "disable_printable_check": "names may hold any character but control characters",
    "disable_hostname": "no metric's name holds the host's",
    "detect_deadlocks": "there are no locks",
    "plugin_directory": "engines and methods come with the server",
    "plugin_file_uid": "engines and methods come with the server",
    "plugin_file_permissions": "engines and methods come with the server",
    "max_entry_size": "one entry holds 1 MiB",
    "trailing_logs": "kept: 10,000 entries or 64 MiB",
    "snapshot_threshold": "the log is compacted as the state is flushed",
    "snapshot_interval": "the log is compacted as the state is flushed",
    "autopilot_reconcile_interval": "learners are looked at ten times a second",
    "autopilot_update_interval": "learners are looked at ten times a second",
    "proxy_protocol_behavior": "addresses are those of the connection",
    "tls_prefer_server_cipher_suites": "the choice is OpenSSL's",
    "http_read_timeout": "max_request_duration bounds the whole request",
    "http_read_header_timeout": "max_request_duration bounds the whole request",
    "http_write_timeout": "max_request_duration bounds the whole request",
    "http_idle_timeout": "idle connections are kept for a constant time",
}
"""Keys of Vault whose absence changes nothing that a configuration could rely on, and why."""

UNSUPPORTED: Final[Mapping[str, str]] = {
    "raw_storage_endpoint": "sys/raw does not exist: stored records have no names to be read by",
    "introspection_endpoint": "sys/internal/inspect does not exist",
    "ui": "there is no web interface yet; use the API or the command line",
    "service_registration": "this node registers itself nowhere; probe sys/health instead",
    "ha_storage": "consensus and data share one storage",
    "license_path": "there is no licence to be loaded",
    "log_rotate_bytes": "logs are not rotated; use logrotate",
    "log_rotate_duration": "logs are not rotated; use logrotate",
    "log_rotate_max_files": "logs are not rotated; use logrotate",
    "audit": "declare audit devices through sys/audit",
    "initialize": "initialise through sys/init",
    "tls_cipher_suites": "the choice is OpenSSL's",
    "auto_join": "cloud discovery is not supported; list leader_api_addr",
    "statsd_address": "metrics are pulled from sys/metrics",
    "statsite_address": "metrics are pulled from sys/metrics",
    "circonus_api_token": "metrics are pulled from sys/metrics",
    "dogstatsd_addr": "metrics are pulled from sys/metrics",
}
"""Keys of Vault that would do something elsewhere and do nothing here, and what to do instead."""

ENVIRONMENT: Final[Mapping[str, str]] = {
    "API_ADDR": "api_addr",
    "CLUSTER_ADDR": "cluster_addr",
    "LOG_LEVEL": "log_level",
    "LOG_FORMAT": "log_format",
    "RAFT_NODE_ID": "storage.node_id",
    "RAFT_PATH": "storage.path",
}
"""Variables behind `BAO_` or `VAULT_`, and the key each goes over."""
