"""transit/sign, verify, hmac, hash and random."""

import base64
import hmac
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Final

from msgspec import Meta, Raw, Struct

from conclave.core.contract import Context, Engine, Response, operation
from conclave.core.errors import InvalidRequest
from conclave.engines.transit import batches, keyset, primitives
from conclave.engines.transit.keyset import Key
from conclave.engines.transit.primitives import HASHES, SignatureRules

RANDOM_BYTES_MAX: Final = 131_072
_BAD_INPUT: Final = "unable to decode input as base64: "
_JWS_ALPHABET: Final = "-_"


class Item(Struct):
    """One message of a batch."""

    input: str = ""
    signature: str = ""
    hmac: str = ""
    context: str = ""
    reference: str = ""


class Sign(Struct):
    """What to sign, and how."""

    input: Annotated[str, Meta(description="The message, base64; with `prehashed` its hash.")] = ""
    context: Annotated[str, Meta(description="For a derived key: its context, base64.")] = ""
    key_version: Annotated[int, Meta(description="The version to use; 0 for the latest.")] = 0
    hash_algorithm: Annotated[str, Meta(description="Hash function: sha2-256 by default.")] = ""
    algorithm: Annotated[str, Meta(description="The older name of hash_algorithm.")] = ""
    prehashed: Annotated[bool, Meta(description="Whether the input is a hash already.")] = False
    marshaling_algorithm: Annotated[str, Meta(description="Form of ECDSA signatures: asn1 or jws.")] = "asn1"
    signature_algorithm: Annotated[str, Meta(description="Scheme of RSA signatures: pss or pkcs1v15.")] = ""
    salt_length: Annotated[str, Meta(description="Salt of PSS: auto, hash, or a number of bytes.")] = "auto"
    batch_input: Annotated[Raw, Meta(description="Several messages at once, each with input and context.")] = Raw(b"")


class Verify(Sign):
    """What to verify, and how it was made."""

    signature: Annotated[str, Meta(description="What `sign` returned.")] = ""
    hmac: Annotated[str, Meta(description="What `hmac` returned.")] = ""


class Hmac(Struct):
    """What to authenticate."""

    input: Annotated[str, Meta(description="The message, base64.")] = ""
    algorithm: Annotated[str, Meta(description="Hash function: sha2-256 by default.")] = "sha2-256"
    key_version: Annotated[int, Meta(description="The version to use; 0 for the latest.")] = 0
    batch_input: Annotated[Raw, Meta(description="Several messages at once.")] = Raw(b"")


class Hash(Struct):
    """What to hash."""

    input: Annotated[str, Meta(description="The message, base64.")] = ""
    algorithm: Annotated[str, Meta(description="Hash function: sha2-256 by default.")] = "sha2-256"
    format: Annotated[str, Meta(description="hex or base64.")] = "hex"


class RandomBytes(Struct):
    """How many bytes, and how they are shown."""

    bytes: Annotated[int, Meta(description="How many.")] = 32
    format: Annotated[str, Meta(description="hex or base64.")] = "base64"


class SignOperations(Engine):
    """The part of transit that signs and hashes."""

    type = "transit-sign"

    @operation("sign/{name}", update=Sign, writes=False)
    @operation("sign/{name}/{algorithm}", update=Sign, writes=False)
    def sign(self, ctx: Context, name: str, body: Sign, algorithm: str = "") -> Response:
        """Sign a message, or a batch of them."""
        items = batches.parse_items(body.batch_input, Item)
        key = keyset.usable(ctx, name, missing="signing key not found")
        if not key.kind.signs:
            raise InvalidRequest(f"key type {key.type} does not support signing")
        rules = _rules(key, body, algorithm)
        try:
            number = key.for_making(body.key_version, "signing")
        except InvalidRequest as error:
            raise InvalidRequest(f"1 error occurred:\n\t* {error.messages[0]}\n\n") from None
        if items is not None:
            return batches.run(
                items,
                lambda item: _sign(key, number, item, rules),
                failure_code=400,
                on_error={"key_version": 0},
            )
        return Response(_sign(key, number, Item(input=body.input, context=body.context), rules))

    @operation("verify/{name}", update=Verify, writes=False)
    @operation("verify/{name}/{algorithm}", update=Verify, writes=False)
    def verify(self, ctx: Context, name: str, body: Verify, algorithm: str = "") -> Response:
        """Tell whether a signature, or an HMAC, is this key's of this message."""
        items = batches.parse_items(body.batch_input, Item)
        if items is None and not body.signature and not body.hmac:
            raise InvalidRequest("neither a 'signature' nor an 'hmac' were given to verify")
        given = items or [Item(input=body.input, signature=body.signature, hmac=body.hmac, context=body.context)]
        is_hmac = bool(given[0].hmac) and not given[0].signature
        if any(
            (bool(item.hmac) and not item.signature) != is_hmac or not (item.hmac or item.signature) for item in given
        ):
            raise InvalidRequest("elements of batch_input must all provide 'signature' or all provide 'hmac'")
        key = keyset.usable(
            ctx, name, missing="encryption key not found" if is_hmac else "signature verification key not found"
        )
        if is_hmac:
            hash_name = _known_hash(algorithm or body.hash_algorithm or body.algorithm or "sha2-256")
            check: Callable[[Item], bool] = partial(_hmac_fits, key, hash_name)
        else:
            if not key.kind.signs:
                raise InvalidRequest(f"key type {key.type} does not support verification")
            check = partial(_signature_fits, key, _rules(key, body, algorithm))
        if items is not None:
            return batches.run(items, lambda item: {"valid": check(item)}, failure_code=400, on_error={"valid": False})
        return Response({"valid": check(given[0])})

    @operation("hmac/{name}", update=Hmac, writes=False)
    @operation("hmac/{name}/{algorithm}", update=Hmac, writes=False)
    def hmac(self, ctx: Context, name: str, body: Hmac, algorithm: str = "") -> Response:
        """Authenticate a message, or a batch of them."""
        items = batches.parse_items(body.batch_input, Item)
        key = keyset.usable(ctx, name)
        hash_name = _known_hash(algorithm or body.algorithm)
        number = body.key_version or key.latest_version
        if number > key.latest_version or number not in key.versions:
            raise InvalidRequest(f"key version does not exist; latest key version is {key.latest_version}")
        if number < key.min_encryption_version:
            raise InvalidRequest("cannot generate HMAC: version is too old (disallowed by policy)")
        if items is not None:
            return batches.run(
                items, lambda item: {"hmac": _hmac(key, number, item, hash_name)}, failure_code=400, on_error={}
            )
        return Response({"hmac": _hmac(key, number, Item(input=body.input), hash_name)})

    @operation("hash", update=Hash, writes=False)
    @operation("hash/{algorithm}", update=Hash, writes=False)
    def hash(self, ctx: Context, body: Hash, algorithm: str = "") -> Response:
        """Hash a message; needs no key."""
        del ctx
        message = batches.decoded(body.input, _BAD_INPUT)
        hash_name = algorithm or body.algorithm
        if body.format not in ("hex", "base64"):
            raise InvalidRequest(f'unsupported encoding format {body.format}; must be "hex" or "base64"')
        if hash_name not in HASHES:
            raise InvalidRequest(f"unsupported algorithm {hash_name}")
        return Response({"sum": _shown(primitives.digest(hash_name, message), body.format)})

    @operation("random", update=RandomBytes, writes=False)
    @operation("random/{first}", update=RandomBytes, writes=False)
    @operation("random/{first}/{second}", update=RandomBytes, writes=False)
    def random(self, ctx: Context, body: RandomBytes, first: str = "", second: str = "") -> Response:
        """Draw random bytes. In the path: their number, or a source (`platform`, `seal`, `all`: all are the system's)."""
        count_text = second or (first if first not in ("platform", "seal", "all", "") else "")
        if second and first not in ("platform", "seal", "all"):
            raise InvalidRequest(f'unsupported entropy source "{first}"; must be "platform" or "seal", or "all"')
        count = body.bytes
        if count_text:
            if not (count_text.isascii() and count_text.isdecimal()) or len(count_text) > 9:
                raise InvalidRequest(
                    f'error parsing url-set byte count: strconv.ParseInt: parsing "{count_text}": invalid syntax'
                )
            count = int(count_text)
        if count < 1:
            raise InvalidRequest("'bytes' cannot be less than 1")
        if count > RANDOM_BYTES_MAX:
            raise InvalidRequest(f"'bytes' should be less than {RANDOM_BYTES_MAX}")
        if body.format not in ("hex", "base64"):
            raise InvalidRequest(f'unsupported encoding format "{body.format}"; must be "hex" or "base64"')
        return Response({"random_bytes": _shown(ctx.random(count), body.format)})


def _shown(value: bytes, form: str) -> str:
    return value.hex() if form == "hex" else base64.b64encode(value).decode()


def _known_hash(name: str) -> str:
    if name not in HASHES:
        raise InvalidRequest(f"unsupported algorithm {name}")
    return name


def _rules(key: Key, body: Sign, algorithm: str) -> SignatureRules:
    hash_name = algorithm or body.hash_algorithm or body.algorithm or "sha2-256"
    if hash_name not in HASHES:
        raise InvalidRequest(f'invalid hash algorithm "{hash_name}"')
    if body.marshaling_algorithm not in ("asn1", "jws"):
        raise InvalidRequest(f'invalid marshaling algorithm "{body.marshaling_algorithm}"')
    scheme = body.signature_algorithm or "pss"
    if key.type.startswith("rsa-") and scheme not in ("pss", "pkcs1v15"):
        raise InvalidRequest(f"1 error occurred:\n\t* unsupported rsa signature algorithm {scheme}\n\n")
    salt = body.salt_length
    if salt not in ("auto", "hash") and not (salt.isascii() and salt.isdecimal() and len(salt) <= 4):
        raise InvalidRequest(f'salt length "{salt}" is not valid; must be "auto", "hash", or a number of bytes')
    if key.type == "ed25519" and body.prehashed:
        raise InvalidRequest("only Pure Ed25519 signatures supported, prehashed must be false")
    return SignatureRules(hash_name, body.prehashed, body.marshaling_algorithm, scheme, salt)


def _sign(key: Key, number: int, item: Item, rules: SignatureRules) -> dict[str, Any]:
    message = batches.decoded(item.input, _BAD_INPUT)
    private = key.private_key(number, batches.decoded(item.context))
    signature = primitives.sign(private, message, rules)
    is_jws = rules.marshaling == "jws"
    data: dict[str, Any] = {
        "key_version": number,
        "signature": keyset.join(number, signature, _JWS_ALPHABET if is_jws else ""),
    }
    if key.is_derived:
        data["public_key"] = primitives.public_text(private)
    return data


def _signature_fits(key: Key, rules: SignatureRules, item: Item) -> bool:
    number, payload = key.split(item.signature, "signature")
    message = batches.decoded(item.input, _BAD_INPUT)
    is_jws = rules.marshaling == "jws"
    try:
        signature = (
            primitives.decode_base64(payload + "=" * (-len(payload) % 4), _JWS_ALPHABET)
            if is_jws
            else primitives.decode_base64(payload)
        )
    except ValueError:
        raise InvalidRequest("invalid base64 signature value") from None
    return primitives.verifies(key.private_key(number, batches.decoded(item.context)), message, signature, rules)


def _hmac(key: Key, number: int, item: Item, hash_name: str) -> str:
    message = batches.decoded(item.input, _BAD_INPUT)
    return keyset.join(number, primitives.hmac_digest(hash_name, key.versions[number].hmac_key, message))


def _hmac_fits(key: Key, hash_name: str, item: Item) -> bool:
    number, payload = key.split(item.hmac, "hmac")
    given = batches.decoded(payload, "unable to decode verification string as base64: ")
    message = batches.decoded(item.input, _BAD_INPUT)
    return hmac.compare_digest(given, primitives.hmac_digest(hash_name, key.versions[number].hmac_key, message))
