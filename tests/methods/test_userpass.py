"""Logging in with name and password, through a whole vault."""

import asyncio

from conclave.core.contract import Operation, Response
from conclave.core.crypto import hash_password
from conclave.core.errors import InvalidRequest, NotFound, PermissionDenied, RequestError
from conclave.core.lockout import FAILURES_MAX, LOCK_SECONDS
from conclave.core.outcomes import Outcome
from tests.clients import auth_of
from tests.fakes import FakeVault, data_of, on_loop, request_for, started_vault


async def _with_bob(vault: FakeVault, **fields: object) -> None:
    await vault.write("sys/auth/userpass", {"type": "userpass"})
    written = await vault.write("auth/userpass/users/bob", {"password": "pw", **fields})
    assert isinstance(written, Response), written


async def _login(vault: FakeVault, password: str, *, user: str = "bob", **more: object) -> Outcome:
    return await vault.write(f"auth/userpass/login/{user}", {"password": password}, token="", **more)


@on_loop
async def test_a_login_gives_a_token_with_the_users_policies() -> None:
    async with started_vault() as vault:
        await _with_bob(vault, token_policies=["p1"], token_ttl="30m")

        auth = auth_of(await _login(vault, "pw"))

        assert auth.policies == ["default", "p1"]
        assert auth.lease_duration == 1800
        assert auth.metadata == {"username": "bob"}
        looked_up = data_of(await vault.read("auth/token/lookup-self", token=auth.client_token))
        assert looked_up["display_name"] == "userpass-bob"
        assert looked_up["path"] == "auth/userpass/login/bob"
        assert looked_up["orphan"] is True


@on_loop
async def test_a_wrong_password_and_an_unknown_name_get_the_same_answer() -> None:
    async with started_vault() as vault:
        await _with_bob(vault)

        wrong = await _login(vault, "no")
        unknown = await _login(vault, "no", user="eve")

        assert isinstance(wrong, InvalidRequest)
        assert isinstance(unknown, InvalidRequest)
        assert wrong.messages == unknown.messages == ("invalid username or password",)


@on_loop
async def test_a_new_password_replaces_the_old_one() -> None:
    async with started_vault() as vault:
        await _with_bob(vault)
        await vault.write("auth/userpass/users/bob/password", {"password": "other"})

        old = await _login(vault, "pw")
        new = await _login(vault, "other")

        assert isinstance(old, InvalidRequest)
        assert isinstance(new, Response)


@on_loop
async def test_a_hash_can_be_given_instead_of_a_password() -> None:
    async with started_vault() as vault:
        await vault.write("sys/auth/userpass", {"type": "userpass"})
        await vault.write("auth/userpass/users/ann", {"password_hash": hash_password("secret")})

        outcome = await _login(vault, "secret", user="ann")

        assert isinstance(outcome, Response)


@on_loop
async def test_a_user_deleted_while_the_password_is_compared_gets_no_token() -> None:
    async with started_vault() as vault:
        await _with_bob(vault)
        login = vault.start(request_for(Operation.UPDATE, "auth/userpass/login/bob", {"password": "pw"}))
        await asyncio.sleep(0)  # one turn of the loop, in which the comparison is begun

        await vault.delete("auth/userpass/users/bob")

        assert isinstance(await login, InvalidRequest)


@on_loop
async def test_a_method_disabled_while_the_password_is_compared_gives_no_token() -> None:
    async with started_vault() as vault:
        await _with_bob(vault)
        login = vault.start(request_for(Operation.UPDATE, "auth/userpass/login/bob", {"password": "pw"}))

        await vault.delete("sys/auth/userpass")

        assert isinstance(await login, RequestError)


@on_loop
async def test_guesses_that_were_begun_before_the_lock_are_refused_right_or_wrong() -> None:
    async with started_vault() as vault:
        await _with_bob(vault)
        guesses = ["no"] * (FAILURES_MAX + 4) + ["pw"]

        outcomes = await asyncio.gather(*(_login(vault, guess) for guess in guesses))

        assert not any(isinstance(outcome, Response) for outcome in outcomes)
        assert sum(isinstance(outcome, PermissionDenied) for outcome in outcomes) == len(guesses) - FAILURES_MAX


@on_loop
async def test_names_are_compared_without_regard_to_case() -> None:
    async with started_vault() as vault:
        await _with_bob(vault)

        assert isinstance(await _login(vault, "pw", user="BOB"), Response)


@on_loop
async def test_who_fails_too_often_is_locked_out_for_a_while() -> None:
    async with started_vault() as vault:
        await _with_bob(vault)
        for _ in range(FAILURES_MAX):
            await _login(vault, "no")

        locked = await _login(vault, "pw")
        vault.clock.advance(LOCK_SECONDS + 1)
        later = await _login(vault, "pw")

        assert isinstance(locked, PermissionDenied)
        assert isinstance(later, Response)


@on_loop
async def test_a_disabled_method_ends_the_tokens_it_gave() -> None:
    async with started_vault() as vault:
        await _with_bob(vault)
        token = auth_of(await _login(vault, "pw")).client_token

        await vault.delete("sys/auth/userpass")

        refused = await vault.read("auth/token/lookup-self", token=token)
        assert isinstance(refused, PermissionDenied)


@on_loop
async def test_a_user_is_shown_without_the_password() -> None:
    async with started_vault() as vault:
        await _with_bob(vault, token_policies="p1,default")

        shown = data_of(await vault.read("auth/userpass/users/bob"))

        assert shown["token_policies"] == ["p1", "default"]
        assert "password" not in str(shown)


@on_loop
async def test_policies_given_by_their_older_name_are_shown_by_both() -> None:
    async with started_vault() as vault:
        await _with_bob(vault, policies="p1")
        older = data_of(await vault.read("auth/userpass/users/bob"))
        await vault.write("auth/userpass/users/bob", {"token_policies": "p2"})
        newer = data_of(await vault.read("auth/userpass/users/bob"))

        assert (older["policies"], older["token_policies"]) == (["p1"], ["p1"])
        assert "policies" not in newer


@on_loop
async def test_a_deleted_user_is_gone() -> None:
    async with started_vault() as vault:
        await _with_bob(vault)
        await vault.delete("auth/userpass/users/bob")

        assert isinstance(await vault.read("auth/userpass/users/bob"), NotFound)
        assert isinstance(await _login(vault, "pw"), InvalidRequest)


@on_loop
async def test_a_user_bound_to_addresses_logs_in_from_there_alone() -> None:
    async with started_vault() as vault:
        await _with_bob(vault, token_bound_cidrs=["10.0.0.0/8"])

        near = await _login(vault, "pw", remote_address="10.1.2.3")
        far = await _login(vault, "pw", remote_address="11.1.2.3")

        assert isinstance(near, Response)
        assert isinstance(far, PermissionDenied)
