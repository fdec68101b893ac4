"""A cluster that is served over TLS, and nodes that join it by themselves, as their configuration says."""

import datetime as dt
import http.client
import ipaddress
import signal
import ssl
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.processes.nodes import WAIT_SECONDS_MAX, Node, ask, wait_until


class Authority:
    """A CA for tests, and certificates for 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign("a test's authority", self.key.public_key(), is_authority=True)
        self.file = folder / "ca.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Return the files of a new certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate, key_file = self.folder / f"{name}.pem", self.folder / f"{name}-key.pem"
        signed = self._sign(name, key.public_key(), is_authority=False)
        certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate, key_file

    def _sign(self, name: str, key: ec.EllipticCurvePublicKey, *, is_authority: bool) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name("a test's authority"))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
            )
            .sign(self.key, hashes.SHA256())
        )


class TlsNode(Node):
    """A node whose API speaks TLS."""

    def __init__(self, folder: Path, name: str, authority: Authority, **listener: str) -> None:
        super().__init__(folder, name)
        self.authority = authority
        self.certificate, self.key_file = authority.issue(name)
        keys = {"tls_cert_file": self.certificate, "tls_key_file": self.key_file, **listener}
        lines = "\n  ".join(f'{key} = "{value}"' for key, value in keys.items())
        text = self.config.read_text().replace("tls_disable     = true", lines)
        self.config.write_text(text.replace("http://", "https://"))

    def joins(self, *others: "TlsNode") -> None:
        """Let the node join whichever of these answers."""
        blocks = "".join(
            f'  retry_join {{\n    leader_api_addr = "https://127.0.0.1:{other.api_port}"\n'
            f'    leader_ca_cert_file = "{self.authority.file}"\n  }}\n'
            for other in others
        )
        self.config.write_text(self.config.read_text().replace("\n}\nlistener", f"\n{blocks}}}\nlistener"))

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority.file))

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        token: str = "",
        seconds_max: float = 20,
        client: tuple[Path, Path] | None = None,
    ) -> tuple[int, Any]:
        context = self.context()
        if client is not None:
            context.load_cert_chain(*client)
        connection = http.client.HTTPSConnection("127.0.0.1", self.api_port, timeout=seconds_max, context=context)
        return ask(connection, method, path, body, token)

    def knows_whom_to_join(self) -> bool:
        status, answer = self.request("GET", "sys/init")
        return status == 200 and bool(answer["initialized"])

    def serial_number(self) -> int:
        """Return which certificate a client is shown."""
        pem = ssl.get_server_certificate(("127.0.0.1", self.api_port), timeout=WAIT_SECONDS_MAX)
        return x509.load_pem_x509_certificate(pem.encode()).serial_number


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def test_nodes_join_by_themselves_and_are_unsealed_with_the_same_key(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    nodes = [TlsNode(tmp_path, name, authority) for name in ("a", "b", "c")]
    for node in nodes:
        node.joins(*nodes)
    try:
        for node in nodes:
            node.start()
        made = nodes[0].request("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})[1]
        for node in nodes:
            wait_until(node.knows_whom_to_join, f"{node.name} knows whom to join")
            node.request("PUT", "sys/unseal", {"key": made["keys"][0]})

        def votes() -> int:
            answer = nodes[0].request("GET", "sys/storage/raft/configuration", token=made["root_token"])[1]
            return sum(each["voter"] for each in answer["data"]["config"]["servers"])

        wait_until(lambda: votes() == 3, "all three vote")
        assert [node.request("GET", "sys/health?standbyok=true")[0] for node in nodes] == [200] * 3
    finally:
        for node in nodes:
            if node.process is not None:
                node.end()


def test_sighup_reads_the_certificate_anew(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    node = TlsNode(tmp_path, "a", authority)
    try:
        node.start()
        before = node.serial_number()
        authority.issue("a")

        node.send(signal.SIGHUP)

        wait_until(lambda: node.serial_number() != before, "the new certificate is shown")
    finally:
        node.end()


def test_a_client_without_the_wanted_certificate_is_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    listener = {"tls_client_ca_file": str(authority.file), "tls_require_and_verify_client_cert": "true"}
    node = TlsNode(tmp_path, "a", authority, **listener)
    client = authority.issue("client")
    node._answers = lambda: node.request("GET", "sys/seal-status", client=client)[0] == 200  # type: ignore[method-assign]  # nobody else gets an answer
    try:
        node.start()

        assert node.request("GET", "sys/seal-status")[0] == 0
        assert node.request("GET", "sys/seal-status", client=client)[0] == 200
    finally:
        node.end()
