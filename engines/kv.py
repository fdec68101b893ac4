"""Secrets by path, version 2 of the key/value engine: every write is a version that can be read, deleted and destroyed.

* `meta/<path>` is one record with all that is known of a secret's versions, and with as much of their data as is small, the
  newest before all others: what is read most is one record, put together without decoding the data, and most writes write
  one. Any other version's data is a record of its own, `version/<hash of the path>.<number>`, into which the oldest move when
  there is no room for them any more. Data is kept as the JSON text that was sent (canonical, number literals untouched).
* A version is deleted (its data is kept and can come back) or destroyed (its data is gone). More than `max_versions` push
  out the oldest.
* A write may name the version that it replaces (`options.cas`); 0 says that there must be none.

Version 1 is `engines/kv1.py`. Source: Vault's API page "KV secrets engine, version 2"; texts and shapes recorded from a
real server.
"""

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw, Struct

from conclave.core.bodies import bounded, canonical_json, merge_patch
from conclave.core.contract import Context, Engine, Response, operation
from conclave.core.crypto import hash_text
from conclave.core.durations import NANOSECONDS, Seconds, SignedSeconds, format_duration
from conclave.core.errors import InvalidRequest, NotFound, unsupported_operation
from conclave.core.listing import Page, list_page
from conclave.core.timestamps import rfc3339

VERSIONS_DEFAULT: Final = 10
"""How many versions are kept of a secret that says nothing else."""
BESIDE_BYTES_MAX: Final = 1536
"""How much data of versions lies beside what is known of them. With ten versions, and 200 bytes of name and custom metadata,
that is a record of which LMDB lays two in a page and does not give it pages of its own. More would cost whoever writes: data
beside is written again with each version."""
DETAILED_MAX: Final = 256
"""How many secrets one listing describes in detail; each is a record to be opened."""
SEGMENT_BYTES_MAX: Final = 2048
"""The longest part of a path between slashes."""
CUSTOM_KEYS_MAX: Final = 64
CUSTOM_KEY_CHARACTERS_MAX: Final = 128
CUSTOM_VALUE_CHARACTERS_MAX: Final = 512
"""Vault's bounds of custom metadata."""

_WRONG_PATH: Final = (
    "Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints to use. "
    "If using the Vault CLI, use 'vault kv {}' for this operation."
)
_ROOT_PATH: Final = "Non-listing operations on the root of a K/V v2 mount are not supported."
_AREAS: Final = frozenset({"data", "metadata", "delete", "undelete", "destroy", "subkeys", "detailed-metadata"})
_STORED_NAMES: Final = {
    "max_versions": "max_versions",
    "cas_required": "cas_required",
    "delete_version_after": "delete_version_after_seconds",
    "metadata_cas_required": "metadata_cas_required",
}
_encode_sorted = msgspec.json.Encoder(order="sorted").encode


# -- what is kept --


class Version(Struct, array_like=True, frozen=True, gc=False):
    """What is known of one version. New fields come last, with defaults."""

    created_ns: int
    deletion_ns: int = 0  # 0: never; may lie ahead (delete_version_after)
    is_destroyed: bool = False

    def is_readable(self, now_ns: int) -> bool:
        """Whether its data can be read."""
        return not self.is_destroyed and not 0 < self.deletion_ns <= now_ns


class Secret(Struct, array_like=True, frozen=True):
    """What is known of a secret. New fields come last, with defaults."""

    created_ns: int
    updated_ns: int
    current_version: int = 0
    oldest_version: int = 0
    versions: dict[int, Version] = {}
    max_versions: int = 0  # 0: as the mount says
    cas_required: bool = False
    delete_version_after_seconds: int = 0
    custom_metadata: dict[str, str] | None = None
    metadata_version: int = 0
    metadata_cas_required: bool = False
    newest_data: bytes = b""  # JSON text, never empty; b"": in a record of its own, or destroyed, or never written
    older_data: dict[int, bytes] = {}  # likewise of others, by number, oldest first; the rest: as above


_UNSET: Final = Secret(0, 0)


class Config(Struct, array_like=True, frozen=True):
    """What a mount says of all its secrets. New fields come last, with defaults."""

    max_versions: int = 0
    cas_required: bool = False
    delete_version_after_seconds: int = 0
    metadata_cas_required: bool = False


# -- fields --


class Write(Struct):
    """A new version."""

    data: Annotated[Raw, Meta(description="The secret: a JSON object.")] = Raw(b"")
    options: Annotated[dict[str, Any], Meta(description="`cas`: the version that this one replaces, 0 for none.")] = {}
    version: Annotated[int, Meta(description="Not used by writes.")] = 0


class Which(Struct):
    """Which version to read."""

    version: Annotated[int, Meta(description="Its number; the newest by default.")] = 0


class Subkeys(Struct):
    """What to show of a secret's structure."""

    version: Annotated[int, Meta(description="Its number; the newest by default.")] = 0
    depth: Annotated[int, Meta(description="How deep to go; 0 for all the way.")] = 0


class Numbers(Struct):
    """Several versions."""

    versions: Annotated[list[int], Meta(description="Their numbers.")] = []


class Settings(Struct):
    """What holds for a mount."""

    max_versions: Annotated[int | None, Meta(description="How many versions are kept; 0 for 10.")] = None
    cas_required: Annotated[bool | None, Meta(description="Whether each write must name the version it replaces.")] = (
        None
    )
    delete_version_after: Annotated[
        SignedSeconds | None, Meta(description="After which a version is deleted; 0: as the mount says, below: never.")
    ] = None
    metadata_cas_required: Annotated[bool | None, Meta(description="The same for writes of metadata.")] = None


class MetadataWrite(Settings):
    """What holds for one secret."""

    delete_version_after: Annotated[
        Seconds | None, Meta(description="After which a version is deleted; 0: as the mount says.")
    ] = None
    custom_metadata: Annotated[
        dict[str, str] | None, Meta(description="Free text by name; replaces what was there.")
    ] = None
    metadata_cas: Annotated[int | None, Meta(description="The metadata's version that this write replaces.")] = None


class MetadataPatch(Settings):
    """What to change for one secret; null sets a field back."""

    delete_version_after: Annotated[
        Seconds | None, Meta(description="After which a version is deleted; 0: as the mount says.")
    ] = None
    custom_metadata: Annotated[dict[str, Any] | None, Meta(description="Texts to set, or null to remove one.")] = None
    metadata_cas: Annotated[int | None, Meta(description="The metadata's version that this write replaces.")] = None


# -- the engine --


class Kv(Engine):
    """Versioned secrets by path."""

    type = "kv"

    def exists(self, ctx: Context, path: str) -> bool | None:
        """Tell create from update for secrets and their metadata."""
        area, _, name = path.partition("/")
        if area not in ("data", "metadata") or not name or name.endswith("/"):
            return None
        return ctx.storage.exists("meta/" + name)

    # data

    @operation("data/{path...}", read=Which)
    def read(self, ctx: Context, path: str, body: Which) -> Response:
        """Read a version of a secret, the newest by default."""
        secret = _load(ctx, path)
        if secret is None:
            raise NotFound
        number = body.version if body.version > 0 else secret.current_version
        version = secret.versions.get(number)
        if version is None:
            raise NotFound
        about = _encode_sorted(_describe_version(secret, number))
        if not version.is_readable(ctx.now_ns):
            return Response(Raw(b'{"data":null,"metadata":' + about + b"}"), is_absent=True)
        data = _data(ctx, path, secret, number)
        return Response(Raw(b'{"data":' + data + b',"metadata":' + about + b"}"))

    @operation("data/{path...}", update=Write)
    def write(self, ctx: Context, path: str, body: Write) -> Response:
        """Write a new version of a secret."""
        _check_path(path)
        data = _checked_data(bytes(body.data))
        config = _config(ctx)
        secret = _load(ctx, path) or Secret(ctx.now_ns, ctx.now_ns)
        _check_and_set(secret, config, body.options)
        return self._add_version(ctx, path, secret, config, data)

    @operation("data/{path...}", patch=Write)
    def patch(self, ctx: Context, path: str, body: Write) -> Response:
        """Write a new version that differs from the newest as a merge patch (RFC 7396) says."""
        _check_path(path)
        change = _checked_data(bytes(body.data))
        config = _config(ctx)
        secret = _load(ctx, path)
        if secret is not None:
            _check_and_set(secret, config, body.options)
        newest = secret.versions.get(secret.current_version) if secret is not None else None
        if secret is None or newest is None:
            return Response(is_absent=True, raw=b"", content_type="application/json")  # no body at all, as measured
        if not newest.is_readable(ctx.now_ns):
            return Response(_describe_version(secret, secret.current_version), is_absent=True)
        before = _data(ctx, path, secret, secret.current_version)
        return self._add_version(ctx, path, secret, config, bounded(merge_patch(before, change)))

    @staticmethod
    def _add_version(ctx: Context, path: str, secret: Secret, config: Config, data: bytes) -> Response:
        number = secret.current_version + 1
        version = Version(ctx.now_ns, _deletion_ns(secret, config, ctx.now_ns))
        kept = max(secret.max_versions, config.max_versions) or VERSIONS_DEFAULT  # the larger, as measured
        versions = secret.versions | {number: version}
        oldest = max(secret.oldest_version, number - kept + 1)
        pushed_out = [each for each in versions if each < oldest]
        for each in pushed_out:
            del versions[each]
        beside = secret.older_data | ({secret.current_version: secret.newest_data} if secret.newest_data else {})
        own = [each for each in pushed_out if beside.pop(each, None) is None]
        is_beside = len(data) <= BESIDE_BYTES_MAX
        # Before the removals: after a put, none of them has to look whether it leaves an empty directory.
        if not is_beside:
            ctx.storage.put(_version_name(path, number), data)
        _make_room(ctx, path, beside, len(data) if is_beside else 0)
        for each in own:
            ctx.storage.delete(_version_name(path, each))
        secret = msgspec.structs.replace(
            secret,
            updated_ns=ctx.now_ns,
            current_version=number,
            oldest_version=oldest,
            versions=versions,
            newest_data=data if is_beside else b"",
            older_data=beside,
        )
        ctx.storage.put("meta/" + path, secret)
        return Response(_describe_version(secret, number))

    @operation("data/{path...}", delete=True)
    def delete_newest(self, ctx: Context, path: str) -> Response:
        """Delete the newest version; it can be undeleted."""
        secret = _load(ctx, path)
        if secret is not None:
            _change_versions(ctx, path, [secret.current_version], _deleted(ctx.now_ns))
        return Response()

    @operation("delete/{path...}", update=Numbers)
    def delete_versions(self, ctx: Context, path: str, body: Numbers) -> Response:
        """Delete versions; they can be undeleted."""
        _change_versions(ctx, path, _wanted(body), _deleted(ctx.now_ns))
        return Response()

    @operation("undelete/{path...}", update=Numbers)
    def undelete(self, ctx: Context, path: str, body: Numbers) -> Response:
        """Bring deleted versions back; where versions are deleted after some time, that time begins anew."""
        wanted, secret = _wanted(body), _load(ctx, path)
        if secret is not None:
            _change_versions(ctx, path, wanted, _undeleted(_deletion_ns(secret, _config(ctx), ctx.now_ns)))
        return Response()

    @operation("destroy/{path...}", update=Numbers)
    def destroy(self, ctx: Context, path: str, body: Numbers) -> Response:
        """Remove the data of versions for good."""
        for number in _change_versions(ctx, path, _wanted(body, "no version number provided"), _destroyed):
            ctx.storage.delete(_version_name(path, number))
        return Response()

    @operation("subkeys/{path...}", read=Subkeys)
    def subkeys(self, ctx: Context, path: str, body: Subkeys) -> Response:
        """Show the keys of a version without their values."""
        secret = _load(ctx, path)
        number = 0 if secret is None else body.version if body.version > 0 else secret.current_version
        if secret is None or number not in secret.versions:
            raise NotFound
        about = _describe_version(secret, number)
        if not secret.versions[number].is_readable(ctx.now_ns):
            return Response({"metadata": about, "subkeys": None}, is_absent=True)
        keys = msgspec.json.decode(_data(ctx, path, secret, number))
        # An empty secret has no keys; an empty object within one is shown as null.
        return Response({"metadata": about, "subkeys": {} if keys == {} else _without_values(keys, body.depth)})

    # metadata

    @operation("metadata", list=Page)
    @operation("metadata/{path...}", list=Page)
    def list_names(self, ctx: Context, body: Page, path: str = "") -> Response:
        """List the names of secrets and directories."""
        return list_page(ctx.storage, "meta/" + path, body)

    @operation("detailed-metadata", list=Page)
    @operation("detailed-metadata/{path...}", list=Page)
    def list_in_detail(self, ctx: Context, body: Page, path: str = "") -> Response:
        """List the names of secrets and directories, with what is known of each secret."""
        page = Page(body.after, min(body.limit, DETAILED_MAX) if body.limit > 0 else DETAILED_MAX)
        names: list[str] = list_page(ctx.storage, "meta/" + path, page).data["keys"]
        if len(names) == DETAILED_MAX:
            ctx.warn(f"At most {DETAILED_MAX} entries are listed in detail at once; go on with `after`.")
        directory = f"{path.rstrip('/')}/" if path.strip("/") else ""
        secrets = {name: _load(ctx, directory + name) for name in names}
        details = {name: {} if secret is None else _describe_secret(secret) for name, secret in secrets.items()}
        return Response({"key_info": details, "keys": names})

    @operation("metadata/{path...}", read=True)
    def read_metadata(self, ctx: Context, path: str) -> Response:
        """Show what is known of a secret and its versions."""
        secret = _load(ctx, path)
        if secret is None:
            raise NotFound
        return Response(_describe_secret(secret))

    @operation("metadata/{path...}", update=MetadataWrite)
    def write_metadata(self, ctx: Context, path: str, body: MetadataWrite) -> Response:
        """Set what holds for a secret, which need not exist yet."""
        _check_path(path)
        sent = ctx.request.parameters()
        if not sent:
            return Response()  # nothing is said, so nothing changes, the metadata's version neither
        secret = _load(ctx, path) or Secret(ctx.now_ns, ctx.now_ns)
        custom = body.custom_metadata if "custom_metadata" in sent else secret.custom_metadata  # a null removes it
        _save_metadata(ctx, path, secret, body, custom)
        return Response()

    @operation("metadata/{path...}", patch=MetadataPatch)
    def patch_metadata(self, ctx: Context, path: str, body: MetadataPatch) -> Response:
        """Change what holds for a secret."""
        secret = _load(ctx, path)
        if secret is None:
            return Response(is_absent=True, raw=b"", content_type="application/json")  # no body at all, as measured
        unset = [name for name, value in ctx.request.parameters().items() if value is None]
        custom = {} if "custom_metadata" in unset else dict(secret.custom_metadata or {})
        for name, value in (body.custom_metadata or {}).items():
            if value is None:
                custom.pop(name, None)
            elif isinstance(value, str):
                custom[name] = value
            else:
                raise InvalidRequest(f'custom_metadata validation failed: the value of "{name}" is no string')
        defaults = {stored: getattr(_UNSET, stored) for name, stored in _STORED_NAMES.items() if name in unset}
        _save_metadata(ctx, path, msgspec.structs.replace(secret, **defaults), body, custom)
        return Response()

    @operation("metadata/{path...}", delete=True)
    def delete_metadata(self, ctx: Context, path: str) -> Response:
        """Remove a secret with all its versions."""
        secret = _load(ctx, path)
        if secret is not None:
            for number in secret.versions:
                ctx.storage.delete(_version_name(path, number))
            ctx.storage.delete("meta/" + path)
        return Response()

    # the mount

    @operation("config", read=True)
    def read_config(self, ctx: Context) -> Response:
        """Show what holds for all secrets of this mount."""
        config = _config(ctx)
        return Response(
            {
                "cas_required": config.cas_required,
                "delete_version_after": format_duration(config.delete_version_after_seconds),
                "max_versions": config.max_versions,
                "metadata_cas_required": config.metadata_cas_required,
            }
        )

    @operation("config", update=Settings)
    def write_config(self, ctx: Context, body: Settings) -> Response:
        """Set what holds for all secrets of this mount."""
        given = _given(body)
        if "delete_version_after_seconds" in given:
            given["delete_version_after_seconds"] = max(-1, given["delete_version_after_seconds"])
        ctx.storage.put("config", msgspec.structs.replace(_config(ctx), **given))
        return Response()

    @operation("{path...}", read=True)
    def wrong_read(self, ctx: Context, path: str) -> Response:
        """Say that this is no path of a versioned mount."""
        return _wrong_path(ctx, path, "get")

    @operation("{path...}", update=True, writes=False)
    def wrong_write(self, ctx: Context, path: str) -> Response:
        """Say that this is no path of a versioned mount."""
        return _wrong_path(ctx, path, "put")

    @operation("{path...}", list=True)
    def wrong_list(self, ctx: Context, path: str) -> Response:
        """Say that this is no path of a versioned mount."""
        return _wrong_path(ctx, path, "list")

    @operation("{path...}", delete=True, writes=False)
    def wrong_delete(self, ctx: Context, path: str) -> Response:
        """Say that this is no path of a versioned mount."""
        return _wrong_path(ctx, path, "delete")


def _wrong_path(ctx: Context, path: str, command: str) -> Response:
    """Answer a path that no pattern takes; below an area of this engine it is the operation that is wrong."""
    del ctx
    area, _, name = path.partition("/")
    if path == "config" and command == "delete":
        raise unsupported_operation()
    if area in _AREAS and (name or command == "list"):
        raise unsupported_operation()
    warning = _ROOT_PATH if area in _AREAS and area != "subkeys" else _WRONG_PATH.format(command)
    return Response(is_absent=True, warnings=[warning])


# -- records --


def _load(ctx: Context, path: str) -> Secret | None:
    if not path or path.endswith("/"):
        return None
    return ctx.storage.get("meta/" + path, Secret)


def _data(ctx: Context, path: str, secret: Secret, number: int) -> bytes:
    """Return the data of a version that can be read, as JSON text."""
    beside = secret.newest_data if number == secret.current_version else secret.older_data.get(number)
    if beside:
        return beside
    data = ctx.storage.get(_version_name(path, number))
    assert data is not None, "a readable version has its data"
    return data


def _make_room(ctx: Context, path: str, beside: dict[int, bytes], new_bytes: int) -> None:
    """Move the oldest data from beside into records of its own, as far as the rest and so much new data need the room."""
    excess = sum(map(len, beside.values())) + new_bytes - BESIDE_BYTES_MAX
    while excess > 0:
        number = next(iter(beside))
        excess -= len(beside[number])
        ctx.storage.put(_version_name(path, number), beside.pop(number))


def _config(ctx: Context) -> Config:
    return ctx.storage.recall("config", Config) or Config()


def _version_name(path: str, number: int) -> str:
    return f"version/{hash_text(path, 'conclave-kv')[:32]}.{number}"


def _check_path(path: str) -> None:
    if not path:
        raise NotFound
    if path.endswith("/"):
        raise InvalidRequest("cannot write to a path ending in '/'")
    # A character has four bytes at most, so nearly no path has to be taken apart.
    if len(path) * 4 > SEGMENT_BYTES_MAX and any(len(part.encode()) > SEGMENT_BYTES_MAX for part in path.split("/")):
        raise InvalidRequest(f"a part of a secret's path has at most {SEGMENT_BYTES_MAX} bytes")


def _checked_data(sent: bytes) -> bytes:
    """Return the data of a write as it is kept."""
    if not sent:
        raise InvalidRequest("no data provided")
    data = canonical_json(sent)
    if not data.startswith(b"{") and data != b"null":
        kind = {"[": "[]interface {}", '"': "string", "t": "bool", "f": "bool"}.get(chr(data[0]), "json.Number")
        raise InvalidRequest(
            f"error converting input for field \"data\": '' expected type 'map[string]interface {{}}', "
            f"got unconvertible type '{kind}'"
        )
    return bounded(data)


def _check_and_set(secret: Secret, config: Config, options: dict[str, Any]) -> None:
    if "cas" in options:
        given = options["cas"] or 0
        try:
            expected = None if isinstance(given, float) else int(given)
        except (TypeError, ValueError):
            expected = None
        if expected is None:
            raise InvalidRequest("error parsing check-and-set parameter")
        if expected != secret.current_version:
            raise InvalidRequest("check-and-set parameter did not match the current version")
    elif secret.cas_required or config.cas_required:
        raise InvalidRequest("check-and-set parameter required for this call")


def _delete_after_seconds(secret: Secret, config: Config) -> int:
    """Return after how long a new version is deleted: the shorter of mount's and secret's; below 0 switches it off."""
    mine, mounts = secret.delete_version_after_seconds, config.delete_version_after_seconds
    if mine < 0 or (mine == 0 and mounts < 0):
        return 0
    return min(mine, mounts) if mine > 0 and mounts > 0 else max(mine, mounts)


def _deletion_ns(secret: Secret, config: Config, now_ns: int) -> int:
    """Return when a version is deleted by itself that is written or brought back now; 0: it is not."""
    after_seconds = _delete_after_seconds(secret, config)
    return now_ns + after_seconds * NANOSECONDS if after_seconds else 0


# -- versions --


def _wanted(body: Numbers, problem: str = "No version number provided") -> list[int]:
    if not body.versions:
        raise InvalidRequest(problem)
    return body.versions


def _change_versions(
    ctx: Context, path: str, numbers: Iterable[int], change: Callable[[Version], Version]
) -> list[int]:
    """Change what is known of versions, and return the numbers of those that there are."""
    secret = _load(ctx, path)
    found = [number for number in numbers if secret is not None and number in secret.versions]
    if secret is not None and found:
        versions = secret.versions | {number: change(secret.versions[number]) for number in found}
        newest = b"" if versions[secret.current_version].is_destroyed else secret.newest_data
        older = {number: data for number, data in secret.older_data.items() if not versions[number].is_destroyed}
        changed = msgspec.structs.replace(secret, versions=versions, newest_data=newest, older_data=older)
        ctx.storage.put("meta/" + path, changed)
    return found


def _deleted(now_ns: int) -> Callable[[Version], Version]:
    return lambda version: (
        msgspec.structs.replace(version, deletion_ns=now_ns) if version.is_readable(now_ns) else version
    )


def _undeleted(deletion_ns: int) -> Callable[[Version], Version]:
    return lambda version: version if version.is_destroyed else Version(version.created_ns, deletion_ns)


def _destroyed(version: Version) -> Version:
    return msgspec.structs.replace(version, is_destroyed=True)


# -- settings --


def _given(body: Settings) -> dict[str, Any]:
    """Return the settings that were sent, by the names of the stored fields."""
    given = {stored: getattr(body, name) for name, stored in _STORED_NAMES.items()}
    if body.max_versions is not None and body.max_versions < 0:
        raise InvalidRequest("max_versions must not be negative")
    return {name: value for name, value in given.items() if value is not None}


def _save_metadata(
    ctx: Context, path: str, secret: Secret, body: MetadataWrite | MetadataPatch, custom: dict[str, str] | None
) -> None:
    config = _config(ctx)
    if body.cas_required is False and config.cas_required:
        ctx.warn('"cas_required" set to false, but is mandated by backend config. This value will be ignored.')
    if body.metadata_cas is not None and body.metadata_cas != secret.metadata_version:
        raise InvalidRequest("metadata check-and-set parameter does not match the current version")
    if body.metadata_cas is None and (secret.metadata_cas_required or config.metadata_cas_required):
        raise InvalidRequest("metadata check-and-set parameter required for this call")
    _check_custom_metadata(custom or {})
    changed = msgspec.structs.replace(
        secret,
        updated_ns=ctx.now_ns,
        custom_metadata=custom or None,
        metadata_version=secret.metadata_version + 1,
        **_given(body),
    )
    ctx.storage.put("meta/" + path, changed)


def _check_custom_metadata(custom: dict[str, str]) -> None:
    if len(custom) > CUSTOM_KEYS_MAX:
        raise _no_metadata(f"payload must contain at most {CUSTOM_KEYS_MAX} keys, provided {len(custom)}")
    for key, value in custom.items():
        if not 0 < len(key) <= CUSTOM_KEY_CHARACTERS_MAX:
            bounds = f"0 < len(key) <= {CUSTOM_KEY_CHARACTERS_MAX}"
            raise _no_metadata(f'length of key "{key}" is {len(key)} but must be {bounds}')
        if not 0 < len(value) <= CUSTOM_VALUE_CHARACTERS_MAX:
            bounds = f"0 < len(value) <= {CUSTOM_VALUE_CHARACTERS_MAX}"
            raise _no_metadata(f'length of value for key "{key}" is {len(value)} but must be {bounds}')
        if not key.isprintable():
            raise _no_metadata(f"key {key!r} contains unprintable characters")
        if not value.isprintable():
            raise _no_metadata(f'value for key "{key}" contains unprintable characters')


def _no_metadata(problem: str) -> InvalidRequest:
    return InvalidRequest(f"1 error occurred:\n\t* custom_metadata validation failed: {problem}\n\n")


# -- what is shown --


def _describe_version(secret: Secret, number: int) -> dict[str, Any]:
    return {
        "created_time": rfc3339(secret.versions[number].created_ns),
        "custom_metadata": secret.custom_metadata,
        "deletion_time": _deletion_time(secret.versions[number]),
        "destroyed": secret.versions[number].is_destroyed,
        "version": number,
    }


def _deletion_time(version: Version) -> str:
    return rfc3339(version.deletion_ns) if version.deletion_ns else ""


def _describe_secret(secret: Secret) -> dict[str, Any]:
    return {
        "cas_required": secret.cas_required,
        "created_time": rfc3339(secret.created_ns),
        "current_metadata_version": secret.metadata_version,
        "current_version": secret.current_version,
        "custom_metadata": secret.custom_metadata,
        "delete_version_after": format_duration(secret.delete_version_after_seconds),
        "max_versions": secret.max_versions,
        "metadata_cas_required": secret.metadata_cas_required,
        "oldest_version": secret.oldest_version,
        "updated_time": rfc3339(secret.updated_ns),
        "versions": {
            str(number): {
                "created_time": rfc3339(version.created_ns),
                "deletion_time": _deletion_time(version),
                "destroyed": version.is_destroyed,
            }
            for number, version in secret.versions.items()
        },
    }


def _without_values(data: Any, depth: int) -> Any:
    """Return nested objects with every value replaced by null; `depth` levels, or all for 0."""
    if not isinstance(data, dict) or not data:
        return None
    return {key: None if depth == 1 else _without_values(value, max(0, depth - 1)) for key, value in data.items()}
