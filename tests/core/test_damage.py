"""Records that a disk has changed: never answered from, said aloud, and left to the nodes that hold them whole."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from msgspec import Struct

from conclave.core import snapshot_schedule
from conclave.core.audit import UNKNOWN_DEVICES
from conclave.core.contract import Context, Engine, Operation, Response, operation
from conclave.core.errors import InternalError, Unavailable
from conclave.core.scrubber import STEP_RECORDS
from conclave.core.snapshot_schedule import Schedule, ScheduledSnapshots
from conclave.core.snapshots import Snapshots
from conclave.core.store import WHAT_TO_DO_ABOUT_DAMAGE, settlement_of
from conclave.core.vault import DAMAGED
from conclave.storage.errors import Corrupt
from conclave.storage.seal import CLEAR_KEYS
from conclave.storage.writeset import Stage, WriteSet
from tests.clients import auth_of
from tests.fakes import FakeVault, data_of, on_loop, started_standby, started_vault, until

LARGE = {"data": {"value": "x" * 2000}}
"""The record that holds it is larger than any other."""


class Number(Struct):
    """What the engine below reads."""

    value: int


class Misread(Engine):
    """An engine that finds a record of another form."""

    type = "misread"

    @operation("read", read=True)
    def read(self, ctx: Context) -> Response:
        """Read."""
        return Response({"value": ctx.storage.get("number", Number)})

    @operation("write", update=True)
    def write(self, ctx: Context) -> Response:
        """Write."""
        ctx.storage.put("number", b"\xa5wrong")
        return Response()


def flipped(sealed: bytes) -> bytes:
    return sealed[:-1] + bytes([sealed[-1] ^ 1])


def records(fake: FakeVault) -> list[tuple[bytes, bytes]]:
    """Return all that is durable in the state."""
    reader = fake.overlay.open_reader()
    try:
        return list(reader.pairs())
    finally:
        reader.close()


def change(fake: FakeVault, puts: list[tuple[bytes, bytes]], deletes: list[bytes] | None = None) -> None:
    """Change records of this node alone, as a disk would."""
    fake.replica.index += 1
    data = WriteSet(fake.store.now_ns(), puts, deletes or []).encode()
    fake.store.apply(fake.replica.index, fake.replica.term, data)


async def turns() -> None:
    """Let everything run that could."""
    for _ in range(50):
        await asyncio.sleep(0)


async def damage_the_large_secret(fake: FakeVault) -> None:
    await fake.store.flush()
    key, sealed = max(records(fake), key=lambda pair: len(pair[1]))
    change(fake, [(key, flipped(sealed))])


async def until_scrubbed(fake: FakeVault) -> None:
    """Make what there is durable, and let the scrubber look at it from the start, until it has found something."""
    await fake.store.flush()
    fake.vault.scrubber.start()
    await until(lambda: fake.lifecycle.fault != "")


async def restore(fake: FakeVault, pairs: list[tuple[bytes, bytes]]) -> None:
    """Bring a state in through the log, as a restorer does."""
    freeze = fake.store.freeze()
    await settlement_of(partial(fake.store.stage, freeze, Stage.BEGIN, []))
    await settlement_of(partial(fake.store.stage, freeze, Stage.PUTS, pairs))
    await settlement_of(partial(fake.store.swap, freeze, len(pairs)))
    fake.store.thaw(freeze)


@asynccontextmanager
async def vault_with_a_secret() -> AsyncIterator[FakeVault]:
    async with started_vault(engines={"misread": Misread()}) as fake:
        await fake.write("secret/data/large", LARGE)
        await fake.write("secret/data/small", {"data": {"value": "y"}})
        yield fake


@on_loop
async def test_a_damaged_record_is_refused_and_the_fault_says_what_to_do() -> None:
    async with vault_with_a_secret() as fake:
        await damage_the_large_secret(fake)

        outcome = await fake.read("secret/data/large")

        assert isinstance(outcome, Unavailable)
        assert outcome.messages == (DAMAGED,)
        assert fake.lifecycle.condition == "unhealthy"
        assert WHAT_TO_DO_ABOUT_DAMAGE in fake.lifecycle.fault


@on_loop
async def test_a_write_that_meets_a_damaged_record_is_refused() -> None:
    async with vault_with_a_secret() as fake:
        await damage_the_large_secret(fake)

        outcome = await fake.ask(Operation.PATCH, "secret/data/large", {"data": {"more": 1}})

        assert isinstance(outcome, Unavailable)
        assert outcome.messages == (DAMAGED,)


@on_loop
async def test_what_is_whole_is_still_answered() -> None:
    async with vault_with_a_secret() as fake:
        await damage_the_large_secret(fake)
        await fake.read("secret/data/large")

        assert data_of(await fake.read("secret/data/small"))["data"] == {"value": "y"}
        assert isinstance(await fake.write("secret/data/small", {"data": {"value": "z"}}), Response)


@on_loop
async def test_a_damaged_token_is_refused_as_damage_and_not_as_unknown() -> None:
    async with vault_with_a_secret() as fake:
        await fake.store.flush()
        before = dict(records(fake))
        made = await fake.write("auth/token/create", {"policies": ["default"]})
        await fake.store.flush()
        change(fake, [(key, flipped(sealed)) for key, sealed in records(fake) if before.get(key) != sealed])

        outcome = await fake.read("auth/token/lookup-self", token=auth_of(made).client_token)

        assert isinstance(outcome, Unavailable)


@on_loop
async def test_a_standby_leaves_what_is_damaged_on_its_disk_to_the_leader() -> None:
    async with vault_with_a_secret() as leader, started_standby(leader) as standby:
        await damage_the_large_secret(standby)

        assert data_of(await standby.read("secret/data/large"))["data"] == LARGE["data"]
        assert standby.lifecycle.condition == "unhealthy"
        assert leader.lifecycle.condition == "active"


@on_loop
async def test_the_peers_are_told_of_damage_until_it_is_over() -> None:
    async with vault_with_a_secret() as fake:
        await fake.store.flush()
        before = records(fake)
        await damage_the_large_secret(fake)
        assert not fake.replica.announced["is_damaged"]

        await fake.read("secret/data/large")
        assert fake.replica.announced["is_damaged"]

        await restore(fake, before)
        assert not fake.replica.announced["is_damaged"]


@on_loop
async def test_leadership_stays_with_whoever_is_restoring_another_state() -> None:
    async with vault_with_a_secret() as fake:
        await damage_the_large_secret(fake)
        freeze = fake.store.freeze()
        await fake.read("secret/data/large")
        assert not fake.replica.announced["is_damaged"]

        fake.store.thaw(freeze)

        assert fake.replica.announced["is_damaged"]


@on_loop
async def test_what_is_damaged_is_saved_by_a_lone_node_only() -> None:
    async with vault_with_a_secret() as leader:
        await damage_the_large_secret(leader)
        await leader.read("secret/data/large")

        (await Snapshots(leader.vault).save()).close()

        async with started_standby(leader):
            with pytest.raises(Unavailable, match="damaged"):
                await Snapshots(leader.vault).save()


@on_loop
async def test_nothing_that_is_damaged_takes_the_place_of_an_older_snapshot(tmp_path: Path) -> None:
    async with vault_with_a_secret() as fake:
        scheduled = ScheduledSnapshots(fake.vault, Snapshots(fake.vault), Schedule(tmp_path, 3600.0, retain_count=1))
        whole = await scheduled.save()
        await damage_the_large_secret(fake)
        await fake.read("secret/data/large")

        with pytest.raises(Unavailable, match="damaged"):
            await scheduled.save()

        assert whole.exists()


@on_loop
async def test_no_snapshot_is_saved_by_itself_before_the_state_has_been_looked_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_schedule, "LOOK_SECONDS", 0.0)
    async with vault_with_a_secret() as fake:
        await fake.store.flush()
        fake.vault.scrubber.stop()
        fake.vault.scrubber.rounds = 0

        def saved() -> list[Path]:
            return list(tmp_path.glob("*.snap"))

        scheduled = ScheduledSnapshots(fake.vault, Snapshots(fake.vault), Schedule(tmp_path, 3600.0, retain_count=1))

        scheduled.start()
        await turns()
        assert saved() == []

        fake.vault.scrubber.start()
        while not saved():  # noqa: ASYNC110  (a thread writes it)
            await asyncio.sleep(0.001)


@on_loop
async def test_a_lone_node_goes_on_with_what_is_whole() -> None:
    async with vault_with_a_secret() as fake:
        await damage_the_large_secret(fake)

        await fake.read("secret/data/large")
        await turns()

        assert fake.vault.is_active


@on_loop
async def test_a_record_of_another_form_is_an_error_and_no_damage() -> None:
    async with vault_with_a_secret() as fake:
        await fake.mount("misread/", "misread")
        await fake.write("misread/write")

        assert isinstance(await fake.read("misread/read"), InternalError)
        assert fake.lifecycle.fault == ""


@on_loop
async def test_the_scrubber_finds_damage_that_nobody_reads() -> None:
    async with vault_with_a_secret() as fake:
        await damage_the_large_secret(fake)

        await until_scrubbed(fake)

        assert fake.lifecycle.fault


@on_loop
async def test_the_scrubber_finds_a_record_whose_key_has_changed() -> None:
    async with vault_with_a_secret() as fake:
        await fake.store.flush()
        key, sealed = max(records(fake), key=lambda pair: len(pair[1]))
        change(fake, [(flipped(key), sealed)], [key])

        await until_scrubbed(fake)

        assert fake.lifecycle.fault


@on_loop
async def test_the_scrubber_goes_through_a_whole_state_and_begins_anew() -> None:
    async with vault_with_a_secret() as fake:
        for number in range(2 * STEP_RECORDS):
            await fake.write(f"secret/data/{number}", {"data": {}})
        await fake.store.flush()
        scrubber = fake.vault.scrubber
        scrubber.stop()
        scrubber.start()
        scrubber.stop()

        steps = 1
        while scrubber.step():
            steps += 1

        assert steps == len(records(fake)) // STEP_RECORDS + 1
        assert scrubber.rounds == 1
        assert fake.lifecycle.fault == ""


@on_loop
async def test_the_scrubber_waits_while_another_state_is_restored() -> None:
    async with vault_with_a_secret() as fake:
        await damage_the_large_secret(fake)
        await fake.store.flush()
        scrubber = fake.vault.scrubber
        scrubber.stop()
        freeze = fake.store.freeze()

        assert scrubber.step()
        fake.store.thaw(freeze)

        with pytest.raises(Corrupt):
            scrubber.step()


@on_loop
async def test_the_scrubber_waits_until_a_state_with_other_keys_is_durable() -> None:
    async with vault_with_a_secret() as fake:
        await fake.store.flush()
        before = records(fake)
        await fake.write("sys/rotate")
        await fake.write("secret/data/large", LARGE)
        await fake.store.flush()
        fake.vault.scrubber.stop()

        await restore(fake, before)
        is_durable = fake.overlay.durable_index >= fake.overlay.swapped_at
        fake.vault.scrubber.start()
        await turns()

        assert not is_durable, "else there is nothing to wait for"
        assert fake.lifecycle.fault == ""
        await fake.store.flush()
        fake.vault.scrubber.stop()
        while fake.vault.scrubber.step():
            pass
        assert fake.lifecycle.fault == ""


@on_loop
async def test_damage_is_over_when_another_state_has_taken_its_place() -> None:
    async with vault_with_a_secret() as fake:
        await fake.store.flush()
        before = records(fake)
        await damage_the_large_secret(fake)
        await fake.read("secret/data/large")
        assert fake.lifecycle.fault

        await restore(fake, before)

        assert fake.lifecycle.fault == ""
        assert data_of(await fake.read("secret/data/large"))["data"] == LARGE["data"]


@on_loop
async def test_a_node_leads_although_it_cannot_read_how_much_its_key_has_sealed() -> None:
    async with vault_with_a_secret() as fake:
        await fake.store.flush()
        change(fake, [(key, flipped(sealed)) for key, sealed in records(fake) if key not in CLEAR_KEYS])

        fake.replica.follow()
        fake.replica.lead()

        assert fake.vault.is_active
        assert fake.vault.background._task is not None


@on_loop
async def test_a_state_that_came_as_a_snapshot_is_not_damaged_any_more() -> None:
    async with vault_with_a_secret() as fake:
        await damage_the_large_secret(fake)
        await fake.read("secret/data/large")
        assert fake.lifecycle.fault

        fake.store.state_replaced()

        assert fake.lifecycle.fault == ""


@on_loop
async def test_nothing_is_answered_unrecorded_when_the_audit_devices_cannot_be_read(tmp_path: Path) -> None:
    async with vault_with_a_secret() as fake:
        await fake.store.flush()
        before = dict(records(fake))
        device = {"type": "file", "options": {"file_path": str(tmp_path / "audit.log")}}
        await fake.write("sys/audit/file", device)
        await fake.store.flush()

        fake.vault.seal()
        change(fake, [(key, flipped(sealed)) for key, sealed in records(fake) if before.get(key) != sealed])
        await fake.unseal()
        outcome = await fake.read("secret/data/small")

        assert isinstance(outcome, Unavailable)
        assert outcome.messages == (UNKNOWN_DEVICES,)
