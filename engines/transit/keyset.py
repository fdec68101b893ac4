"""Keys of transit as they are kept: versions, what each may still do, and how a version makes and opens things.

A key is one record, `key/<name>`. Rotation adds a version; `min_decryption_version` and `min_encryption_version` say which
versions still work, `min_available_version` which are still there at all. Private halves never leave but by `export`.
"""

import base64
from functools import cached_property
from typing import Any, Final

import msgspec
from msgspec import Struct

from conclave.core.contract import Context
from conclave.core.durations import NANOSECONDS
from conclave.core.errors import InvalidRequest
from conclave.core.timestamps import rfc3339
from conclave.engines.transit import primitives
from conclave.engines.transit.primitives import KEY_TYPES, Cipher, KeyType, PrivateKey

HMAC_KEY_BYTES: Final = 32
PREFIX: Final = "vault:v"
CIPHERS_KEPT_MAX: Final = 2
"""For how many versions of a key its cipher is kept ready: the one that encrypts, and the one before."""
VERSIONS_MAX: Final = 4096
"""How many versions one key may have: all of them are in one record."""

NOT_FOUND: Final = "encryption key not found"
_NO_CONTEXT: Final = (
    "missing 'context' for key derivation; the key was created using a derived key, which means additional, per-request "
    "information must be included in order to perform operations with the key"
)


class KeyVersion(Struct, array_like=True, frozen=True, dict=True):
    """One version of a key. New fields come last, with defaults."""

    created_ns: int
    key: bytes  # symmetric: its bytes; else the private key, PKCS #8
    hmac_key: bytes
    public_text: str = ""

    @cached_property
    def private(self) -> PrivateKey:
        """The private key, of a version that is not symmetric: reading it takes as long as signing with it."""
        return primitives.load_private(self.key)


class Key(Struct, array_like=True, frozen=True, dict=True):
    """A key with all its versions. New fields come last, with defaults."""

    name: str
    type: str
    versions: dict[int, KeyVersion]
    latest_version: int = 1
    min_decryption_version: int = 1
    min_encryption_version: int = 0
    min_available_version: int = 0
    is_derived: bool = False
    is_convergent: bool = False
    is_exportable: bool = False
    allows_plaintext_backup: bool = False
    allows_deletion: bool = False
    is_soft_deleted: bool = False
    auto_rotate_period_seconds: int = 0
    key_size: int = 0

    @property
    def kind(self) -> KeyType:
        """What its type can do."""
        return KEY_TYPES[self.type]

    def describe(self) -> dict[str, Any]:
        """Return it as the API shows it."""
        kind = self.kind
        described: dict[str, Any] = {
            "allow_plaintext_backup": self.allows_plaintext_backup,
            "auto_rotate_period": self.auto_rotate_period_seconds,
            "deletion_allowed": self.allows_deletion,
            "derived": self.is_derived,
            "exportable": self.is_exportable,
            "imported_key": False,
            "latest_version": self.latest_version,
            "min_available_version": self.min_available_version,
            "min_decryption_version": self.min_decryption_version,
            "min_encryption_version": self.min_encryption_version,
            "name": self.name,
            "soft_deleted": self.is_soft_deleted,
            "supports_decryption": kind.encrypts,
            "supports_derivation": kind.derives,
            "supports_encryption": kind.encrypts,
            "supports_signing": kind.signs,
            "type": self.type,
        }
        if self.is_derived:
            described |= {"kdf": "hkdf_sha256", "convergent_encryption": self.is_convergent}
        if self.is_convergent:
            described["convergent_encryption_version"] = -1
        if self.type == "hmac":
            described["key_size"] = self.key_size
        else:
            described["keys"] = {str(number): self._describe_version(number) for number in sorted(self.versions)}
        return described

    def _describe_version(self, number: int) -> Any:
        version = self.versions[number]
        if self.kind.is_symmetric:
            return version.created_ns // NANOSECONDS
        return {
            "certificate_chain": "",
            "creation_time": rfc3339(version.created_ns),
            "name": self.kind.label,
            "public_key": "" if self.is_derived else version.public_text,
        }

    def with_version(self, version: KeyVersion) -> "Key":
        """Return this key with one more version, which is then the latest.

        Raises:
            InvalidRequest: it has as many as it may.
        """
        if len(self.versions) >= VERSIONS_MAX:
            raise InvalidRequest(f"a key has at most {VERSIONS_MAX} versions; trim it first")
        latest = self.latest_version + 1
        return msgspec.structs.replace(self, latest_version=latest, versions={**self.versions, latest: version})

    # -- which version --

    def for_making(self, wanted: int, purpose: str) -> int:
        """Return the version to encrypt or sign with: the one asked for (0: the latest).

        Raises:
            InvalidRequest: it does not exist, or is too old for that.
        """
        number = wanted or self.latest_version
        if number < 0:
            raise InvalidRequest(f"requested version for {purpose} is negative")
        if number > self.latest_version:
            raise InvalidRequest(f"requested version for {purpose} is higher than the latest key version")
        if number < max(self.min_encryption_version, 1) or number not in self.versions:
            raise InvalidRequest(f"requested version for {purpose} is less than the minimum encryption key version")
        return number

    def split(self, text: str, what: str) -> tuple[int, str]:
        """Return version and payload of "vault:v2:payload".

        Args:
            text: from a client.
            what: "ciphertext" or "signature", for the error.

        Raises:
            InvalidRequest: it is no such text, or its version may not be used.
        """
        if not text.startswith(PREFIX):
            raise InvalidRequest(f"invalid {what}: no prefix")
        number_text, colon, payload = text.removeprefix(PREFIX).partition(":")
        if not colon:
            raise InvalidRequest(f"invalid {what}: wrong number of fields")
        if not (number_text.isascii() and number_text.isdecimal()) or len(number_text) > 9:
            raise InvalidRequest(f"invalid {what}: version number could not be decoded")
        number = int(number_text)
        if number > self.latest_version:
            raise InvalidRequest(f"invalid {what}: version is too new")
        if number < max(self.min_decryption_version, 1) or number not in self.versions:
            raise InvalidRequest(f"{what} or signature version is disallowed by policy (too old)")
        return number, payload

    # -- the keys themselves --

    def cipher(self, number: int, context: bytes) -> Cipher:
        """Return what encrypts and decrypts with a version, derived for a context where the key is a derived one.

        Raises:
            InvalidRequest: a derived key needs a context.
        """
        if self.is_derived:
            return primitives.cipher_of(self.kind, self.symmetric_key(number, context))
        known = self._ciphers.get(number)
        if known is None:
            if len(self._ciphers) >= CIPHERS_KEPT_MAX:
                self._ciphers.clear()
            known = self._ciphers[number] = primitives.cipher_of(self.kind, self.versions[number].key)
        return known

    @cached_property
    def _ciphers(self) -> dict[int, Cipher]:
        """What has been made of versions that are not derived, by their numbers; a few, for each takes kilobytes."""
        return {}

    def symmetric_key(self, number: int, context: bytes) -> bytes:
        """Return the bytes to encrypt with, derived for a context where the key is a derived one.

        Raises:
            InvalidRequest: a derived key needs a context.
        """
        version = self.versions[number]
        if not self.is_derived:
            return version.key
        return primitives.derive(version.key, self._context(context), self.kind.key_bytes)

    def private_key(self, number: int, context: bytes = b"") -> PrivateKey:
        """Return the private key of a version.

        Raises:
            InvalidRequest: a derived key needs a context.
        """
        version = self.versions[number]
        if self.is_derived:
            return primitives.derive_ed25519(version.key, self._context(context))
        return version.private

    @staticmethod
    def _context(context: bytes) -> bytes:
        if not context:
            raise InvalidRequest(_NO_CONTEXT)
        return context


def new_version(ctx: Context, kind: KeyType, key_size: int = 0) -> KeyVersion:
    """Make one version of a key that is quick to make, from the context's own randomness where it is plain bytes."""
    if kind.is_symmetric:
        key = ctx.random(kind.key_bytes or key_size)
        return KeyVersion(ctx.now_ns, key, key if kind.name == "hmac" else ctx.random(HMAC_KEY_BYTES))
    assert kind.generate is not None, "what is not symmetric has a generator"
    return version_of(ctx, kind.generate())


def version_of(ctx: Context, private: PrivateKey) -> KeyVersion:
    """Make a version of a private key."""
    return KeyVersion(
        ctx.now_ns, primitives.private_bytes(private), ctx.random(HMAC_KEY_BYTES), primitives.public_text(private)
    )


def find(ctx: Context, name: str) -> Key | None:
    """Return a key by its name; None if there is none."""
    return ctx.storage.recall(f"key/{name}", Key)


def usable(ctx: Context, name: str, missing: str = NOT_FOUND) -> Key:
    """Return a key that is to be used.

    Raises:
        InvalidRequest: there is none, or it has been soft-deleted.
    """
    return checked(find(ctx, name), missing)


def checked(key: Key | None, missing: str = NOT_FOUND) -> Key:
    """Return a key that was found and is to be used.

    Raises:
        InvalidRequest: there is none, or it has been soft-deleted.
    """
    if key is None:
        raise InvalidRequest(missing)
    if key.is_soft_deleted:
        raise InvalidRequest("refusing to use soft-deleted key")
    return key


def save(ctx: Context, key: Key) -> None:
    """Keep a key."""
    ctx.storage.put(f"key/{key.name}", key)


def join(number: int, payload: bytes, alphabet: str = "") -> str:
    """Return "vault:v2:payload"; the JWS alphabet goes without padding."""
    text = base64.b64encode(payload, alphabet.encode() or None).decode()
    return f"{PREFIX}{number}:{text.rstrip('=') if alphabet else text}"
