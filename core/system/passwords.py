"""sys/policies/password: policies by which passwords are made, and the making of one.

The language is in `core/passwords.py`. Source: Vault's API page "sys/policies/password"; recorded from a real server.
"""

from typing import Annotated, Final

from msgspec import Meta, Struct

from conclave.core.contract import Context, Engine, Response, operation
from conclave.core.errors import InvalidRequest, NotFound
from conclave.core.listing import Page, list_page
from conclave.core.passwords import generate_password, parse_password_policy
from conclave.core.policies import decode_text

POLICY_CHARACTERS_MAX: Final = 64 * 1024
"""The longest document that is kept."""
_FOLDER: Final = "password-policy"


class PasswordPolicyWrite(Struct):
    """A password policy's document."""

    policy: Annotated[str, Meta(description="The document: HCL or JSON, possibly in base64.")] = ""


class StoredPasswordPolicy(Struct, frozen=True, array_like=True):
    """A document as it is kept. New fields come last, with defaults."""

    text: str


class PasswordOperations(Engine):
    """The password policies' part of `sys/`; mixed into `System`."""

    type = "system-passwords"

    @operation("policies/password", list=Page)
    def list_password_policies(self, ctx: Context, body: Page) -> Response:
        """List the names of all password policies."""
        return list_page(ctx.storage, _FOLDER, body)

    @operation("policies/password/{name}", read=True)
    def read_password_policy(self, ctx: Context, name: str) -> Response:
        """Show a password policy."""
        return Response({"policy": _read(ctx, name).text})

    @operation("policies/password/{name}", update=PasswordPolicyWrite)
    def write_password_policy(self, ctx: Context, name: str, body: PasswordPolicyWrite) -> Response:
        """Create or replace a password policy."""
        text = decode_text(body.policy)
        if not text:
            raise InvalidRequest("1 error occurred:\n\t* missing policy\n\n")
        if len(text) > POLICY_CHARACTERS_MAX:
            raise InvalidRequest(f"a password policy has at most {POLICY_CHARACTERS_MAX} characters")
        parse_password_policy(text)
        ctx.storage.put(f"{_FOLDER}/{name}", StoredPasswordPolicy(text))
        return Response()

    @operation("policies/password/{name}", delete=True)
    def delete_password_policy(self, ctx: Context, name: str) -> Response:
        """Remove a password policy."""
        ctx.storage.delete(f"{_FOLDER}/{name}")
        return Response()

    @operation("policies/password/{name}/generate", read=True)
    def generate(self, ctx: Context, name: str) -> Response:
        """Make a password; it is kept nowhere."""
        return Response({"password": generate_password(parse_password_policy(_read(ctx, name).text), ctx.random)})


def _read(ctx: Context, name: str) -> StoredPasswordPolicy:
    stored = ctx.storage.get(f"{_FOLDER}/{name}", StoredPasswordPolicy)
    if stored is None:
        raise NotFound("1 error occurred:\n\t* policy does not exist\n\n")
    return stored
