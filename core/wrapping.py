"""Response wrapping: an answer is put into a token's cubbyhole, and the token, good for one use, is handed out instead.

The token's policy allows nothing but unwrapping. Its cubbyhole holds two records, as in Vault: `response`, the whole
answer as JSON text, and `wrapinfo`, when and by which path it was made. Unwrapping takes the answer and ends the token in
one atomic step, so of two who try, one gets it and the other learns that somebody had it.

Source: Vault's pages "Response wrapping" and "sys/wrapping"; texts and shapes recorded from a real server.
"""

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from conclave.core.contract import Auth, Lease, Response, WrapInfo
from conclave.core.cubbyholes import cubbyhole_of
from conclave.core.errors import InvalidRequest
from conclave.core.mounts import CUBBYHOLE_PATH, MountTable
from conclave.core.outcomes import json_text
from conclave.core.privileged import RESPONSE_WRAPPING, VaultContext
from conclave.core.records import Records
from conclave.core.revocation import register_token, revoke_token, tokens_of
from conclave.core.services import AREA_MOUNTS, AREA_TOKENS, Services
from conclave.core.timestamps import rfc3339
from conclave.core.tokens import TokenRecord

NOT_VALID: Final = "wrapping token is not valid or does not exist"
WRAPPING_NEEDED: Final = "endpoint requires response wrapping to be used"


class _Wrapped(Struct):
    """An answer as it lies in the cubbyhole: the envelope's fields that say something."""

    data: Raw = Raw(b"null")
    auth: Auth | None = None
    lease_id: str = ""
    renewable: bool = False
    lease_duration: int = 0
    warnings: list[str] | None = None


class _Info(Struct):
    """How an answer was wrapped; keys in the order in which they are shown."""

    creation_path: str
    creation_time: str
    creation_ttl: int


class _Envelope(Struct):
    """What `cubbyhole/response` shows."""

    response: str


def is_wrappable(response: Response) -> bool:
    """Whether an answer holds anything that wrapping could hide."""
    if response.wrap_info is not None or response.is_absent or response.is_bare:
        return False
    return response.data is not None or response.auth is not None


def wrap(services: Services, response: Response, *, ttl_seconds: int, creation_path: str) -> WrapInfo:
    """Put an answer away for so long and return where it is."""
    lease = response.lease or Lease("", 0, renewable=False)
    wrapped = _Wrapped(
        data=Raw(b"null" if response.data is None else json_text(response.data)),
        auth=response.auth,
        lease_id=lease.lease_id,
        renewable=lease.renewable,
        lease_duration=lease.duration_seconds,
        warnings=response.warnings or None,
    )
    text = msgspec.json.encode(wrapped).decode()
    accessor = response.auth.accessor if response.auth is not None else ""
    return _put_away(services, text, ttl_seconds=ttl_seconds, creation_path=creation_path, wrapped_accessor=accessor)


def _put_away(
    services: Services, text: str, *, ttl_seconds: int, creation_path: str, wrapped_accessor: str
) -> WrapInfo:
    token, record = tokens_of(services).create(
        services.area(AREA_TOKENS),
        now_ns=services.now_ns,
        policies=[RESPONSE_WRAPPING],
        path=creation_path,
        ttl_seconds=ttl_seconds,
        explicit_max_ttl_seconds=ttl_seconds,
        num_uses=1,
    )
    register_token(services, record)
    created = rfc3339(services.now_ns)
    place = cubbyhole_of(record.accessor)
    storage = _cubbyholes(services)
    storage.put(f"{place}/response", msgspec.json.encode(_Envelope(text)))
    storage.put(f"{place}/wrapinfo", msgspec.json.encode(_Info(creation_path, created, ttl_seconds)))
    return WrapInfo(token, record.accessor, ttl_seconds, created, creation_path, wrapped_accessor)


def unwrap(ctx: VaultContext, text: str = "") -> Response:
    """Return a wrapped answer, once.

    Args:
        ctx: of the request, in a transaction that writes.
        text: the wrapping token; empty if it is the one that the request was made with.

    Raises:
        InvalidRequest: it is no wrapping token, or somebody had the answer already.
    """
    record = _find(ctx, text)
    wrapped = msgspec.json.decode(_take(ctx.services, record), type=_Wrapped)
    lease = Lease(wrapped.lease_id, wrapped.lease_duration, wrapped.renewable)
    return Response(
        data=None if bytes(wrapped.data) == b"null" else wrapped.data,
        auth=wrapped.auth,
        lease=lease if lease.lease_id or lease.duration_seconds else None,
        warnings=wrapped.warnings or [],
    )


def rewrap(ctx: VaultContext, text: str = "") -> Response:
    """Move a wrapped answer to a new token, as long-lived as the first one was, and end the old token.

    Raises:
        InvalidRequest: as for `unwrap`.
    """
    record = _find(ctx, text)
    info = _info(ctx.services, record)
    wrapped = _take(ctx.services, record)
    auth = msgspec.json.decode(wrapped, type=_Wrapped).auth
    return Response(
        wrap_info=_put_away(
            ctx.services,
            wrapped,
            ttl_seconds=info.creation_ttl,
            creation_path=info.creation_path,
            wrapped_accessor=auth.accessor if auth is not None else "",
        )
    )


def lookup(ctx: VaultContext, text: str = "") -> dict[str, Any]:
    """Return how an answer was wrapped; this is no use of its token.

    Raises:
        InvalidRequest: as for `unwrap`.
    """
    return msgspec.to_builtins(_info(ctx.services, _find(ctx, text)))  # type: ignore[no-any-return]  # a Struct gives a dict


def _find(ctx: VaultContext, text: str) -> TokenRecord:
    used = ctx.token_record
    if used is not None and text in ("", ctx.request.token):
        record: TokenRecord | None = used  # its one use is under way
    else:
        wanted = text or ctx.request.token
        record = tokens_of(ctx.services).lookup(ctx.services.area(AREA_TOKENS), wanted, ctx.now_ns)
    if record is None or record.policies != [RESPONSE_WRAPPING]:
        raise InvalidRequest(NOT_VALID)
    return record


def _take(services: Services, record: TokenRecord) -> str:
    """Return the JSON text of an answer, and end its token, which also marks the cubbyhole to be emptied."""
    stored = _cubbyholes(services).get(f"{cubbyhole_of(record.accessor)}/response")
    if stored is None:
        raise InvalidRequest(NOT_VALID)
    revoke_token(services, record)
    return msgspec.json.decode(stored, type=_Envelope).response


def _info(services: Services, record: TokenRecord) -> _Info:
    stored = _cubbyholes(services).get(f"{cubbyhole_of(record.accessor)}/wrapinfo")
    if stored is None:
        raise InvalidRequest(NOT_VALID)
    return msgspec.json.decode(stored, type=_Info)


def _cubbyholes(services: Services) -> Records:
    mount = MountTable(services.area(AREA_MOUNTS)).at(CUBBYHOLE_PATH)
    assert mount is not None, "the cubbyhole mount always exists"
    return services.mount_storage(mount.uuid)
