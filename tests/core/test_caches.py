"""Caches: what is remembered is what is committed, and the feed alone makes it forgotten."""

from conclave.core.caches import bounded_put
from conclave.core.contract import Response
from conclave.core.services import AREA_POLICIES, AREA_TOKENS
from conclave.core.tokens import TokenRecord, name_of
from tests.fakes import FakeVault, on_loop, started_vault


def root_record(fake: FakeVault) -> TokenRecord:
    record = fake.services().area(AREA_TOKENS).get(name_of(fake.root), TokenRecord)
    assert record is not None
    return record


@on_loop
async def test_a_route_that_is_asked_for_again_is_worked_out_no_more_until_mounts_change() -> None:
    async with started_vault() as fake:
        await fake.read("secret/data/a")
        assert not fake.pipeline.caches.plans
        await fake.read("secret/data/a")
        remembered = dict(fake.pipeline.caches.plans)
        assert remembered

        await fake.read("secret/data/a")
        assert all(fake.pipeline.caches.plans[key] is plan for key, plan in remembered.items())
        await fake.mount("other/", "kv")

        assert not fake.pipeline.caches.plans


@on_loop
async def test_policies_are_compiled_once_until_one_changes() -> None:
    async with started_vault() as fake:
        caches, record = fake.pipeline.caches, root_record(fake)
        first = caches.acl(fake.services(), record)
        assert caches.acl(fake.services(), record) is first

        await fake.write("sys/policies/acl/any", {"policy": 'path "x" { capabilities = ["read"] }'})

        assert caches.acl(fake.services(), record) is not first


@on_loop
async def test_a_writer_with_a_change_of_its_own_looks_itself() -> None:
    async with started_vault() as fake:
        services = fake.services()
        assert fake.pipeline.caches.usable(services, AREA_POLICIES)

        services.area(AREA_POLICIES).put("x", b"y")

        assert not fake.pipeline.caches.usable(services, AREA_POLICIES)


@on_loop
async def test_a_writer_bypasses_an_area_with_changes_in_flight_and_a_reader_does_not() -> None:
    async with started_vault() as fake:
        assert fake.vault.keys is not None
        fake.replica.holds = True
        services = fake.services()
        services.area(AREA_POLICIES).put("x", b"y")
        fake.store.commit(services.transaction, lambda _: None)
        reading = fake.pipeline.services(fake.store.reading(), fake.vault.keys.barrier, 0)

        assert not fake.pipeline.caches.usable(fake.services(), AREA_POLICIES)
        assert fake.pipeline.caches.usable(fake.services(), AREA_TOKENS)
        assert fake.pipeline.caches.usable(reading, AREA_POLICIES)


@on_loop
async def test_a_full_cache_starts_over() -> None:
    async with started_vault() as fake:
        for number in range(10):
            await fake.read(f"secret/data/{number // 2}")
        count = len(fake.pipeline.caches.plans)
        assert count == 5

        bounded_put(fake.pipeline.caches.plans, "one more", 1, count)

        assert fake.pipeline.caches.plans == {"one more": 1}


@on_loop
async def test_a_sealed_node_remembers_nothing() -> None:
    async with started_vault() as fake:
        caches = fake.pipeline.caches
        for _ in range(2):
            await fake.read("secret/data/a")
        assert caches.plans
        assert caches._tokens
        assert caches._acls

        fake.vault.seal()

        assert not caches.plans
        assert not caches._tokens
        assert not caches._acls
        await fake.unseal()
        assert isinstance(await fake.read("sys/mounts"), Response)
