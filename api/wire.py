"""Recognise a complete, plain HTTP/1.1 request in received bytes: what the fast lane takes. Pure.

It recognises and never refuses: whatever is not plain (malformed, HTTP/1.0, chunked, upgrading, with a large body, two
headers that disagree) is `ODD` and goes to httptools as it came, which is the judge of such things. What is recognised
here httptools reads the same way; a property test holds that. Methods that httptools does not know (LIST) are read here.

Clients send the same header block again and again on one connection; so the block that was read last is compared as
bytes before it is read again. Source: RFC 9112.
"""

import re
from enum import Enum
from typing import Final

from msgspec import Struct

HEAD_BYTES_MAX: Final = 64 * 1024
"""Request line and headers together; Vault takes 1 MiB, no client comes near."""
PLAIN_BODY_BYTES_MAX: Final = 64 * 1024
"""Larger bodies are not held in memory twice: they are streamed through the slow lane."""

_TARGET: Final = rb"(/[^\x00-\x20#?\x7f]*)(?:\?([^\x00-\x20#\x7f]*))?(?:#[^\x00-\x20\x7f]*)?"
_LINE: Final = re.compile(rb"([A-Z]{1,16}) " + _TARGET + rb" HTTP/1\.1")
_START: Final = re.compile(rb"[A-Z]{1,16}(?: (?:/.*)?)?", re.DOTALL)
_FIELD: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n"
_BLOCK: Final = re.compile(rb"\r\n(?:" + _FIELD + rb")*\r\n")
_END_OF_LINE: Final = b"\r\n"
_END_OF_HEAD: Final = b"\r\n\r\n"
_SINGULAR: Final = (b"content-length", b"host")
"""Headers of which a second one is a reason for suspicion."""
_ODD_HEADERS: Final = (b"transfer-encoding", b"expect", b"upgrade")


class Headers(Struct, frozen=True):
    """A header block that was read: names in lower case, of a repeated header the first value, as Go takes it."""

    block: bytes  # from the end of the request line to the empty line, both included
    values: dict[bytes, bytes]
    body_bytes: int
    is_last: bool  # the client wants the connection closed after the answer


class Message(Struct, frozen=True):
    """One complete plain request."""

    method: bytes
    path: bytes  # raw, as sent: "/v1/secret/data/a%20b"
    query: bytes
    headers: Headers
    body: bytes
    length: int  # how many of the received bytes it took


class Verdict(Enum):
    """Why there is no message."""

    INCOMPLETE = "incomplete"  # plain so far: wait for more bytes
    ODD = "odd"  # not plain: for httptools
    TOO_LARGE = "too large"  # no end of the head within HEAD_BYTES_MAX


def recognise(received: bytes, known: Headers | None = None) -> Message | Verdict:
    """Return the plain request that `received` begins with, or why there is none.

    Args:
        received: at least one byte, the first of a message.
        known: the headers of the message before on this connection.
    """
    line_end = received.find(_END_OF_LINE)
    if line_end < 0:
        return _incomplete(received) if _START.fullmatch(received) else Verdict.ODD
    line = _LINE.fullmatch(received, 0, line_end)
    if line is None:
        return Verdict.ODD
    headers = _headers(received, line_end, known)
    if not isinstance(headers, Headers):
        return headers
    body_start = line_end + len(headers.block)
    length = body_start + headers.body_bytes
    if len(received) < length:
        return Verdict.INCOMPLETE
    method, path, query = line.groups(b"")
    return Message(method, path, query, headers, received[body_start:length], length)


def _headers(received: bytes, start: int, known: Headers | None) -> Headers | Verdict:
    if known is not None and received.startswith(known.block, start):
        return known
    end = received.find(_END_OF_HEAD, start)
    if end < 0:
        return _incomplete(received)
    if end > HEAD_BYTES_MAX:
        return Verdict.TOO_LARGE
    block = received[start : end + len(_END_OF_HEAD)]
    return _read_block(block) if _BLOCK.fullmatch(block) else Verdict.ODD


def _incomplete(received: bytes) -> Verdict:
    return Verdict.INCOMPLETE if len(received) <= HEAD_BYTES_MAX else Verdict.TOO_LARGE


def _read_block(block: bytes) -> Headers | Verdict:
    values: dict[bytes, bytes] = {}
    for field in block[2:-4].split(_END_OF_LINE) if len(block) > len(_END_OF_HEAD) else ():
        name, _, value = field.partition(b":")
        name = name.lower()
        if name in _SINGULAR and name in values:
            return Verdict.ODD
        values.setdefault(name, value.strip(b" \t"))
    if any(name in values for name in _ODD_HEADERS):
        return Verdict.ODD
    connection = values.get(b"connection", b"keep-alive").lower()
    if connection not in (b"keep-alive", b"close"):
        return Verdict.ODD
    length = values.get(b"content-length", b"0")
    if not length.isdigit() or len(length) > 10 or int(length) > PLAIN_BODY_BYTES_MAX:
        return Verdict.ODD
    return Headers(block, values, int(length), is_last=connection == b"close")
