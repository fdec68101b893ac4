"""Statements: who is believed, and each way in which one is not."""

import base64
import datetime as dt

import msgspec
import pytest
from cryptography import x509
from msgspec import structs

from conclave.cluster.certificates import new_authority, new_private_key, new_request, sign_request
from conclave.cluster.errors import StatementRefused
from conclave.cluster.statements import (
    ADDRESS_CHARACTERS_MAX,
    STATEMENT_BYTES_MAX,
    STATEMENT_VERSION,
    Side,
    Statement,
    encode_signed,
    read,
    signer_of,
)

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
AUTHORITY, AUTHORITY_KEY = new_authority("c", NOW)
KEY = new_private_key()


def certificate(
    key: bytes = KEY,
    *,
    raft_id: int = 7,
    cluster_id: str = "c",
    authority: bytes = AUTHORITY,
    authority_key: bytes = AUTHORITY_KEY,
    now: dt.datetime = NOW,
) -> bytes:
    return sign_request(
        new_request(key, "n1"),
        cluster_id=cluster_id,
        raft_id=raft_id,
        node_id="n1",
        authority_pem=authority,
        authority_key_pem=authority_key,
        now=now,
    )


STATEMENT = Statement(
    STATEMENT_VERSION, Side.ASKER, "c", certificate(), bytes(16), "127.0.0.1:8201", b"challenge", b"draw"
)


def signer(signed: bytes, *, side: Side = Side.ASKER, now: dt.datetime = NOW) -> int:
    return signer_of(signed, side=side, cluster_id="c", authority_pem=AUTHORITY, now=now)


def test_a_statement_is_by_the_member_that_its_certificate_names() -> None:
    signed = encode_signed(STATEMENT, KEY)

    assert signer(signed) == 7
    assert read(signed) == STATEMENT


def test_the_bytes_of_a_statement_stay_what_they_are() -> None:
    statement = Statement(1, Side.ANSWERER, "c", b"p", b"i", "h:1", b"d", b"e", ((3, "h:2"),))

    outer = msgspec.msgpack.decode(encode_signed(statement, KEY))

    assert (
        outer[0].hex()
        == "9901" + "01" + "a163" + "c40170" + "c40169" + "a3683a31" + "c40164" + "c40165" + "919203a3683a32"
    )


OTHER_AUTHORITY, OTHER_AUTHORITY_KEY = new_authority("c", NOW)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"version": 2}, "version 2"),
        ({"cluster_id": "d"}, "another cluster"),
        ({"side": Side.ANSWERER}, "other side"),
        ({"certificate_pem": b"no certificate"}, "not by a node"),
        ({"certificate_pem": AUTHORITY}, "not by a node"),
        ({"certificate_pem": certificate(new_private_key())}, "signature is wrong"),
        ({"certificate_pem": certificate(cluster_id="d")}, "another cluster"),
        ({"certificate_pem": certificate(now=NOW - dt.timedelta(days=90))}, "not valid now"),
        ({"certificate_pem": certificate(now=NOW + dt.timedelta(days=90))}, "not valid now"),
        (
            {"certificate_pem": certificate(authority=OTHER_AUTHORITY, authority_key=OTHER_AUTHORITY_KEY)},
            "not signed by the cluster's authority",
        ),
        ({"cluster_address": "nowhere"}, "host:port"),
        ({"cluster_address": "h" * ADDRESS_CHARACTERS_MAX + ":1"}, "at most"),
    ],
    ids=[
        "newer version",
        "other cluster",
        "other side",
        "no certificate",
        "the authority's own",
        "another key",
        "certificate of another cluster",
        "expired",
        "not valid yet",
        "another authority",
        "no address",
        "long address",
    ],
)
def test_what_is_not_said_by_a_node_of_this_cluster_is_refused(changed: dict[str, object], problem: str) -> None:
    signed = encode_signed(structs.replace(STATEMENT, **changed), KEY)

    with pytest.raises(StatementRefused, match=problem):
        signer(signed)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")  # which a changed byte may have made negative
def test_a_certificate_with_any_byte_changed_is_refused() -> None:
    lines = certificate().splitlines()
    body = base64.b64decode(b"".join(lines[1:-1]))
    # How many bits are unused at the end of the signature: it stands before it, and nothing is signed by that.
    padding = len(body) - len(x509.load_pem_x509_certificate(b"\n".join(lines)).signature) - 1

    for position in [position for position in range(len(body)) if position != padding]:
        changed = bytearray(body)
        changed[position] ^= 1
        pem = b"\n".join([lines[0], base64.b64encode(changed), lines[-1]])
        with pytest.raises(StatementRefused):
            signer(encode_signed(structs.replace(STATEMENT, certificate_pem=pem), KEY))


def test_a_certificate_by_a_member_is_none() -> None:
    """What a member signs with its own key is no authority's, whatever name it bears."""
    child = certificate(authority=certificate(), authority_key=KEY)

    with pytest.raises(StatementRefused, match="not by a node"):
        signer(encode_signed(structs.replace(STATEMENT, certificate_pem=child), KEY))


def test_an_authority_that_has_expired_vouches_for_nobody() -> None:
    now = NOW + dt.timedelta(days=5000)

    with pytest.raises(StatementRefused, match="not valid now"):
        signer(encode_signed(STATEMENT, KEY), now=now)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")  # which a changed byte may have made negative
def test_no_byte_of_a_statement_can_be_changed() -> None:
    signed = encode_signed(STATEMENT, KEY)

    for position in range(len(signed)):
        changed = bytearray(signed)
        changed[position] ^= 1
        with pytest.raises(StatementRefused):
            signer(bytes(changed))


@pytest.mark.parametrize("signed", [b"", b"\x90", b"x" * 100, b"x" * (STATEMENT_BYTES_MAX + 1)], ids=len)
def test_what_is_no_statement_is_refused(signed: bytes) -> None:
    with pytest.raises(StatementRefused):
        signer(signed)
