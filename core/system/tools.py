"""sys/tools, sys/wrapping, sys/plugins/catalog, sys/loggers, sys/decode-token: small helpers that belong to no other part.

Wrapping itself is in `core/wrapping.py`. The catalog lists what this server has built in; nothing can be added to it.

Source: Vault's API pages "sys/tools", "sys/wrapping-*", "sys/plugins-catalog", "sys/loggers"; recorded from a real server.
"""

import base64
import binascii
import hashlib
import logging
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final

from msgspec import Meta, Raw, Struct

from conclave.core import wrapping
from conclave.core.bodies import canonical_object
from conclave.core.contract import Context, Engine, Response, operation
from conclave.core.errors import InvalidRequest, NotFound
from conclave.core.mounts import BUILT_IN_TYPES, RUNNING_VERSION
from conclave.core.privileged import VaultContext

RANDOM_BYTES_DEFAULT: Final = 32
RANDOM_BYTES_MAX: Final = 128 * 1024
"""How many random bytes one request can have."""
_SOURCES: Final = frozenset({"platform", "seal", "all"})
_HASHES: Final[dict[str, Callable[[bytes], Any]]] = {
    "sha2-224": hashlib.sha224,
    "sha2-256": hashlib.sha256,
    "sha2-384": hashlib.sha384,
    "sha2-512": hashlib.sha512,
    "sha3-224": hashlib.sha3_224,
    "sha3-256": hashlib.sha3_256,
    "sha3-384": hashlib.sha3_384,
    "sha3-512": hashlib.sha3_512,
}
_ENCODINGS: Final[dict[str, Callable[[bytes], str]]] = {
    "hex": bytes.hex,
    "base64": lambda data: base64.b64encode(data).decode(),
}
_LEVELS: Final = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "notice": logging.INFO,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "err": logging.ERROR,
    "error": logging.ERROR,
}
_LEVEL_NAMES: Final = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warn", logging.ERROR: "error"}
LOGGER_PREFIX: Final = "conclave."
"""What is in front of the names that `sys/loggers` shows."""


class RandomBytes(Struct):
    """How many random bytes, and how they are spelled."""

    bytes: Annotated[int, Meta(description="How many.")] = RANDOM_BYTES_DEFAULT
    format: Annotated[str, Meta(description="`hex` or `base64`.")] = "base64"
    source: Annotated[str, Meta(description="`platform`, `seal` or `all`: there is one source, the system's.")] = ""


class Hash(Struct):
    """What to hash, and how."""

    input: Annotated[str, Meta(description="The data, in base64.")] = ""
    algorithm: Annotated[str, Meta(description="`sha2-224` to `sha2-512`, `sha3-224` to `sha3-512`.")] = "sha2-256"
    format: Annotated[str, Meta(description="`hex` or `base64`.")] = "hex"


class WhichToken(Struct):
    """A wrapping token."""

    token: Annotated[str, Meta(description="Its text; by default the token of the request.")] = ""


class EncodedToken(Struct):
    """A root token as `generate-root` gives it."""

    encoded_token: Annotated[str, Meta(description="The token, combined with the one-time password, in base64.")] = ""
    otp: Annotated[str, Meta(description="The one-time password.")] = ""


class Level(Struct):
    """How much is logged."""

    level: Annotated[str, Meta(description="`trace`, `debug`, `info`, `warn` or `error`.")] = ""


class ToolOperations(Engine):
    """The helpers' part of `sys/`; mixed into `System`."""

    type = "system-tools"

    # tools

    @operation("tools/random", update=RandomBytes, writes=False)
    def random_bytes(self, ctx: Context, body: RandomBytes) -> Response:
        """Return random bytes."""
        return _random(ctx, body, "", "")

    @operation("tools/random/{source}", update=RandomBytes, writes=False)
    def random_bytes_of(self, ctx: Context, source: str, body: RandomBytes) -> Response:
        """Return random bytes of a source, or as many as the path says."""
        return _random(ctx, body, source, "") if source in _SOURCES else _random(ctx, body, "", source)

    @operation("tools/random/{source}/{urlbytes}", update=RandomBytes, writes=False)
    def random_bytes_of_size(self, ctx: Context, source: str, urlbytes: str, body: RandomBytes) -> Response:
        """Return as many random bytes of a source as the path says."""
        return _random(ctx, body, source, urlbytes)

    @operation("tools/hash", update=Hash, writes=False)
    def hash(self, ctx: Context, body: Hash) -> Response:
        """Hash data."""
        del ctx
        return _hash(body, body.algorithm)

    @operation("tools/hash/{urlalgorithm}", update=Hash, writes=False)
    def hash_by(self, ctx: Context, urlalgorithm: str, body: Hash) -> Response:
        """Hash data by the algorithm that the path names."""
        del ctx
        return _hash(body, urlalgorithm)

    @operation("decode-token", update=EncodedToken, authenticated=False, writes=False)
    def decode_token(self, ctx: Context, body: EncodedToken) -> Response:
        """Take a root token and its one-time password apart."""
        del ctx
        if not body.encoded_token or not body.otp:
            raise InvalidRequest("provided 'encoded_token' or 'otp' is empty")
        try:
            unpadded = body.encoded_token.rstrip("=")
            encoded = base64.b64decode(unpadded + "=" * (-len(unpadded) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise InvalidRequest("error decoding base64'd token: illegal base64 data") from None
        password = body.otp.encode()
        if len(encoded) != len(password):
            raise InvalidRequest(
                f"error xoring token: length of byte slices is not equivalent: {len(encoded)} != {len(password)}"
            )
        token = bytes(one ^ other for one, other in zip(encoded, password, strict=True))
        return Response({"token": token.decode("utf-8", "replace")})

    # wrapping

    @operation("wrapping/wrap", update=True, writes=True)
    def wrap(self, ctx: Context) -> Response:
        """Wrap the body's fields; the pipeline wraps what this returns."""
        if not ctx.request.wrap_ttl_seconds:
            raise InvalidRequest(wrapping.WRAPPING_NEEDED)
        return Response(Raw(canonical_object(ctx.request.body)))

    @operation("wrapping/unwrap", update=WhichToken)
    def unwrap(self, ctx: VaultContext, body: WhichToken) -> Response:
        """Return what is wrapped, once."""
        return wrapping.unwrap(ctx, body.token)

    @operation("wrapping/rewrap", update=WhichToken)
    def rewrap(self, ctx: VaultContext, body: WhichToken) -> Response:
        """Move what is wrapped to a new token."""
        return wrapping.rewrap(ctx, body.token)

    @operation("wrapping/lookup", read=True, authenticated=False)
    @operation("wrapping/lookup", update=WhichToken, authenticated=False, writes=False)
    def lookup_wrapping(self, ctx: VaultContext, body: WhichToken | None = None) -> Response:
        """Tell how something was wrapped, without unwrapping it."""
        return Response(wrapping.lookup(ctx, body.token if body is not None else ""))

    # the catalog

    @operation("plugins/catalog", read=True)
    def read_catalog(self, ctx: VaultContext) -> Response:
        """List all engines and auth methods."""
        kinds = {kind: _built_in(ctx, kind) for kind in ("auth", "secret")}
        detailed = [
            {
                "builtin": True,
                "deprecation_status": "supported",
                "name": name,
                "type": kind,
                "version": RUNNING_VERSION,
            }
            for kind, names in kinds.items()
            for name in names
        ]
        return Response({**kinds, "database": [], "detailed": detailed})

    @operation("plugins/catalog/{kind}", list=True, sudo=True)
    def list_catalog(self, ctx: VaultContext, kind: str) -> Response:
        """List the engines (`secret`) or methods (`auth`)."""
        names = _built_in(ctx, kind)
        if not names:
            raise NotFound
        return Response({"keys": names})

    @operation("plugins/catalog/{kind}/{name}", read=True, sudo=True)
    def read_plugin(self, ctx: VaultContext, kind: str, name: str) -> Response:
        """Describe an engine or a method."""
        if name not in _built_in(ctx, kind):
            raise NotFound
        return Response(
            {
                "args": None,
                "builtin": True,
                "command": "",
                "declarative": False,
                "deprecation_status": "supported",
                "name": name,
                "oci": False,
                "sha256": "",
                "version": RUNNING_VERSION,
            }
        )

    # what this node logs

    @operation("loggers", read=True, is_local=True)
    def list_loggers(self, ctx: Context) -> Response:
        """List this node's loggers and how much each logs."""
        del ctx
        return Response({name: _level_of(name) for name in _logger_names()})

    @operation("loggers", update=Level, is_local=True)
    def set_levels(self, ctx: Context, body: Level) -> Response:
        """Set how much all of this node's loggers log, until it restarts."""
        del ctx
        _set_levels(_logger_names(), _parse_level(body.level))
        return Response()

    @operation("loggers/{name}", read=True, is_local=True)
    def read_logger(self, ctx: Context, name: str) -> Response:
        """Tell how much one logger logs."""
        del ctx
        return Response({name: _level_of(name)} if name in _logger_names() else {})

    @operation("loggers/{name}", update=Level, is_local=True)
    def set_level(self, ctx: Context, name: str, body: Level) -> Response:
        """Set how much one logger logs, until this node restarts."""
        del ctx
        level = _parse_level(body.level)
        if name not in _logger_names():
            raise InvalidRequest(f'logger "{name}" not found')
        _set_levels([name], level)
        return Response()

    @operation("loggers", delete=True, is_local=True)
    def reset_levels(self, ctx: Context) -> Response:
        """Let all loggers log as the configuration says."""
        del ctx
        _set_levels(_logger_names(), logging.NOTSET)
        return Response()

    @operation("loggers/{name}", delete=True, is_local=True)
    def reset_level(self, ctx: Context, name: str) -> Response:
        """Let one logger log as the configuration says."""
        del ctx
        if name not in _logger_names():
            raise InvalidRequest(f'logger "{name}" not found')
        _set_levels([name], logging.NOTSET)
        return Response()


# -- tools --


def _random(ctx: Context, body: RandomBytes, source: str, size: str) -> Response:
    count = body.bytes
    if size:
        try:
            count = int(size)
        except ValueError:
            raise InvalidRequest(
                f'error parsing url-set byte count: strconv.Atoi: parsing "{size}": invalid syntax'
            ) from None
    if count < 1:
        raise InvalidRequest("'bytes' cannot be less than 1")
    if count > RANDOM_BYTES_MAX:
        raise InvalidRequest(f"'bytes' should be less than {RANDOM_BYTES_MAX}")
    if body.format not in _ENCODINGS:
        raise InvalidRequest(f'unsupported encoding format "{body.format}"; must be "hex" or "base64"')
    if (source or body.source or "platform") not in _SOURCES:
        raise InvalidRequest(
            f'unsupported entropy source "{source or body.source}"; must be "platform", "seal" or "all"'
        )
    return Response({"random_bytes": _ENCODINGS[body.format](ctx.random(count))})


def _hash(body: Hash, algorithm: str) -> Response:
    try:
        data = base64.b64decode(body.input, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(f"unable to decode input as base64: {error}") from None
    if algorithm not in _HASHES:
        raise InvalidRequest(f"unsupported algorithm {algorithm}")
    if body.format not in _ENCODINGS:
        raise InvalidRequest(f'unsupported encoding format {body.format}; must be "hex" or "base64"')
    return Response({"sum": _ENCODINGS[body.format](_HASHES[algorithm](data).digest())})


# -- the catalog --


def _built_in(ctx: VaultContext, kind: str) -> list[str]:
    """Return the sorted types that can be mounted; nothing for a kind that there is not."""
    registries = {"auth": ctx.services.methods, "secret": ctx.services.engines}
    return sorted({name for name in registries.get(kind, {}) if name != "kv-v2"} - BUILT_IN_TYPES)


# -- loggers --


def _logger_names() -> list[str]:
    names = [name for name in logging.root.manager.loggerDict if name.startswith(LOGGER_PREFIX)]
    return sorted(name.removeprefix(LOGGER_PREFIX) for name in names)


def _level_of(name: str) -> str:
    level = logging.getLogger(LOGGER_PREFIX + name).getEffectiveLevel()
    return _LEVEL_NAMES.get(level, "error")


def _parse_level(level: str) -> int:
    if not level:
        raise InvalidRequest("level is required")
    if level not in _LEVELS:
        raise InvalidRequest(f"invalid level provided: unknown log level: {level}")
    return _LEVELS[level]


def _set_levels(names: Iterable[str], level: int) -> None:
    for name in names:
        logging.getLogger(LOGGER_PREFIX + name).setLevel(level)
