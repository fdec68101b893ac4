"""Outcomes as bytes: what a leader answers a standby, and what an entry keeps for whoever asks later.

An outcome is a `Response` or a `RequestError`. Its data travels as JSON text, so numbers keep their spelling.
"""

from typing import Any, Final

import msgspec
from msgspec import Struct

from conclave.core import errors
from conclave.core.contract import Auth, Lease, Response, WrapInfo

Outcome = Response | errors.RequestError

_KINDS: Final[dict[str, type[errors.RequestError]]] = {
    kind.__name__: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.RequestError)
}

VERSION: Final = 1


class _Wire(Struct, array_like=True, omit_defaults=True):
    """One outcome; new fields come last, with defaults."""

    version: int
    error: str = ""
    messages: list[str] = []
    data: bytes = b""
    auth: Auth | None = None
    lease: Lease | None = None
    warnings: list[str] = []
    flags: list[bool] = []
    condition: str = ""
    batch_failure_code: int = 0
    wrap_info: WrapInfo | None = None
    raw: bytes | None = None
    content_type: str = ""
    location: str = ""


def encode(outcome: Outcome) -> bytes:
    """Return the bytes of an outcome."""
    if isinstance(outcome, errors.RequestError):
        location = outcome.location if isinstance(outcome, errors.Redirected) else ""
        return msgspec.msgpack.encode(
            _Wire(VERSION, error=type(outcome).__name__, messages=list(outcome.messages), location=location)
        )
    flags = [outcome.is_bare, outcome.is_doubled, outcome.is_absent, outcome.is_accepted]
    return msgspec.msgpack.encode(
        _Wire(
            VERSION,
            data=b"" if outcome.data is None else json_text(outcome.data),
            auth=outcome.auth,
            lease=outcome.lease,
            warnings=outcome.warnings,
            flags=flags,
            condition=outcome.condition,
            batch_failure_code=outcome.batch_failure_code,
            wrap_info=outcome.wrap_info,
            raw=outcome.raw,
            content_type=outcome.content_type,
        )
    )


def decode(encoded: bytes) -> Outcome:
    """Return the outcome that `encode` made these bytes of.

    Raises:
        ValueError: they are no outcome, or one of a version that this node does not know.
    """
    wire = msgspec.msgpack.decode(encoded, type=_Wire)
    if wire.version != VERSION:
        raise ValueError(f"an outcome of version {wire.version}; this node knows version {VERSION}")
    if wire.location:
        return errors.Redirected(wire.location)
    if wire.error:
        return _KINDS.get(wire.error, errors.InternalError)(*wire.messages)
    bare, doubled, absent, accepted = wire.flags
    return Response(
        data=msgspec.Raw(wire.data) if wire.data else None,
        auth=wire.auth,
        lease=wire.lease,
        warnings=wire.warnings,
        is_bare=bare,
        is_doubled=doubled,
        is_absent=absent,
        is_accepted=accepted,
        condition=wire.condition,
        batch_failure_code=wire.batch_failure_code,
        wrap_info=wire.wrap_info,
        raw=wire.raw,
        content_type=wire.content_type,
    )


def json_text(data: Any) -> bytes:
    """Return the JSON text of an answer's data, keys sorted as Vault sends them; Raw goes through unchanged."""
    return bytes(data) if isinstance(data, msgspec.Raw) else msgspec.json.encode(data, order="sorted")
