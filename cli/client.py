"""The HTTP client of the command line: one request, one answer, and Vault's words for what went wrong.

The rules it enforces: the token travels in X-Vault-Token only and never to another host in clear; at most one redirect
is followed, and never from https to http; nothing is retried unless BAO_MAX_RETRIES says so, and then only what a server
answers before it has done anything (412 and 5xx except 501). A request may be shown instead of sent.
What it does not do: proxies, compression, connection reuse; each command makes one to three requests.
Source: Vault's pages "HTTP API" and "Commands (CLI)"; its environment variables.
"""

import http.client
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, NamedTuple
from urllib.parse import quote, urlencode, urljoin, urlsplit

from conclave.cli.document import compact_json, parse_json
from conclave.cli.errors import CommandError, OutputOnly, Refused, ServerError, Unreachable
from conclave.cli.secret import Secret, secret_of

TIMEOUT_SECONDS: Final = 60.0
"""How long one request may take unless BAO_CLIENT_TIMEOUT says otherwise."""
RETRY_WAIT_SECONDS: Final = 1.0
ANSWER_BYTES_MAX: Final = 64 << 20
"""The largest answer that is read into memory: twice what a server takes in."""
COPY_BYTES: Final = 1 << 16
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_PATH_SAFE: Final = "/-._~!$&'()*+,;=:@"


class Settings(NamedTuple):
    """Where requests go and what goes with each.

    Attributes:
        address: http://host:port, https://host:port or unix:///path/to/socket.
        namespace: with a slash at its end, or "".
        wrap_ttl: a duration in Go's spelling, or "".
        headers: more headers, sent as they are.
        retries_max: how often a request is sent again after an answer that allows it.
        show: "curl" or "policy" to raise `OutputOnly` instead of sending; "" to send.
    """

    address: str = "https://127.0.0.1:8200"
    token: str = ""
    namespace: str = ""
    wrap_ttl: str = ""
    mfa: tuple[str, ...] = ()
    unlock_key: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    ca_cert: str = ""
    ca_path: str = ""
    client_cert: str = ""
    client_key: str = ""
    tls_server_name: str = ""
    is_tls_checked: bool = True
    are_redirects_followed: bool = True
    retries_max: int = 0
    timeout_seconds: float = TIMEOUT_SECONDS
    show: str = ""


class Answer(NamedTuple):
    """What came back: its status, its body, and the request it belongs to."""

    status: int
    body: bytes
    method: str
    url: str

    def json(self) -> dict[str, Any]:
        """Return the body as an object; an empty body is an empty object.

        Raises:
            ServerError: it is something else.
        """
        if not self.body.strip():
            return {}
        try:
            value = parse_json(self.body)
        except ValueError as error:
            raise ServerError(f"failed to read the answer of {self.url}: {error}") from error
        if not isinstance(value, dict):
            raise ServerError(f"failed to read the answer of {self.url}: it is no JSON object")
        return value


class _Request(NamedTuple):
    method: str
    url: str
    headers: dict[str, str]
    body: bytes | IO[bytes] | None


class Client:
    """Sends requests to one server."""

    def __init__(self, settings: Settings, *, pause: Callable[[float], None] = time.sleep) -> None:
        self.settings = settings
        self._pause = pause

    def replaced(self, **changes: Any) -> "Client":
        """Return a client with some settings changed, such as `token`, `wrap_ttl` or `show`."""
        return Client(self.settings._replace(**changes), pause=self._pause)

    # --- Vault's verbs ---

    def read(self, path: str, params: Mapping[str, str | list[str]] | None = None) -> Secret | None:
        """Read a path; None when nothing is there.

        Raises:
            Refused, Unreachable: see their classes; so do all methods here.
        """
        return self._secret("GET", path, params=params)

    def list_names(self, path: str, params: Mapping[str, str] | None = None, *, verb: str = "list") -> Secret | None:
        """List (or, with the verb "scan", list recursively) a path; None when nothing is there."""
        return self._secret("GET", path, params={verb: "true", **(params or {})})

    def write(self, path: str, data: Any = None, *, method: str = "PUT") -> Secret | None:
        """Write; None when the server has nothing to say about it."""
        return self._secret(method, path, body=data, missing_is_none=False)

    def patch(self, path: str, data: Any) -> Secret | None:
        """Merge into what is there."""
        return self._secret("PATCH", path, body=data, missing_is_none=False)

    def delete(self, path: str, params: Mapping[str, str | list[str]] | None = None) -> Secret | None:
        """Delete a path."""
        return self._secret("DELETE", path, params=params)

    def fetch(
        self, method: str, path: str, body: Any = None, params: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Send a request of the system families and return the JSON object of its answer."""
        return self.request(method, path, params=params, body=body).json()

    def _secret(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        missing_is_none: bool = True,
    ) -> Secret | None:
        try:
            answer = self.request(method, path, params=params, body=body)
        except Missing as error:
            content = _object_or_nothing(error.body)
            if content.get("data") or content.get("warnings"):
                return secret_of(content)
            if missing_is_none:
                return None
            raise
        content = answer.json()
        return secret_of(content) if content else None

    # --- one request ---

    def request(self, method: str, path: str, *, params: Mapping[str, Any] | None = None, body: Any = None) -> Answer:
        """Send one request with a JSON body, or none.

        Raises:
            Missing: status 404.
            Refused: another status from 400 on.
            Unreachable: no answer came.
            OutputOnly: the request is to be shown, not sent.
        """
        data = None if body is None else compact_json(body).encode()
        sent = self._build(method, path, params, data)
        self._show(sent, path)
        answer = self._send_patiently(sent)
        if answer.status >= http.client.BAD_REQUEST:
            raise refusal(answer, self.settings.namespace)
        return answer

    def download(self, path: str, target: IO[bytes]) -> None:
        """Copy the body of a GET into a file, piece by piece."""
        sent = self._build("GET", path, None, None)
        self._refuse_to_show()
        with self._open(sent) as response:
            if response.status >= http.client.BAD_REQUEST:
                answer = Answer(response.status, response.read(ANSWER_BYTES_MAX), "GET", sent.url)
                raise refusal(answer, self.settings.namespace)
            while piece := response.read(COPY_BYTES):
                try:
                    target.write(piece)
                except OSError as error:
                    raise CommandError(f"failed to write the snapshot: {error.strerror}") from error

    def upload(self, path: str, source: IO[bytes], length_bytes: int) -> None:
        """Send a file as the body of a POST, piece by piece."""
        sent = self._build("POST", path, None, source)
        sent.headers["Content-Length"] = str(length_bytes)
        self._refuse_to_show()
        answer = self._send(sent)
        if answer.status >= http.client.BAD_REQUEST:
            raise refusal(answer, self.settings.namespace)

    def _build(
        self, method: str, path: str, params: Mapping[str, Any] | None, body: bytes | IO[bytes] | None
    ) -> _Request:
        settings = self.settings
        base = "http://localhost" if settings.address.startswith("unix://") else settings.address.rstrip("/")
        url = f"{base}/v1/{quote(path.lstrip('/'), safe=_PATH_SAFE)}"
        if params:
            url += "?" + urlencode({name: params[name] for name in sorted(params)}, doseq=True)
        own = {
            "X-Vault-Request": "true",
            "X-Vault-Token": settings.token,
            "X-Vault-Namespace": settings.namespace,
            "X-Vault-Wrap-Ttl": settings.wrap_ttl or _own_wrap_ttl(method, path),
            "X-Vault-Api-Lock-Unlock-Key": settings.unlock_key,
            "X-Vault-Mfa": ",".join(settings.mfa),
        }
        headers = {name: value for name, value in own.items() if value}
        if method == "PATCH":
            headers["Content-Type"] = "application/merge-patch+json"
        headers.update(settings.headers)
        return _Request(method, url, headers, body)

    def _show(self, sent: _Request, path: str) -> None:
        if self.settings.show == "curl":
            raise OutputOnly(curl_command(sent.method, sent.url, sent.headers, sent.body))
        if self.settings.show == "policy":
            raise OutputOnly(policy_for(sent.method, path, sent.url))

    def _refuse_to_show(self) -> None:
        if self.settings.show:
            raise ServerError("a snapshot's bytes cannot be shown as a command or a policy")

    def _send_patiently(self, sent: _Request) -> Answer:
        for attempt in range(self.settings.retries_max + 1):
            answer = self._send(sent)
            is_temporary = answer.status == http.client.PRECONDITION_FAILED or (
                answer.status >= http.client.INTERNAL_SERVER_ERROR and answer.status != http.client.NOT_IMPLEMENTED
            )
            if not is_temporary or attempt == self.settings.retries_max:
                break
            self._pause(RETRY_WAIT_SECONDS * (1 + attempt / 2))
        return answer

    def _send(self, sent: _Request) -> Answer:
        with self._open(sent) as response:
            body = response.read(ANSWER_BYTES_MAX + 1)
            if len(body) > ANSWER_BYTES_MAX:
                raise ServerError(f"the answer of {sent.url} is larger than {ANSWER_BYTES_MAX} bytes")
            return Answer(response.status, body, sent.method, sent.url)

    @contextmanager
    def _open(self, sent: _Request) -> Iterator[http.client.HTTPResponse]:
        """Yield the response, after at most one redirect; what breaks while it is read is named here too."""
        connection = self._connect(sent)
        try:
            response = self._exchange(connection, sent)
            target = response.getheader("Location")
            if target and response.status in _REDIRECTS and self.settings.are_redirects_followed:
                connection.close()
                sent = redirected(sent, target)
                connection = self._connect(sent)
                response = self._exchange(connection, sent)
            yield response
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f'{sent.method.capitalize()} "{sent.url}": {reason(error, sent.url)}') from error
        finally:
            connection.close()

    def _exchange(self, connection: http.client.HTTPConnection, sent: _Request) -> http.client.HTTPResponse:
        if sent.body is not None and not isinstance(sent.body, bytes):
            sent.body.seek(0)
        connection.request(sent.method, _target(sent.url), body=sent.body, headers=sent.headers)
        return connection.getresponse()

    def _connect(self, sent: _Request) -> http.client.HTTPConnection:
        settings, parts = self.settings, urlsplit(sent.url)
        if settings.address.startswith("unix://"):
            return _UnixConnection(settings.address.removeprefix("unix://"), settings.timeout_seconds)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Unreachable(f'{sent.method.capitalize()} "{sent.url}": unsupported protocol scheme "{parts.scheme}"')
        if parts.scheme == "http":
            return http.client.HTTPConnection(parts.hostname, parts.port, timeout=settings.timeout_seconds)
        return _TlsConnection(parts.hostname, parts.port, settings)


class Missing(Refused):
    """Status 404; a body may say more, such as the metadata of a deleted version."""

    def __init__(self, text: str, *, body: bytes, messages: list[str]) -> None:
        super().__init__(text, status=404, messages=messages)
        self.body = body


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a local socket."""

    def __init__(self, path: str, timeout_seconds: float) -> None:
        super().__init__("localhost", timeout=timeout_seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _TlsConnection(http.client.HTTPSConnection):
    """HTTP over TLS, with the certificates and the name of the settings."""

    def __init__(self, host: str, port: int | None, settings: Settings) -> None:
        self._context_of_settings = tls_context(settings)
        super().__init__(host, port, timeout=settings.timeout_seconds, context=self._context_of_settings)
        self._name = settings.tls_server_name or host

    def connect(self) -> None:
        plain = socket.create_connection((self.host, self.port), self.timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = self._context_of_settings.wrap_socket(plain, server_hostname=self._name)


def tls_context(settings: Settings) -> ssl.SSLContext:
    """Build the TLS side of a client: TLS 1.2 or newer, the system's authorities unless others are given.

    Raises:
        ServerError: a file of certificates or keys cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=settings.ca_cert or None)
        if settings.ca_path and not settings.ca_cert:
            for file in sorted(Path(settings.ca_path).iterdir()):
                context.load_verify_locations(cafile=str(file))
        if settings.client_cert or settings.client_key:
            context.load_cert_chain(settings.client_cert, settings.client_key or None)
    except (OSError, ssl.SSLError) as error:
        raise ServerError(f"failed to configure TLS: {error}") from error
    if not settings.is_tls_checked:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _target(url: str) -> str:
    parts = urlsplit(url)
    return parts.path + ("?" + parts.query if parts.query else "")


def _own_wrap_ttl(method: str, path: str) -> str:
    """Wrapping is the whole point of these two: they are never sent without a lifetime."""
    return "5m" if method != "GET" and path.strip("/") in ("sys/wrapping/wrap", "sys/wrapping/rewrap") else ""


def redirected(sent: _Request, target: str) -> _Request:
    """Return the same request for the place that a redirect names.

    Raises:
        Unreachable: it would leave TLS.
    """
    url = urljoin(sent.url, target)
    if urlsplit(sent.url).scheme == "https" and urlsplit(url).scheme != "https":
        raise Unreachable(f'{sent.method.capitalize()} "{sent.url}": redirect would cause protocol downgrade')
    return sent._replace(url=url)


def reason(error: OSError | http.client.HTTPException, url: str) -> str:
    """Say why no answer came, in the words that Go's client uses and scripts look for."""
    parts = urlsplit(url)
    place = f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"tls: failed to verify certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        is_plain = "WRONG_VERSION_NUMBER" in str(error) or "RECORD_LAYER_FAILURE" in str(error)
        return "http: server gave HTTP response to HTTPS client" if is_plain else f"remote error: tls: {error.reason}"
    if isinstance(error, socket.gaierror):
        return f"dial tcp: lookup {parts.hostname}: no such host"
    if isinstance(error, TimeoutError):
        return "context deadline exceeded"
    if isinstance(error, ConnectionRefusedError):
        return f"dial tcp {place}: connect: connection refused"
    if isinstance(error, ConnectionResetError | http.client.RemoteDisconnected | BrokenPipeError):
        return "EOF"
    if isinstance(error, OSError) and error.strerror:
        return f"dial tcp {place}: connect: {error.strerror.lower()}"
    return f"malformed HTTP response: {error}"


def refusal(answer: Answer, namespace: str) -> Refused:
    """Say what a server answered instead of what was asked for."""
    content = _object_or_nothing(answer.body)
    messages = content.get("errors")
    is_listed = isinstance(messages, list) and bool(messages)
    texts = [str(message) for message in messages] if isinstance(messages, list) else []
    where = f"Namespace: {namespace}\n" if namespace else ""
    head = f"Error making API request.\n\n{where}URL: {answer.method} {answer.url}\nCode: {answer.status}. "
    raw = "" if isinstance(messages, list) else answer.body.decode(errors="replace")
    text = head + ("Errors:\n\n" + "\n".join(f"* {t}" for t in texts) if is_listed else "Raw Message:\n\n" + raw)
    if answer.status == http.client.NOT_FOUND:
        return Missing(text, body=answer.body, messages=texts)
    return Refused(text, status=answer.status, messages=texts)


def _object_or_nothing(body: bytes) -> dict[str, Any]:
    try:
        value = parse_json(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def curl_command(method: str, url: str, headers: Mapping[str, str], body: bytes | IO[bytes] | None) -> str:
    """Write the curl command of a request; the token is not in it, but the command that prints it is."""
    words = ["curl"] if method == "GET" else ["curl", "-X", method]
    shown = {**headers, "X-Vault-Token": "$(conclave print token)"} if "X-Vault-Token" in headers else dict(headers)
    for name in sorted(shown):
        words += ["-H", f'"{name}: {shown[name]}"']
    if isinstance(body, bytes):
        words += ["-d", "'" + body.decode().replace("'", "'\"'\"'") + "'"]
    return " ".join([*words, f'"{url}"'])


def policy_for(method: str, path: str, url: str) -> str:
    """Write a policy that allows a request."""
    query = urlsplit(url).query
    if method == "GET":
        granted = next((verb for verb in ("list", "scan") if f"{verb}=true" in query.split("&")), "read")
        capabilities = [granted]
    else:
        capabilities = {"DELETE": ["delete"], "PATCH": ["patch"]}.get(method, ["create", "update"])
    if is_protected(path):
        capabilities.append("sudo")
    names = ", ".join(f'"{name}"' for name in capabilities)
    return f'path "{path.strip("/")}" {{\n  capabilities = [{names}]\n}}'


_SUDO: Final = (
    "auth/token/accessors",
    "auth/token/create-orphan",
    "auth/token/revoke-orphan",
    "sys/audit",
    "sys/audit/",
    "sys/auth/",
    "sys/config/auditing/",
    "sys/config/cors",
    "sys/config/ui/headers",
    "sys/config/ui/headers/",
    "sys/leases/lookup/",
    "sys/leases/revoke-force/",
    "sys/leases/revoke-prefix/",
    "sys/raw",
    "sys/raw/",
    "sys/remount",
    "sys/rotate",
    "sys/rotate/",
    "sys/seal",
    "sys/step-down",
)
"""Paths (with a slash at the end: all below) that need "sudo" too; Vault's page "Root protected API endpoints"."""


def is_protected(path: str) -> bool:
    """Tell whether a path asks for the capability "sudo"."""
    clean = path.strip("/")
    return any(clean.startswith(name) if name.endswith("/") else clean == name for name in _SUDO)
