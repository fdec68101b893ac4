"""A snapshot of another cluster takes a lone node's state: what is sealed then, and who may unseal it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from conclave.cluster.replica import JoinTicket, Standing
from conclave.core import snapshots, unsealing
from conclave.core.contract import Response
from conclave.core.errors import InvalidRequest, PermissionDenied, Sealed, Unavailable
from conclave.core.keys import Keys
from conclave.core.lifecycle import JOIN_KEY
from conclave.core.snapshots import NOT_ALONE
from conclave.core.store import RESTORING
from conclave.core.system import System
from conclave.storage.barrier import Barrier
from conclave.storage.keyring import Keyring
from conclave.storage.seal import ROOT_KEY_KEY
from conclave.storage.writeset import Stage, WriteSet
from tests.clients import refusal
from tests.core.snapshot_files import FORCE, restore, restoring_held_at, saved, saved_before, value, written
from tests.fakes import FakeVault, on_loop, started_standby, started_vault, until

LogEntry = tuple[int, int, bytes]


@asynccontextmanager
async def replaced_vault() -> AsyncIterator[tuple[FakeVault, FakeVault]]:
    """Yield a vault, and another one that a snapshot of it has replaced."""
    async with started_vault(3, 2) as old, started_vault() as fake:
        await written(old, "old")
        await written(fake, "new")
        assert await restore(fake, await saved(old), FORCE) == Response()
        yield old, fake


async def unseal_as(fake: FakeVault, old: FakeVault) -> None:
    """Unseal with the first two shares of another vault, and go on with its root token."""
    assert old.made is not None
    for share in old.made.shares_hex[:2]:
        await fake.lifecycle.unseal(share)
    fake.root = old.root


@on_loop
async def test_a_forced_state_of_other_keys_seals_the_node_and_its_own_shares_open_it() -> None:
    async with replaced_vault() as (old, fake):
        made, lost = fake.made, fake.root
        is_sealed, status = fake.vault.is_sealed, fake.lifecycle.seal_status()

        await unseal_as(fake, old)

        assert made is not None
        assert (is_sealed, status["sealed"], status["t"], status["n"]) == (True, True, 2, 3)
        assert await value(fake) == "old"
        assert isinstance(await fake.read("auth/token/lookup-self", token=lost), PermissionDenied)
        assert fake.lifecycle.cluster_info() == old.lifecycle.cluster_info()
        await written(fake, "more")


@on_loop
async def test_the_shares_of_a_vault_that_was_replaced_open_nothing() -> None:
    async with replaced_vault() as (_, fake):
        assert fake.made is not None
        await fake.lifecycle.unseal(fake.made.shares_hex[0])

        with pytest.raises(InvalidRequest):
            await fake.lifecycle.unseal(fake.made.shares_hex[0][::-1])

        assert fake.vault.is_sealed


@on_loop
async def test_a_state_of_other_keys_is_durable_when_the_answer_leaves() -> None:
    async with replaced_vault() as (_, fake):
        assert fake.overlay.durable_index == fake.overlay.swapped_at > 0


@on_loop
async def test_a_state_of_other_keys_is_refused_where_there_are_other_members() -> None:
    async with started_vault() as old, started_vault() as fake:
        content = await saved(old)
        async with started_standby(fake) as standby:
            outcome = await restore(fake, content, FORCE)

            assert refusal(outcome) == f"InvalidRequest: {NOT_ALONE}"
            assert not fake.vault.is_sealed
            assert not standby.vault.is_sealed
            await written(fake, "more")


@on_loop
async def test_no_node_joins_while_a_state_of_other_keys_comes() -> None:
    async with started_vault() as old, started_vault() as fake:
        content = await saved(old)
        restored = await restoring_held_at(fake, Stage.SWAP, content, FORCE)

        with pytest.raises(Unavailable, match=RESTORING):
            await admit(fake)
        fake.replica.commit()

        assert await restored == Response()
        assert fake.replica.admitted == []


@on_loop
async def test_a_node_that_is_just_joining_keeps_a_state_of_other_keys_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async with started_vault() as old, started_vault() as fake:
        content, may_go_on, take_in = await saved(old), asyncio.Event(), fake.replica.admit

        async def held(**petition: Any) -> JoinTicket:
            await may_go_on.wait()
            return await take_in(**petition)

        monkeypatch.setattr(fake.replica, "admit", held)
        joining = asyncio.ensure_future(admit(fake))
        await until(lambda: fake.vault.admitting > 0)

        outcome = await restore(fake, content, FORCE)
        may_go_on.set()
        await joining

        assert refusal(outcome) == f"InvalidRequest: {NOT_ALONE}"
        assert await restore(fake, content, FORCE) == Response()


@on_loop
async def test_a_member_that_appears_before_the_swap_keeps_a_state_of_other_keys_away() -> None:
    async with started_vault() as old, started_vault() as fake:
        content = await saved(old)
        restored = await restoring_held_at(fake, Stage.PUTS, content, FORCE)

        async with started_standby(fake):
            fake.replica.holds = False
            fake.replica.commit()
            outcome = await restored

        assert refusal(outcome) == f"InvalidRequest: {NOT_ALONE}"
        assert not fake.vault.is_sealed
        assert fake.overlay.swapped_at == 0


@on_loop
async def test_no_write_is_taken_between_the_swap_to_other_keys_and_sealing() -> None:
    async with started_vault() as old, started_vault() as fake:
        content = await saved(old)
        restored = await restoring_held_at(fake, Stage.SWAP, content, FORCE)

        before = await fake.write("secret/data/a", {"data": {"v": "lost"}})
        fake.replica.commit()
        index = fake.store.applied[0]
        at_once = await fake.write("secret/data/a", {"data": {"v": "lost"}})

        assert refusal(before) == f"Unavailable: {RESTORING}"
        assert isinstance(at_once, Sealed)
        assert await restored == Response()
        assert fake.store.applied[0] == index


@on_loop
async def test_a_change_that_was_prepared_before_the_swap_is_refused_behind_it() -> None:
    async with started_vault() as old, started_vault() as fake:
        content = await saved(old)
        prepared = fake.store.writing()
        prepared.put(bytes(32), b"sealed with the keys of before")

        assert await restore(fake, content, FORCE) == Response()

        with pytest.raises(Unavailable, match=RESTORING):
            fake.store.commit(prepared, lambda _: None)


@on_loop
async def test_what_was_checked_with_keys_that_are_gone_is_not_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    async with started_vault() as fake:
        content = await saved_before(fake)
        verify = snapshots.Snapshots._verify

        async def sealed_behind(*given: Any, **named: Any) -> tuple[int, Keyring | None]:
            found = await verify(*given, **named)
            fake.vault.seal()
            return found

        monkeypatch.setattr(snapshots.Snapshots, "_verify", sealed_behind)

        assert isinstance(await restore(fake, content), Sealed)
        assert fake.overlay.swapped_at == 0


@on_loop
async def test_a_file_that_was_asked_for_before_other_keys_came_is_not_sealed_with_the_old_ones() -> None:
    async with started_vault() as old, started_vault() as fake:
        content = await saved(old)
        restored = await restoring_held_at(fake, Stage.SWAP, content, FORCE)

        saving = asyncio.ensure_future(System(fake.lifecycle).snapshots.save())
        await asyncio.sleep(0)  # it waits for its read barrier
        fake.replica.commit()
        with pytest.raises(Sealed):
            await saving

        assert await restored == Response()


@on_loop
async def test_a_cluster_of_other_keys_gets_an_authority_of_its_own() -> None:
    async with replaced_vault() as (old, fake):
        old.replica.authority = b"the old cluster's"  # no node of which is here
        fake.replica.authority = b"of the node"

        await unseal_as(fake, old)
        await until(lambda: fake.lifecycle._authority_key() == b"another of the node")

        await admit(fake)
        assert fake.replica.admitted == ["n2"]


@on_loop
async def test_an_authority_that_was_kept_by_the_node_alone_is_made_once_more() -> None:
    async with replaced_vault() as (old, fake):
        fake.replica.authority = b"of the node"
        fake.replica.is_overloaded = True
        await unseal_as(fake, old)
        await until(lambda: fake.replica.authority == b"another of the node")
        stored = fake.lifecycle._authority_key()
        fake.vault.seal()
        fake.replica.is_overloaded = False

        await unseal_as(fake, old)
        await until(lambda: fake.lifecycle._authority_key() == b"another another of the node")

        assert stored == b"authority key"


@on_loop
async def test_a_file_of_this_vault_whose_seal_was_changed_is_refused_with_force_too() -> None:
    async with started_vault() as fake:
        keys = fake.vault.keys
        assert keys is not None
        stranger = Keys(keys.root_key, Barrier(Keyring.generate(0)))
        content = await saved(fake)
        fake.vault.keys = stranger
        forged = await System(fake.lifecycle).snapshots.save()
        changed = b"".join([piece async for piece in forged])
        forged.close()
        fake.vault.keys = keys

        assert isinstance(await restore(fake, changed, FORCE), InvalidRequest)
        assert await restore(fake, content, FORCE) == Response()


@on_loop
async def test_a_state_that_no_shares_could_unseal_is_refused_with_force_too() -> None:
    async with started_vault() as old, started_vault() as fake:
        old.store.replica.propose(WriteSet(old.store.now_ns(), [], deletes=[ROOT_KEY_KEY]).encode())
        await until(lambda: old.overlay.get(ROOT_KEY_KEY, uncommitted=False) is None)

        assert isinstance(await restore(fake, await saved(old), FORCE), InvalidRequest)
        assert not fake.vault.is_sealed


@asynccontextmanager
async def newly_joined(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[FakeVault, FakeVault, list[LogEntry]]]:
    """Yield a vault, a node whose log has come to the state which that vault's has replaced, and the rest of the log."""
    async with started_vault() as old:
        content = await saved(old)
        leader, joined, entries = FakeVault(), FakeVault("n2"), list[LogEntry]()
        apply = leader.store.apply

        def applied(*entry: *LogEntry) -> None:
            entries.append(entry)
            apply(*entry)

        monkeypatch.setattr(leader.store, "apply", applied)
        await leader.initialize()
        await leader.unseal()
        assert await restore(leader, content, FORCE) == Response()
        joined.replica.standing = Standing.FOLLOWER
        is_last = [entry[0] == leader.overlay.swapped_at for entry in entries].index(True)
        for entry in entries[:is_last]:
            joined.store.apply(*entry)
        try:
            yield old, joined, entries[is_last:]
        finally:
            await joined.stop()
            await leader.stop()


@on_loop
async def test_shares_that_do_not_open_a_state_which_another_replaces_wait_for_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with newly_joined(monkeypatch) as (old, joined, rest):
        assert old.made is not None
        opening = asyncio.ensure_future(joined.lifecycle._open_when_there(old.made.shares[0]))
        await until(lambda: joined.lifecycle._opening is not None)
        await asyncio.sleep(0)
        is_sealed = joined.vault.is_sealed

        for entry in rest:
            joined.store.apply(*entry)
        await opening

        assert (is_sealed, joined.vault.is_sealed) == (True, False)


@on_loop
async def test_shares_that_wait_for_a_state_are_forgotten_when_others_open_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with newly_joined(monkeypatch) as (old, joined, rest):
        assert old.made is not None
        opening = asyncio.ensure_future(joined.lifecycle._open_when_there(old.made.shares[0]))
        await until(lambda: joined.lifecycle._opening is not None)
        waiting = joined.lifecycle._opening
        assert waiting is not None

        for entry in rest:
            joined.store.apply(*entry)
        await joined.lifecycle.unseal(old.made.shares_hex[0])
        await opening

        assert waiting.cancelled()
        assert not joined.vault.is_sealed


async def admit(fake: FakeVault) -> None:
    """Let a node join that has opened its challenge."""
    assert fake.made is not None
    now_ns = fake.store.now_ns()
    key = fake.lifecycle._secret(JOIN_KEY)
    opened = unsealing.open_challenge(key, "n2", fake.lifecycle.make_challenge("n2", now_ns))
    assert opened is not None
    petition = unsealing.Petition("127.0.0.1:8202", b"request", bytes(16), is_voter=True)
    await fake.lifecycle.admit(
        node_id="n2",
        proof=unsealing.prove(opened, petition),
        cluster_address=petition.cluster_address,
        request_pem=petition.request_pem,
        incarnation=petition.incarnation,
        is_voter=True,
        now_ns=now_ns,
    )
