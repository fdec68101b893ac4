"""transit/keys and what belongs to them: create, read, list, rotate, configure, trim, export, back up, delete."""

import base64
import binascii
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from conclave.core.contract import Context, Engine, Response, operation
from conclave.core.durations import Seconds
from conclave.core.errors import InvalidRequest, NotFound
from conclave.core.listing import Page, list_page
from conclave.engines.transit import keyset, primitives
from conclave.engines.transit.keyset import Key
from conclave.engines.transit.primitives import KEY_TYPES, KeyType

AUTO_ROTATE_SECONDS_MIN: Final = 3600
HMAC_BYTES_MIN: Final = 32
HMAC_BYTES_MAX: Final = 512
BACKUP_VERSION: Final = 1


class CreateKey(Struct):
    """The key to make."""

    type: Annotated[str, Meta(description="Its type, such as aes256-gcm96, ed25519, ecdsa-p256, rsa-2048.")] = (
        "aes256-gcm96"
    )
    derived: Annotated[
        bool, Meta(description="Whether each use needs a context, from which its own key is derived.")
    ] = False
    convergent_encryption: Annotated[
        bool, Meta(description="Whether the same plaintext and context give the same ciphertext; needs `derived`.")
    ] = False
    exportable: Annotated[bool, Meta(description="Whether the key can be exported; cannot be taken back.")] = False
    allow_plaintext_backup: Annotated[bool, Meta(description="Whether it can be backed up; cannot be taken back.")] = (
        False
    )
    key_size: Annotated[int, Meta(description="Bytes of a key of type hmac: 32 to 512.")] = 0
    auto_rotate_period: Annotated[Seconds, Meta(description="After which it is rotated; 0 for never.")] = 0


class Config(Struct):
    """What to change; what is not given stays."""

    min_decryption_version: Annotated[int | None, Meta(description="The oldest version that still decrypts.")] = None
    min_encryption_version: Annotated[
        int | None, Meta(description="The oldest that still encrypts; 0: the latest.")
    ] = None
    deletion_allowed: Annotated[bool | None, Meta(description="Whether the key can be deleted.")] = None
    exportable: Annotated[bool | None, Meta(description="True makes it exportable, for good.")] = None
    allow_plaintext_backup: Annotated[bool | None, Meta(description="True allows backups, for good.")] = None
    auto_rotate_period: Annotated[Seconds | None, Meta(description="After which it is rotated; 0 for never.")] = None


class Trim(Struct):
    """Which versions to remove."""

    min_available_version: Annotated[int | None, Meta(description="The oldest version that stays.")] = None


class KeysConfig(Struct):
    """What holds for all keys of this mount."""

    disable_upsert: Annotated[bool | None, Meta(description="Whether encrypting makes no missing keys.")] = None


class Backup(Struct):
    """A backup to be restored."""

    backup: Annotated[str, Meta(description="What `backup` returned.")] = ""
    name: Annotated[str, Meta(description="Another name for the key.")] = ""
    force: Annotated[bool, Meta(description="Whether to replace a key of that name.")] = False


class MountConfig(Struct, array_like=True, frozen=True):
    """What is kept of a mount's configuration. New fields come last, with defaults."""

    disables_upsert: bool = False


def mount_config(ctx: Context) -> MountConfig:
    """Return what holds for all keys of this mount."""
    return ctx.storage.get("config", MountConfig) or MountConfig()


class KeyOperations(Engine):
    """The part of transit that manages keys."""

    type = "transit-keys"

    @operation("keys", list=Page)
    @operation("keys/", list=Page)
    def list_keys(self, ctx: Context, body: Page) -> Response:
        """List the names of all keys."""
        return list_page(ctx.storage, "key", body)

    @operation("keys/{name}", read=True)
    def read_key(self, ctx: Context, name: str) -> Response:
        """Show a key: its settings and versions, and the public halves."""
        key = keyset.find(ctx, name)
        if key is None:
            raise NotFound
        return Response(key.describe())

    @operation("keys/{name}", update=CreateKey)
    async def create_key(self, ctx: Context, name: str, body: CreateKey) -> Response:
        """Make a key; one that exists stays as it is."""
        kind = _checked(body)
        existing = keyset.find(ctx, name)
        if existing is not None:
            return Response(existing.describe())
        private = await ctx.in_thread(kind.generate) if kind.is_slow and kind.generate is not None else None

        def make(step: Context) -> Response:
            key = keyset.find(step, name)
            if key is None:
                version = (
                    keyset.version_of(step, private)
                    if private is not None
                    else keyset.new_version(step, kind, body.key_size)
                )
                key = Key(
                    name,
                    kind.name,
                    {1: version},
                    is_derived=body.derived,
                    is_convergent=body.convergent_encryption,
                    is_exportable=body.exportable,
                    allows_plaintext_backup=body.allow_plaintext_backup,
                    auto_rotate_period_seconds=body.auto_rotate_period,
                    key_size=body.key_size if kind.name == "hmac" else 0,
                )
                keyset.save(step, key)
            return Response(key.describe())

        return await ctx.atomically(make)

    @operation("keys/{name}", delete=True)
    def delete_key(self, ctx: Context, name: str) -> Response:
        """Delete a key for good; what it encrypted is lost."""
        key = keyset.find(ctx, name)
        if key is None:
            raise InvalidRequest(f"error deleting policy {name}: could not delete key; not found")
        if not key.allows_deletion:
            raise InvalidRequest(f"error deleting policy {name}: deletion is not allowed for this key")
        ctx.storage.delete(f"key/{name}")
        return Response()

    @operation("keys/{name}/config", update=Config)
    def configure(self, ctx: Context, name: str, body: Config) -> Response:
        """Change what holds for a key."""
        key = keyset.find(ctx, name)
        if key is None:
            raise InvalidRequest(f"no existing key named {name} could be found")
        key = _configured(key, body)
        keyset.save(ctx, key)
        return Response(key.describe())

    @operation("keys/{name}/rotate", update=True)
    async def rotate(self, ctx: Context, name: str) -> Response:
        """Add a version to a key, which is used from then on."""
        kind = _existing(ctx, name).kind
        private = await ctx.in_thread(kind.generate) if kind.is_slow and kind.generate is not None else None

        def add(step: Context) -> Response:
            key = _existing(step, name)
            version = (
                keyset.version_of(step, private)
                if private is not None
                else keyset.new_version(step, key.kind, key.key_size)
            )
            key = key.with_version(version)
            keyset.save(step, key)
            return Response(key.describe())

        return await ctx.atomically(add)

    @operation("keys/{name}/trim", update=Trim)
    def trim(self, ctx: Context, name: str, body: Trim) -> Response:
        """Remove old versions for good."""
        key = keyset.find(ctx, name)
        if key is None:
            raise InvalidRequest("invalid key name")
        if body.min_available_version is None:
            raise InvalidRequest("missing min_available_version")
        key = _trimmed(key, body.min_available_version)
        keyset.save(ctx, key)
        return Response(key.describe())

    @operation("keys/{name}/soft-delete", delete=True)
    def soft_delete(self, ctx: Context, name: str) -> Response:
        """Keep a key from being used until it is restored."""
        return _mark(ctx, name, is_soft_deleted=True)

    @operation("keys/{name}/soft-delete-restore", update=True)
    def restore_soft_deleted(self, ctx: Context, name: str) -> Response:
        """Let a key be used again."""
        return _mark(ctx, name, is_soft_deleted=False)

    @operation("export/{kind}/{name}", read=True)
    def export(self, ctx: Context, kind: str, name: str) -> Response:
        """Return all usable versions of an exportable key."""
        return _export(ctx, kind, name, "")

    @operation("export/{kind}/{name}/{version}", read=True)
    def export_version(self, ctx: Context, kind: str, name: str, version: str) -> Response:
        """Return one version of an exportable key, or the `latest`."""
        return _export(ctx, kind, name, version)

    @operation("backup/{name}", read=True)
    def backup(self, ctx: Context, name: str) -> Response:
        """Return a key with all its versions, in plain text."""
        key = keyset.find(ctx, name)
        if key is None:
            raise NotFound("1 error occurred:\n\t* key not found\n\n")
        if not key.is_exportable:
            raise InvalidRequest("1 error occurred:\n\t* exporting is disallowed on the policy\n\n")
        if not key.allows_plaintext_backup:
            raise InvalidRequest("1 error occurred:\n\t* plaintext backup is disallowed on the policy\n\n")
        packed = bytes([BACKUP_VERSION]) + msgspec.msgpack.encode(key)
        return Response({"backup": base64.b64encode(packed).decode()})

    @operation("restore", update=Backup)
    async def restore(self, ctx: Context, body: Backup) -> Response:
        """Bring a key back from a backup, under its own name or another."""
        return await _restore(ctx, body, body.name)

    @operation("restore/{name}", update=Backup)
    async def restore_as(self, ctx: Context, name: str, body: Backup) -> Response:
        """Bring a key back from a backup under this name."""
        return await _restore(ctx, body, name)

    @operation("config/keys", read=True)
    def read_config(self, ctx: Context) -> Response:
        """Show what holds for all keys of this mount."""
        return Response({"disable_upsert": mount_config(ctx).disables_upsert})

    @operation("config/keys", update=KeysConfig)
    def write_config(self, ctx: Context, body: KeysConfig) -> Response:
        """Set what holds for all keys of this mount."""
        if body.disable_upsert is not None:
            ctx.storage.put("config", MountConfig(body.disable_upsert))
        return self.read_config(ctx)


def _checked(body: CreateKey) -> KeyType:
    kind = KEY_TYPES.get(body.type)
    if kind is None:
        raise InvalidRequest(f"unknown key type {body.type}")
    if body.convergent_encryption and not body.derived:
        raise InvalidRequest("convergent encryption requires derivation to be enabled")
    if body.derived and not kind.derives:
        raise InvalidRequest(
            "1 error occurred:\n\t* key derivation and convergent encryption not supported for keys of type "
            f"{kind.name}\n\n"
        )
    if body.convergent_encryption and not kind.encrypts:
        raise InvalidRequest(f"convergent encryption not supported for keys of type {kind.name}")
    if kind.name == "hmac" and not HMAC_BYTES_MIN <= body.key_size <= HMAC_BYTES_MAX:
        raise InvalidRequest(
            f"1 error occurred:\n\t* invalid key size {body.key_size} for HMAC key, must be between {HMAC_BYTES_MIN} and "
            f"{HMAC_BYTES_MAX} bytes\n\n"
        )
    if kind.name != "hmac" and body.key_size:
        raise InvalidRequest(f"key_size is not valid for algorithm {kind.name}")
    _check_period(body.auto_rotate_period)
    return kind


def _check_period(seconds: int) -> None:
    if seconds != 0 and seconds < AUTO_ROTATE_SECONDS_MIN:
        raise InvalidRequest("auto rotate period must be 0 to disable or at least an hour")


def _existing(ctx: Context, name: str) -> Key:
    return keyset.usable(ctx, name, missing="key not found")


def _configured(key: Key, body: Config) -> Key:
    lowest = key.min_decryption_version if body.min_decryption_version is None else max(1, body.min_decryption_version)
    floor = key.min_encryption_version if body.min_encryption_version is None else body.min_encryption_version
    if (body.min_decryption_version or 0) < 0:
        raise InvalidRequest("min decryption version cannot be negative")
    if floor < 0:
        raise InvalidRequest("min encryption version cannot be negative")
    if lowest > key.latest_version:
        raise InvalidRequest(
            f"cannot set min decryption version of {lowest}, latest key version is {key.latest_version}"
        )
    if floor > key.latest_version:
        raise InvalidRequest(
            f"cannot set min encryption version of {floor}, latest key version is {key.latest_version}"
        )
    if 0 < floor < lowest:
        raise InvalidRequest(
            f"cannot set min encryption/decryption values; min encryption version of {floor} must be greater than or "
            f"equal to min decryption version of {lowest}"
        )
    if lowest < key.min_available_version:
        raise InvalidRequest("min decryption version should not be less then min available version")
    if body.auto_rotate_period is not None:
        _check_period(body.auto_rotate_period)
    for name, before, wanted in (
        ("exportable", key.is_exportable, body.exportable),
        ("allow_plaintext_backup", key.allows_plaintext_backup, body.allow_plaintext_backup),
    ):
        if before and wanted is False:
            raise InvalidRequest(f"{name} cannot be disabled once it is enabled")
    return msgspec.structs.replace(
        key,
        min_decryption_version=lowest,
        min_encryption_version=floor,
        allows_deletion=key.allows_deletion if body.deletion_allowed is None else body.deletion_allowed,
        is_exportable=key.is_exportable or bool(body.exportable),
        allows_plaintext_backup=key.allows_plaintext_backup or bool(body.allow_plaintext_backup),
        auto_rotate_period_seconds=key.auto_rotate_period_seconds
        if body.auto_rotate_period is None
        else body.auto_rotate_period,
    )


def _trimmed(key: Key, lowest: int) -> Key:
    if lowest < key.min_available_version:
        raise InvalidRequest("minimum available version cannot be decremented")
    if key.min_encryption_version == 0:
        raise InvalidRequest("minimum available version cannot be set when minimum encryption version is not set")
    if lowest > key.latest_version:
        raise InvalidRequest("minimum available version cannot be higher than the latest version")
    if lowest > key.min_encryption_version:
        raise InvalidRequest("minimum available version cannot be higher than minimum encryption version")
    if lowest > key.min_decryption_version:
        raise InvalidRequest("minimum available version cannot be higher than minimum decryption version")
    kept = {number: version for number, version in key.versions.items() if number >= lowest}
    return msgspec.structs.replace(key, versions=kept, min_available_version=lowest)


def _mark(ctx: Context, name: str, *, is_soft_deleted: bool) -> Response:
    key = keyset.find(ctx, name)
    if key is None:
        raise InvalidRequest("key not found")
    key = msgspec.structs.replace(key, is_soft_deleted=is_soft_deleted)
    keyset.save(ctx, key)
    return Response(key.describe())


def _export(ctx: Context, kind: str, name: str, wanted: str) -> Response:
    if kind not in ("encryption-key", "signing-key", "hmac-key", "public-key"):
        raise InvalidRequest(f"invalid export type: {kind}")
    key = keyset.find(ctx, name)
    if key is None:
        raise NotFound
    if not key.is_exportable and kind != "public-key":
        raise InvalidRequest("private key material is not exportable")
    if kind == "encryption-key" and not key.kind.encrypts:
        raise InvalidRequest("encryption not supported for the key")
    if kind == "signing-key" and not key.kind.signs:
        raise InvalidRequest("signing not supported for the key")
    if kind == "public-key" and key.kind.is_symmetric:
        raise InvalidRequest(f"unknown key type {key.type} for export type public-key")
    numbers = [number for number in sorted(key.versions) if number >= key.min_decryption_version]
    if wanted:
        numbers = [_wanted_version(key, wanted)]
    data: dict[str, Any] = {
        "keys": {str(number): _exported(key, number, kind) for number in numbers},
        "name": name,
        "type": key.type,
    }
    return Response(data)


def _wanted_version(key: Key, wanted: str) -> int:
    if wanted == "latest":
        return key.latest_version
    if not (wanted.isascii() and wanted.isdecimal()) or len(wanted) > 9:
        raise InvalidRequest("invalid key version")
    number = int(wanted)
    if number < key.min_decryption_version:
        raise InvalidRequest("version for export is below minimum decryption version")
    if number not in key.versions:
        raise InvalidRequest("version does not exist or cannot be found")
    return number


def _exported(key: Key, number: int, kind: str) -> str:
    version = key.versions[number]
    if kind == "hmac-key":
        return base64.b64encode(version.hmac_key).decode()
    if kind == "public-key":
        return version.public_text
    if key.kind.is_symmetric:
        return base64.b64encode(version.key).decode()
    return primitives.private_text(primitives.load_private(version.key))


async def _restore(ctx: Context, body: Backup, name: str) -> Response:
    key = _unpacked(body)
    name = name or key.name
    if "/" in name or key.type not in KEY_TYPES or key.latest_version not in key.versions:
        raise InvalidRequest("the backup is damaged, or the name is not to be had")
    if len(key.versions) > keyset.VERSIONS_MAX:
        raise InvalidRequest(f"a key has at most {keyset.VERSIONS_MAX} versions")
    await ctx.in_thread(lambda: _check_versions(key))

    def put(step: Context) -> Response:
        if keyset.find(step, name) is not None and not body.force:
            raise InvalidRequest(f"1 error occurred:\n\t* key {name!r} already exists\n\n")
        keyset.save(step, msgspec.structs.replace(key, name=name))
        return Response()

    return await ctx.atomically(put)


def _check_versions(key: Key) -> None:
    """Check what is restored: whoever made the backup may have changed it, and a later use takes it for sound."""
    try:
        for version in key.versions.values():
            primitives.check_kept(key.kind, version.key)
    except ValueError:
        raise InvalidRequest("the backup holds a key that is not sound") from None


def _unpacked(body: Backup) -> Key:
    if not body.backup:
        raise InvalidRequest("'backup' must be supplied")
    try:
        packed = primitives.decode_base64(body.backup)
    except ValueError as error:
        raise InvalidRequest(f"1 error occurred:\n\t* {error}\n\n") from None
    try:
        if packed[:1] != bytes([BACKUP_VERSION]):
            raise InvalidRequest("the backup is of a version that this server does not know")
        return msgspec.msgpack.decode(packed[1:], type=Key)
    except (msgspec.MsgspecError, binascii.Error):
        raise InvalidRequest("the backup is damaged") from None
