"""What goes on without a request: leases end on time, what hangs on them is cleared, and it all stops with leadership."""

import pytest

import conclave
from conclave.cluster.replica import Standing
from conclave.core import rotation
from conclave.core.contract import Operation, Response
from conclave.core.errors import NotFound, PermissionDenied
from conclave.core.revocation import leases_of
from conclave.core.services import AREA_DOOMED, AREA_TOKENS
from conclave.core.versions import history
from conclave.storage.errors import Corrupt
from tests.fakes import FakeVault, data_of, on_loop, started_vault, until


async def new_token(fake: FakeVault, *, token: str = "", **fields: object) -> str:
    made = await fake.write("auth/token/create", {"policies": ["root"]} | fields, token=token or fake.root)
    assert isinstance(made, Response)
    assert made.auth is not None
    return made.auth.client_token


def is_idle(fake: FakeVault) -> bool:
    """Whether nothing is due and nothing is left of what ended."""
    services = fake.services()
    ended = services.area(AREA_TOKENS).list("ending")
    return not ended and not services.area(AREA_DOOMED).list()


@on_loop
async def test_a_lease_ends_without_anybody_asking() -> None:
    async with started_vault() as fake:
        token = await new_token(fake, ttl="30s")
        await fake.write("cubbyhole/mine", {"a": 1}, token=token)
        assert leases_of(fake.services()).next_expiry_ns() is not None

        fake.clock.advance(31)
        fake.vault.background._wake.set()
        await until(lambda: leases_of(fake.services()).next_expiry_ns() is None)
        await until(lambda: is_idle(fake))

        assert isinstance(await fake.read("auth/token/lookup-self", token=token), PermissionDenied)


@on_loop
async def test_an_expired_token_is_refused_before_it_is_cleared() -> None:
    async with started_vault() as fake:
        token = await new_token(fake, ttl="30s")

        fake.clock.advance(31)

        assert isinstance(await fake.read("sys/mounts", token=token), PermissionDenied)


@on_loop
async def test_a_lease_that_ends_earlier_wakes_the_work() -> None:
    async with started_vault() as fake:
        await new_token(fake, ttl="1h")
        await until(lambda: not fake.vault.background._wake.is_set())
        before = fake.vault.background._sleeps_until_ns

        await new_token(fake, ttl="5s")

        await until(lambda: fake.vault.background._sleeps_until_ns < before)


@on_loop
async def test_children_of_an_ended_token_are_cleared_in_bounded_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conclave.core.revocation.CLEARED_MAX", 3)
    async with started_vault() as fake:
        parent = await new_token(fake)
        for _ in range(10):
            await new_token(fake, token=parent, ttl="1h")

        await fake.write("auth/token/revoke", {"token": parent})
        await until(lambda: is_idle(fake))

        assert leases_of(fake.services()).next_expiry_ns() is None
        assert fake.services().area(AREA_TOKENS).list("child") == []


@on_loop
async def test_what_a_disabled_mount_held_is_emptied() -> None:
    async with started_vault() as fake:
        for number in range(20):
            await fake.write(f"secret/data/{number}", {"data": {}})
        described = data_of(await fake.read("sys/mounts"))["secret/"]
        assert fake.services().mount_storage(described["uuid"]).list()

        await fake.delete("sys/mounts/secret")
        await until(lambda: is_idle(fake))

        assert fake.services().mount_storage(described["uuid"]).list() == []
        assert isinstance(await fake.read("secret/data/1"), NotFound)


@on_loop
async def test_nothing_goes_on_on_a_standby() -> None:
    async with started_vault() as fake:
        token = await new_token(fake, ttl="30s")
        fake.replica.follow()
        fake.clock.advance(31)

        assert not await fake.vault.background.step()
        assert leases_of(fake.services()).next_expiry_ns() is not None
        assert token


@on_loop
async def test_a_new_leader_goes_on_where_the_old_one_stopped() -> None:
    async with started_vault() as fake:
        await new_token(fake, ttl="30s")
        fake.replica.follow()
        fake.clock.advance(31)

        fake.replica.lead()

        await until(lambda: leases_of(fake.services()).next_expiry_ns() is None)


@on_loop
async def test_a_step_that_cannot_be_committed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conclave.core.background.RETRY_SECONDS", 0.0)
    async with started_vault() as fake:
        await new_token(fake, ttl="30s")
        fake.replica.is_overloaded = True
        fake.clock.advance(31)
        fake.vault.background._wake.set()
        await until(lambda: not fake.vault.background._wake.is_set())

        fake.replica.is_overloaded = False

        await until(lambda: leases_of(fake.services()).next_expiry_ns() is None)


@on_loop
async def test_a_lease_that_does_not_open_holds_up_nothing_else() -> None:
    async with started_vault() as fake:
        await new_token(fake, ttl="30s")
        fake.replica.follow()
        services = fake.services()
        (key,) = services.transaction.keys(services.expiry.id)
        sealed = services.transaction.get(key)
        assert sealed is not None
        services.transaction.put(key, sealed[:-1])
        fake.replica.standing = Standing.LEADER
        await fake.commit(services)
        fake.clock.advance(31)
        token = await new_token(fake)
        await new_token(fake, token=token)
        await fake.write("auth/token/revoke", {"token": token})
        assert not is_idle(fake)

        while not is_idle(fake):
            assert await fake.vault.background.step()

        with pytest.raises(Corrupt):
            await fake.vault.background.step()


@on_loop
async def test_the_keyring_is_rotated_before_a_key_has_sealed_too_much() -> None:
    async with started_vault() as fake:
        assert fake.vault.keys is not None
        fake.vault.keys.barrier.encryption_count = rotation.OPERATIONS_MAX

        assert await fake.vault.background.step()

        assert fake.vault.keys.barrier.keyring.active == 2
        assert fake.vault.keys.barrier.encryption_count < 10


@on_loop
async def test_the_keyring_is_rotated_by_time_if_that_is_wanted() -> None:
    async with started_vault() as fake:
        assert fake.vault.keys is not None
        await fake.ask(Operation.UPDATE, "sys/rotate/config", {"interval": "24h"})
        assert not await fake.vault.background.step()

        fake.clock.advance(24 * 3600 + 1)

        assert await fake.vault.background.step()
        assert fake.vault.keys.barrier.keyring.active == 2


@on_loop
async def test_a_version_is_written_down_the_first_time_that_it_leads() -> None:
    async with started_vault() as fake:
        await until(lambda: bool(history(fake.services())))

        data = data_of(await fake.list("sys/version-history"))

        assert data["keys"] == [conclave.__version__]
        assert data["key_info"][conclave.__version__]["previous_version"] is None
        assert not await fake.vault.background.step()


@on_loop
async def test_the_count_of_sealed_records_survives_a_change_of_leader() -> None:
    async with started_vault() as fake:
        assert fake.vault.keys is not None
        fake.vault.keys.barrier.encryption_count = rotation.COUNT_STEP + 5
        assert await fake.vault.background.step()
        fake.replica.follow()
        fake.vault.keys.barrier.encryption_count = 0

        fake.replica.lead()

        assert fake.vault.keys.barrier.encryption_count >= rotation.COUNT_STEP
