"""Statements: where a node is, signed with its own key, for a peer that finds it nowhere. Pure.

Nodes tell their addresses over their authenticated connections. When all of them have moved there are none left, and two of
them meet over their APIs, where nobody is authenticated. So a node signs what it says there, and its certificate goes with
it; whoever reads it looks at both as TLS would, and learns from it nothing but where to dial.

A statement is good for one meeting: it holds what the other side has drawn for it. It says which side of the meeting it
was made for, so that a question can never be handed to somebody else as an answer.

    msgpack [statement, signature];  signature: ECDSA over a name for its purpose, and the bytes of the statement
"""

import datetime as dt
from enum import IntEnum
from typing import Final

import msgspec
from msgspec import Struct

from conclave.cluster.certificates import check_signature, issued_to, sign
from conclave.cluster.errors import JoinRefused, StatementRefused
from conclave.cluster.join import check_address

STATEMENT_VERSION: Final = 1
STATEMENT_BYTES_MAX: Final = 64 * 1024
"""Some 2 KiB, and the addresses of the other members."""
ADDRESS_CHARACTERS_MAX: Final = 300
"""A host name has 253."""
_DOMAIN: Final = b"conclave statement\0"


class Side(IntEnum):
    """Who speaks, in one meeting."""

    ASKER = 0
    ANSWERER = 1


class Statement(Struct, array_like=True, frozen=True):
    """What a node says about itself. New fields come last, with defaults.

    Attributes:
        drawn: what the other side has drawn for this meeting.
        incarnation: of its data directory.
        draw: of an asker: what the answer has to hold.
        others: of an answerer: Raft ids and addresses of members that it has heard of itself since it started.
    """

    version: int
    side: Side
    cluster_id: str
    certificate_pem: bytes
    incarnation: bytes
    cluster_address: str
    drawn: bytes
    draw: bytes = b""
    others: tuple[tuple[int, str], ...] = ()


class _Signed(Struct, array_like=True, frozen=True):
    statement: bytes
    signature: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode_signed = msgspec.msgpack.Decoder(_Signed).decode
_decode_statement = msgspec.msgpack.Decoder(Statement).decode


def encode_signed(statement: Statement, private_key_pem: bytes) -> bytes:
    """Return a statement with its signature."""
    encoded = _encode(statement)
    return _encode(_Signed(encoded, sign(private_key_pem, _DOMAIN + encoded)))


def read(signed: bytes) -> Statement:
    """Return what a statement says; nothing is known yet of who says it.

    Raises:
        StatementRefused: it is none.
    """
    if len(signed) > STATEMENT_BYTES_MAX:
        raise StatementRefused(f"a statement has at most {STATEMENT_BYTES_MAX} bytes")
    try:
        statement = _decode_statement(_decode_signed(signed).statement)
    except ValueError as error:  # msgspec's own errors, or a text that is no UTF-8
        raise StatementRefused("the statement is malformed") from error
    if statement.version != STATEMENT_VERSION:
        raise StatementRefused(f"statement version {statement.version} is not {STATEMENT_VERSION}")
    return statement


def signer_of(signed: bytes, *, side: Side, cluster_id: str, authority_pem: bytes, now: dt.datetime) -> int:
    """See who makes a statement.

    Returns:
        the Raft id that its certificate names. Whether that is a member is for others to say.

    Raises:
        StatementRefused: it is malformed, for another cluster or side, or not signed by a node of this cluster.
    """
    statement = read(signed)
    if statement.cluster_id != cluster_id:
        raise StatementRefused("this node belongs to another cluster")
    if statement.side is not side:
        raise StatementRefused("the statement is for the other side")
    try:
        named_cluster, raft_id = issued_to(statement.certificate_pem, authority_pem, now)
        outer = _decode_signed(signed)
        check_signature(statement.certificate_pem, outer.signature, _DOMAIN + outer.statement)
    except ValueError as error:
        raise StatementRefused(f"the statement is not by a node of this cluster: {error}") from error
    if named_cluster != cluster_id:
        raise StatementRefused("this node belongs to another cluster")
    check_usable(statement.cluster_address)
    return raft_id


def check_usable(address: str) -> None:
    """See that an address can be dialed.

    Raises:
        StatementRefused: it is none.
    """
    if len(address) > ADDRESS_CHARACTERS_MAX:
        raise StatementRefused(f"an address has at most {ADDRESS_CHARACTERS_MAX} characters")
    try:
        check_address(address)
    except JoinRefused as error:
        raise StatementRefused(str(error)) from error
