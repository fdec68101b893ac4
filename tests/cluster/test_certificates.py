"""The cluster's certificates: what they say, whom they trust, and which requests are refused."""

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from conclave.cluster.certificates import (
    AUTHORITY_VALIDITY,
    MEMBER_VALIDITY,
    check_issued,
    days_left,
    is_authority_key,
    is_due,
    member_uri,
    new_authority,
    new_private_key,
    new_request,
    renewed_authority,
    sign_request,
)
from conclave.cluster.errors import JoinRefused

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
AUTHORITY, AUTHORITY_KEY = new_authority("c", NOW)


def sign(request_pem: bytes, now: dt.datetime = NOW) -> bytes:
    return sign_request(
        request_pem,
        cluster_id="c",
        raft_id=7,
        node_id="n1",
        authority_pem=AUTHORITY,
        authority_key_pem=AUTHORITY_KEY,
        now=now,
    )


def request_of(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_a_certificate_names_its_member_and_is_signed_by_the_authority() -> None:
    certificate = x509.load_pem_x509_certificate(sign(new_request(new_private_key(), "n1")))

    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value

    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [member_uri("c", 7)] == ["conclave://c/7"]
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(AUTHORITY))


def test_a_member_s_certificate_cannot_sign_others() -> None:
    certificate = x509.load_pem_x509_certificate(sign(new_request(new_private_key(), "n1")))

    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_certificate_never_outlives_its_authority() -> None:
    late = NOW + AUTHORITY_VALIDITY - dt.timedelta(days=3)

    certificate = sign(new_request(new_private_key(), "n1"), late)

    assert days_left(certificate, late) == 3


def test_days_left_are_negative_after_the_end() -> None:
    assert days_left(AUTHORITY, NOW + AUTHORITY_VALIDITY + dt.timedelta(days=1)) == -1


def test_a_name_in_the_request_does_not_matter() -> None:
    certificate = x509.load_pem_x509_certificate(sign(new_request(new_private_key(), "somebody else")))

    assert certificate.subject.rfc4514_string() == "CN=n1"


@pytest.mark.parametrize("junk", [b"", b"junk", AUTHORITY, new_private_key()])
def test_what_is_no_request_is_refused(junk: bytes) -> None:
    with pytest.raises(JoinRefused, match="malformed"):
        sign(junk)


def test_a_key_of_another_kind_is_refused() -> None:
    with pytest.raises(JoinRefused, match="P-256"):
        sign(request_of(ec.generate_private_key(ec.SECP384R1())))
    with pytest.raises(JoinRefused, match="P-256"):
        sign(request_of(rsa.generate_private_key(public_exponent=65537, key_size=2048)))


def test_a_request_that_another_key_signed_is_refused() -> None:
    request = x509.load_pem_x509_csr(new_request(new_private_key(), "n1"))
    der = bytearray(request.public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)

    with pytest.raises(JoinRefused):
        sign(forged)


@pytest.mark.parametrize(("days", "expected"), [(0, False), (14, False), (16, True), (31, True)])
def test_a_certificate_is_renewed_from_half_of_its_life_on(days: int, expected: bool) -> None:
    certificate = sign(new_request(new_private_key(), "n1"))

    assert is_due(certificate, MEMBER_VALIDITY, NOW + dt.timedelta(days=days)) is expected


def test_a_certificate_that_is_valid_for_longer_than_any_is_made_now_is_renewed() -> None:
    certificate = sign(new_request(new_private_key(), "n1"))

    assert is_due(certificate, dt.timedelta(days=7), NOW)


def test_the_authority_s_certificate_is_renewed_for_the_same_key_and_name() -> None:
    assert renewed_authority(AUTHORITY, AUTHORITY_KEY, NOW) == AUTHORITY
    late = NOW + AUTHORITY_VALIDITY - dt.timedelta(days=9)

    renewed = renewed_authority(AUTHORITY, AUTHORITY_KEY, late)

    assert days_left(renewed, late) == AUTHORITY_VALIDITY.days
    certificate = x509.load_pem_x509_certificate(sign(new_request(new_private_key(), "n1")))
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(renewed))


def test_the_authority_s_key_is_known_from_another() -> None:
    assert is_authority_key(AUTHORITY, AUTHORITY_KEY)
    assert not is_authority_key(AUTHORITY, new_private_key())
    assert not is_authority_key(AUTHORITY, b"no key at all")


def test_a_certificate_is_taken_only_for_the_own_key_and_from_the_known_authority() -> None:
    key = new_private_key()
    certificate = sign(new_request(key, "n1"))
    other_authority, _ = new_authority("c", NOW)

    check_issued(certificate, key, AUTHORITY, known_authority_pem=AUTHORITY)

    with pytest.raises(ValueError, match="another key"):
        check_issued(certificate, new_private_key(), AUTHORITY, known_authority_pem=AUTHORITY)
    with pytest.raises(ValueError, match="another authority"):
        check_issued(certificate, key, other_authority, known_authority_pem=AUTHORITY)
    with pytest.raises(ValueError, match="not signed"):
        check_issued(certificate, key, other_authority, known_authority_pem=other_authority)
