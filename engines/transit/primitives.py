"""The ciphers and signatures of transit: keys as bytes, data as bytes, nothing kept.

A symmetric key is its own bytes; a private key is PKCS #8 in DER. Sources: NIST SP 800-38D (AES-GCM), RFC 8439
(ChaCha20-Poly1305), RFC 8032 (Ed25519), FIPS 186-5 (ECDSA), RFC 8017 (RSA: OAEP, PSS, PKCS #1 v1.5), RFC 5869 (HKDF).
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidSignature, InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Struct

from conclave.core.errors import InvalidRequest

_ALPHANUMERIC: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_ALPHABET: Final = "+/"
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16

Cipher: TypeAlias = AESGCM | ChaCha20Poly1305
PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "sha1": hashes.SHA1(),  # noqa: S303  (offered by the API for old signatures; nothing here relies on it)
    "sha2-224": hashes.SHA224(),
    "sha2-256": hashes.SHA256(),
    "sha2-384": hashes.SHA384(),
    "sha2-512": hashes.SHA512(),
    "sha3-224": hashes.SHA3_224(),
    "sha3-256": hashes.SHA3_256(),
    "sha3-384": hashes.SHA3_384(),
    "sha3-512": hashes.SHA3_512(),
}
"""Hash functions by the API's names."""


class KeyType(Struct, frozen=True):
    """What keys of one type can do."""

    name: str
    label: str  # how a version of it is called: "P-256"
    key_bytes: int = 0  # of a symmetric key
    encrypts: bool = False
    derives: bool = False
    signs: bool = False
    generate: Callable[[], PrivateKey] | None = None
    is_slow: bool = False  # generating one takes longer than a handler may

    @property
    def is_symmetric(self) -> bool:
        """Whether the key is plain bytes."""
        return self.generate is None


def _rsa(bits: int) -> Callable[[], PrivateKey]:
    return lambda: rsa.generate_private_key(65537, bits)


def _ec(curve: ec.EllipticCurve) -> Callable[[], PrivateKey]:
    return lambda: ec.generate_private_key(curve)


KEY_TYPES: Final = {
    kind.name: kind
    for kind in (
        KeyType("aes256-gcm96", "aes256-gcm96", 32, encrypts=True, derives=True),
        KeyType("aes128-gcm96", "aes128-gcm96", 16, encrypts=True, derives=True),
        KeyType("chacha20-poly1305", "chacha20-poly1305", 32, encrypts=True, derives=True),
        KeyType("ed25519", "ed25519", derives=True, signs=True, generate=ed25519.Ed25519PrivateKey.generate),
        KeyType("ecdsa-p256", "P-256", signs=True, generate=_ec(ec.SECP256R1())),
        KeyType("ecdsa-p384", "P-384", signs=True, generate=_ec(ec.SECP384R1())),
        KeyType("ecdsa-p521", "P-521", signs=True, generate=_ec(ec.SECP521R1())),
        KeyType("rsa-2048", "rsa-2048", encrypts=True, signs=True, generate=_rsa(2048), is_slow=True),
        KeyType("rsa-3072", "rsa-3072", encrypts=True, signs=True, generate=_rsa(3072), is_slow=True),
        KeyType("rsa-4096", "rsa-4096", encrypts=True, signs=True, generate=_rsa(4096), is_slow=True),
        KeyType("hmac", "hmac"),
    )
}
"""The types of keys, by the API's names."""


# -- base64 as Go reads it --


def decode_base64(text: str, alphabet: str = _ALPHABET) -> bytes:
    """Return the bytes of base64, with these two last characters of its alphabet.

    Raises:
        ValueError: in Go's words, where it goes wrong.
    """
    standard = text if alphabet == _ALPHABET else text.translate(str.maketrans(alphabet + _ALPHABET, _ALPHABET + "**"))
    try:
        return binascii.a2b_base64(standard, strict_mode=True)
    except ValueError:
        pass
    unpadded = text.rstrip("=")
    wrong = len(unpadded) - len(unpadded.lstrip(_ALPHANUMERIC + alphabet))
    if wrong == len(unpadded):  # no character is wrong, but their number
        wrong = len(text) // 4 * 4
    raise ValueError(f"illegal base64 data at input byte {wrong}")


# -- private keys --


def private_bytes(key: PrivateKey) -> bytes:
    """Return a private key as it is kept: PKCS #8, DER."""
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_private(kept: bytes) -> PrivateKey:
    """Return the private key that `private_bytes` wrote, or that `check_kept` let pass.

    It was sound when it was kept, and the barrier says that it has not changed: testing the primes of an RSA key again
    takes sixty times as long as signing with it.
    """
    key = serialization.load_der_private_key(kept, password=None, unsafe_skip_rsa_key_validation=True)
    assert isinstance(key, PrivateKey), "no other keys are kept"
    return key


def check_kept(kind: KeyType, kept: bytes) -> None:
    """Check a key that comes from elsewhere. Slow for RSA: only ever run in a thread.

    Raises:
        ValueError: it is no sound key of this type.
    """
    if kind.is_symmetric:
        if kind.key_bytes and len(kept) != kind.key_bytes:
            raise ValueError(f"a key of {len(kept)} bytes is no {kind.name} key")
        return
    try:
        key = serialization.load_der_private_key(kept, password=None)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"no private key: {error}") from error
    if not isinstance(key, PrivateKey):
        raise ValueError("a private key of no type that is used here")  # noqa: TRY004  (what was sent is no key for this)


def public_text(key: PrivateKey) -> str:
    """Return the public half as the API shows it: base64 of the raw bytes for Ed25519, PEM for all others."""
    public = key.public_key()
    if isinstance(public, ed25519.Ed25519PublicKey):
        return base64.b64encode(public.public_bytes_raw()).decode()
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def private_text(key: PrivateKey) -> str:
    """Return a private key as `export` shows it."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        public = key.public_key().public_bytes_raw()
        return base64.b64encode(key.private_bytes_raw() + public).decode()
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    ).decode()


# -- derivation --


def derive(key: bytes, context: bytes, length: int) -> bytes:
    """Return the key for one context (HKDF with SHA-256, the context as info)."""
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=None, info=context).derive(key)


def derive_ed25519(kept: bytes, context: bytes) -> ed25519.Ed25519PrivateKey:
    """Return the signing key for one context, derived from the seed of a kept key."""
    parent = load_private(kept)
    assert isinstance(parent, ed25519.Ed25519PrivateKey), "no other signing keys are derived"
    return ed25519.Ed25519PrivateKey.from_private_bytes(derive(parent.private_bytes_raw(), context, 32))


# -- encryption --


def encrypt_symmetric(cipher: Cipher, nonce: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """Return nonce (12) + ciphertext + tag (16)."""
    return nonce + cipher.encrypt(nonce, plaintext, associated or None)


def convergent_nonce(key: bytes, plaintext: bytes) -> bytes:
    """Return a nonce that is the same for the same plaintext: the start of its HMAC under a key of its own."""
    return hmac.digest(derive(key, b"conclave transit convergent nonce", 32), plaintext, "sha256")[:NONCE_BYTES]


def decrypt_symmetric(cipher: Cipher, ciphertext: bytes, associated: bytes) -> bytes:
    """Return the plaintext of what `encrypt_symmetric` made.

    Raises:
        InvalidRequest: it was changed, cut short, or made with another key or other associated data.
    """
    if len(ciphertext) < NONCE_BYTES + TAG_BYTES:
        raise InvalidRequest("invalid ciphertext length")
    try:
        return cipher.decrypt(ciphertext[:NONCE_BYTES], ciphertext[NONCE_BYTES:], associated or None)
    except InvalidTag:
        raise InvalidRequest("cipher: message authentication failed") from None


def cipher_of(kind: KeyType, key: bytes) -> Cipher:
    """Return what encrypts and decrypts with a symmetric key."""
    return ChaCha20Poly1305(key) if kind.name == "chacha20-poly1305" else AESGCM(key)


_OAEP: Final = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


def encrypt_rsa(key: rsa.RSAPrivateKey, plaintext: bytes) -> bytes:
    """Return RSAES-OAEP with SHA-256.

    Raises:
        InvalidRequest: the plaintext is too long for the key.
    """
    try:
        return key.public_key().encrypt(plaintext, _OAEP)
    except ValueError:
        raise InvalidRequest("failed to RSA encrypt the plaintext: message too long for RSA key size") from None


def decrypt_rsa(key: rsa.RSAPrivateKey, ciphertext: bytes) -> bytes:
    """Return the plaintext of what `encrypt_rsa` made.

    Raises:
        InvalidRequest: it was changed, or made with another key.
    """
    try:
        return key.decrypt(ciphertext, _OAEP)
    except ValueError:
        raise InvalidRequest("failed to RSA decrypt the ciphertext: crypto/rsa: decryption error") from None


# -- signatures --


class SignatureRules(Struct, frozen=True):
    """How a signature is made, as the request says it."""

    hash_name: str = "sha2-256"
    is_prehashed: bool = False
    marshaling: str = "asn1"  # of ECDSA: "asn1" or "jws"
    rsa_scheme: str = "pss"  # or "pkcs1v15"
    salt_length: str = "auto"  # of PSS: "auto", "hash", or a number of bytes


def sign(key: PrivateKey, message: bytes, rules: SignatureRules) -> bytes:
    """Return the signature of a message.

    Raises:
        InvalidRequest: the rules do not fit the key or the message.
    """
    try:
        if isinstance(key, ed25519.Ed25519PrivateKey):
            return key.sign(message)
        if isinstance(key, ec.EllipticCurvePrivateKey):
            signature = key.sign(message, ec.ECDSA(_hash(rules)))
            return _to_jws(signature, key.curve) if rules.marshaling == "jws" else signature
        return key.sign(message, _rsa_padding(rules, is_signing=True), _hash(rules))
    except ValueError as error:
        raise InvalidRequest(f"cannot sign this input: {error}") from None


def verifies(key: PrivateKey, message: bytes, signature: bytes, rules: SignatureRules) -> bool:
    """Tell whether a signature is this key's of this message.

    Raises:
        InvalidRequest: the rules do not fit the key or the message.
    """
    try:
        if isinstance(key, ed25519.Ed25519PrivateKey):
            key.public_key().verify(signature, message)
        elif isinstance(key, ec.EllipticCurvePrivateKey):
            as_asn1 = _from_jws(signature, key.curve) if rules.marshaling == "jws" else signature
            key.public_key().verify(as_asn1, message, ec.ECDSA(_hash(rules)))
        else:
            key.public_key().verify(signature, message, _rsa_padding(rules, is_signing=False), _hash(rules))
    except InvalidSignature:
        return False
    except ValueError as error:
        raise InvalidRequest(f"cannot verify this input: {error}") from None
    return True


def _hash(rules: SignatureRules) -> utils.Prehashed | hashes.HashAlgorithm:
    algorithm = HASHES[rules.hash_name]
    return utils.Prehashed(algorithm) if rules.is_prehashed else algorithm


def _rsa_padding(rules: SignatureRules, *, is_signing: bool) -> padding.PSS | padding.PKCS1v15:
    if rules.rsa_scheme == "pkcs1v15":
        return padding.PKCS1v15()
    algorithm = HASHES[rules.hash_name]
    length: object
    if rules.salt_length == "auto":
        length = padding.PSS.MAX_LENGTH if is_signing else padding.PSS.AUTO
    else:
        length = algorithm.digest_size if rules.salt_length == "hash" else int(rules.salt_length)
    return padding.PSS(padding.MGF1(algorithm), length)


def _coordinate_bytes(curve: ec.EllipticCurve) -> int:
    return (curve.key_size + 7) // 8


def _to_jws(signature: bytes, curve: ec.EllipticCurve) -> bytes:
    length = _coordinate_bytes(curve)
    return b"".join(number.to_bytes(length, "big") for number in utils.decode_dss_signature(signature))


def _from_jws(signature: bytes, curve: ec.EllipticCurve) -> bytes:
    length = _coordinate_bytes(curve)
    if len(signature) != 2 * length:
        raise InvalidSignature
    r, s = signature[:length], signature[length:]
    return utils.encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))


# -- hashes --


def digest(name: str, message: bytes) -> bytes:
    """Return a hash by the API's name of the function."""
    return hashlib.new(_HASHLIB[name], message).digest()


def hmac_digest(name: str, key: bytes, message: bytes) -> bytes:
    """Return an HMAC (RFC 2104) by the API's name of the hash function."""
    return hmac.digest(key, message, _HASHLIB[name])


_HASHLIB: Final = {name: name.replace("sha2-", "sha").replace("sha3-", "sha3_") for name in HASHES}
