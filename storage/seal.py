"""The seal: how many shares there are, the root key, and the few records that can be read before unsealing.

A sealed node has to know how many shares to ask for, and needs something for the restored unseal key to open. These
records lie in a directory of their own, at fixed keys, replicated like everything else; the configuration is in clear
and the other two are wrapped keys. They tell nobody anything but that this is a Conclave node and how many shares it has.
"""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Final

import msgspec

from conclave.storage.errors import Corrupt, InvalidSealConfig
from conclave.storage.keyring import KEY_BYTES, WRAP_OVERHEAD_BYTES, WRAP_VERSION, unwrap, wrap
from conclave.storage.shamir import SHARES_MAX

VERSION: Final = 1
ROOT_KEY_PURPOSE: Final = b"conclave root key under unseal key"


def _clear_key(name: bytes) -> bytes:
    return CLEAR_DIRECTORY + blake2b(name, digest_size=16, person=b"conclave.clear").digest()


CLEAR_DIRECTORY: Final = blake2b(b"clear records", digest_size=16, person=b"conclave.clear").digest()
"""Id of the directory of records that are readable before unsealing (16 bytes, the same in every cluster)."""
SEAL_CONFIG_KEY: Final = _clear_key(b"seal configuration")
ROOT_KEY_KEY: Final = _clear_key(b"root key")
KEYRING_KEY: Final = _clear_key(b"keyring")
CLEAR_KEYS: Final = frozenset({SEAL_CONFIG_KEY, ROOT_KEY_KEY, KEYRING_KEY})
"""All records of a state that are not sealed by its keyring."""


class SealConfig(msgspec.Struct, frozen=True, array_like=True):
    """How the unseal key is shared.

    Attributes:
        secret_shares: 1 to 255.
        secret_threshold: how many shares restore the key; at least 2 if there are several.
        type: the seal's kind; "shamir" is the only one.
        nonce: names one rekeying; empty at rest.
    """

    secret_shares: int
    secret_threshold: int
    type: str = "shamir"
    nonce: str = ""

    def validate(self) -> None:
        """Check the numbers.

        Raises:
            InvalidSealConfig: with the text that Vault's API answers.
        """
        problem = self._problem()
        if problem:
            raise InvalidSealConfig(f"invalid seal configuration: {problem}")

    def _problem(self) -> str:
        if self.secret_shares < 1:
            return "shares must be at least one"
        if self.secret_threshold < 1:
            return "threshold must be at least one"
        if self.secret_shares > 1 and self.secret_threshold == 1:
            return "threshold must be greater than one for multiple shares"
        if self.secret_shares > SHARES_MAX:
            return "shares must be less than 256"
        if self.secret_threshold > SHARES_MAX:
            return "threshold must be less than 256"
        if self.secret_threshold > self.secret_shares:
            return "threshold cannot be larger than shares"
        return ""

    def encode(self) -> bytes:
        """Return a version byte and a msgpack array."""
        return bytes([VERSION]) + msgspec.msgpack.encode(self)

    @staticmethod
    def decode(encoded: bytes) -> "SealConfig":
        """Return the configuration that `encode` wrote.

        Raises:
            Corrupt: the bytes are no configuration of a version this program knows.
        """
        if encoded[:1] != bytes([VERSION]):
            raise Corrupt(f"a seal configuration of version {encoded[:1].hex() or 'none'} is not known")
        try:
            return msgspec.msgpack.decode(memoryview(encoded)[1:], type=SealConfig)
        except msgspec.DecodeError as error:
            raise Corrupt("the seal configuration does not decode") from error


def check_clear_records(records: Mapping[bytes, bytes]) -> None:
    """See that a state with these clear records can be unsealed by whoever has its shares, as far as shows without them.

    Raises:
        Corrupt: one of the three is missing, or is none that this program knows.
    """
    config, root_key, keyring = (records.get(key, b"") for key in (SEAL_CONFIG_KEY, ROOT_KEY_KEY, KEYRING_KEY))
    seal_config = SealConfig.decode(config)
    try:
        seal_config.validate()
    except InvalidSealConfig as error:
        raise Corrupt(f"a state cannot be unsealed: {error}") from error
    if seal_config.type != "shamir":
        raise Corrupt(f"a seal of type {seal_config.type!r} is not known")
    if any(wrapped[:1] != bytes([WRAP_VERSION]) for wrapped in (root_key, keyring)):
        raise Corrupt("a wrapped key is missing, or of a version that is not known")
    if len(root_key) != KEY_BYTES + WRAP_OVERHEAD_BYTES or len(keyring) <= KEY_BYTES + WRAP_OVERHEAD_BYTES:
        raise Corrupt("a wrapped key has a wrong length")


def wrap_root_key(unseal_key: bytes, root_key: bytes) -> bytes:
    """Return the root key sealed by the unseal key (32 bytes each)."""
    return wrap(unseal_key, ROOT_KEY_PURPOSE, root_key)


def unwrap_root_key(unseal_key: bytes, wrapped: bytes) -> bytes:
    """Return the root key that `wrap_root_key` sealed.

    Raises:
        WrongKey: the shares gave another key than the one it was sealed by.
    """
    return unwrap(unseal_key, ROOT_KEY_PURPOSE, wrapped)
