"""sys/rotate/root, sys/rekey, sys/generate-root-token and sys/generate-root: what needs a quorum of share holders.

Each in both of its families: the one that takes a token and answers with the envelope, and the older one that takes none
and answers bare. The older one is off unless the configuration switches it on, and the leader alone decides that, so it
is the same on every node. Encrypting shares with PGP keys is not supported and refused.
"""

from typing import Annotated, Any

from msgspec import Meta, Struct

from conclave.core.ceremonies import OTP_CHARACTERS, NewShares, Rekey, RootGeneration, encode_token
from conclave.core.contract import Engine, Response, operation
from conclave.core.errors import InvalidRequest, NotFound, UnsupportedOperation
from conclave.core.lifecycle import Lifecycle
from conclave.core.policies import ROOT
from conclave.core.privileged import VaultContext
from conclave.core.revocation import tokens_of
from conclave.core.services import AREA_TOKENS
from conclave.core.unsealing import encode_share


class StartRekey(Struct):
    """The shares to be made."""

    secret_shares: Annotated[int, Meta(description="Into how many shares the new key is split.")] = 0
    secret_threshold: Annotated[int, Meta(description="How many of them unseal a node.")] = 0
    require_verification: Annotated[
        bool, Meta(description="Whether the new shares must be given back before they count.")
    ] = False
    pgp_keys: Annotated[list[str], Meta(description="Not supported; refused unless empty.")] = []
    backup: Annotated[bool, Meta(description="Needs PGP keys; refused.")] = False


class GiveShare(Struct):
    """One share."""

    key: Annotated[str, Meta(description="The share, in hex or base64.")] = ""
    nonce: Annotated[str, Meta(description="Of the ceremony that it is given for.")] = ""


class StartGeneration(Struct):
    """The root token to be made."""

    otp: Annotated[str, Meta(description="A one-time password; made here by default.")] = ""
    pgp_key: Annotated[str, Meta(description="Not supported; refused unless empty.")] = ""


class CeremonyOperations(Engine):
    """The ceremonies of `sys/`; mixed into `System`."""

    type = "system-ceremonies"
    lifecycle: Lifecycle

    # -- new shares, with a token --

    @operation("rotate/root/init", read=True, writes=True)
    def read_rotation(self, ctx: VaultContext) -> Response:
        """Tell whether a rotation of the shares is under way."""
        del ctx
        rekey = self._rekey
        if not rekey.is_started:
            return Response({"n": 0, "required": self._required, "started": False, "t": 0})
        return Response(self._rotation_status())

    @operation("rotate/root/init", update=StartRekey)
    def start_rotation(self, ctx: VaultContext, body: StartRekey) -> Response:
        """Begin to make new shares."""
        self._start_rekey(ctx, body)
        return Response(self._rotation_status())

    @operation("rotate/root/init", delete=True)
    def cancel_rotation(self, ctx: VaultContext) -> Response:
        """End a rotation of the shares without a result."""
        del ctx
        self._rekey.cancel()
        return Response()

    @operation("rotate/root/update", update=GiveShare)
    def update_rotation(self, ctx: VaultContext, body: GiveShare) -> Response:
        """Give one of the present shares."""
        made = self._give_share(ctx, body)
        return Response(self._rotation_status() if made is None else self._rekeyed(made, body.nonce))

    @operation("rotate/root/verify", read=True, writes=True)
    def read_rotation_verification(self, ctx: VaultContext) -> Response:
        """Tell how many new shares have been given back."""
        del ctx
        return Response(self._verification_status())

    @operation("rotate/root/verify", update=GiveShare)
    def verify_rotation(self, ctx: VaultContext, body: GiveShare) -> Response:
        """Give one of the new shares back."""
        return Response(self._verify(ctx, body))

    @operation("rotate/root/verify", delete=True)
    def restart_rotation_verification(self, ctx: VaultContext) -> Response:
        """Begin to verify the new shares anew."""
        self._rekey.restart_verification(ctx.random)
        return Response(self._verification_status())

    @operation("rotate/root/backup", read=True)
    def read_rotation_backup(self, ctx: VaultContext) -> Response:
        """Return backed-up shares; there are none, for nothing encrypts them."""
        del ctx
        raise InvalidRequest("no backed-up keys found")

    @operation("rotate/root/backup", delete=True)
    @operation("rekey/backup", delete=True)
    def delete_backup(self, ctx: VaultContext) -> Response:
        """Forget backed-up shares, of which there are none."""
        del ctx
        return Response()

    # -- new shares, without a token --

    @operation("rekey/init", read=True, authenticated=False, writes=True)
    def read_rekey(self, ctx: VaultContext) -> Response:
        """Tell whether a rekeying is under way."""
        del ctx
        self._require_unauthed_rekey()
        return Response(self._rekey_status(), is_bare=True)

    @operation("rekey/init", update=StartRekey, authenticated=False)
    def start_rekey(self, ctx: VaultContext, body: StartRekey) -> Response:
        """Begin to make new shares."""
        self._require_unauthed_rekey()
        self._start_rekey(ctx, body)
        return Response(self._rekey_status(), is_bare=True)

    @operation("rekey/init", delete=True, authenticated=False)
    def cancel_rekey(self, ctx: VaultContext) -> Response:
        """End a rekeying without a result."""
        del ctx
        self._require_unauthed_rekey()
        self._rekey.cancel()
        return Response()

    @operation("rekey/update", update=GiveShare, authenticated=False)
    def update_rekey(self, ctx: VaultContext, body: GiveShare) -> Response:
        """Give one of the present shares."""
        self._require_unauthed_rekey()
        made = self._give_share(ctx, body)
        data = self._rekey_status() if made is None else self._rekeyed(made, body.nonce)
        return Response(data, is_bare=True)

    @operation("rekey/verify", read=True, authenticated=False, writes=True)
    def read_rekey_verification(self, ctx: VaultContext) -> Response:
        """Tell how many new shares have been given back."""
        del ctx
        self._require_unauthed_rekey()
        return Response(self._verification_status(), is_bare=True)

    @operation("rekey/verify", update=GiveShare, authenticated=False)
    def verify_rekey(self, ctx: VaultContext, body: GiveShare) -> Response:
        """Give one of the new shares back."""
        self._require_unauthed_rekey()
        return Response(self._verify(ctx, body), is_bare=True)

    @operation("rekey/verify", delete=True, authenticated=False)
    def restart_rekey_verification(self, ctx: VaultContext) -> Response:
        """Begin to verify the new shares anew."""
        self._require_unauthed_rekey()
        self._rekey.restart_verification(ctx.random)
        return Response(self._verification_status(), is_bare=True)

    @operation("rekey/backup", read=True)
    def read_rekey_backup(self, ctx: VaultContext) -> Response:
        """Return backed-up shares; there are none, for nothing encrypts them."""
        del ctx
        raise InvalidRequest("no backed-up keys found")

    # -- a root token, with a token --

    @operation("generate-root-token/attempt", read=True, writes=True)
    def read_root_token_attempt(self, ctx: VaultContext) -> Response:
        """Tell whether a root token is being made."""
        del ctx
        return Response(self._generation_status(""))

    @operation("generate-root-token/attempt", update=StartGeneration)
    def start_root_token_attempt(self, ctx: VaultContext, body: StartGeneration) -> Response:
        """Begin to make a root token."""
        return Response(self._generation_status(self._start_generation(ctx, body)))

    @operation("generate-root-token/attempt", delete=True)
    def cancel_root_token_attempt(self, ctx: VaultContext) -> Response:
        """End the making of a root token without a result."""
        del ctx
        self._generation.cancel()
        return Response()

    @operation("generate-root-token/update", update=GiveShare)
    def update_root_token_attempt(self, ctx: VaultContext, body: GiveShare) -> Response:
        """Give one share."""
        encoded = self._give_for_root(ctx, body)
        is_complete = bool(encoded)
        data = {
            "complete": is_complete,
            "encoded_token": encoded,
            "nonce": body.nonce,
            "pgp_fingerprint": "",
            "progress": self._required if is_complete else self._generation.progress,
            "required": self._required,
            "started": True,
        }
        return Response(data)

    # -- a root token, without a token --

    @operation("generate-root", read=True, authenticated=False, writes=True)
    @operation("generate-root/attempt", read=True, authenticated=False, writes=True)
    def read_root_generation(self, ctx: VaultContext) -> Response:
        """Tell whether a root token is being made."""
        del ctx
        self._require_unauthed_generation()
        return Response(self._bare_generation_status(), is_bare=True)

    @operation("generate-root", update=StartGeneration, authenticated=False)
    @operation("generate-root/attempt", update=StartGeneration, authenticated=False)
    def start_root_generation(self, ctx: VaultContext, body: StartGeneration) -> Response:
        """Begin to make a root token."""
        self._require_unauthed_generation()
        otp = self._start_generation(ctx, body)
        return Response(self._bare_generation_status(otp=otp), is_bare=True)

    @operation("generate-root", delete=True, authenticated=False)
    @operation("generate-root/attempt", delete=True, authenticated=False)
    def cancel_root_generation(self, ctx: VaultContext) -> Response:
        """End the making of a root token without a result."""
        del ctx
        self._require_unauthed_generation()
        self._generation.cancel()
        return Response()

    @operation("generate-root/update", update=GiveShare, authenticated=False)
    def update_root_generation(self, ctx: VaultContext, body: GiveShare) -> Response:
        """Give one share."""
        self._require_unauthed_generation()
        encoded = self._give_for_root(ctx, body)
        data = self._bare_generation_status(nonce=body.nonce, encoded=encoded) | {"otp_length": 0}
        return Response(data, is_bare=True)

    # -- what they share --

    @property
    def _rekey(self) -> Rekey:
        return self.lifecycle.rekey

    @property
    def _generation(self) -> RootGeneration:
        return self.lifecycle.root_generation

    @property
    def _required(self) -> int:
        config = self.lifecycle.seal_config()
        return config.secret_threshold if config else 0

    def _require_unauthed_rekey(self) -> None:
        if not self.lifecycle.allowances.unauthed_rekey:
            raise UnsupportedOperation("unsupported operation")

    def _require_unauthed_generation(self) -> None:
        if not self.lifecycle.allowances.unauthed_root_generation:
            raise UnsupportedOperation("unsupported operation")

    def _start_rekey(self, ctx: VaultContext, body: StartRekey) -> None:
        if body.pgp_keys or body.backup:
            raise InvalidRequest("encrypting shares with PGP keys is not supported")
        self._rekey.start(
            body.secret_shares, body.secret_threshold, ctx.random, needs_verification=body.require_verification
        )

    def _give_share(self, ctx: VaultContext, body: GiveShare) -> NewShares | None:
        if not body.key:
            raise InvalidRequest("'key' must be specified in request body as JSON")
        made = self._rekey.give(body.key, body.nonce, self._required, self.lifecycle.open_root_key, ctx.random)
        if made is not None and self._rekey.unverified is None:
            self.lifecycle.put_new_shares(ctx.services, made)
        return made

    def _verify(self, ctx: VaultContext, body: GiveShare) -> dict[str, Any]:
        if not body.key:
            raise InvalidRequest("'key' must be specified in request body as JSON")
        made = self._rekey.verify(body.key, body.nonce, ctx.random)
        if made is None:
            return self._verification_status()
        self.lifecycle.put_new_shares(ctx.services, made)
        return {"complete": True, "nonce": body.nonce}

    def _rotation_status(self) -> dict[str, Any]:
        rekey = self._rekey
        config = rekey.config
        return {
            "n": config.secret_shares if config else 0,
            "nonce": rekey.nonce,
            "progress": rekey.progress,
            "required": self._required,
            "started": rekey.is_started,
            "t": config.secret_threshold if config else 0,
            "verification_nonce": rekey.verification_nonce,
            "verification_required": rekey.needs_verification,
        }

    def _rekey_status(self) -> dict[str, Any]:
        rekey = self._rekey
        config = rekey.config
        status: dict[str, Any] = {
            "nonce": rekey.nonce,
            "started": rekey.is_started,
            "t": config.secret_threshold if config else 0,
            "n": config.secret_shares if config else 0,
            "progress": rekey.progress,
            "required": self._required,
            "pgp_fingerprints": None,
            "backup": False,
            "verification_required": rekey.needs_verification,
        }
        return status | ({"verification_nonce": rekey.verification_nonce} if rekey.verification_nonce else {})

    def _rekeyed(self, made: NewShares, nonce: str) -> dict[str, Any]:
        """Return the new shares; they are shown this once."""
        return {
            "backup": False,
            "complete": True,
            "keys": [share.hex() for share in made.shares],
            "keys_base64": [encode_share(share) for share in made.shares],
            "nonce": nonce,
            "pgp_fingerprints": None,
            "verification_nonce": self._rekey.verification_nonce,
            "verification_required": self._rekey.unverified is not None,
        }

    def _verification_status(self) -> dict[str, Any]:
        rekey = self._rekey
        if rekey.unverified is None:
            raise NotFound("no rekey verification in progress")
        return {
            "n": rekey.unverified.config.secret_shares,
            "nonce": rekey.verification_nonce,
            "progress": rekey.verification_progress,
            "started": True,
            "t": rekey.unverified.config.secret_threshold,
        }

    def _start_generation(self, ctx: VaultContext, body: StartGeneration) -> str:
        if body.pgp_key:
            raise InvalidRequest("encrypting a root token with a PGP key is not supported")
        return self._generation.start(body.otp, ctx.random)

    def _give_for_root(self, ctx: VaultContext, body: GiveShare) -> str:
        """Return the hidden root token once the last share is given; empty before."""
        if not body.key:
            raise InvalidRequest("'key' must be specified in request body as JSON")
        otp = self._generation.give(body.key, body.nonce, self._required, self.lifecycle.open_root_key)
        if otp is None:
            return ""
        token, _ = tokens_of(ctx.services).create(
            ctx.services.area(AREA_TOKENS),
            now_ns=ctx.now_ns,
            policies=[ROOT],
            path="auth/token/root",
            display_name="root",
        )
        return encode_token(token, otp)

    def _generation_status(self, otp: str) -> dict[str, Any]:
        generation = self._generation
        status: dict[str, Any] = {
            "complete": False,
            "otp": otp,
            "otp_length": OTP_CHARACTERS,
            "progress": generation.progress,
            "required": self._required,
            "started": generation.is_started,
        }
        return status | ({"nonce": generation.nonce, "pgp_fingerprint": ""} if generation.is_started else {})

    def _bare_generation_status(self, *, nonce: str = "", encoded: str = "", otp: str = "") -> dict[str, Any]:
        generation = self._generation
        return {
            "nonce": nonce or generation.nonce,
            "started": generation.is_started or bool(encoded),
            "progress": self._required if encoded else generation.progress,
            "required": self._required,
            "complete": bool(encoded),
            "encoded_token": encoded,
            "encoded_root_token": encoded,
            "pgp_fingerprint": "",
            "otp": otp,
            "otp_length": OTP_CHARACTERS,
        }
