"""What an HTTP request asks of the vault: the rules by which method, path, headers and body become a `Request`. Pure.

Both lanes go through these functions, so a rule stands here once. Whatever a request is refused for is raised as a
request error; `api/envelope.py` knows its status.

* The path: behind `/v1/`, percent-decoded, UTF-8. An unclean raw path (`//`, `/./`, `/../`) is redirected to the clean
  one; a dot segment that hides behind `%2e` is refused, as are control characters and empty segments from `%2F`.
* The method: PUT is POST; LIST is a verb, or a GET with `?list=true`; HEAD is known to `sys/health` alone.
* Headers: `X-Vault-Token` or `Authorization: Bearer`, `X-Vault-Wrap-TTL`, `X-Vault-Namespace` (there is the root
  namespace only), `X-Vault-Index` (checked; every read is up to date anyway), forwarding.
* The body: JSON whatever its content type; a form becomes the JSON object that it stands for.

Source: Vault's API documentation; features measured on a real server; RFC 3986.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec
from msgspec import Struct

from conclave.api.health import HEALTH_PATH
from conclave.core.contract import Operation, Request
from conclave.core.durations import NANOSECONDS, parse_duration_ns
from conclave.core.errors import (
    InvalidRequest,
    NotFound,
    Redirected,
    RequestError,
    TooLarge,
    UnsupportedContent,
    UnsupportedOperation,
    unsupported_operation,
)

PREFIX: Final = b"/v1/"
REQUEST_BYTES_MAX: Final = 32 << 20
"""The default bound on a body, Vault's: 32 MiB."""
QUERY_FIELDS_MAX: Final = 100
FORM_FIELDS_MAX: Final = 1000

BODY_TOO_LARGE: Final = "http: request body too large"
MERGE_PATCH: Final = "application/merge-patch+json"
FORM: Final = "application/x-www-form-urlencoded"

METRICS_PATH: Final = "sys/metrics"
STREAMED_PATHS: Final = frozenset({"sys/storage/raft/snapshot", "sys/storage/raft/snapshot-force"})
"""What is sent and received piece by piece, without a bound on the whole."""
SPECIAL_PATHS: Final = STREAMED_PATHS | {METRICS_PATH}
"""What the application answers in its own way: streamed, or no envelope around it."""

_OPERATIONS: Final = {
    b"GET": Operation.READ,
    b"POST": Operation.UPDATE,
    b"PUT": Operation.UPDATE,
    b"PATCH": Operation.PATCH,
    b"DELETE": Operation.DELETE,
    b"LIST": Operation.LIST,
}
_TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "false", "FALSE", "False"})
_ROOT_NAMESPACES: Final = frozenset({b"", b"/", b"root", b"root/"})

_PLAIN_SEGMENT: Final = rb"[A-Za-z0-9_~!$&'()*+,;=:@-][A-Za-z0-9_.~!$&'()*+,;=:@-]*"
_PLAIN_PATH: Final = re.compile(rb"/v1/(" + _PLAIN_SEGMENT + rb"(?:/" + _PLAIN_SEGMENT + rb")*/?)")
"""Nothing to decode, nothing to clean: no dot begins a segment, none is empty."""
_UNCLEAN: Final = re.compile(rb"//|/\.\.?(?:/|\Z)")
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2}).{0,2}", re.DOTALL)


class Terms(Struct, frozen=True):
    """What a request's headers say, apart from its path and body."""

    token: str = ""
    namespace: bytes = b""
    wrap_ttl_seconds: int = 0
    content_type: str = ""
    is_forwarding_refused: bool = False
    is_for_leader: bool = False
    refusal: RequestError | None = None  # a header that makes no sense; raised once the path is known


def request_of(
    method: bytes, raw_path: bytes, raw_query: bytes, terms: Terms, *, request_id: str, remote: tuple[str, int]
) -> Request:
    """Return what is asked of the vault, as yet without the body (`take_body`).

    Args:
        method: as sent; methods are case-sensitive.
        raw_path: as sent, without the query.
        raw_query: what follows the question mark.
        terms: what the headers say.
        request_id: a UUID, for the envelope and for whoever reads logs.
        remote: the client's address and port.

    Raises:
        RequestError: it cannot be asked like that.
    """
    path = path_of(raw_path, raw_query)
    if terms.namespace not in _ROOT_NAMESPACES:
        raise _foreign_namespace(path)
    query = query_of(raw_query) if raw_query else {}
    operation = _operation(method, path, query)
    if terms.refusal is not None:
        raise terms.refusal
    return Request(
        id=request_id,
        operation=operation,
        path=path,
        token=terms.token,
        query=query,
        remote_address=remote[0],
        content_type=terms.content_type,
        wrap_ttl_seconds=terms.wrap_ttl_seconds,
        remote_port=remote[1],
        is_forwarding_refused=terms.is_forwarding_refused,
        is_for_leader=terms.is_for_leader,
    )


def take_body(request: Request, body: bytes) -> None:
    """Give a request its body, if its operation has one: JSON as it came, a form as JSON.

    Raises:
        UnsupportedContent: a PATCH is no JSON merge patch.
        InvalidRequest: a form has too many fields.
    """
    if request.operation is Operation.UPDATE:
        if body and media_type(request) == FORM and body.lstrip(b" \t\r\n")[:1] not in (b"{", b"["):
            body = _form(body)
        request.body = body
    elif request.operation is Operation.PATCH:
        if media_type(request) != MERGE_PATCH:
            raise UnsupportedContent(f"PATCH requires Content-Type of {MERGE_PATCH}, provided {media_type(request)}")
        request.body = body


def media_type(request: Request) -> str:
    """Return the content type without its parameters."""
    return request.content_type.partition(";")[0].strip().lower()


def is_special(request: Request) -> bool:
    """Tell whether the application answers a request in a way of its own, so that it is not for the fast lane."""
    is_list = request.operation is Operation.LIST  # a verb that the application's parser does not know
    return not is_list and (request.path in SPECIAL_PATHS or "help" in request.query)


# -- the path --


def path_of(raw: bytes, query: bytes = b"") -> str:
    """Return the vault's path behind a raw URL path.

    Raises:
        NotFound: it is not below /v1/.
        Redirected: it is not clean; the clean one is the location.
        InvalidRequest: it does not decode, or hides what a path may not hold.
    """
    plain = _PLAIN_PATH.fullmatch(raw)
    if plain is not None:
        return plain[1].decode()
    if _UNCLEAN.search(raw):
        clean = clean_path(raw) + (b"?" + query if query else b"")
        raise Redirected(clean.decode("utf-8", "replace"))
    if not raw.startswith(PREFIX) or raw == PREFIX:
        raise NotFound
    return _decode_path(raw[len(PREFIX) :])


def clean_path(raw: bytes) -> bytes:
    """Return a raw path without empty and dot segments (RFC 3986, 5.2.4); a slash at its end stays."""
    kept: list[bytes] = []
    segments = raw.split(b"/")
    for segment in segments:
        if segment == b"..":
            kept = kept[:-1]
        elif segment not in (b"", b"."):
            kept.append(segment)
    ends_in_slash = segments[-1] in (b"", b".", b"..") and kept
    return b"/" + b"/".join(kept) + (b"/" if ends_in_slash else b"")


def _decode_path(raw: bytes) -> str:
    bad = _BAD_ESCAPE.search(raw)
    if bad is not None:
        raise InvalidRequest(f'invalid URL escape "{bad[0].decode("ascii", "replace")}"')
    try:
        path = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise InvalidRequest("the path is not valid UTF-8") from None
    if not path.isprintable():
        raise InvalidRequest("the path contains a character that cannot be printed")
    segments = path.split("/")
    if ".." in segments or "." in segments:
        raise InvalidRequest("relative paths not supported")
    if "" in segments[:-1]:
        raise InvalidRequest("the path contains an empty segment")
    return path


# -- method and query --


def query_of(raw: bytes) -> dict[str, str]:
    """Return a query's fields; the values of a repeated one are joined by commas.

    Raises:
        InvalidRequest: there are too many.
    """
    fields: dict[str, str] = {}
    try:
        pairs = parse_qsl(raw.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX)
    except ValueError:
        raise InvalidRequest(f"more than {QUERY_FIELDS_MAX} query parameters") from None
    for name, value in pairs:
        fields[name] = f"{fields[name]},{value}" if name in fields else value
    return fields


def _operation(method: bytes, path: str, query: dict[str, str]) -> Operation:
    """Return what is to be done; of a GET that lists, `list` is taken out of the query."""
    operation = _OPERATIONS.get(method)
    if operation is None:
        if method == b"HEAD":
            if path == HEALTH_PATH:
                return Operation.READ
            raise unsupported_operation()
        if method == b"OPTIONS":
            raise InvalidRequest("cannot handle internal-only request operation")
        raise UnsupportedOperation
    if operation is Operation.READ and "list" in query:
        if query["list"] in _TRUE:
            del query["list"]
            return Operation.LIST
        if query["list"] not in _FALSE:
            raise InvalidRequest(f'strconv.ParseBool: parsing "{query["list"]}": invalid syntax')
    return operation


# -- headers --


def terms_of(headers: Mapping[bytes, bytes]) -> Terms:
    """Return what headers say: names in lower case, the first value of a repeated one."""
    refusal: RequestError | None = None
    wrap_ttl_seconds = 0
    try:
        if b"x-vault-wrap-ttl" in headers:
            wrap_ttl_seconds = _wrap_ttl_seconds(_text(headers[b"x-vault-wrap-ttl"]))
        if b"x-vault-index" in headers:
            _check_index(headers[b"x-vault-index"])
    except InvalidRequest as error:
        refusal = error
    return Terms(
        token=_token(headers),
        namespace=headers.get(b"x-vault-namespace", b""),
        wrap_ttl_seconds=wrap_ttl_seconds,
        content_type=_text(headers.get(b"content-type", b"")),
        is_forwarding_refused=bool(headers.get(b"x-vault-no-request-forwarding")),
        is_for_leader=headers.get(b"x-vault-forward") == b"active-node",
        refusal=refusal,
    )


def _token(headers: Mapping[bytes, bytes]) -> str:
    token = headers.get(b"x-vault-token")
    if not token:
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if scheme != b"Bearer":
            return ""
    return _text(token).strip()


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _wrap_ttl_seconds(text: str) -> int:
    """Return for how long the answer is to be wrapped; parts of a second count as a whole one."""
    try:
        nanoseconds = parse_duration_ns(text)
    except ValueError as error:
        raise InvalidRequest(f"error parsing X-Vault-Wrap-TTL header: {error}") from None
    if nanoseconds < 0:
        raise InvalidRequest("error parsing X-Vault-Wrap-TTL header: requested wrap ttl cannot be negative")
    return -(-nanoseconds // NANOSECONDS)


class _Index(Struct):
    cluster: str
    value: str


def _check_index(header: bytes) -> None:
    """Refuse an index that was never handed out; a good one asks for no more than every read gives."""
    try:
        msgspec.json.decode(base64.b64decode(header, validate=True), type=_Index)
    except (binascii.Error, msgspec.DecodeError, UnicodeDecodeError):
        raise InvalidRequest('failed to decode "X-Vault-Index"') from None


def _foreign_namespace(path: str) -> RequestError:
    if path == HEALTH_PATH:
        return InvalidRequest("operation unavailable in namespaces")
    return NotFound("namespace not found")


# -- the body --


def body_too_large() -> TooLarge:
    """Return the refusal of a body above the listener's bound, in the words that clients match."""
    return TooLarge(BODY_TOO_LARGE)


def _form(body: bytes) -> bytes:
    """Return the JSON object that a form stands for: a text for each field, a list for one that is repeated."""
    try:
        pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=FORM_FIELDS_MAX)
    except ValueError:
        raise InvalidRequest(f"more than {FORM_FIELDS_MAX} form fields") from None
    fields: dict[str, str | list[str]] = {}
    for name, value in pairs:
        if name not in fields:
            fields[name] = value
        elif isinstance(before := fields[name], list):
            before.append(value)
        else:
            fields[name] = [before, value]
    return msgspec.json.encode(fields)
