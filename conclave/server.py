"""The composition root: the one file that imports every room and puts the parts of a node together.

    configuration ─▶ log (file), state (LMDB) ─▶ overlay ─▶ store ─┬─▶ node (Raft, transport) ─▶ peers
                                                                   └─▶ vault (pipeline, lifecycle) ─▶ listeners (HTTP)

It decides nothing about requests, consensus or storage: it starts the parts in the order of that picture, stops them in
the reverse order, and listens to signals meanwhile:

* SIGTERM, SIGINT  hand leadership over, answer what is in flight, stop; each step has a bound
* SIGHUP           read certificates and the log level anew

A node that cannot start says in one line what is wrong (`StartFailed`), and ends with exit code 1.
"""

import asyncio
import contextlib
import logging
import os
import platform
import resource
import signal
import socket
import sys
import time
import uuid
from collections.abc import Awaitable, Iterator, Sequence
from pathlib import Path
from typing import Final

import uvloop
from msgspec import Struct

import conclave
from conclave import dev, logs
from conclave.addresses import Addresses, addresses, join, split
from conclave.api.listener import Listeners, ListenerSettings
from conclave.cluster.errors import ClusterError
from conclave.cluster.loopback import LoopbackNetwork, LoopbackTransport
from conclave.cluster.membership import Identity, decode_identity
from conclave.cluster.node import Node, NodeSettings, TransportFactory, tls_transport_factory
from conclave.cluster.timing import boot_ns
from conclave.cluster.transport import Local, Transport
from conclave.config import InmemStorage, Listener, RaftStorage, RetryJoin, ServerConfig
from conclave.config_reader import ENVIRONMENT_PREFIXES, ConfigError, Loaded, load
from conclave.core.clock import WalkingClock
from conclave.core.joining import JoinTarget
from conclave.core.lifecycle import Allowances, Lifecycle, NodeInfo
from conclave.core.metrics import Metrics
from conclave.core.pipeline import Pipeline
from conclave.core.services import Limits
from conclave.core.snapshot_schedule import Schedule, ScheduledSnapshots
from conclave.core.store import WHAT_TO_DO_ABOUT_DAMAGE, Store
from conclave.core.system import System
from conclave.core.system.raft import failure_tolerance
from conclave.core.vault import Vault
from conclave.dev import DevFailed, DevOptions
from conclave.engines import REGISTRY as ENGINES
from conclave.methods import REGISTRY as METHODS
from conclave.presentation import banner, sanitized, storage_name
from conclave.recover import recover_stores, use_peers_file
from conclave.runtime import CollectorWatch, settle_memory, share_interpreter
from conclave.storage.environment import LMDB_FILE
from conclave.storage.errors import StorageError, is_damage
from conclave.storage.file_log import FileLog
from conclave.storage.log import LmdbLog, LogStore
from conclave.storage.memory import MemoryLog, MemoryState
from conclave.storage.overlay import Overlay
from conclave.storage.state import LmdbState, StateStore

log = logging.getLogger(__name__)

STEP_DOWN_SECONDS_MAX: Final = 5.0
"""How long a stopping node tries to hand leadership over."""
STOP_SECONDS_MAX: Final = 10.0
"""How long any one part may take to stop."""


class StartFailed(Exception):
    """The node cannot start; the text says why and what to do."""


class Options(Struct, frozen=True):
    """How a server is asked for on the command line; "" leaves a setting to the configuration.

    Attributes:
        config_paths: files or folders.
        dev: development mode, in which there is no configuration.
    """

    config_paths: tuple[str, ...] = ()
    dev: DevOptions | None = None
    log_level: str = ""
    log_format: str = ""
    log_file: str = ""


def main(options: Options) -> int:
    """Run a node until it is told to stop; return the exit code of its process."""
    try:
        loaded = _configuration(options)
        share_interpreter()
        uvloop.run(run(loaded.config, warnings=loaded.warnings, options=options))
    except (ConfigError, StartFailed, DevFailed) as error:
        print(f"Error starting the server: {error}", file=sys.stderr)  # noqa: T201  (before there is a log)
        return 1
    return 0


def _configuration(options: Options) -> Loaded:
    if options.dev is None and not options.config_paths:
        raise StartFailed("name a configuration with -config=FILE, or try one node in memory with -dev")
    flags = {"LOG_LEVEL": options.log_level, "LOG_FORMAT": options.log_format}
    environment = {
        **os.environ,
        **{f"{ENVIRONMENT_PREFIXES[0]}{name}": value for name, value in flags.items() if value},
    }
    base = None if options.dev is None else dev.dev_config(options.dev)
    return load([Path(path) for path in options.config_paths], environment, base)


def recover_folder(folder: Path, *, is_dry: bool) -> int:
    """Show what a stopped node's data holds, or make that node the only member; return the process's exit code."""
    if not (folder / "state").is_dir():
        print(f"Error recovering: {folder} holds no node's data", file=sys.stderr)  # noqa: T201  (there is no log)
        return 1
    try:
        log_store, state_store = open_storage(ServerConfig(storage=RaftStorage(path=str(folder)), listener=()))
        with contextlib.closing(log_store), contextlib.closing(state_store):
            _show(recover_stores(log_store, state_store, is_dry=is_dry))
    except (StartFailed, ClusterError, StorageError, ValueError) as error:
        print(f"Error recovering: {error}", file=sys.stderr)  # noqa: T201  (as above)
        return 1
    return 0


async def run(config: ServerConfig, *, warnings: Sequence[str] = (), options: Options | None = None) -> None:
    """Start a node, serve until SIGTERM or SIGINT, and stop it.

    Args:
        config: what it is.
        warnings: what the configuration is to be blamed for; logged.
        options: how it was asked for; needed for development mode and for SIGHUP.

    Raises:
        StartFailed: it cannot start.
        DevFailed: development mode could not be prepared.
    """
    options = options or Options()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold the keys
    where = addresses(config, own_host())
    try:
        logs.configure(config.log_level, config.log_format, options.log_file or config.log_file)
    except OSError as error:
        raise StartFailed(f"the log file cannot be opened: {error}") from error
    _show(banner(config, where, {"Version": f"Conclave v{conclave.__version__}", "Python": platform.python_version()}))
    for warning in warnings:
        log.warning("configuration", extra={"problem": warning})
    stopped = asyncio.Event()
    server = Server(config, where)
    with _pid_file(config.pid_file):
        await server.start()
        try:
            _listen_to_signals(server, options, stopped)
            if options.dev is not None:
                await _prepare_dev(server, options.dev)
            _show("==> Conclave server started! Log data will stream in below:\n")
            settle_memory()
            await stopped.wait()
            log.info("stopping")
        finally:
            await server.stop()


class Server:
    """One node, put together from its parts.

    Args:
        config: what it is.
        where: its addresses.

    Raises:
        StartFailed: its data cannot be opened.
    """

    def __init__(self, config: ServerConfig, where: Addresses) -> None:
        self.config = config
        self.where = where
        self._log_store, self._state_store = open_storage(config)
        _use_peers_file(config, self._log_store, self._state_store)
        node_id = _node_id(config, self._log_store)
        overlay = Overlay(self._state_store)
        clock = WalkingClock(time.time_ns, boot_ns, lambda: overlay.now_ns)
        self.store = Store(overlay, wall_clock_ns=clock.now_ns, monotonic_seconds=time.monotonic)
        self.node = Node(
            node_id=node_id,
            cluster_address=where.cluster,
            log=self._log_store,
            state=self._state_store,
            machine=self.store,
            connect=_transport_factory(config, where),
            settings=_node_settings(config),
            use_threads=isinstance(config.storage, RaftStorage),
        )
        self.store.connect(self.node)
        limits = Limits(int(config.default_lease_ttl_seconds), int(config.max_lease_ttl_seconds))
        pipeline = Pipeline(
            {name: engine() for name, engine in ENGINES.items()},
            {name: method() for name, method in METHODS.items()},
            limits,
        )
        self.vault = Vault(
            self.store, self.node, self.node, self.node, pipeline, forbidden_folders=_private_folders(config)
        )
        self.lifecycle = Lifecycle(self.vault, _node_info(config, where, node_id), allowances=_allowances(config))
        system = System(self.lifecycle, sanitized(config, where), _spool_folder(config))
        pipeline.install_system(system)
        schedule = _snapshot_schedule(config)
        self.scheduled_snapshots = ScheduledSnapshots(self.vault, system.snapshots, schedule) if schedule else None
        self.metrics = Metrics()
        self._collector = CollectorWatch(self.metrics)
        follow_vault(self.metrics, self.vault)
        self.listeners = Listeners(
            self.vault, [_listener_settings(each, config) for each in config.listener], self.metrics
        )

    async def start(self) -> None:
        """Start every part; what cannot start stops those before it.

        Raises:
            StartFailed: an address is in use, a certificate cannot be read, the data is damaged.
        """
        try:
            targets = join_targets(self.config)
            self._require_free_addresses()
            self._require_readable_certificates()
            self.store.start()
            await self.node.start()
            self.lifecycle.announce()
            if self.scheduled_snapshots is not None:
                self.scheduled_snapshots.start()
            await self.listeners.start()
            if targets:
                assert isinstance(self.config.storage, RaftStorage), "no other storage has anybody to join"
                self.lifecycle.retry_join(targets, is_voter=not self.config.storage.retry_join_as_non_voter)
        except (OSError, ValueError, StorageError, ClusterError) as error:
            await self.stop()
            raise StartFailed(str(error)) from error
        except StartFailed:
            await self.stop()
            raise

    def _require_free_addresses(self) -> None:
        """See that every address can be listened on: the cluster's is not used before there is a cluster."""
        wanted = [split(listener.address) for listener in self.config.listener]
        if isinstance(self.config.storage, RaftStorage):
            wanted.append(self.where.cluster_listen)
        for host, port in wanted:
            require_free(host, port)

    def _require_readable_certificates(self) -> None:
        """See that TLS files can be read: OpenSSL does not say which of them it is that cannot."""
        for listener in self.config.listener:
            for file in (listener.tls_cert_file, listener.tls_key_file, listener.tls_client_ca_file):
                if file and not listener.tls_disable:
                    Path(file).open("rb").close()

    async def stop(self) -> None:
        """Hand leadership over, answer what is in flight, stop every part; each within its bound."""
        try:
            await self._stop_parts()
        finally:
            self._collector.stop()
        log.info("stopped")

    async def _stop_parts(self) -> None:
        if self.vault.is_active:
            await _bounded("handing leadership over", self.node.step_down(), STEP_DOWN_SECONDS_MAX)
        await _bounded("the listeners", self.listeners.stop(), STOP_SECONDS_MAX)
        await _bounded("the vault", self.vault.stop(), STOP_SECONDS_MAX)
        await _bounded("the node", self.node.stop(hand_over=False), STOP_SECONDS_MAX)
        await _bounded("the store", self.store.stop(), STOP_SECONDS_MAX)
        self._state_store.close()
        self._log_store.close()

    def reload(self, options: Options) -> None:
        """Read certificates and the log level anew, and open audit logs anew; what cannot be read stays as it is."""
        try:
            self.vault.auditor.reopen()
            if options.config_paths:
                logs.set_level(_configuration(options).config.log_level)
            self.listeners.reload()
        except (ConfigError, OSError, ValueError) as error:
            log.error("cannot reload", extra={"reason": str(error)})  # noqa: TRY400  (its text is all there is to say)
        else:
            log.info("reloaded certificates, log level and audit logs")


# -- parts --


def open_storage(config: ServerConfig) -> tuple[LogStore, StateStore]:
    """Open the log and the state of a node, creating what is missing.

    Raises:
        StartFailed: they are damaged, open elsewhere, or the folder cannot be made.
    """
    if isinstance(config.storage, InmemStorage):
        return MemoryLog(), MemoryState()
    folder = Path(config.storage.path)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A folder from before there was the other format goes on in its own.
        log_store = (LmdbLog if (folder / "log" / LMDB_FILE).exists() else FileLog)(folder / "log")
    except (OSError, StorageError) as error:
        raise StartFailed(f"the log in {folder} cannot be opened: {error}{_advice(error)}") from error
    try:
        return log_store, LmdbState(folder / "state")
    except (OSError, StorageError) as error:
        log_store.close()
        raise StartFailed(f"the state in {folder} cannot be opened: {error}{_advice(error)}") from error


def _advice(error: Exception) -> str:
    return f"; {WHAT_TO_DO_ABOUT_DAMAGE}" if is_damage(error) else ""


def _use_peers_file(config: ServerConfig, log_store: LogStore, state_store: StateStore) -> None:
    """Make this node the only member if a peers.json in its data folder says so."""
    if not isinstance(config.storage, RaftStorage):
        return
    try:
        if use_peers_file(Path(config.storage.path), log_store, state_store):
            log.warning("peers.json was used: this node is the only member of its cluster now")
    except (OSError, ValueError, StorageError, ClusterError) as error:
        state_store.close()
        log_store.close()
        raise StartFailed(str(error)) from error


def _private_folders(config: ServerConfig) -> tuple[Path, ...]:
    """Return where no audit log may be put by a request: into this node's own data."""
    return (Path(config.storage.path).resolve(),) if isinstance(config.storage, RaftStorage) else ()


def _spool_folder(config: ServerConfig) -> Path | None:
    """Return where an uploaded snapshot is kept while it is checked: on the disk that has room for the state, too."""
    return Path(config.storage.path) if isinstance(config.storage, RaftStorage) else None


def join_targets(config: ServerConfig) -> list[JoinTarget]:
    """Return the nodes of `retry_join`, with their files read.

    Raises:
        OSError: a file cannot be read.
    """
    if not isinstance(config.storage, RaftStorage):
        return []
    return [_join_target(each) for each in config.storage.retry_join]


def _join_target(retry: RetryJoin) -> JoinTarget:
    def pem(text: str, file: str) -> str:
        return Path(file).read_text(encoding="ascii") if file else text

    return JoinTarget(
        leader_api_address=retry.leader_api_addr,
        authority_pem=pem(retry.leader_ca_cert, retry.leader_ca_cert_file),
        client_certificate_pem=pem(retry.leader_client_cert, retry.leader_client_cert_file),
        client_key_pem=pem(retry.leader_client_key, retry.leader_client_key_file),
        server_name=retry.leader_tls_servername,
    )


def _node_id(config: ServerConfig, log_store: LogStore) -> str:
    """Return this node's name: as its data says, or its configuration, or a new one."""
    stored = log_store.get_identity()
    wanted = config.storage.node_id if isinstance(config.storage, RaftStorage) else ""
    if not stored:
        return wanted or str(uuid.uuid4())
    known = decode_identity(stored).node_id
    if wanted and wanted != known:
        raise StartFailed(f"the data folder belongs to node_id {known!r}, the configuration says {wanted!r}")
    return known


def _transport_factory(config: ServerConfig, where: Addresses) -> TransportFactory:
    if isinstance(config.storage, RaftStorage):
        return tls_transport_factory(where.cluster_listen)

    def alone(identity: Identity) -> Transport:
        local = Local(identity.cluster_id, identity.raft_id, identity.incarnation)
        return LoopbackTransport(local, LoopbackNetwork())

    return alone


def _node_settings(config: ServerConfig) -> NodeSettings:
    multiplier = config.storage.performance_multiplier if isinstance(config.storage, RaftStorage) else 0
    return NodeSettings(performance_multiplier=float(multiplier or 1))


def _snapshot_schedule(config: ServerConfig) -> Schedule | None:
    wanted = config.snapshots
    return Schedule(Path(wanted.path), wanted.interval_seconds, wanted.retain) if wanted.path else None


def _allowances(config: ServerConfig) -> Allowances:
    """Return what clients may do; the whole node allows what one of its listeners does."""
    return Allowances(
        unauthed_rekey=not all(each.disable_unauthed_rekey_endpoints for each in config.listener),
        unauthed_root_generation=not all(each.disable_unauthed_generate_root_endpoints for each in config.listener),
        audit_creation=config.unsafe_allow_api_audit_creation,
    )


def follow_vault(metrics: Metrics, vault: Vault) -> None:
    """Let gauges that are about consensus and the vault be read from them when somebody looks."""
    metrics.active.follow(lambda: vault.is_active)
    metrics.unsealed.follow(lambda: not vault.is_sealed)
    metrics.raft_peers.follow(lambda: len(vault.membership.peers()))
    metrics.raft_applied_index.follow(lambda: vault.store.applied[0])
    metrics.raft_commit_index.follow(lambda: vault.membership.committed_index)
    metrics.raft_term.follow(lambda: vault.replica.term)
    metrics.autopilot_healthy.follow(lambda: all(peer.is_healthy for peer in vault.membership.peers()))
    metrics.node_healthy.follow(lambda: {peer.node_id: peer.is_healthy for peer in vault.membership.peers()})
    metrics.failure_tolerance.follow(lambda: failure_tolerance(vault.membership.peers()))
    vault.background.on_expired = metrics.lease_expiration.add

    def committed(milliseconds: float) -> None:
        metrics.raft_apply.add()
        metrics.raft_commit_time.observe(milliseconds)

    vault.store.on_committed = committed


def _node_info(config: ServerConfig, where: Addresses, node_id: str) -> NodeInfo:
    return NodeInfo(
        node_id=node_id,
        api_address=where.api,
        hostname=socket.gethostname(),
        cluster_name=config.cluster_name,
        storage_type=storage_name(config),
    )


def _listener_settings(listener: Listener, config: ServerConfig) -> ListenerSettings:
    return ListenerSettings(
        address=listener.address,
        tls_disable=listener.tls_disable,
        tls_cert_file=listener.tls_cert_file,
        tls_key_file=listener.tls_key_file,
        tls_client_ca_file=listener.tls_client_ca_file,
        tls_require_and_verify_client_cert=listener.tls_require_and_verify_client_cert,
        tls_disable_client_certs=listener.tls_disable_client_certs,
        tls_min_version=listener.tls_min_version,
        max_request_size=listener.max_request_size_bytes,
        max_request_duration_seconds=listener.max_request_duration_seconds,
        has_open_metrics=listener.telemetry.unauthenticated_metrics_access,
        has_prometheus=config.telemetry.prometheus_retention_time_seconds > 0,
    )


# -- the process --


def own_host() -> str:
    """Return an address of this machine that others can use; loopback if it has no other."""
    with contextlib.suppress(OSError):
        for *_, address in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET, socket.SOCK_STREAM):
            return str(address[0])
    return "127.0.0.1"


def require_free(host: str, port: int) -> None:
    """See that an address can be listened on.

    Raises:
        StartFailed: it cannot; the text names it.
    """
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
    except OSError as error:
        raise StartFailed(f"cannot listen on {join(host, port)}: {(error.strerror or str(error)).lower()}") from error


def _listen_to_signals(server: Server, options: Options, stopped: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stopped.set)
    loop.add_signal_handler(signal.SIGHUP, server.reload, options)


async def _prepare_dev(server: Server, options: DevOptions) -> None:
    made = await dev.prepare(server.vault, options)
    if options.stores_token:
        dev.store_token(made.root_token, Path.home())
    _show(dev.notice(made, server.where.api))


@contextlib.contextmanager
def _pid_file(name: str) -> Iterator[None]:
    """Keep this process's id in a file as long as it runs."""
    if not name:
        yield
        return
    file = Path(name)
    try:
        file.write_text(f"{os.getpid()}\n", encoding="ascii")
    except OSError as error:
        raise StartFailed(f"the pid file cannot be written: {error}") from error
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


async def _bounded(what: str, work: Awaitable[object], seconds_max: float) -> None:
    """Wait for one step of stopping; one that hangs or fails must not keep the others from being taken."""
    try:
        await asyncio.wait_for(work, seconds_max)
    except TimeoutError:
        log.warning("did not stop in time", extra={"part": what, "seconds_max": seconds_max})
    except (OSError, StorageError, ClusterError) as error:
        log.warning("did not stop cleanly", extra={"part": what, "reason": str(error)})


def _show(text: str) -> None:
    print(text, flush=True)  # noqa: T201  (the banner goes where the operator looks, before the log)
