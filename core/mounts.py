"""Mounts: which engine answers below which path, and how they are made, changed, moved and removed.

One record a mount, under its path; a mount's own data hangs on its `uuid`, so moving a mount is two small records and
removing one makes it unreachable at once, whatever it holds (what it held is emptied in the background, see
`core/revocation.py`). Auth methods are mounts too, below `auth/`.

`sys/`, `cubbyhole/`, `identity/` and `auth/token/` always exist and cannot be removed or moved. No mount lies inside
another.
Source: Vault's API pages "sys/mounts" and "sys/auth"; texts and shapes recorded from a real server.
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import msgspec
from msgspec import Struct

from conclave.core.contract import MountInfo, Storage
from conclave.core.crypto import Random, new_uuid
from conclave.core.errors import InvalidRequest

AUTH_PREFIX: Final = "auth/"
SYSTEM_PATH: Final = "sys/"
CUBBYHOLE_PATH: Final = "cubbyhole/"
IDENTITY_PATH: Final = "identity/"
TOKEN_PATH: Final = "auth/token/"  # noqa: S105  (no password: a path)
RESERVED_PREFIXES: Final = ("audit/", AUTH_PREFIX, CUBBYHOLE_PATH, IDENTITY_PATH, SYSTEM_PATH)
"""Below these no secrets engine can be mounted."""
FIXED_PATHS: Final = frozenset({SYSTEM_PATH, CUBBYHOLE_PATH, IDENTITY_PATH, TOKEN_PATH})
PATH_CHARACTERS_MAX: Final = 1024
"""The longest path of a mount."""

RUNNING_VERSION: Final = "v0.1.0+builtin.conclave"
"""What is told as the version of each engine: all of them come with the server."""
_DEFAULT_HEADERS: Final = {SYSTEM_PATH: ["Accept"], IDENTITY_PATH: ["Authorization"]}
BUILT_IN_TYPES: Final = frozenset({"system", "cubbyhole", "identity", "token"})
"""Types of which there is one mount, made with the vault. Vault tells no deprecation status of these."""


class Mount(Struct, array_like=True, frozen=True):
    """A mount as it is kept. New fields come last, with defaults."""

    path: str  # "secret/", "auth/approle/"
    type: str  # "kv"
    uuid: str
    accessor: str  # "kv_1a2b3c4d"
    created_ns: int
    description: str = ""
    options: dict[str, str] | None = None
    default_lease_ttl_seconds: int = 0  # 0: the system's
    max_lease_ttl_seconds: int = 0
    force_no_cache: bool = False
    listing_visibility: str = ""
    token_type: str = ""
    audit_non_hmac_request_keys: list[str] = []
    audit_non_hmac_response_keys: list[str] = []
    passthrough_request_headers: list[str] = []
    allowed_response_headers: list[str] = []
    local: bool = False
    seal_wrap: bool = False
    external_entropy_access: bool = False
    plugin_version: str = ""

    @property
    def is_auth(self) -> bool:
        """Whether it is an auth method."""
        return self.path.startswith(AUTH_PREFIX)

    @property
    def table_path(self) -> str:
        """Its path within its table: "approle/" for `auth/approle/`."""
        return self.path.removeprefix(AUTH_PREFIX)

    @property
    def engine_key(self) -> str:
        """Which engine of the registry answers it: its type, but "kv-v2" for a versioned kv."""
        return "kv-v2" if self.type == "kv" and (self.options or {}).get("version") == "2" else self.type

    def info(self, default_lease_ttl_seconds: int, max_lease_ttl_seconds: int) -> MountInfo:
        """Return what its engine may know, with the system's lifetimes where it has none of its own."""
        return MountInfo(
            path=self.path,
            accessor=self.accessor,
            uuid=self.uuid,
            options=self.options or {},
            default_lease_ttl_seconds=self.default_lease_ttl_seconds or default_lease_ttl_seconds,
            max_lease_ttl_seconds=self.max_lease_ttl_seconds or max_lease_ttl_seconds,
        )

    def describe(self) -> dict[str, Any]:
        """Return it as sys/mounts and sys/auth show it."""
        described: dict[str, Any] = {
            "accessor": self.accessor,
            "config": self._config(),
            "description": self.description,
            "external_entropy_access": self.external_entropy_access,
            "local": self.local,
            "options": self.options,
            "plugin_version": self.plugin_version,
            "running_plugin_version": RUNNING_VERSION,
            "running_sha256": "",
            "seal_wrap": self.seal_wrap,
            "type": self.type,
            "uuid": self.uuid,
        }
        if self.type not in BUILT_IN_TYPES:
            described["deprecation_status"] = "supported"
        return described

    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = {
            "default_lease_ttl": self.default_lease_ttl_seconds,
            "force_no_cache": self.force_no_cache,
            "max_lease_ttl": self.max_lease_ttl_seconds,
        }
        if self.is_auth:
            config["token_type"] = self.token_type or "default-service"
        return config | self._tuned()

    def describe_tuning(self, default_lease_ttl_seconds: int, max_lease_ttl_seconds: int) -> dict[str, Any]:
        """Return it as the `tune` paths show it, with the system's lifetimes where it has none of its own."""
        tuning: dict[str, Any] = {
            "default_lease_ttl": self.default_lease_ttl_seconds or default_lease_ttl_seconds,
            "description": self.description,
            "force_no_cache": self.force_no_cache,
            "max_lease_ttl": self.max_lease_ttl_seconds or max_lease_ttl_seconds,
        }
        if self.is_auth:
            tuning["token_type"] = self.token_type or "default-service"
        if self.options:
            tuning["options"] = self.options
        return tuning | self._tuned()

    def _tuned(self) -> dict[str, Any]:
        """Return what is shown only once it has been set."""
        settings = {
            "listing_visibility": self.listing_visibility,
            "audit_non_hmac_request_keys": self.audit_non_hmac_request_keys,
            "audit_non_hmac_response_keys": self.audit_non_hmac_response_keys,
            "passthrough_request_headers": self.passthrough_request_headers,
            "allowed_response_headers": self.allowed_response_headers,
        }
        return {name: value for name, value in settings.items() if value}


class MountTable:
    """All mounts, in one directory.

    Args:
        storage: the directory.
    """

    __slots__ = ("_storage",)

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def create_defaults(self, random: Random, now_ns: int) -> None:
        """Write the mounts of a new vault."""
        for path, kind, description in (
            (SYSTEM_PATH, "system", "system endpoints used for control, policy and debugging"),
            (CUBBYHOLE_PATH, "cubbyhole", "per-token private secret storage"),
            (IDENTITY_PATH, "identity", "identity store"),
            (TOKEN_PATH, "token", "token based credentials"),
        ):
            mount = new_mount(path, kind, random, now_ns)
            self.put(
                msgspec.structs.replace(
                    mount,
                    description=description,
                    local=path == CUBBYHOLE_PATH,
                    seal_wrap=path == SYSTEM_PATH,
                    passthrough_request_headers=_DEFAULT_HEADERS.get(path, []),
                )
            )

    def all(self) -> list[Mount]:
        """Return every mount, sorted by path."""
        mounts = [self._storage.get(name, Mount) for name in self._storage.list()]
        return sorted((mount for mount in mounts if mount is not None), key=lambda mount: mount.path)

    def at(self, path: str) -> Mount | None:
        """Return the mount at exactly this path ("secret/"); None if there is none."""
        return self._storage.get(_name(path), Mount)

    def put(self, mount: Mount) -> None:
        """Keep a mount, new or changed."""
        self._storage.put(_name(mount.path), mount)

    def enable(self, mount: Mount) -> None:
        """Add a mount.

        Raises:
            InvalidRequest: its path cannot be had.
        """
        check_path(mount.path)
        for other in self.all():
            if mount.path.startswith(other.path) or other.path.startswith(mount.path):
                raise InvalidRequest(f"path is already in use at {other.table_path}")
        self.put(mount)

    def move(self, source: str, target: str) -> Mount:
        """Move a mount with all that it holds, and return it as it was.

        Args:
            source: full path of the mount ("secret/", "auth/approle/").
            target: likewise, where it is to be.

        Raises:
            InvalidRequest: there is none, it must stay, or the target cannot be had.
        """
        if source in FIXED_PATHS:
            raise InvalidRequest(f'cannot remount "{source}"')
        if source.startswith(AUTH_PREFIX) and not target.startswith(AUTH_PREFIX):
            raise InvalidRequest(f'cannot remount auth mount to non-auth mount "{target}"')
        if _is_reserved(target) or (target.startswith(AUTH_PREFIX) and not source.startswith(AUTH_PREFIX)):
            raise InvalidRequest(f"cannot remount to destination {target}")
        check_path(target)
        mount = self.at(source)
        if mount is None:
            raise InvalidRequest(f'no matching mount at "{source}"')
        for other in self.all():
            if target.startswith(other.path) or other.path.startswith(target):
                raise InvalidRequest(f'path already in use at "{other.path}"')
        self._storage.delete(_name(source))
        self.put(msgspec.structs.replace(mount, path=target))
        return mount

    def remove(self, path: str) -> Mount | None:
        """Remove the mount at this path and return it; None if there is none.

        Raises:
            InvalidRequest: it must exist.
        """
        if path in FIXED_PATHS:
            raise InvalidRequest(
                f'cannot unmount "{path}"'
                if not path.startswith(AUTH_PREFIX)
                else "token credential backend cannot be disabled"
            )
        mount = self.at(path)
        if mount is not None:
            self._storage.delete(_name(path))
        return mount


def new_mount(path: str, kind: str, random: Random, now_ns: int, options: Mapping[str, str] | None = None) -> Mount:
    """Return a mount with fresh ids; "kv-v1" and "kv-v2" are kv with an option."""
    given = dict(options or {})
    if kind in ("kv-v1", "kv-v2"):
        given["version"] = kind[-1]
        kind = "kv"
    prefix = f"auth_{kind}" if path.startswith(AUTH_PREFIX) else kind
    return Mount(
        path=path,
        type=kind,
        uuid=new_uuid(random),
        accessor=f"{prefix}_{random(4).hex()}",
        created_ns=now_ns,
        options=given if given or kind not in BUILT_IN_TYPES else None,
    )


def check_path(path: str) -> None:
    """Check that a mount may be made at this path.

    Raises:
        InvalidRequest: it is reserved, or no path.
    """
    table_path = path.removeprefix(AUTH_PREFIX)
    if _is_reserved(path):
        raise InvalidRequest(f'cannot mount "{path}"')
    if table_path in ("", "/"):
        raise InvalidRequest("backend path must be specified")
    if len(path) > PATH_CHARACTERS_MAX:
        raise InvalidRequest(f"a mount's path has at most {PATH_CHARACTERS_MAX} characters")
    if any(segment.strip() in ("", ".", "..") or not segment.isprintable() for segment in table_path[:-1].split("/")):
        raise InvalidRequest(f'invalid mount path "{path}"')


def _is_reserved(path: str) -> bool:
    return path == AUTH_PREFIX or (not path.startswith(AUTH_PREFIX) and path.startswith(RESERVED_PREFIXES))


def normalize(path: str, *, is_auth: bool) -> str:
    """Return the full path of a mount as clients name it: "secret" → "secret/", and "approle" → "auth/approle/"."""
    path = path.strip("/")
    return (AUTH_PREFIX if is_auth else "") + (f"{path}/" if path else "")


def _name(path: str) -> str:
    """Return a mount's record name: flat, so that one get finds it and one listing lists all."""
    return quote(path, safe="")
