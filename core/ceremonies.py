"""Ceremonies: what a quorum of share holders does together, one share at a time: new shares, or a new root token.

A ceremony is begun, gets a nonce, collects shares until the threshold is met, and is over. It lives in the memory of the
node that leads: when leadership moves it has to be begun anew, as in Vault. The shares prove nothing until they open the
root key, which is checked before anything is made.

    Rekey          new shares of a new unseal key, by which the root key is then sealed
    RootGeneration a root token, given out combined with a one-time password that its asker knows

Pure but for randomness, which comes in: what is to be stored is returned. Source: Vault's pages "rekey" and "generate
root"; texts measured on a real server.
"""

import base64
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from conclave.core.crypto import Random, new_base62, new_uuid
from conclave.core.errors import InvalidRequest
from conclave.core.tokens import SERVICE_PREFIX, TEXT_CHARACTERS
from conclave.core.unsealing import Progress, parse_share
from conclave.storage import shamir
from conclave.storage.errors import InvalidSealConfig
from conclave.storage.keyring import KEY_BYTES
from conclave.storage.seal import SealConfig

OTP_CHARACTERS: Final = len(SERVICE_PREFIX) + TEXT_CHARACTERS
"""A one-time password is as long as the token that it hides."""

OpenRootKey = Callable[[bytes], bytes]
"""Returns the root key that an unseal key opens; raises InvalidRequest if it opens none."""


class NewShares(Struct, frozen=True):
    """A new unseal key and its shares."""

    unseal_key: bytes
    root_key: bytes
    config: SealConfig
    shares: list[bytes]


class Rekey:
    """One rekeying at a time."""

    def __init__(self) -> None:
        self.nonce = ""
        self.config: SealConfig | None = None
        self.needs_verification = False
        self.verification_nonce = ""
        self._progress = Progress()
        self._verification = Progress()
        self._unverified: NewShares | None = None

    @property
    def is_started(self) -> bool:
        """Whether one is under way."""
        return self.config is not None

    @property
    def progress(self) -> int:
        """How many shares have been given."""
        return self._progress.count

    @property
    def verification_progress(self) -> int:
        """How many of the new shares have been given back."""
        return self._verification.count

    @property
    def unverified(self) -> NewShares | None:
        """New shares that wait to be verified."""
        return self._unverified

    def start(self, shares: int, threshold: int, random: Random, *, needs_verification: bool = False) -> None:
        """Begin.

        Raises:
            InvalidRequest: one is under way, or the numbers make no sense.
        """
        if self.is_started:
            raise InvalidRequest("rekey already in progress")
        config = SealConfig(shares, threshold)
        try:
            config.validate()
        except InvalidSealConfig as error:
            raise InvalidRequest(str(error)) from None
        self.nonce, self.config, self.needs_verification = new_uuid(random), config, needs_verification

    def cancel(self) -> None:
        """Forget everything."""
        self.__init__()  # type: ignore[misc]  # a new start is what a cancelled one is

    def give(
        self, text: str, nonce: str, threshold: int, open_root_key: OpenRootKey, random: Random
    ) -> NewShares | None:
        """Take one of the present shares; return the new ones once that is all of them, else None.

        Raises:
            InvalidRequest: none is under way, the nonce is another's, or the shares are wrong (all are then forgotten).
        """
        if self.config is None:
            raise InvalidRequest("no rekey in progress")
        share = parse_share(text)
        if nonce != self.nonce:
            raise InvalidRequest(f'incorrect nonce supplied; nonce for this rekey operation is "{self.nonce}"')
        if self._unverified is not None:
            raise InvalidRequest("rekey operation already finished; verification must be performed")
        unseal_key = self._progress.add(share, threshold=threshold)
        if unseal_key is None:
            return None
        root_key = open_root_key(unseal_key)
        made = _new_shares(self.config, root_key, random)
        if self.needs_verification:
            self._unverified = made
            self.verification_nonce = new_uuid(random)
        else:
            self.cancel()
        return made

    def verify(self, text: str, nonce: str, random: Random) -> NewShares | None:
        """Take one of the new shares back; return them, to be put in force, once enough have been given.

        Raises:
            InvalidRequest: nothing waits to be verified, the nonce is another's, or they do not fit.
        """
        made = self._unverified
        if made is None:
            raise InvalidRequest("no rekey verification in progress")
        share = parse_share(text)
        if nonce != self.verification_nonce:
            raise InvalidRequest(
                f'incorrect nonce supplied; nonce for this verify operation is "{self.verification_nonce}"'
            )
        restored = self._verification.add(share, threshold=made.config.secret_threshold)
        if restored is None:
            return None
        if restored != made.unseal_key:
            self.restart_verification(random)
            raise InvalidRequest("rekey verification failed; incorrect shares supplied")
        self.cancel()
        return made

    def restart_verification(self, random: Random) -> None:
        """Forget which new shares were given back."""
        self._verification = Progress()
        if self._unverified is not None:
            self.verification_nonce = new_uuid(random)


def _new_shares(config: SealConfig, root_key: bytes, random: Random) -> NewShares:
    unseal_key = random(KEY_BYTES)
    shares = shamir.split(unseal_key, total=config.secret_shares, threshold=config.secret_threshold, random=random)
    return NewShares(unseal_key, root_key, config, shares)


class RootGeneration:
    """One generation of a root token at a time."""

    def __init__(self) -> None:
        self.nonce = ""
        self._otp = ""
        self._progress = Progress()

    @property
    def is_started(self) -> bool:
        """Whether one is under way."""
        return bool(self.nonce)

    @property
    def progress(self) -> int:
        """How many shares have been given."""
        return self._progress.count

    def start(self, otp: str, random: Random) -> str:
        """Begin, and return the one-time password if it was made here; empty if the asker brought its own.

        Raises:
            InvalidRequest: one is under way, or the password does not fit.
        """
        if self.is_started:
            raise InvalidRequest("root generation already in progress for this namespace")
        if otp and (len(otp) != OTP_CHARACTERS or not otp.isascii()):
            raise InvalidRequest(f"OTP string is wrong length: {OTP_CHARACTERS} characters are needed")
        self._otp = otp or new_base62(random, OTP_CHARACTERS)
        self.nonce = new_uuid(random)
        return "" if otp else self._otp

    def cancel(self) -> None:
        """Forget everything."""
        self.__init__()  # type: ignore[misc]  # as in Rekey.cancel

    def give(self, text: str, nonce: str, threshold: int, open_root_key: OpenRootKey) -> str | None:
        """Take one share; return the one-time password once that is all of them (it is over then), else None.

        Raises:
            InvalidRequest: none is under way, the nonce is another's, or the shares are wrong (all are then forgotten).
        """
        if not self.is_started:
            raise InvalidRequest("no root generation in progress")
        share = parse_share(text)
        if nonce != self.nonce:
            raise InvalidRequest(
                f'incorrect nonce supplied; nonce for this root generation operation is "{self.nonce}"'
            )
        unseal_key = self._progress.add(share, threshold=threshold)
        if unseal_key is None:
            return None
        open_root_key(unseal_key)
        otp = self._otp
        self.cancel()
        return otp


def encode_token(token: str, otp: str) -> str:
    """Return a token hidden by a one-time password: exclusive or, base64 without padding."""
    mixed = bytes(a ^ b for a, b in zip(token.encode(), otp.encode(), strict=True))
    return base64.b64encode(mixed).rstrip(b"=").decode()
