"""Listening: sockets, TLS, and the life of the connections on them.

Each `listener "tcp"` is one server in this event loop, with its own bounds. Signals are none of its business, and
stopping is bounded: connections that are idle close at once, those that are owed an answer get `DRAIN_SECONDS_MAX`.
TLS files are read anew by `reload`, for connections made from then on.
"""

import asyncio
import email.utils
import ssl
from collections.abc import Sequence
from typing import Final

from msgspec import Struct
from uvicorn.config import Config

from conclave.api.app import new_app
from conclave.api.fastlane import REQUEST_BYTES_MAX
from conclave.api.handler import Handler
from conclave.api.protocol import REQUEST_SECONDS_MAX, FastLaneProtocol, Shared, protocol_of
from conclave.core.metrics import Metrics

BACKLOG: Final = 1024
DRAIN_SECONDS_MAX: Final = 5.0
"""How long answers that are due may take once the server stops."""
SWEEP_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 0.01

_TLS_VERSIONS: Final = {"tls12": ssl.TLSVersion.TLSv1_2, "tls13": ssl.TLSVersion.TLSv1_3}


class ListenerSettings(Struct, frozen=True):
    """One listener, as the configuration says it."""

    address: str  # "127.0.0.1:8200", "[::]:8200"
    tls_disable: bool = False
    tls_cert_file: str = ""
    tls_key_file: str = ""
    tls_client_ca_file: str = ""
    tls_require_and_verify_client_cert: bool = False
    tls_disable_client_certs: bool = False
    tls_min_version: str = "tls12"
    max_request_size: int = REQUEST_BYTES_MAX  # bytes; 0 or less: the default
    max_request_duration_seconds: float = REQUEST_SECONDS_MAX
    has_open_metrics: bool = False  # telemetry { unauthenticated_metrics_access }
    has_prometheus: bool = True  # telemetry { prometheus_retention_time } above 0


class Listeners:
    """All listeners of a node.

    Args:
        handler: who answers requests.
        settings: one for each listener.
        metrics: where requests are counted.
    """

    def __init__(self, handler: Handler, settings: Sequence[ListenerSettings], metrics: Metrics | None = None) -> None:
        self.metrics = metrics or Metrics()
        self._listeners = [_Listener(handler, each, self.metrics) for each in settings]
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def ports(self) -> list[int]:
        """The ports that are listened on, in the order of the settings."""
        return [listener.port for listener in self._listeners]

    async def start(self) -> None:
        """Begin to listen on every address.

        Raises:
            OSError: an address cannot be had, or a TLS file cannot be read.
            ValueError: a setting makes no sense.
        """
        for listener in self._listeners:
            await listener.start()
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep(), name="listeners")

    async def stop(self) -> None:
        """Close every socket, after the answers that are due."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        await asyncio.gather(*(listener.stop() for listener in self._listeners))

    def reload(self) -> None:
        """Read the TLS files anew.

        Raises:
            OSError: one cannot be read; the certificates before stay in use.
        """
        for listener in self._listeners:
            listener.reload()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            for listener in self._listeners:
                listener.sweep()


class _Listener:
    """One address and the connections on it."""

    def __init__(self, handler: Handler, settings: ListenerSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._shared = Shared(
            handler,
            metrics,
            request_bytes_max=settings.max_request_size if settings.max_request_size > 0 else REQUEST_BYTES_MAX,
            request_seconds_max=int(settings.max_request_duration_seconds) or REQUEST_SECONDS_MAX,
            has_open_metrics=settings.has_open_metrics,
            has_prometheus=settings.has_prometheus,
        )
        # No log of uvicorn's: a request line holds the path of a secret, and the node logs for itself.
        self._config = Config(
            new_app(self._shared),
            http=FastLaneProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
        )
        self._server: asyncio.Server | None = None
        self._context: ssl.SSLContext | None = None

    @property
    def port(self) -> int:
        """The port that is listened on."""
        assert self._server is not None, "start() comes first"
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        self._config.load()
        self._shared.set_date(_date())
        host, _, port = self._settings.address.rpartition(":")
        if not self._settings.tls_disable:
            self._context = _context(self._settings)
        self._server = await asyncio.get_running_loop().create_server(
            lambda: FastLaneProtocol(self._config, self._shared),
            host.strip("[]") or None,
            int(port),
            ssl=self._context,
            backlog=BACKLOG,
        )

    async def stop(self) -> None:
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._shared.connections):
            protocol_of(connection).shutdown()
        deadline = asyncio.get_running_loop().time() + DRAIN_SECONDS_MAX
        while self._shared.connections and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110  (uvicorn has no event)
            await asyncio.sleep(_POLL_SECONDS)
        self._shared.outgoing.flush()
        for connection in list(self._shared.connections):
            protocol_of(connection).transport.abort()
        for task in list(self._shared.tasks):
            task.cancel()
        await asyncio.gather(*self._shared.tasks, return_exceptions=True)

    def reload(self) -> None:
        if self._context is not None:
            self._context.load_cert_chain(self._settings.tls_cert_file, self._settings.tls_key_file or None)

    def sweep(self) -> None:
        self._shared.set_date(_date())
        for connection in list(self._shared.connections):
            protocol_of(connection).sweep()


def _date() -> bytes:
    return email.utils.formatdate(usegmt=True).encode()


def _context(settings: ListenerSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    version = _TLS_VERSIONS.get(settings.tls_min_version)
    if version is None:
        raise ValueError(f"tls_min_version {settings.tls_min_version!r} is not one of {', '.join(_TLS_VERSIONS)}")
    context.minimum_version = version
    context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file or None)
    if settings.tls_require_and_verify_client_cert:
        if settings.tls_disable_client_certs:
            raise ValueError("tls_disable_client_certs and tls_require_and_verify_client_cert contradict each other")
        if not settings.tls_client_ca_file:
            raise ValueError(
                "tls_require_and_verify_client_cert needs tls_client_ca_file: what certificates are trusted"
            )
    if not settings.tls_disable_client_certs and settings.tls_client_ca_file:
        context.load_verify_locations(settings.tls_client_ca_file)
        context.verify_mode = ssl.CERT_REQUIRED if settings.tls_require_and_verify_client_cert else ssl.CERT_OPTIONAL
    return context
