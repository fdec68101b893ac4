"""Outcomes as HTTP answers: the envelope around data, and the one table from error types to status codes.

The bytes are Vault's: the order of the envelope's keys is fixed, keys inside `data` are sorted, `<`, `>` and `&` are
escaped as Go does, other characters go out as they are, a newline ends each JSON body. `msgspec.Raw` in `data` goes in
undecoded. Pure: no clock, no socket. Source: features measured on a real server; Vault's API documentation.
"""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final

import msgspec
from msgspec import Struct

from conclave.api.health import status_of
from conclave.core import errors
from conclave.core.bodies import escape_html
from conclave.core.contract import Request, Response, WrapInfo
from conclave.core.outcomes import Outcome, json_text

STATUS: Final[dict[type[errors.RequestError], int]] = {
    errors.InvalidRequest: 400,
    errors.InvalidCredentials: 400,
    errors.PermissionDenied: 403,
    errors.NotFound: 404,
    errors.UnsupportedOperation: 405,
    errors.TooLarge: 413,
    errors.UnsupportedContent: 415,
    errors.TooManyRequests: 429,
    errors.InternalError: 500,
    errors.Sealed: 503,
    errors.Unavailable: 503,
    errors.Redirected: 307,
}
"""What each kind of refusal is in HTTP; the only place that knows."""

JSON: Final = b"application/json"
CONSTANT_HEADERS: Final = (
    (b"cache-control", b"no-store"),
    (b"strict-transport-security", b"max-age=31536000; includeSubDomains"),
)
"""On every answer."""
DOWNLOAD_HEADERS: Final = ((b"content-type", b"application/gzip"), (b"content-disposition", b"attachment"))
"""On an answer that is a file."""

BODILESS: Final = frozenset({204, 304})
"""Statuses whose answers have no body, and no Content-Length either."""

_WITHOUT_TEXT: Final = frozenset(
    {"sys/health", "sys/init", "sys/leader", "sys/seal", "sys/seal-status", "sys/step-down", "sys/unseal"}
)
"""Paths that Vault serves in front of its router: an operation that they do not have is refused without a text."""

_auth_encoder = msgspec.json.Encoder(order="deterministic")  # metadata sorted, the block's own fields as declared
_plain_encoder = msgspec.json.Encoder()


class Answer(Struct, frozen=True):
    """An HTTP answer without what belongs to the connection.

    Args:
        status: 200 to 599.
        body: what a GET gets; a HEAD gets its length only.
        content_type: empty if there is nothing to say.
        headers: besides the constant ones; names in lower case.
    """

    status: int
    body: bytes = b""
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


def answer(request: Request, outcome: Outcome) -> Answer:
    """Return the answer to a request."""
    if isinstance(outcome, errors.RequestError):
        if request.path in _WITHOUT_TEXT and isinstance(outcome, errors.UnsupportedOperation):
            return refusal(errors.UnsupportedOperation())
        return refusal(outcome)
    if outcome.raw is not None:
        status = 404 if outcome.is_absent else 200
        return Answer(status, outcome.raw, outcome.content_type.encode("latin-1"))
    if outcome.condition:
        try:
            return Answer(status_of(outcome.condition, request.query), _bare(outcome.data))
        except errors.InvalidRequest as error:
            return refusal(error)
    if outcome.is_bare:
        return Answer(200, _bare(outcome.data))
    if _says_nothing(outcome):
        return Answer(204)
    status = outcome.batch_failure_code or (404 if outcome.is_absent else 202 if outcome.is_accepted else 200)
    return Answer(status, _envelope(request.id, outcome))


def refusal(error: errors.RequestError) -> Answer:
    """Return the answer that says why a request is refused."""
    if isinstance(error, errors.Redirected):
        return Answer(307, content_type=b"", headers=((b"location", error.location.encode("utf-8", "replace")),))
    body = escape_html(_plain_encoder.encode({"errors": error.messages})) + b"\n"
    if isinstance(error, errors.Unavailable):
        retry_after = str(error.retry_after_seconds).encode()
        return Answer(STATUS[type(error)], body, headers=((b"retry-after", retry_after),))
    return Answer(STATUS[type(error)], body)


def headers_of(answer: Answer) -> Iterator[tuple[bytes, bytes]]:
    """Yield an answer's headers in the order in which both lanes send them."""
    yield CONSTANT_HEADERS[0]
    if answer.content_type:
        yield (b"content-type", answer.content_type)
    yield CONSTANT_HEADERS[1]
    yield from answer.headers
    if answer.status not in BODILESS:
        yield (b"content-length", b"%d" % len(answer.body))


def status_line(status: int) -> bytes:
    """Return the first line of an answer, with the reason phrase of the standard, if it has one."""
    try:
        phrase = HTTPStatus(status).phrase.encode()
    except ValueError:
        phrase = b""
    return b"HTTP/1.1 %d %b\r\n" % (status, phrase)


_JSON_HEAD: Final = b"".join(b"%b: %b\r\n" % header for header in headers_of(Answer(204)))
_STATUS_LINES: Final = {status: status_line(status) for status in range(200, 600)}


def head_bytes(answer: Answer, connection_headers: bytes) -> bytes:
    """Return status line and headers, without the empty line at their end.

    Args:
        answer: what is answered.
        connection_headers: what comes first (Date), as lines that end in CRLF.
    """
    if answer.content_type is JSON and not answer.headers and answer.status != 204:
        return b"%b%b%bcontent-length: %d\r\n" % (
            _STATUS_LINES[answer.status],
            connection_headers,
            _JSON_HEAD,
            len(answer.body),
        )
    lines = b"".join(b"%b: %b\r\n" % header for header in headers_of(answer))
    return _STATUS_LINES[answer.status] + connection_headers + lines


def _says_nothing(outcome: Response) -> bool:
    return (
        outcome.data is None
        and outcome.auth is None
        and outcome.wrap_info is None
        and not outcome.warnings
        and not outcome.is_absent
        and not outcome.is_accepted
    )


def _bare(data: Any) -> bytes:
    text = bytes(data) if isinstance(data, msgspec.Raw) else _plain_encoder.encode(data)
    return escape_html(text) + b"\n"


def _envelope(request_id: str, outcome: Response) -> bytes:
    data = b"null" if outcome.data is None else json_text(outcome.data)
    lease = outcome.lease
    if lease is None:
        lease_text = b'"lease_id":"","renewable":false,"lease_duration":0'
    else:
        lease_text = b'"lease_id":%b,"renewable":%b,"lease_duration":%d' % (
            _plain_encoder.encode(lease.lease_id),
            b"true" if lease.renewable else b"false",
            lease.duration_seconds,
        )
    text = b'{%b"request_id":"%b",%b,"data":%b,"wrap_info":%b,"warnings":%b,"auth":%b}' % (
        _doubled(data) if outcome.is_doubled else b"",
        b"" if outcome.wrap_info is not None else request_id.encode(),
        lease_text,
        data,
        b"null" if outcome.wrap_info is None else _wrap_info(outcome.wrap_info),
        _plain_encoder.encode(outcome.warnings) if outcome.warnings else b"null",
        b"null" if outcome.auth is None else _auth_encoder.encode(outcome.auth),
    )
    return escape_html(text) + b"\n"


def _doubled(data: bytes) -> bytes:
    """Return an object's members as they stand before the envelope's own."""
    members = data[1:-1]
    return members + b"," if members else b""


def _wrap_info(info: WrapInfo) -> bytes:
    fields = msgspec.structs.asdict(info)
    if not info.wrapped_accessor:
        del fields["wrapped_accessor"]
    return _plain_encoder.encode(fields)
