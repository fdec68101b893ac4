"""Machines that log in, through a whole vault."""

from typing import Any

import pytest

from conclave.core.contract import Response
from conclave.core.errors import InvalidRequest, NotFound
from conclave.core.identity import Identities
from tests.fakes import FakeVault, data_of, on_loop, started_vault


async def _with_role(vault: FakeVault, **fields: Any) -> str:
    """Make a role and return its role id."""
    await vault.write("sys/auth/approle", {"type": "approle"})
    written = await vault.write("auth/approle/role/app", fields)
    assert isinstance(written, Response), written
    return str(data_of(await vault.read("auth/approle/role/app/role-id"))["role_id"])


async def _secret_id(vault: FakeVault, **fields: Any) -> dict[str, Any]:
    return dict(data_of(await vault.write("auth/approle/role/app/secret-id", fields)))


async def _login(vault: FakeVault, role_id: str, secret_id: str, **more: Any) -> Any:
    return await vault.write("auth/approle/login", {"role_id": role_id, "secret_id": secret_id}, token="", **more)


@on_loop
async def test_a_login_gives_a_token_with_the_roles_policies_and_metadata() -> None:
    async with started_vault() as vault:
        role_id = await _with_role(vault, token_policies=["p1"], token_ttl="20m")
        secret = await _secret_id(vault, metadata='{"k":"v"}')

        outcome = await _login(vault, role_id, secret["secret_id"])

        assert outcome.auth.policies == ["default", "p1"]
        assert outcome.auth.metadata == {"k": "v", "role_name": "app"}
        assert outcome.auth.lease_duration == 1200


@on_loop
async def test_policies_are_filled_in_with_what_the_last_login_said() -> None:
    async with started_vault() as vault:
        role_id = await _with_role(vault, token_policies=["p"])
        accessor = data_of(await vault.read("sys/auth"))["approle/"]["accessor"]
        path = f"secret/data/{{{{identity.entity.aliases.{accessor}.metadata.team}}}}"
        await vault.write("sys/policies/acl/p", {"policy": f'path "{path}" {{ capabilities = ["read"] }}'})

        outcomes = []
        for team in ("red", "blue"):
            secret = await _secret_id(vault, metadata=f'{{"team":"{team}"}}')
            login = await _login(vault, role_id, secret["secret_id"])
            outcomes.append(await vault.read(f"secret/data/{team}", token=login.auth.client_token))

        assert [type(outcome) for outcome in outcomes] == [NotFound, NotFound]  # both may know that nothing is there


@on_loop
async def test_a_standing_that_is_remembered_costs_a_login_no_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with started_vault() as vault:
        role_id = await _with_role(vault, token_policies=["p1"])
        secret = await _secret_id(vault)
        await _login(vault, role_id, secret["secret_id"])  # makes the entity
        known = await _login(vault, role_id, secret["secret_id"])

        def listed(_self: Identities, _entity_id: str) -> list[str]:
            raise AssertionError("listed again")

        monkeypatch.setattr(Identities, "direct_group_ids", listed)
        again = await _login(vault, role_id, secret["secret_id"])

        assert again.auth.entity_id == known.auth.entity_id != ""
        assert again.auth.policies == known.auth.policies


@on_loop
async def test_a_secret_id_is_good_for_as_many_logins_as_it_has_uses() -> None:
    async with started_vault() as vault:
        role_id = await _with_role(vault, secret_id_num_uses=2)
        secret = await _secret_id(vault)

        outcomes = [await _login(vault, role_id, secret["secret_id"]) for _ in range(3)]

        assert [type(outcome) for outcome in outcomes[:2]] == [Response, Response]
        assert outcomes[2].messages == ("invalid role or secret ID",)


@on_loop
async def test_a_secret_id_ends_with_its_time() -> None:
    async with started_vault() as vault:
        role_id = await _with_role(vault, secret_id_ttl="10m")
        secret = await _secret_id(vault)

        vault.clock.advance(601)

        assert (await _login(vault, role_id, secret["secret_id"])).messages == ("invalid role or secret ID",)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "missing role_id"),
        ({"secret_id": "x"}, "missing role_id"),
        ({"role_id": "wrong", "secret_id": "wrong"}, "invalid role or secret ID"),
    ],
)
def test_a_wrong_login_is_refused(fields: dict[str, str], message: str) -> None:
    @on_loop
    async def run() -> None:
        async with started_vault() as vault:
            await _with_role(vault)

            outcome = await vault.write("auth/approle/login", fields, token="")

            assert isinstance(outcome, InvalidRequest)
            assert outcome.messages == (message,)

    run()


@on_loop
async def test_a_secret_id_of_another_role_does_not_fit() -> None:
    async with started_vault() as vault:
        role_id = await _with_role(vault)
        await vault.write("auth/approle/role/other", {})
        other = data_of(await vault.write("auth/approle/role/other/secret-id"))

        assert isinstance(await _login(vault, role_id, other["secret_id"]), InvalidRequest)


@on_loop
async def test_a_login_from_elsewhere_is_refused() -> None:
    async with started_vault() as vault:
        role_id = await _with_role(vault, secret_id_bound_cidrs=["10.0.0.0/8"])
        secret = await _secret_id(vault)

        inside = await _login(vault, role_id, secret["secret_id"], remote_address="10.1.2.3")
        outside = await _login(vault, role_id, secret["secret_id"], remote_address="192.0.2.1")

        assert isinstance(inside, Response)
        assert isinstance(outside, InvalidRequest)


@on_loop
async def test_a_destroyed_secret_id_is_good_for_nothing() -> None:
    async with started_vault() as vault:
        role_id = await _with_role(vault)
        by_id, by_accessor = await _secret_id(vault), await _secret_id(vault)

        await vault.write("auth/approle/role/app/secret-id/destroy", {"secret_id": by_id["secret_id"]})
        await vault.write(
            "auth/approle/role/app/secret-id-accessor/destroy",
            {"secret_id_accessor": by_accessor["secret_id_accessor"]},
        )

        assert isinstance(await _login(vault, role_id, by_id["secret_id"]), InvalidRequest)
        assert isinstance(await _login(vault, role_id, by_accessor["secret_id"]), InvalidRequest)
        assert isinstance(await vault.list("auth/approle/role/app/secret-id"), NotFound)


@on_loop
async def test_a_role_that_is_made_anew_knows_no_secret_id_of_the_old_one() -> None:
    async with started_vault() as vault:
        await _with_role(vault, role_id="chosen")
        secret = await _secret_id(vault)

        await vault.delete("auth/approle/role/app")
        await vault.write("auth/approle/role/app", {"role_id": "chosen"})

        assert isinstance(await _login(vault, "chosen", secret["secret_id"]), InvalidRequest)


@on_loop
async def test_one_field_of_a_role_is_read_changed_and_set_back() -> None:
    async with started_vault() as vault:
        await _with_role(vault, token_ttl="20m")

        before = data_of(await vault.read("auth/approle/role/app/token-ttl"))
        await vault.write("auth/approle/role/app/token-ttl", {"token_ttl": "5m"})
        changed = data_of(await vault.read("auth/approle/role/app/token-ttl"))
        await vault.delete("auth/approle/role/app/token-ttl")
        after = data_of(await vault.read("auth/approle/role/app/token-ttl"))

        assert (before, changed, after) == ({"token_ttl": 1200}, {"token_ttl": 300}, {"token_ttl": 0})


@on_loop
async def test_what_is_known_of_a_secret_id_is_shown_by_its_accessor() -> None:
    async with started_vault() as vault:
        await _with_role(vault, secret_id_num_uses=2)
        secret = await _secret_id(vault)

        shown = data_of(
            await vault.write(
                "auth/approle/role/app/secret-id-accessor/lookup",
                {"secret_id_accessor": secret["secret_id_accessor"]},
            )
        )

        assert shown["secret_id_num_uses"] == 2
        assert "secret_id" not in shown


@on_loop
async def test_two_roles_cannot_have_the_same_role_id() -> None:
    async with started_vault() as vault:
        await _with_role(vault, role_id="chosen")

        outcome = await vault.write("auth/approle/role/other", {"role_id": "chosen"})

        assert isinstance(outcome, InvalidRequest)


@on_loop
async def test_secret_ids_that_are_over_are_tidied_away() -> None:
    async with started_vault() as vault:
        await _with_role(vault, secret_id_ttl="1m")
        await _secret_id(vault)
        vault.clock.advance(61)

        await vault.write("auth/approle/tidy/secret-id")

        assert isinstance(await vault.list("auth/approle/role/app/secret-id"), NotFound)


@pytest.mark.parametrize(
    ("fields", "is_within"),
    [
        ({"cidr_list": ["10.1.0.0/16"]}, True),
        ({"cidr_list": ["10.0.0.1"], "token_bound_cidrs": ["192.168.0.1"]}, True),
        ({"cidr_list": ["10.1.0.0/16", "11.0.0.0/8"]}, False),
        ({"cidr_list": ["0.0.0.0/0"]}, False),
        ({"cidr_list": ["::1"]}, False),
        ({"token_bound_cidrs": ["192.169.0.1"]}, False),
    ],
)
@on_loop
async def test_a_secret_id_is_bound_no_less_than_its_role(fields: dict[str, Any], is_within: bool) -> None:
    async with started_vault() as vault:
        await _with_role(vault, secret_id_bound_cidrs=["10.0.0.0/8"], token_bound_cidrs=["192.168.0.0/16"])

        drawn = await vault.write("auth/approle/role/app/secret-id", fields)

        assert isinstance(drawn, Response) is is_within
