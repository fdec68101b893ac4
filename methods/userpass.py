"""The userpass auth method: log in with a name and a password.

Passwords are kept as bcrypt hashes and compared in a thread. A wrong password and an unknown name get the same answer,
after the same work. Names are lower case. Source: Vault's API page "Userpass auth method"; texts recorded from a real
server.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from conclave.core import token_fields
from conclave.core.cidrs import contains
from conclave.core.contract import Context, Engine, Login, Response, Storage, TokenParameters, operation
from conclave.core.crypto import PASSWORD_BYTES_MAX, hash_password, is_password_hash, password_fits
from conclave.core.errors import InvalidCredentials, InvalidRequest, NotFound, PermissionDenied
from conclave.core.listing import Page, list_page
from conclave.core.token_fields import TokenFields

_NOBODYS_HASH: Final = "$2b$10$wZ1IWsW38Yja5hGYOx8gqeHwa15y6icPZlMGiXwFKICAjLBPSbjoi"
"""What the password of an unknown user is compared with, so that unknown names take as long as known ones."""
_REFUSED: Final = "invalid username or password"
_NO_PASSWORD: Final = "must provide either password or password_hash"  # noqa: S105  (a message)


class User(Struct, array_like=True, frozen=True):
    """A user as it is kept. New fields come last, with defaults."""

    password_hash: str
    parameters: TokenParameters
    shows_policies: bool = False  # they were given by their older name, and are shown by both


class WriteUser(TokenFields):
    """A user; what is not given stays."""

    password: Annotated[str, Meta(description="The password.")] = ""
    password_hash: Annotated[str, Meta(description="A bcrypt hash instead of the password.")] = ""


class Password(Struct):
    """A new password."""

    password: Annotated[str, Meta(description="The password.")] = ""
    password_hash: Annotated[str, Meta(description="A bcrypt hash instead of the password.")] = ""


class Policies(Struct):
    """New policies."""

    token_policies: Annotated[list[str] | None, Meta(description="The policies.")] = None
    policies: Annotated[list[str] | None, Meta(description="The older name of token_policies.")] = None


class Credentials(Struct):
    """What a user logs in with."""

    password: Annotated[str, Meta(description="The password.")] = ""


class Userpass(Engine):
    """Names and passwords."""

    type = "userpass"

    def exists(self, ctx: Context, path: str) -> bool | None:
        """Tell create from update for users."""
        area, _, name = path.partition("/")
        return ctx.storage.exists(_place(name)) if area == "users" and name and "/" not in name else None

    def login_alias(self, ctx: Context, path: str) -> str:
        """Return whom a login names."""
        del ctx
        return path.removeprefix("login/").lower() if path.startswith("login/") else ""

    @operation("login/{username}", update=Credentials, authenticated=False)
    async def login(self, ctx: Context, username: str, body: Credentials) -> Response:
        """Log in."""
        if not body.password:
            raise InvalidRequest("missing password")
        name = username.lower()
        user = ctx.storage.get(_place(name), User)
        hashed = _NOBODYS_HASH if user is None else user.password_hash
        fits = await ctx.in_thread(lambda: password_fits(body.password, hashed))
        if user is None or not fits:
            raise InvalidCredentials(_REFUSED)
        if not contains(user.parameters.bound_cidrs, ctx.request.remote_address):
            raise PermissionDenied("permission denied")

        def confirm(storage: Storage) -> None:
            if storage.get(_place(name), User) != user:  # deleted or changed while the password was being compared
                raise InvalidCredentials(_REFUSED)

        login = Login(name, f"userpass-{name}", user.parameters, {"username": name}, confirm=confirm)
        return Response(login=login)

    @operation("users", list=Page)
    @operation("users/", list=Page)
    def list_users(self, ctx: Context, body: Page) -> Response:
        """List the users."""
        return list_page(ctx.storage, "user", body)

    @operation("users/{username}", read=True)
    def read_user(self, ctx: Context, username: str) -> Response:
        """Show a user, but not the password."""
        user = ctx.storage.get(_place(username), User)
        if user is None:
            raise NotFound
        shown = token_fields.describe(user.parameters)
        return Response(shown | ({"policies": shown["token_policies"]} if user.shows_policies else {}))

    @operation("users/{username}", update=WriteUser)
    async def write_user(self, ctx: Context, username: str, body: WriteUser) -> Response:
        """Make or change a user."""
        hashed = await _hashed(ctx, body.password, body.password_hash)

        def write(step: Context) -> Response:
            before = step.storage.get(_place(username), User)
            if before is None and not hashed:
                raise InvalidRequest(_NO_PASSWORD)
            parameters = token_fields.merged(before.parameters if before else TokenParameters(), body)
            password_hash = hashed or (before.password_hash if before else "")
            step.storage.put(_place(username), User(password_hash, parameters, _shows_policies(before, body)))
            return Response()

        return await ctx.atomically(write)

    @operation("users/{username}", delete=True)
    def delete_user(self, ctx: Context, username: str) -> Response:
        """Remove a user; tokens that were given out stay."""
        ctx.storage.delete(_place(username))
        return Response()

    @operation("users/{username}/password", update=Password)
    async def set_password(self, ctx: Context, username: str, body: Password) -> Response:
        """Change a user's password."""
        hashed = await _hashed(ctx, body.password, body.password_hash)
        if not hashed:
            raise InvalidRequest(_NO_PASSWORD)

        def write(step: Context) -> Response:
            step.storage.put(_place(username), msgspec.structs.replace(_known(step, username), password_hash=hashed))
            return Response()

        return await ctx.atomically(write)

    @operation("users/{username}/policies", update=Policies)
    def set_policies(self, ctx: Context, username: str, body: Policies) -> Response:
        """Change a user's policies."""
        user = _known(ctx, username)
        sent = TokenFields(token_policies=body.token_policies, policies=body.policies)
        changed = msgspec.structs.replace(
            user,
            parameters=token_fields.merged(user.parameters, sent),
            shows_policies=_shows_policies(user, sent),
        )
        ctx.storage.put(_place(username), changed)
        return Response()


def _place(username: str) -> str:
    return f"user/{username.lower()}"


def _shows_policies(before: User | None, sent: TokenFields) -> bool:
    """Return whether policies are shown by their older name too: whichever name they were last given by decides."""
    if sent.token_policies is not None:
        return False
    return sent.policies is not None or (before is not None and before.shows_policies)


def _known(ctx: Context, username: str) -> User:
    user = ctx.storage.get(_place(username), User)
    if user is None:
        raise InvalidRequest("username does not exist")
    return user


async def _hashed(ctx: Context, password: str, given_hash: str) -> str:
    """Return the hash to be kept; empty if neither a password nor a hash was given."""
    if password and given_hash:
        raise InvalidRequest("'password' and 'password_hash' cannot both be given")
    if given_hash:
        if not is_password_hash(given_hash):
            raise InvalidRequest("'password_hash' is no bcrypt hash")
        return given_hash
    if len(password.encode()) > PASSWORD_BYTES_MAX:
        raise InvalidRequest(f"a password has at most {PASSWORD_BYTES_MAX} bytes")
    return await ctx.in_thread(lambda: hash_password(password)) if password else ""
