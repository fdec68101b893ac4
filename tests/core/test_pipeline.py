"""The steps of a request: who is refused with which words, what policies see, and what becomes of an answer."""

from typing import Any

import pytest

from conclave.core.contract import Context, Engine, Login, Operation, Response, TokenParameters, operation
from conclave.core.errors import (
    InvalidCredentials,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RequestError,
    UnsupportedOperation,
)
from conclave.core.outcomes import Outcome
from conclave.core.revocation import tokens_of
from conclave.core.services import AREA_TOKENS
from tests.fakes import FakeVault, data_of, on_loop, request_for, started_vault

DENIED_BY_POLICY = "1 error occurred:\n\t* permission denied\n\n"


class Doors(Engine):
    """An auth method that lets everybody in who knocks."""

    type = "userpass"

    def login_alias(self, ctx: Context, path: str) -> str:
        del ctx
        return path.removeprefix("login/")

    @operation("login/{name}", update=True, authenticated=False)
    def login(self, ctx: Context, name: str) -> Response:
        """Log in."""
        wrong = ctx.request.parameters().get("wrong")
        if wrong:
            raise InvalidCredentials("no")
        return Response(login=Login(name, f"door-{name}", TokenParameters(policies=["p"], ttl_seconds=60)))


def message_of(outcome: Outcome) -> str:
    assert isinstance(outcome, RequestError), outcome
    return outcome.messages[0] if outcome.messages else ""


async def token_with(fake: FakeVault, policy: str, **fields: Any) -> str:
    """Return a token with one policy of this text."""
    assert isinstance(await fake.write("sys/policies/acl/p", {"policy": policy}), Response)
    made = await fake.write("auth/token/create", {"policies": ["p"], "no_default_policy": True} | fields)
    assert isinstance(made, Response)
    assert made.auth is not None
    return made.auth.client_token


# -- who is refused, and how --


@pytest.mark.parametrize("path", ["secret/data/a", "nomount/x", "sys/mounts", "sys/nonexist", "auth/nope/login"])
@pytest.mark.parametrize("token", ["", "hvs.unknown", "hvb.bm90IGEgdG9rZW4"])
@on_loop
async def test_without_a_good_token_nothing_is_learned(path: str, token: str) -> None:
    async with started_vault() as fake:
        outcome = await fake.read(path, token=token)

        assert isinstance(outcome, PermissionDenied)
        assert outcome.messages == ("permission denied",)


@on_loop
async def test_a_policy_that_does_not_allow_it_refuses_in_its_own_words() -> None:
    async with started_vault() as fake:
        token = await token_with(fake, 'path "secret/data/mine" { capabilities = ["read"] }')

        for path in ("secret/data/other", "nomount/x", "sys/nonexist"):
            outcome = await fake.read(path, token=token)
            assert isinstance(outcome, PermissionDenied)
            assert message_of(outcome) == DENIED_BY_POLICY


@on_loop
async def test_a_path_without_a_mount_is_told_to_whoever_may_know() -> None:
    async with started_vault() as fake:
        outcome = await fake.read("nomount/x")

        assert isinstance(outcome, NotFound)
        assert message_of(outcome) == 'no handler for route "nomount/x". route entry not found.'


@on_loop
async def test_a_path_that_an_engine_lacks_is_unsupported() -> None:
    async with started_vault() as fake:
        outcome = await fake.read("sys/nonexist")

        assert isinstance(outcome, NotFound)
        assert message_of(outcome) == "1 error occurred:\n\t* unsupported path\n\n"


@on_loop
async def test_an_operation_that_a_path_lacks_is_unsupported() -> None:
    async with started_vault() as fake:
        outcome = await fake.delete("sys/mounts")

        assert isinstance(outcome, UnsupportedOperation)
        assert message_of(outcome) == "1 error occurred:\n\t* unsupported operation\n\n"


@pytest.mark.parametrize("path", ["sys/health", "sys/seal-status", "sys/init"])
@on_loop
async def test_an_operation_that_a_path_for_everybody_lacks_is_refused_without_words(path: str) -> None:
    async with started_vault() as fake:
        outcome = await fake.delete(path, token="")

        assert isinstance(outcome, UnsupportedOperation)
        assert outcome.messages == ()


@on_loop
async def test_sudo_is_needed_besides_the_operation() -> None:
    async with started_vault() as fake:
        without = await token_with(fake, 'path "sys/rotate" { capabilities = ["update"] }')
        assert message_of(await fake.write("sys/rotate", token=without)) == DENIED_BY_POLICY

        having = await token_with(fake, 'path "sys/rotate" { capabilities = ["update", "sudo"] }')
        assert isinstance(await fake.write("sys/rotate", token=having), Response)


@on_loop
async def test_existence_decides_between_create_and_update() -> None:
    async with started_vault() as fake:
        token = await token_with(fake, 'path "secret/data/*" { capabilities = ["create"] }')

        assert isinstance(await fake.write("secret/data/a", {"data": {}}, token=token), Response)
        assert message_of(await fake.write("secret/data/a", {"data": {}}, token=token)) == DENIED_BY_POLICY


@on_loop
async def test_restricted_parameters_are_looked_at() -> None:
    async with started_vault() as fake:
        await fake.mount("kv/", "kv")
        token = await token_with(
            fake, 'path "kv/*" { capabilities = ["create", "update"] allowed_parameters = { "a" = ["1"] } }'
        )

        assert isinstance(await fake.write("kv/x", {"a": "1"}, token=token), Response)
        assert message_of(await fake.write("kv/x", {"a": "2"}, token=token)) == DENIED_BY_POLICY


@on_loop
async def test_a_listing_is_allowed_with_and_without_its_slash() -> None:
    async with started_vault() as fake:
        await fake.write("secret/data/dir/a", {"data": {}})
        token = await token_with(fake, 'path "secret/metadata/*" { capabilities = ["list"] }')

        for path in ("secret/metadata", "secret/metadata/", "secret/metadata/dir", "secret/metadata/dir/"):
            assert isinstance(await fake.list(path, token=token), Response), path


@on_loop
async def test_a_token_bound_to_addresses_is_good_from_there_alone() -> None:
    async with started_vault() as fake:
        token = await token_with(fake, 'path "secret/*" { capabilities = ["list"] }')
        services = fake.services()
        text, _ = tokens_of(services).create(
            services.area(AREA_TOKENS), now_ns=services.now_ns, policies=["root"], path="x", bound_cidrs=["10.0.0.0/8"]
        )
        await fake.commit(services)
        assert token

        assert isinstance(await fake.read("sys/mounts", token=text, remote_address="10.1.2.3"), Response)
        assert isinstance(await fake.read("sys/mounts", token=text, remote_address="11.1.2.3"), PermissionDenied)


# -- changes take effect at once --


@on_loop
async def test_a_policy_that_changed_counts_for_the_next_request() -> None:
    async with started_vault() as fake:
        token = await token_with(fake, 'path "sys/mounts" { capabilities = ["read"] }')
        assert isinstance(await fake.read("sys/mounts", token=token), Response)

        await fake.write("sys/policies/acl/p", {"policy": 'path "sys/mounts" { capabilities = ["deny"] }'})

        assert message_of(await fake.read("sys/mounts", token=token)) == DENIED_BY_POLICY


@on_loop
async def test_a_token_that_was_revoked_is_good_no_longer() -> None:
    async with started_vault() as fake:
        token = await token_with(fake, 'path "sys/mounts" { capabilities = ["read"] }')
        assert isinstance(await fake.read("sys/mounts", token=token), Response)

        await fake.write("auth/token/revoke", {"token": token})

        assert isinstance(await fake.read("sys/mounts", token=token), PermissionDenied)


@on_loop
async def test_writers_see_revocations_that_are_still_in_flight() -> None:
    async with started_vault() as fake:
        token = await token_with(fake, 'path "secret/*" { capabilities = ["create", "update"] }')
        fake.replica.holds = True
        revoking = fake.start(_write("auth/token/revoke", {"token": token}, fake.root))
        writing = fake.start(_write("secret/data/a", {"data": {}}, token))

        fake.replica.commit()

        assert isinstance(await revoking, Response)
        assert isinstance(await writing, PermissionDenied)


@on_loop
async def test_a_mount_that_was_disabled_is_gone_for_the_next_request() -> None:
    async with started_vault() as fake:
        await fake.write("secret/data/a", {"data": {}})
        assert isinstance(await fake.read("secret/data/a"), Response)

        await fake.delete("sys/mounts/secret")

        assert isinstance(await fake.read("secret/data/a"), NotFound)


# -- limited use --


@on_loop
async def test_a_token_with_a_use_limit_is_good_so_many_times() -> None:
    async with started_vault() as fake:
        token = await token_with(fake, 'path "sys/mounts" { capabilities = ["read"] }', num_uses=2)

        outcomes = [await fake.read("sys/mounts", token=token) for _ in range(3)]

        assert [type(outcome) for outcome in outcomes] == [Response, Response, PermissionDenied]


@on_loop
async def test_a_refused_request_is_a_use_too() -> None:
    async with started_vault() as fake:
        token = await token_with(fake, 'path "sys/mounts" { capabilities = ["read"] }', num_uses=1)

        assert message_of(await fake.read("secret/data/x", token=token)) == DENIED_BY_POLICY
        assert message_of(await fake.read("sys/mounts", token=token)) == "permission denied"


@on_loop
async def test_a_refused_login_is_no_use_of_a_token_that_came_with_it() -> None:
    async with started_vault() as fake:
        await _mount_doors(fake)
        token = await token_with(fake, 'path "sys/mounts" { capabilities = ["read"] }', num_uses=1)

        assert message_of(await fake.write("auth/doors/login/bob", {"wrong": True}, token=token)) == "no"
        assert isinstance(await fake.read("sys/mounts", token=token), Response)


@on_loop
async def test_no_cache_keeps_the_longest_paths_that_clients_can_think_of() -> None:
    async with started_vault() as fake:
        token = await token_with(fake, 'path "secret/*" { capabilities = ["read"] }')
        short, long = (f"secret/data/{'x' * length}" for length in (10, 1000))
        fake.pipeline.caches.clear()

        for path in (short, long):
            for used in (token, "") * 2:
                await fake.read(path, token=used)

        caches = fake.pipeline.caches
        for path, is_kept in ((short, True), (long, False)):
            assert ((Operation.READ, path) in caches.plans) == is_kept
            assert any(path in acl._cache for acl in caches._acls.values()) == is_kept


# -- answers --


@on_loop
async def test_fields_that_nobody_knows_are_warned_of() -> None:
    async with started_vault() as fake:
        outcome = await fake.write("secret/config", {"max_versions": 3, "zzz": 1, "aaa": 2})

        assert isinstance(outcome, Response)
        assert outcome.warnings == ["Endpoint ignored these unrecognized parameters: [aaa zzz]"]


@on_loop
async def test_a_login_gets_a_token_with_its_entity_and_lease() -> None:
    async with started_vault() as fake:
        await _mount_doors(fake)

        outcome = await fake.write("auth/doors/login/bob", token="")

        assert isinstance(outcome, Response)
        assert outcome.auth is not None
        assert outcome.auth.policies == ["default", "p"]
        assert outcome.auth.lease_duration == 60
        assert outcome.auth.entity_id
        looked_up = data_of(await fake.read("auth/token/lookup-self", token=outcome.auth.client_token))
        assert looked_up["path"] == "auth/doors/login/bob"
        assert looked_up["display_name"] == "door-bob"


@on_loop
async def test_the_same_name_is_the_same_entity() -> None:
    async with started_vault() as fake:
        await _mount_doors(fake)

        first, second = [await fake.write("auth/doors/login/bob", token="") for _ in range(2)]

        assert isinstance(first, Response)
        assert isinstance(second, Response)
        assert first.auth is not None
        assert second.auth is not None
        assert first.auth.entity_id == second.auth.entity_id
        assert first.auth.client_token != second.auth.client_token


@on_loop
async def test_whoever_fails_to_log_in_too_often_is_locked_out() -> None:
    async with started_vault() as fake:
        await _mount_doors(fake)
        for _ in range(5):
            assert message_of(await fake.write("auth/doors/login/bob", {"wrong": True}, token="")) == "no"

        assert message_of(await fake.write("auth/doors/login/bob", token="")) == "permission denied"
        locked = data_of(await fake.read("sys/locked-users"))
        assert locked["total"] == 1
        assert locked["by_namespace"][0]["mount_accessors"][0]["alias_identifiers"] == ["bob"]
        assert isinstance(await fake.write("auth/doors/login/eve", token=""), Response)
        fake.clock.advance(901)
        assert isinstance(await fake.write("auth/doors/login/bob", token=""), Response)


@on_loop
async def test_somebody_who_is_locked_out_can_be_let_in_again() -> None:
    async with started_vault() as fake:
        await _mount_doors(fake)
        for _ in range(5):
            await fake.write("auth/doors/login/bob", {"wrong": True}, token="")
        accessor = data_of(await fake.read("sys/auth"))["doors/"]["accessor"]

        await fake.write(f"sys/locked-users/{accessor}/unlock/bob")

        assert isinstance(await fake.write("auth/doors/login/bob", token=""), Response)


# -- wrapping --


@on_loop
async def test_a_wrapped_answer_is_got_once() -> None:
    async with started_vault() as fake:
        await fake.write("secret/data/a", {"data": {"v": 1}})

        wrapped = await fake.read("secret/data/a", wrap_ttl_seconds=60)

        assert isinstance(wrapped, Response)
        assert wrapped.data is None
        assert wrapped.wrap_info is not None
        assert (wrapped.wrap_info.ttl, wrapped.wrap_info.creation_path) == (60, "secret/data/a")
        first = await fake.write("sys/wrapping/unwrap", token=wrapped.wrap_info.token)
        assert data_of(first)["data"] == {"v": 1}
        second = await fake.write("sys/wrapping/unwrap", token=wrapped.wrap_info.token)
        assert isinstance(second, InvalidRequest)
        assert message_of(second) == "wrapping token is not valid or does not exist"


@on_loop
async def test_what_is_not_there_is_not_wrapped() -> None:
    async with started_vault() as fake:
        assert isinstance(await fake.read("secret/data/none", wrap_ttl_seconds=60), NotFound)


@on_loop
async def test_a_wrapping_token_is_good_for_nothing_else_and_spent_by_trying() -> None:
    async with started_vault() as fake:
        wrapped = await fake.write("sys/wrapping/wrap", {"a": 1}, wrap_ttl_seconds=60)
        assert isinstance(wrapped, Response)
        assert wrapped.wrap_info is not None
        token = wrapped.wrap_info.token

        assert message_of(await fake.read("auth/token/lookup-self", token=token)) == DENIED_BY_POLICY
        assert isinstance(await fake.write("sys/wrapping/unwrap", token=token), InvalidRequest)


@on_loop
async def test_a_wrapped_token_is_told_by_its_accessor() -> None:
    async with started_vault() as fake:
        wrapped = await fake.write("auth/token/create", {"policies": ["default"]}, wrap_ttl_seconds=60)
        assert isinstance(wrapped, Response)
        assert wrapped.wrap_info is not None

        unwrapped = await fake.write("sys/wrapping/unwrap", {"token": wrapped.wrap_info.token})

        assert isinstance(unwrapped, Response)
        assert unwrapped.auth is not None
        assert unwrapped.auth.accessor == wrapped.wrap_info.wrapped_accessor


@on_loop
async def test_looking_at_a_wrapped_answer_is_no_use_of_it() -> None:
    async with started_vault() as fake:
        wrapped = await fake.write("sys/wrapping/wrap", {"a": 1}, wrap_ttl_seconds=60)
        assert isinstance(wrapped, Response)
        assert wrapped.wrap_info is not None

        looked = data_of(await fake.write("sys/wrapping/lookup", {"token": wrapped.wrap_info.token}, token=""))

        assert looked == {
            "creation_path": "sys/wrapping/wrap",
            "creation_time": wrapped.wrap_info.creation_time,
            "creation_ttl": 60,
        }
        assert data_of(await fake.write("sys/wrapping/unwrap", {"token": wrapped.wrap_info.token})) == {"a": 1}


@on_loop
async def test_rewrapping_keeps_path_and_lifetime_and_ends_the_old_token() -> None:
    async with started_vault() as fake:
        wrapped = await fake.write("sys/wrapping/wrap", {"a": 1}, wrap_ttl_seconds=60)
        assert isinstance(wrapped, Response)
        assert wrapped.wrap_info is not None

        again = await fake.write("sys/wrapping/rewrap", {"token": wrapped.wrap_info.token})

        assert isinstance(again, Response)
        assert again.wrap_info is not None
        assert (again.wrap_info.ttl, again.wrap_info.creation_path) == (60, "sys/wrapping/wrap")
        assert isinstance(await fake.write("sys/wrapping/unwrap", token=wrapped.wrap_info.token), InvalidRequest)
        assert data_of(await fake.write("sys/wrapping/unwrap", token=again.wrap_info.token)) == {"a": 1}


def _write(path: str, fields: Any, token: str) -> Any:
    return request_for(Operation.UPDATE, path, fields, token=token)


async def _mount_doors(fake: FakeVault) -> None:
    fake.pipeline.methods["userpass"] = Doors()
    await fake.mount("auth/doors/", "userpass")
    await fake.write("sys/policies/acl/p", {"policy": 'path "secret/*" { capabilities = ["read"] }'})
