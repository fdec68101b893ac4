"""transit/encrypt, decrypt, rewrap and datakey, each for one value or for a batch.

Encrypting with a key that does not exist makes it, unless the mount forbids that: on the leader, and as a `create` to
policies. Everything else changes nothing and is answered by any node.
"""

import base64
from typing import Annotated, Any, Final

from cryptography.hazmat.primitives.asymmetric import rsa
from msgspec import Meta, Raw, Struct

from conclave.core.contract import Context, Engine, Response, operation
from conclave.core.errors import InvalidRequest
from conclave.engines.transit import batches, keyset, primitives
from conclave.engines.transit.keys import mount_config
from conclave.engines.transit.keyset import Key
from conclave.engines.transit.primitives import KEY_TYPES

DATA_KEY_BITS: Final = (128, 256, 512)
_MISSING: Final = "\0"
"""Stands for a field that was not sent: an empty text is a value."""


class Item(Struct):
    """One value of a batch."""

    plaintext: str = _MISSING
    ciphertext: str = _MISSING
    context: str = ""
    associated_data: str = ""
    key_version: int = 0
    reference: str = ""


class Encrypt(Struct):
    """What to encrypt."""

    plaintext: Annotated[str, Meta(description="The value, base64.")] = _MISSING
    context: Annotated[str, Meta(description="For a derived key: its context, base64.")] = ""
    associated_data: Annotated[str, Meta(description="Bound to the ciphertext, not in it; base64.")] = ""
    key_version: Annotated[int, Meta(description="The version to use; 0 for the latest.")] = 0
    batch_input: Annotated[Raw, Meta(description="Several values at once, each with the fields above.")] = Raw(b"")
    type: Annotated[str, Meta(description="Type of the key if it has to be made.")] = "aes256-gcm96"
    convergent_encryption: Annotated[bool, Meta(description="For a key that has to be made.")] = False
    partial_failure_response_code: Annotated[int, Meta(description="HTTP code if some of a batch fail.")] = 0


class Decrypt(Struct):
    """What to decrypt."""

    ciphertext: Annotated[str, Meta(description="What `encrypt` returned.")] = _MISSING
    context: Annotated[str, Meta(description="For a derived key: its context, base64.")] = ""
    associated_data: Annotated[str, Meta(description="As given when it was encrypted; base64.")] = ""
    batch_input: Annotated[Raw, Meta(description="Several values at once, each with the fields above.")] = Raw(b"")
    partial_failure_response_code: Annotated[int, Meta(description="HTTP code if some of a batch fail.")] = 0


class Rewrap(Struct):
    """What to encrypt anew with a newer version of the key."""

    ciphertext: Annotated[str, Meta(description="What `encrypt` returned.")] = _MISSING
    context: Annotated[str, Meta(description="For a derived key: its context, base64.")] = ""
    key_version: Annotated[int, Meta(description="The version to use; 0 for the latest.")] = 0
    batch_input: Annotated[Raw, Meta(description="Several values at once, each with the fields above.")] = Raw(b"")


class DataKey(Struct):
    """The key to be drawn."""

    bits: Annotated[int, Meta(description="Its length: 128, 256 or 512.")] = 256
    context: Annotated[str, Meta(description="For a derived key: its context, base64.")] = ""
    associated_data: Annotated[str, Meta(description="Bound to the ciphertext, not in it; base64.")] = ""
    key_version: Annotated[int, Meta(description="The version to encrypt it with; 0 for the latest.")] = 0


class CryptOperations(Engine):
    """The part of transit that encrypts and decrypts."""

    type = "transit-crypt"

    def exists(self, ctx: Context, path: str) -> bool | None:
        """Tell create from update where a missing key would be made."""
        area, _, name = path.partition("/")
        if area not in ("encrypt", "keys") or not name or "/" in name:
            return None
        return keyset.find(ctx, name) is not None

    @operation("encrypt/{name}", update=Encrypt, only_creates=True)
    def encrypt(self, ctx: Context, name: str, body: Encrypt) -> Response:
        """Encrypt a value, or a batch of them."""
        items = batches.parse_items(body.batch_input, Item, [("plaintext", "encrypt")])
        if items is None and body.plaintext == _MISSING:
            raise InvalidRequest("missing plaintext to encrypt")
        key = _key_for_encryption(ctx, name, body)
        if items is not None:
            return batches.run(
                items,
                lambda item: _encrypt(ctx, key, item),
                failure_code=body.partial_failure_response_code or 400,
                on_error={},
            )
        item = Item(
            plaintext=body.plaintext,
            context=body.context,
            associated_data=body.associated_data,
            key_version=body.key_version,
        )
        return Response(_encrypt(ctx, key, item))

    @operation("decrypt/{name}", update=Decrypt, writes=False)
    def decrypt(self, ctx: Context, name: str, body: Decrypt) -> Response:
        """Decrypt a value, or a batch of them."""
        items = batches.parse_items(body.batch_input, Item, [("ciphertext", "decrypt")])
        if items is None and body.ciphertext == _MISSING:
            raise InvalidRequest("missing ciphertext to decrypt")
        key = keyset.usable(ctx, name)
        if items is not None:
            return batches.run(
                items,
                lambda item: {"plaintext": base64.b64encode(_decrypt(key, item)).decode()},
                failure_code=body.partial_failure_response_code or 400,
                on_error={},
            )
        item = Item(ciphertext=body.ciphertext, context=body.context, associated_data=body.associated_data)
        return Response({"plaintext": base64.b64encode(_decrypt(key, item)).decode()})

    @operation("rewrap/{name}", update=Rewrap, writes=False)
    def rewrap(self, ctx: Context, name: str, body: Rewrap) -> Response:
        """Encrypt anew what an older version encrypted; the plaintext does not leave."""
        items = batches.parse_items(body.batch_input, Item, [("ciphertext", "decrypt")])
        if items is None and body.ciphertext in (_MISSING, ""):
            raise InvalidRequest("missing ciphertext to decrypt")
        key = keyset.usable(ctx, name)
        if items is not None:
            return batches.run(items, lambda item: _rewrap(ctx, key, item), failure_code=0, on_error={})
        item = Item(ciphertext=body.ciphertext, context=body.context, key_version=body.key_version)
        return Response(_rewrap(ctx, key, item))

    @operation("datakey/{form}/{name}", update=DataKey, writes=False)
    def data_key(self, ctx: Context, form: str, name: str, body: DataKey) -> Response:
        """Draw a key for use outside, encrypted, and with `plaintext` also in the clear."""
        if form not in ("plaintext", "wrapped"):
            raise InvalidRequest("Invalid path, must be 'plaintext' or 'wrapped'")
        key = keyset.usable(ctx, name)
        if body.bits not in DATA_KEY_BITS:
            raise InvalidRequest("invalid bit length")
        drawn = base64.b64encode(ctx.random(body.bits // 8)).decode()
        item = Item(
            plaintext=drawn, context=body.context, associated_data=body.associated_data, key_version=body.key_version
        )
        data = _encrypt(ctx, key, item)
        if form == "plaintext":
            data["plaintext"] = drawn
        return Response(data)


def _key_for_encryption(ctx: Context, name: str, body: Encrypt) -> Key:
    """Return the key, made now if there is none and the mount allows it."""
    found = keyset.find(ctx, name)
    if found is not None or mount_config(ctx).disables_upsert:
        return keyset.checked(found)
    kind = KEY_TYPES.get(body.type)
    if kind is None or not kind.encrypts or kind.is_slow:
        raise InvalidRequest(f"unknown key type {body.type}" if kind is None else keyset.NOT_FOUND)
    is_derived = bool(body.context)
    if body.convergent_encryption and not is_derived:
        raise InvalidRequest("convergent encryption requires derivation to be enabled, so context is required")
    key = Key(
        name,
        kind.name,
        {1: keyset.new_version(ctx, kind)},
        is_derived=is_derived,
        is_convergent=body.convergent_encryption,
    )
    keyset.save(ctx, key)
    return key


def _encrypt(ctx: Context, key: Key, item: Item) -> dict[str, Any]:
    plaintext = batches.decoded(item.plaintext)
    return _seal(ctx, key, plaintext, item)


def _seal(ctx: Context, key: Key, plaintext: bytes, item: Item) -> dict[str, Any]:
    kind = key.kind
    if not kind.encrypts:
        raise InvalidRequest(f"message encryption not supported for key type {key.type}")
    number = key.for_making(item.key_version, "encryption")
    if kind.is_symmetric:
        context = batches.decoded(item.context)
        nonce = (
            primitives.convergent_nonce(key.symmetric_key(number, context), plaintext)
            if key.is_convergent
            else ctx.random(primitives.NONCE_BYTES)
        )
        cipher = key.cipher(number, context)
        sealed = primitives.encrypt_symmetric(cipher, nonce, plaintext, batches.decoded(item.associated_data))
    else:
        sealed = primitives.encrypt_rsa(_rsa_key(key, number), plaintext)
    return {"ciphertext": keyset.join(number, sealed), "key_version": number}


def _decrypt(key: Key, item: Item) -> bytes:
    kind = key.kind
    if not kind.encrypts:
        raise InvalidRequest(f"message decryption not supported for key type {key.type}")
    number, payload = key.split(item.ciphertext, "ciphertext")
    try:
        sealed = primitives.decode_base64(payload)
    except ValueError:
        raise InvalidRequest("invalid ciphertext: could not decode base64") from None
    if not kind.is_symmetric:
        return primitives.decrypt_rsa(_rsa_key(key, number), sealed)
    cipher = key.cipher(number, batches.decoded(item.context))
    return primitives.decrypt_symmetric(cipher, sealed, batches.decoded(item.associated_data))


def _rewrap(ctx: Context, key: Key, item: Item) -> dict[str, Any]:
    return _seal(ctx, key, _decrypt(key, item), item)


def _rsa_key(key: Key, number: int) -> rsa.RSAPrivateKey:
    private = key.private_key(number)
    assert isinstance(private, rsa.RSAPrivateKey), "the other types that encrypt are symmetric"
    return private
