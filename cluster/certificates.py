"""The cluster's own certificates: one authority for each cluster, one certificate for each member, nothing else trusted.

A member's certificate names it in a URI (`conclave://<cluster id>/<raft id>`), and its Raft id is never used again, so a
certificate cannot outlive its member: what a removed one still holds is refused by id (`transport.py`). Connections are
TLS 1.3 only and verified on both sides.

The authority's private key is handed to the vault, which keeps it sealed; here it exists only while a certificate is
signed. A node's own key and certificate lie in the clear in its data directory (0600), since a sealed node takes part.

A member's certificate is valid for 30 days and renewed at half of that, the authority's for 10 years; when and how is in
`renewal.py`. A member's never outlives its authority's.

Algorithms: ECDSA on P-256 with SHA-256 (FIPS 186-5); X.509 as in RFC 5280.
"""

import datetime as dt
import ssl
import tempfile
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from conclave.cluster.errors import JoinRefused

AUTHORITY_VALIDITY: Final = dt.timedelta(days=3650)
MEMBER_VALIDITY: Final = dt.timedelta(days=30)
CLOCK_SKEW: Final = dt.timedelta(days=1)
"""How far back a certificate is valid, for a peer whose clock is behind."""
SCHEME: Final = "conclave://"


def new_private_key() -> bytes:
    """Return a new private key, PEM."""
    return _private_pem(ec.generate_private_key(ec.SECP256R1()))


def new_request(private_key_pem: bytes, node_id: str) -> bytes:
    """Return a certificate signing request, PEM. Its name is for people; the signer decides what the certificate says."""
    request = x509.CertificateSigningRequestBuilder().subject_name(_name(node_id))
    return request.sign(_load_key(private_key_pem), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def new_authority(cluster_id: str, now: dt.datetime) -> tuple[bytes, bytes]:
    """Return a new cluster authority: its certificate and its private key, PEM each."""
    key = ec.generate_private_key(ec.SECP256R1())
    return _authority_certificate(key, _name(f"Conclave cluster {cluster_id}"), now), _private_pem(key)


def renewed_authority(authority_pem: bytes, authority_key_pem: bytes, now: dt.datetime) -> bytes:
    """Return the authority's certificate, or in the second half of its life another one for the same key and name."""
    authority = x509.load_pem_x509_certificate(authority_pem)
    if not is_due(authority_pem, AUTHORITY_VALIDITY, now):
        return authority_pem
    return _authority_certificate(_load_key(authority_key_pem), authority.subject, now)


def is_authority_key(authority_pem: bytes, authority_key_pem: bytes) -> bool:
    """Tell whether a private key is the authority's; what is no key at all is not."""
    try:
        key = serialization.load_pem_private_key(authority_key_pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return key.public_key() == _load_public(x509.load_pem_x509_certificate(authority_pem))


def is_due(certificate_pem: bytes, validity: dt.timedelta, now: dt.datetime) -> bool:
    """Tell whether a certificate has less than half of `validity` left, or is valid for longer than any is made now."""
    left = x509.load_pem_x509_certificate(certificate_pem).not_valid_after_utc - now
    return left < validity / 2 or left > validity + CLOCK_SKEW


def check_issued(
    certificate_pem: bytes, private_key_pem: bytes, authority_pem: bytes, *, known_authority_pem: bytes
) -> None:
    """See that a certificate is for this key, and by the authority that is known.

    Raises:
        ValueError: it is not.
    """
    certificate, authority = (x509.load_pem_x509_certificate(pem) for pem in (certificate_pem, authority_pem))
    known = x509.load_pem_x509_certificate(known_authority_pem)
    if certificate.public_key() != _load_key(private_key_pem).public_key():
        raise ValueError("the certificate is for another key")
    if authority.public_key() != known.public_key() or authority.subject != known.subject:
        raise ValueError("the certificate is by another authority")
    try:
        certificate.verify_directly_issued_by(authority)
    except (TypeError, InvalidSignature) as error:
        raise ValueError("the certificate is not signed by its authority") from error


def issued_to(certificate_pem: bytes, authority_pem: bytes, now: dt.datetime) -> tuple[str, int]:
    """Return the cluster id and Raft id that a member's certificate names; looks at it as TLS does.

    Raises:
        ValueError: it is malformed, not by this authority, not valid now, or names no member.
    """
    authority = x509.load_pem_x509_certificate(authority_pem)
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        certificate.verify_directly_issued_by(authority)
    except (TypeError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise ValueError("its certificate is not signed by the cluster's authority") from error
    if not all(each.not_valid_before_utc <= now <= each.not_valid_after_utc for each in (certificate, authority)):
        raise ValueError("its certificate is not valid now")
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as error:
        raise ValueError("the certificate names no member") from error
    return _named(names.get_values_for_type(x509.UniformResourceIdentifier))


def sign(private_key_pem: bytes, data: bytes) -> bytes:
    """Sign with a node's own key."""
    return _load_key(private_key_pem).sign(data, ec.ECDSA(hashes.SHA256()))


def check_signature(certificate_pem: bytes, signature: bytes, data: bytes) -> None:
    """See that whoever holds the key of a certificate has signed this.

    Raises:
        ValueError: he has not.
    """
    key = x509.load_pem_x509_certificate(certificate_pem).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("its key is none of ours")  # noqa: TRY004  # it was handed in
    try:
        key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise ValueError("its signature is wrong") from error


def _authority_certificate(key: ec.EllipticCurvePrivateKey, name: x509.Name, now: dt.datetime) -> bytes:
    certificate = (
        _builder(now, now + AUTHORITY_VALIDITY)
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(is_authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def sign_request(
    request_pem: bytes,
    *,
    cluster_id: str,
    raft_id: int,
    node_id: str,
    authority_pem: bytes,
    authority_key_pem: bytes,
    now: dt.datetime,
    validity: dt.timedelta = MEMBER_VALIDITY,
) -> bytes:
    """Sign a member's request; of what it asks for only its public key is taken over.

    Returns:
        the certificate, PEM.

    Raises:
        JoinRefused: the request is malformed, or its key is none of ours.
    """
    try:
        request = x509.load_pem_x509_csr(request_pem)
        key = request.public_key()
        has_proof = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise JoinRefused("the certificate request is malformed") from error
    if not has_proof or not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise JoinRefused("the certificate request must be signed by its own P-256 key")
    authority = x509.load_pem_x509_certificate(authority_pem)
    certificate = (
        _builder(now, min(now + validity, authority.not_valid_after_utc))
        .subject_name(_name(node_id))
        .issuer_name(authority.subject)
        .public_key(key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(is_authority=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(member_uri(cluster_id, raft_id))]),
            critical=False,
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(_load_public(authority)),
            critical=False,
        )
        .sign(_load_key(authority_key_pem), hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def member_uri(cluster_id: str, raft_id: int) -> str:
    """Return the URI that names a member in its certificate."""
    return f"{SCHEME}{cluster_id}/{raft_id}"


def peer_identity(tls: ssl.SSLObject) -> tuple[str, int]:
    """Return the cluster id and Raft id that the other side's verified certificate names.

    Raises:
        ValueError: it names none.
    """
    certificate = tls.getpeercert() or {}
    names: Any = certificate.get("subjectAltName", ())
    return _named([str(value) for kind, value in names if kind == "URI"])


def _named(uris: list[str]) -> tuple[str, int]:
    if len(uris) != 1 or not uris[0].startswith(SCHEME):
        raise ValueError("the certificate names no member")
    cluster_id, separator, raft_id = uris[0].removeprefix(SCHEME).rpartition("/")
    if not separator or not raft_id.isdecimal():
        raise ValueError("the certificate names no member")
    return cluster_id, int(raft_id)


def days_left(certificate_pem: bytes, now: dt.datetime) -> int:
    """Return how many whole days a certificate is still valid; negative once it has expired."""
    return (x509.load_pem_x509_certificate(certificate_pem).not_valid_after_utc - now).days


def server_context(*, certificate_pem: bytes, private_key_pem: bytes, authority_pem: bytes) -> ssl.SSLContext:
    """Return the TLS context of the accepting side."""
    return _context(ssl.PROTOCOL_TLS_SERVER, certificate_pem, private_key_pem, authority_pem)


def client_context(*, certificate_pem: bytes, private_key_pem: bytes, authority_pem: bytes) -> ssl.SSLContext:
    """Return the TLS context of the dialing side. Peers are known by their URI, not by a host name."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, certificate_pem, private_key_pem, authority_pem)


def _context(side: int, certificate_pem: bytes, private_key_pem: bytes, authority_pem: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    load_into(context, certificate_pem=certificate_pem, private_key_pem=private_key_pem, authority_pem=authority_pem)
    return context


def load_into(context: ssl.SSLContext, *, certificate_pem: bytes, private_key_pem: bytes, authority_pem: bytes) -> None:
    """Let a context use this certificate from its next handshake on.

    Raises:
        ssl.SSLError: certificate and key do not fit.
    """
    context.load_verify_locations(cadata=authority_pem.decode())
    # OpenSSL reads a key from a file only. This one is 0600 and gone before anything else happens.
    with tempfile.NamedTemporaryFile(prefix="conclave-", suffix=".pem") as file:
        file.write(private_key_pem + certificate_pem)
        file.flush()
        context.load_cert_chain(file.name)


def _builder(now: dt.datetime, until: dt.datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(until)
    )


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey), "this module makes no other keys"
    return key


def _load_public(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey), "this module makes no other keys"
    return key
