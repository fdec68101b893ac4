"""Clusters of real server processes, ours or a real OpenBao, from the same configuration files.

A `Cluster` starts its nodes on loopback ports, initialises, joins and unseals them over HTTP, and ends what it started.
What it tells of its processes (`usage`) comes from /proc: CPU seconds, bytes written to disk, resident memory. With TLS its
API has a certificate that was made for it, and its cluster finds it by that.

    with Cluster(CONCLAVE, folder, base_port=23000) as cluster:
        cluster.request("GET", "sys/health")
"""

import contextlib
import datetime as dt
import http.client
import ipaddress
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Struct

START_SECONDS_MAX: Final = 60.0
POLL_SECONDS: Final = 0.02
REQUEST_SECONDS_MAX: Final = 30.0
PORTS_OF_A_NODE: Final = 2
BESIDE_PORTS_LATER: Final = 50
"""Where the ports of a second cluster begin that runs beside another."""
_CONFIG: Final = """\
api_addr     = "{scheme}://127.0.0.1:{api}"
cluster_addr = "https://127.0.0.1:{cluster}"
disable_mlock = true
unsafe_allow_api_audit_creation = true

storage "raft" {{
  path    = "{data}"
  node_id = "node-{number}"
{asked}}}

listener "tcp" {{
  address         = "127.0.0.1:{api}"
  cluster_address = "127.0.0.1:{cluster}"
  {tls}
}}
"""
_RETRY_JOIN: Final = '  retry_join {{ leader_api_addr = "http://127.0.0.1:{api}" }}\n'
_NO_TLS: Final = "tls_disable = true"
_TLS: Final = 'tls_cert_file = "{folder}/certificate.pem"\n  tls_key_file = "{folder}/key.pem"'


SECTOR_BYTES: Final = 512
"""What the kernel counts a disk's reads and writes in, whatever the disk's own sectors are."""
_SECTORS_WRITTEN: Final = 6  # Documentation/block/stat.rst, counted from 0


class Program(Struct, frozen=True):
    """A server that can be started."""

    name: str
    command: tuple[str, ...]


def _beside_python(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


CONCLAVE: Final = Program("conclave", (_beside_python("conclave"), "server"))
OPENBAO: Final = Program("openbao", (_beside_python("bao"), "server"))


class NotReady(Exception):
    """A cluster did not become what it should in time."""


class Usage(Struct, frozen=True):
    """What processes have used so far, added up."""

    cpu_seconds: float
    written_bytes: int
    resident_bytes: int


def usage_of(pid: int) -> Usage:
    """Return what a process has used so far."""
    proc = Path(f"/proc/{pid}")
    fields = proc.joinpath("stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    io = dict(line.split(": ") for line in proc.joinpath("io").read_text().splitlines())
    pages = int(proc.joinpath("statm").read_text().split()[1])
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), int(io["write_bytes"]), pages * os.sysconf("SC_PAGE_SIZE"))


def written_to_disk(folder: Path) -> int | None:
    """Return how many bytes the disk below a folder has been given so far, by anybody; None if the kernel tells of none.

    Everything that waits in memory is written first.
    """
    os.sync()
    device = folder.stat().st_dev
    try:
        fields = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text().split()
    except FileNotFoundError:
        return None
    return int(fields[_SECTORS_WRITTEN]) * SECTOR_BYTES


def wait_until(what: str, holds: Callable[[], bool], seconds_max: float = START_SECONDS_MAX) -> None:
    """Wait until a condition holds.

    Raises:
        NotReady: it does not in time.
    """
    deadline = time.monotonic() + seconds_max
    while not holds():
        if time.monotonic() > deadline:
            raise NotReady(f"waited {seconds_max:.0f} s in vain for {what}")
        time.sleep(POLL_SECONDS)  # other processes are waited for, which tell nobody when it holds


def end_children() -> None:
    """End every child of this process, also one that a signal has cut off from whoever was just starting it."""
    found: list[str] = []
    for children in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # that thread has just ended
            found += children.read_text().split()
    for child in map(int, found):
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


class Answer(Struct, frozen=True):
    """What a node answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as plain values; None if there is none."""
        return json.loads(self.body) if self.body else None


class NodeProcess:
    """One server process and where it listens."""

    def __init__(self, program: Program, folder: Path, number: int, base_port: int, *, has_tls: bool = False) -> None:
        self.program = program
        self.certificate = folder / "certificate.pem" if has_tls else None
        self.number = number
        self.folder = folder / f"node-{number}"
        self.data = self.folder / "data"
        self.log_file = self.folder / "server.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.data.mkdir(parents=True, mode=0o700, exist_ok=True)
        self.config = self.folder / "server.hcl"
        self.move(base_port)

    def move(self, base_port: int, asks: Sequence[int] = ()) -> None:
        """Listen elsewhere from the next start on, and ask the nodes of these numbers where they are, if it lacks them."""
        self.api_port = base_port + PORTS_OF_A_NODE * self.number
        self.cluster_port = self.api_port + 1
        self.config.write_text(
            _CONFIG.format(
                scheme="http" if self.certificate is None else "https",
                api=self.api_port,
                cluster=self.cluster_port,
                data=self.data,
                number=self.number,
                asked="".join(_RETRY_JOIN.format(api=base_port + PORTS_OF_A_NODE * number) for number in asks),
                tls=_NO_TLS if self.certificate is None else _TLS.format(folder=self.certificate.parent),
            )
        )

    @property
    def address(self) -> str:
        """Its API address."""
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.api_port}"

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return self.process is not None and self.process.poll() is None

    def start(self, *, niceness: int = 0) -> None:
        """Start the process, which others come before by so much (see nice(1)); it listens a moment later."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                ["nice", f"-n{niceness}", *self.program.command, f"-config={self.config}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "HOME": str(self.folder)},
            )

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        assert self.process is not None, "start() comes first"
        self.process.send_signal(number)

    def kill(self) -> None:
        """End the process at once, as a power cut does, and wait for its end."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        """End the process in good order."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.kill()

    def request(
        self,
        method: str,
        path: str,
        fields: Any = None,
        *,
        token: str = "",
        headers: Mapping[str, str] | None = None,
        seconds_max: float = REQUEST_SECONDS_MAX,
    ) -> Answer:
        """Send one request and return the answer.

        Raises:
            OSError: the node cannot be reached, or does not answer in time.
        """
        connection = self._connection(seconds_max)
        try:
            sent = dict(headers or {})
            if token:
                sent["X-Vault-Token"] = token
            body = None if fields is None else fields if isinstance(fields, bytes) else json.dumps(fields).encode()
            connection.request(method, f"/v1/{path}", body=body, headers=sent)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        except http.client.HTTPException as error:
            raise OSError(f"no whole answer: {error}") from error
        finally:
            connection.close()

    def _connection(self, seconds_max: float) -> http.client.HTTPConnection:
        if self.certificate is None:
            return http.client.HTTPConnection("127.0.0.1", self.api_port, timeout=seconds_max)
        trusting = ssl.create_default_context(cafile=str(self.certificate))
        return http.client.HTTPSConnection("127.0.0.1", self.api_port, timeout=seconds_max, context=trusting)

    def usage(self) -> Usage:
        """Return what the process has used so far."""
        assert self.process is not None, "start() comes first"
        return usage_of(self.process.pid)


def _make_certificate(folder: Path) -> None:
    """Write a certificate for the loopback address, which vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bench")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


class Cluster:
    """Nodes that form one cluster.

    Args:
        program: which server.
        folder: for configuration, data and logs.
        base_port: the first of the ports that are used, two for each node.
        size: how many nodes.
        has_tls: its API is behind TLS.
    """

    def __init__(self, program: Program, folder: Path, *, base_port: int, size: int = 3, has_tls: bool = False) -> None:
        self.program = program
        self.folder = folder
        if has_tls:
            _make_certificate(folder)
        self.nodes = [NodeProcess(program, folder, number, base_port, has_tls=has_tls) for number in range(size)]
        self.unseal_key = ""
        self.root_token = ""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- life --

    def start(self) -> None:
        """Start all nodes and make a cluster of them, all unsealed and voting."""
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            self.wait_listening(node)
        first = self.nodes[0]
        made = first.request("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1}).json()
        self.unseal_key, self.root_token = made["keys_base64"][0], made["root_token"]
        self.unseal(first)
        self.wait("a leader", lambda: self.health(first) == 200)
        for node in self.nodes[1:]:
            target = {"leader_api_addr": first.address}
            if first.certificate is not None:
                target["leader_ca_cert"] = first.certificate.read_text()
            answer = node.request("PUT", "sys/storage/raft/join", target)
            if answer.status != 200:
                raise NotReady(f"node {node.number} cannot join: {answer.body!r}")
            self.unseal(node)
        self.wait("all nodes to be unsealed", lambda: all(self.health(node) in (200, 429) for node in self.nodes))
        self.wait("all nodes to vote", lambda: self.voters() == len(self.nodes))

    def stop(self) -> None:
        """End all processes."""
        for node in self.nodes:
            if node.process is not None:
                with contextlib.suppress(ProcessLookupError):
                    node.process.send_signal(signal.SIGCONT)
                    node.process.terminate()
        for node in self.nodes:
            node.stop()

    def wait_listening(self, node: NodeProcess) -> None:
        """Wait until a node answers at all."""

        def answers() -> bool:
            if not node.is_running:
                raise NotReady(f"node {node.number} ended: {node.log_file.read_text()[-2000:]}")
            return self.health(node) != 0

        self.wait(f"node {node.number} to listen", answers)

    def restart(self, node: NodeProcess, *, unseal: bool = True, niceness: int = 0) -> None:
        """Start a node that was ended, and unseal it."""
        node.start(niceness=niceness)
        self.wait_listening(node)
        if unseal:
            self.unseal(node)
            self.wait(f"node {node.number} to serve", lambda: self.health(node) in (200, 429))

    def unseal(self, node: NodeProcess) -> None:
        """Give a node the unseal key."""
        answer = node.request("PUT", "sys/unseal", {"key": self.unseal_key})
        if answer.status != 200:
            raise NotReady(f"node {node.number} cannot be unsealed: {answer.body!r}")

    # -- what it is --

    def health(self, node: NodeProcess) -> int:
        """Return a node's health code; 0 if it does not answer."""
        try:
            return node.request("GET", "sys/health", seconds_max=2).status
        except OSError:
            return 0

    @property
    def leader(self) -> NodeProcess:
        """The node that leads; waits for one."""
        found: list[NodeProcess] = []

        def leads() -> bool:
            found[:] = [node for node in self.nodes if node.is_running and self.health(node) == 200]
            return bool(found)

        self.wait("a leader", leads)
        return found[0]

    @property
    def standbys(self) -> list[NodeProcess]:
        """The running nodes that do not lead."""
        leader = self.leader
        return [node for node in self.nodes if node is not leader and node.is_running]

    def voters(self) -> int:
        """Return how many members vote, as the leader knows."""
        answer = self.leader.request("GET", "sys/storage/raft/configuration", token=self.root_token)
        if answer.status != 200:
            return 0
        return sum(server["voter"] for server in answer.json()["data"]["config"]["servers"])

    def request(
        self, method: str, path: str, fields: Any = None, *, node: NodeProcess | None = None, token: str | None = None
    ) -> Answer:
        """Send a request with the root token to a node, by default the leader, and return the answer.

        Raises:
            NotReady: it was refused.
        """
        target = node or self.leader
        answer = target.request(method, path, fields, token=self.root_token if token is None else token)
        if answer.status >= 400:
            raise NotReady(f"{method} {path}: {answer.status} {answer.body!r}")
        return answer

    def usage(self) -> Usage:
        """Return what all running nodes have used so far."""
        usages = [node.usage() for node in self.nodes if node.is_running]
        return Usage(
            sum(usage.cpu_seconds for usage in usages),
            sum(usage.written_bytes for usage in usages),
            sum(usage.resident_bytes for usage in usages),
        )

    def written_bytes(self) -> int:
        """Return how much has been written to this cluster's disk so far.

        It is what the disk has been given, the file system's journal included. Where the kernel does not tell that, it is
        what it counts for the nodes: a whole unit of its page cache for each page of it that is written anew.
        """
        written = written_to_disk(self.folder)
        return self.usage().written_bytes if written is None else written

    def wait(self, what: str, holds: Callable[[], bool], seconds_max: float = START_SECONDS_MAX) -> None:
        """See `wait_until`."""
        wait_until(what, holds, seconds_max)
