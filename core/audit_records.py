"""What an audit log says of a request and its answer: one JSON object a line, with everything secret hashed. Pure.

Every text value in a request's or answer's data is replaced by its HMAC under the device's own key, as are tokens and
accessors: whoever knows a value can find it in the log (`sys/audit-hash`), nobody can read it there. Keys, numbers,
booleans, paths, names of policies and times stay legible. A mount may name keys that are not to be hashed.

What both records of a request say of it is made once, and what they say of its token as long as that is the same: hashes
are most of the work.

Source: Vault's page "Audit devices"; the shape of the records is that of a real server's.
"""

import re
from collections.abc import Callable, Collection
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from conclave.core.contract import Auth, Operation, Request, Response
from conclave.core.crypto import hmac_sha256
from conclave.core.doorkeeper import RepeatCache
from conclave.core.durations import NANOSECONDS
from conclave.core.errors import RequestError
from conclave.core.mounts import RUNNING_VERSION, Mount
from conclave.core.timestamps import rfc3339
from conclave.core.tokens import TokenRecord

Hide = Callable[[str], str]
"""What a device does with a text that must not be read."""

PREFIX: Final = "hmac-sha256:"
BEARERS_CACHED_MAX: Final = 1024
"""Of how many tokens a device remembers what it says of them."""
_CLEAR_KEYS: Final = frozenset({"created_time", "creation_time", "expire_time", "issue_time", "updated_time"})
"""Times of our own making, which no secret depends on."""
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?Z")
_ACCESSORS: Final = frozenset({"accessor", "wrapped_accessor", "secret_id_accessor"})
encode: Final = msgspec.json.Encoder().encode
"""Makes a line of a record."""


class Bearer(Struct, frozen=True):
    """What one device says of a token whose request is allowed."""

    record: TokenRecord | None
    policies: tuple[str, ...]
    token: str  # hidden, as the next
    accessor: str
    auth: Raw


class Style(Struct, frozen=True, eq=False):
    """How one device writes.

    Attributes:
        hide: for texts.
        hide_accessor: for accessors, which some devices leave legible.
        elides_lists: whether the names in the answer of a listing are left out, and only their number told.
        bearers: what was said of tokens, by their records' names.
    """

    hide: Hide
    hide_accessor: Hide
    elides_lists: bool = False
    bearers: RepeatCache[str, Bearer] = msgspec.field(default_factory=lambda: RepeatCache(BEARERS_CACHED_MAX))


class Shown(Struct, frozen=True):
    """What every record of a request says of it, as one device writes it."""

    auth: Raw
    request: Raw


class Subject(Struct, frozen=True):
    """What a record is about, besides the request itself."""

    request: Request
    operation: Operation  # as policies saw it: a write that made something new is a create
    mount: Mount | None = None
    token: TokenRecord | None = None  # the one that `request.token` names
    policies: tuple[str, ...] = ()  # the token's own and its identity's
    is_authenticated: bool = True
    shown: dict[Style, Shown] = {}  # what has been written of it already


def hasher(key: bytes) -> Hide:
    """Return what hashes texts under a device's key."""
    of_nothing = PREFIX + hmac_sha256(key, b"").hex()

    def hide(text: str) -> str:
        return PREFIX + hmac_sha256(key, text.encode("utf-8", "surrogatepass")).hex() if text else of_nothing

    return hide


def request_record(subject: Subject, now_ns: int, style: Style, error: RequestError | None = None) -> dict[str, Any]:
    """Return the record of a request that is about to be served, or has been refused."""
    shown = _shown(subject, style) if error is None else _shown_refused(subject, style)
    record: dict[str, Any] = {
        "time": rfc3339(now_ns),
        "type": "request",
        "auth": shown.auth,
        "request": shown.request,
    }
    if error is not None:
        record["error"] = _error_text(error)
    return record


def response_record(subject: Subject, now_ns: int, style: Style, outcome: Response | RequestError) -> dict[str, Any]:
    """Return the record of an answer that is about to leave."""
    response: dict[str, Any] = {}
    if isinstance(outcome, Response):
        if outcome.auth is not None:
            response["auth"] = _given_auth(outcome.auth, style)
        response |= _mount(subject.mount, "mount_running_plugin_version")
        if outcome.data is not None:
            clear = subject.mount.audit_non_hmac_response_keys if subject.mount is not None else ()
            response["data"] = _response_data(subject, outcome, style, clear)
        if outcome.wrap_info is not None:
            response["wrap_info"] = hidden(msgspec.to_builtins(outcome.wrap_info), style, _WRAP_CLEAR)
        if outcome.warnings:
            response["warnings"] = outcome.warnings
    else:
        response |= _mount(subject.mount, "mount_running_plugin_version")
        response["data"] = {"error": style.hide(_error_text(outcome))}
    shown = _shown(subject, style)
    record: dict[str, Any] = {
        "time": rfc3339(now_ns),
        "type": "response",
        "auth": shown.auth,
        "request": shown.request,
        "response": response,
    }
    if isinstance(outcome, RequestError):
        record["error"] = _error_text(outcome)
    return record


_WRAP_CLEAR: Final = frozenset({"creation_path", "creation_time"})


def _error_text(error: RequestError) -> str:
    return error.messages[0] if error.messages else type(error).__name__


def _shown(subject: Subject, style: Style) -> Shown:
    shown = subject.shown.get(style)
    if shown is None:
        bearer = _bearer(subject, style)
        request = _request(subject, style, bearer.token, bearer.accessor)
        shown = subject.shown[style] = Shown(bearer.auth, Raw(encode(request)))
    return shown


def _shown_refused(subject: Subject, style: Style) -> Shown:
    token, accessor = _hidden_token(subject, style)
    auth = _auth(subject, token, accessor, is_allowed=False)
    return Shown(Raw(encode(auth)), Raw(encode(_request(subject, style, token, accessor))))


def _bearer(subject: Subject, style: Style) -> Bearer:
    record = subject.token
    name = record.name if record is not None else ""  # a batch token has none, and each request opens it anew
    known = style.bearers.get(name)
    if known is not None and known.record is record and known.policies == subject.policies:
        return known
    token, accessor = _hidden_token(subject, style)
    auth = Raw(encode(_auth(subject, token, accessor, is_allowed=True)))
    bearer = Bearer(record, subject.policies, token, accessor, auth)
    if name:
        style.bearers.offer(name, bearer)
    return bearer


def _hidden_token(subject: Subject, style: Style) -> tuple[str, str]:
    token = style.hide(subject.request.token) if subject.request.token else ""
    accessor = style.hide_accessor(subject.token.accessor) if subject.token and subject.token.accessor else ""
    return token, accessor


def _auth(subject: Subject, hidden_token: str, hidden_accessor: str, *, is_allowed: bool) -> dict[str, Any]:
    token = subject.token
    if token is None:
        return {"token_type": "default"}
    auth: dict[str, Any] = {"client_token": hidden_token}
    if hidden_accessor:  # a batch token has none
        auth["accessor"] = hidden_accessor
    auth |= {
        "display_name": token.display_name,
        "policies": list(subject.policies) or token.policies,
        "token_policies": token.policies,
    }
    if token.meta:
        auth["metadata"] = token.meta
    if token.entity_id:
        auth["entity_id"] = token.entity_id
    if is_allowed:
        granting = [
            {"name": name, "namespace_id": "root", "type": "acl"} for name in subject.policies or token.policies
        ]
        auth["policy_results"] = {"allowed": True, "granting_policies": granting}
    else:
        auth["policy_results"] = {"allowed": False}
    auth["token_type"] = token.type
    if token.ttl_seconds:
        auth["token_ttl"] = token.ttl_seconds
    auth["token_issue_time"] = rfc3339(token.created_ns // NANOSECONDS * NANOSECONDS)
    return auth


def _given_auth(auth: Auth, style: Style) -> dict[str, Any]:
    given: dict[str, Any] = {"client_token": style.hide(auth.client_token)}
    if auth.accessor:
        given["accessor"] = style.hide_accessor(auth.accessor)
    given |= {
        "policies": auth.policies,
        "token_policies": auth.token_policies,
        "token_type": auth.token_type,
    }
    if auth.metadata:
        given["metadata"] = auth.metadata
    if auth.entity_id:
        given["entity_id"] = auth.entity_id
    if auth.lease_duration:
        given["token_ttl"] = auth.lease_duration
    return given


def _request(subject: Subject, style: Style, hidden_token: str, hidden_accessor: str) -> dict[str, Any]:
    request = subject.request
    shown: dict[str, Any] = {"id": request.id, "operation": subject.operation.value}
    shown |= _mount(subject.mount, "mount_running_version")
    if hidden_token:
        shown["client_token"] = hidden_token
    if hidden_accessor:
        shown["client_token_accessor"] = hidden_accessor
    shown["namespace"] = {"id": "root"}
    is_list = subject.operation is Operation.LIST
    shown["path"] = request.path if not is_list or request.path.endswith("/") else request.path + "/"
    data = _request_data(request)
    if data:
        clear = subject.mount.audit_non_hmac_request_keys if subject.mount is not None else ()
        shown["data"] = hidden(data, style, clear)
    if request.wrap_ttl_seconds:
        shown["wrap_ttl"] = request.wrap_ttl_seconds
    shown["remote_address"] = request.remote_address
    shown["remote_port"] = request.remote_port
    return shown


def _mount(mount: Mount | None, version_key: str) -> dict[str, Any]:
    if mount is None:
        return {}
    return {
        "mount_point": mount.path,
        "mount_type": mount.type,
        "mount_accessor": mount.accessor,
        version_key: RUNNING_VERSION,
        "mount_class": "auth" if mount.is_auth else "secret",
    }


def _request_data(request: Request) -> dict[str, Any]:
    """Return the request's fields; what is no object is told by its size alone, for it may hold anything."""
    if not request.body:
        return dict(request.query)
    try:
        decoded = msgspec.json.decode(request.body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return {"malformed_body_bytes": len(request.body)}
    return decoded if isinstance(decoded, dict) else {"malformed_body_bytes": len(request.body)}


def _response_data(subject: Subject, response: Response, style: Style, clear: Collection[str]) -> Any:
    data = response.data
    decoded = msgspec.json.decode(bytes(data)) if isinstance(data, Raw) else msgspec.to_builtins(data)
    if style.elides_lists and subject.operation is Operation.LIST and isinstance(decoded, dict):
        decoded = {key: len(value) if key in ("keys", "key_info") else value for key, value in decoded.items()}
    return hidden(decoded, style, clear)


def hidden(value: Any, style: Style, clear: Collection[str] = ()) -> Any:
    """Return JSON-able data with every text in it hashed, but what lies under the keys in `clear` at the top of it.

    Deeper down these keys are a client's own, and may name a secret.
    """
    if isinstance(value, str):
        return style.hide(value)
    if isinstance(value, dict):
        return {key: _hidden_member(key, member, style, clear) for key, member in value.items()}
    if isinstance(value, list):
        return [hidden(member, style) for member in value]
    return value


def _hidden_member(key: str, value: Any, style: Style, clear: Collection[str]) -> Any:
    if key in clear:
        return value
    if isinstance(value, str):
        if key in _CLEAR_KEYS and _is_time(value):
            return value
        if key in _ACCESSORS:
            return style.hide_accessor(value)
    return hidden(value, style)


def _is_time(text: str) -> bool:
    """Whether a text is a time as we write it, and nothing that a client slipped in under such a key."""
    return _TIME.fullmatch(text) is not None
