"""Saving the state to a file and restoring it, on one node: what is refused, and what a broken-off restoring leaves."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from conclave.cluster.replica import JoinTicket, Standing
from conclave.core import snapshots, unsealing
from conclave.core.contract import Operation, Request, Response
from conclave.core.errors import InvalidRequest, PermissionDenied, RequestError, Sealed, TooLarge, Unavailable
from conclave.core.forwarding import UNKNOWN_OUTCOME
from conclave.core.keys import Keys
from conclave.core.lifecycle import JOIN_KEY
from conclave.core.outcomes import Outcome
from conclave.core.snapshots import BROKEN_OFF, DOWNLOADS_MAX, FOREIGN, NOT_ALONE
from conclave.core.store import RESTORING, SETTLE_SECONDS_MAX
from conclave.core.system import System
from conclave.storage.barrier import Barrier
from conclave.storage.keyring import Keyring
from conclave.storage.seal import ROOT_KEY_KEY
from conclave.storage.writeset import Stage, WriteSet
from tests.clients import auth_of, refusal
from tests.fakes import FakeVault, data_of, on_loop, request_for, started_standby, started_vault, until

PATH = "sys/storage/raft/snapshot"
FORCE = PATH + "-force"
LogEntry = tuple[int, int, bytes]


async def pieces_of(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 1000):
        yield content[start : start + 1000]


async def saved(fake: FakeVault) -> bytes:
    outcome = await fake.read(PATH)
    assert isinstance(outcome, Response), outcome
    assert outcome.download is not None
    content = b"".join([piece async for piece in outcome.download])
    outcome.download.close()
    return content


def restoring(content: bytes, fake: FakeVault, path: str = PATH) -> Request:
    request = request_for(Operation.UPDATE, path, token=fake.root)
    request.upload = pieces_of(content)
    return request


async def restore(fake: FakeVault, content: bytes, path: str = PATH) -> Outcome:
    return await fake.start(restoring(content, fake, path))


async def saved_before(fake: FakeVault) -> bytes:
    """Return the file of a state with the value "before", which is "after" when this returns."""
    await written(fake, "before")
    content = await saved(fake)
    await written(fake, "after")
    return content


async def written(fake: FakeVault, value: str) -> None:
    assert isinstance(await fake.write("secret/data/a", {"data": {"v": value}}), Response)


async def value(fake: FakeVault) -> str:
    found = data_of(await fake.read("secret/data/a"))["data"]["v"]
    assert isinstance(found, str)
    return found


async def come_true(condition: Callable[[], bool]) -> None:
    """Wait for what another task or thread is about to do."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  (there is no event: a thread is on the way)
            await asyncio.sleep(0.001)


def held_stages(fake: FakeVault) -> list[Stage]:
    return [WriteSet.decode(data).stage for _, _, data in fake.replica.waiting if data]


async def hold_at(fake: FakeVault, stage: Stage) -> None:
    """Commit what a restoring proposes until it has proposed this, which is held."""
    while True:
        await come_true(lambda: bool(fake.replica.waiting))
        if held_stages(fake)[0] is stage:
            return
        fake.replica.commit(1)


async def restoring_held_at(
    fake: FakeVault, stage: Stage, content: bytes, path: str = PATH
) -> "asyncio.Future[Outcome]":
    """Begin to restore a file, and hold what it proposes from this stage on."""
    fake.replica.holds = True
    restored = fake.start(restoring(content, fake, path))
    await hold_at(fake, stage)
    return restored


def lead_again(fake: FakeVault) -> None:
    """Lead a new term, in which nothing is held."""
    fake.replica.holds = False
    fake.replica.lead()


# -- there and back --


@on_loop
async def test_a_restored_state_is_that_of_the_file() -> None:
    async with started_vault() as fake:
        content = await saved_before(fake)
        await fake.mount("later/", "kv")
        late = auth_of(await fake.write("auth/token/create")).client_token

        outcome = await restore(fake, content)

        assert outcome == Response()
        assert await value(fake) == "before"
        assert isinstance(await fake.read("later/a"), RequestError)
        assert isinstance(await fake.read("auth/token/lookup-self", token=late), PermissionDenied)


@on_loop
async def test_a_restored_state_survives_a_flush_and_is_written_to() -> None:
    async with started_vault() as fake:
        await written(fake, "before")
        content = await saved(fake)
        await restore(fake, content)

        await fake.store.flush()
        at_once = await value(fake)
        await written(fake, "more")

        assert (at_once, await value(fake)) == ("before", "more")


@on_loop
async def test_a_file_is_saved_again_as_it_was_restored() -> None:
    async with started_vault() as fake:
        await written(fake, "before")
        await restore(fake, await saved(fake))

        again = await saved(fake)
        await written(fake, "after")

        assert await restore(fake, again) == Response()
        assert await value(fake) == "before"


@on_loop
async def test_the_time_does_not_go_back_with_the_state() -> None:
    async with started_vault() as fake:
        content = await saved(fake)
        fake.clock.advance(3600)
        await written(fake, "late")
        late_ns = fake.store.now_ns()
        fake.clock.advance(-3600)

        await restore(fake, content)

        assert fake.store.now_ns() >= late_ns


@on_loop
async def test_a_file_from_before_a_rotation_is_restored_and_one_from_behind_it_again() -> None:
    async with started_vault() as fake:
        await written(fake, "first")
        before = await saved(fake)
        assert isinstance(await fake.write("sys/rotate"), Response)
        await written(fake, "second")
        behind = await saved(fake)

        assert await restore(fake, before) == Response()
        first = await value(fake)
        assert await restore(fake, behind) == Response()

        assert (first, await value(fake)) == ("first", "second")


@on_loop
async def test_the_present_shares_stay_those_that_unseal() -> None:
    async with started_vault() as fake:
        assert fake.made is not None
        before = await saved(fake)
        begun = data_of(await fake.write("sys/rotate/root/init", {"secret_shares": 1, "secret_threshold": 1}))
        share = {"key": fake.made.shares_hex[0], "nonce": begun["nonce"]}
        changed = data_of(await fake.write("sys/rotate/root/update", share))
        assert isinstance(await fake.write("sys/rotate"), Response)  # what is kept has to be sealed by an older key

        assert await restore(fake, before) == Response()
        fake.vault.seal()
        with pytest.raises(InvalidRequest):
            await fake.lifecycle.unseal(fake.made.shares_hex[0])
        await fake.lifecycle.unseal(changed["keys"][0])

        assert not fake.vault.is_sealed
        assert fake.lifecycle.make_challenge("n2", fake.store.now_ns())
        assert fake.lifecycle._authority_key() == b"authority key"


@on_loop
async def test_a_file_of_this_vault_that_is_forced_is_restored_as_any_other() -> None:
    async with started_vault() as fake:
        content = await saved_before(fake)

        assert await restore(fake, content, FORCE) == Response()
        assert await value(fake) == "before"


# -- with other keys --


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


# -- what is refused --


@on_loop
@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"not a snapshot", "failed to decompress snapshot: gzip: invalid header"),
        (b"", "failed to decompress snapshot: gzip: invalid header"),
    ],
)
async def test_junk_is_refused(content: bytes, text: str) -> None:
    async with started_vault() as fake:
        index = fake.store.applied[0]

        outcome = await restore(fake, content)

        assert isinstance(outcome, InvalidRequest)
        assert outcome.messages == (text,)
        assert fake.store.applied[0] == index


@on_loop
async def test_a_damaged_or_shortened_file_is_refused_before_anything_changes() -> None:
    async with started_vault() as fake:
        content = await saved(fake)
        index = fake.store.applied[0]
        damaged = bytearray(content)
        damaged[len(content) // 2] ^= 1

        outcomes = [await restore(fake, bad) for bad in (bytes(damaged), content[:-100], content[: len(content) // 2])]

        assert all(isinstance(outcome, InvalidRequest) for outcome in outcomes)
        assert fake.store.applied[0] == index


@on_loop
async def test_a_file_of_a_vault_with_other_keys_is_refused_unless_it_is_forced() -> None:
    async with started_vault() as other:
        content = await saved(other)
    async with started_vault() as fake:
        outcome = await restore(fake, content)

        assert refusal(outcome) == f"InvalidRequest: {FOREIGN}"
        assert isinstance(await fake.read("sys/mounts"), Response)


@on_loop
async def test_a_request_without_a_body_is_refused() -> None:
    async with started_vault() as fake:
        assert isinstance(await fake.write(PATH), InvalidRequest)


@on_loop
async def test_both_take_a_token_whose_policies_allow_it() -> None:
    async with started_vault() as fake:
        token = auth_of(await fake.write("auth/token/create", {"policies": ["default"]})).client_token
        request = restoring(await saved(fake), fake)
        request.token = token

        assert isinstance(await fake.read(PATH, token=token), PermissionDenied)
        assert isinstance(await fake.start(request), PermissionDenied)


@on_loop
async def test_an_upload_that_leaves_too_little_room_on_the_disk_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with started_vault() as fake:
        content = await saved(fake)
        monkeypatch.setattr(snapshots, "DISK_RESERVE_BYTES", 1 << 62)

        assert isinstance(await restore(fake, content), TooLarge)


@on_loop
async def test_an_upload_that_breaks_off_changes_nothing_and_another_may_follow() -> None:
    async def breaking(content: bytes) -> AsyncIterator[bytes]:
        yield content[:2000]
        raise InvalidRequest("the upload broke off")

    async with started_vault() as fake:
        content = await saved(fake)
        request = restoring(content, fake)
        request.upload = breaking(content)

        assert isinstance(await fake.start(request), InvalidRequest)
        assert await restore(fake, content) == Response()


# -- meanwhile --


@on_loop
async def test_while_a_snapshot_is_restored_reads_are_answered_and_writes_are_refused() -> None:
    async with started_vault() as fake:
        content = await saved_before(fake)
        restored = await restoring_held_at(fake, Stage.SWAP, content)

        refused = await fake.write("secret/data/a", {"data": {"v": "lost"}})
        seen = await value(fake)
        another = await restore(fake, content)
        fake.replica.commit()

        assert refusal(refused) == f"Unavailable: {RESTORING}"
        assert seen == "after"
        assert isinstance(another, Unavailable)
        assert await restored == Response()
        assert await value(fake) == "before"


@on_loop
@pytest.mark.parametrize("stage", [Stage.BEGIN, Stage.PUTS, Stage.SWAP])
async def test_leadership_lost_at_any_stage_changes_nothing(stage: Stage) -> None:
    async with started_vault() as fake:
        content = await saved_before(fake)
        restored = await restoring_held_at(fake, stage, content)

        fake.replica.lose_leadership()
        outcome = await restored
        lead_again(fake)

        assert refusal(outcome) == f"Unavailable: {BROKEN_OFF}"
        assert await value(fake) == "after"
        await come_true(lambda: fake.overlay.staging_since == 0)
        await written(fake, "more")


@on_loop
async def test_what_a_restorer_has_left_is_dropped_and_the_next_one_succeeds() -> None:
    async with started_vault() as fake:
        content = await saved_before(fake)
        restored = await restoring_held_at(fake, Stage.SWAP, content)
        fake.replica.lose_leadership()
        await restored

        while_left = fake.overlay.staging_since
        lead_again(fake)
        outcome = await restore(fake, content)

        assert while_left > 0
        assert outcome == Response()
        assert await value(fake) == "before"


@on_loop
async def test_leadership_lost_and_won_again_does_not_let_an_old_restorer_go_on() -> None:
    async with started_vault() as fake:
        content = await saved(fake)
        restored = await restoring_held_at(fake, Stage.BEGIN, content)

        fake.replica.follow()
        fake.replica.commit()  # by the leader of another term
        lead_again(fake)

        outcome = await restored
        assert refusal(outcome) == f"Unavailable: {BROKEN_OFF}"
        assert fake.overlay.swapped_at == 0


@on_loop
async def test_nothing_is_proposed_while_a_swap_is_undecided() -> None:
    async with started_vault() as fake:
        await written(fake, "before")
        content = await saved(fake)
        fake.store.start()
        restored = await restoring_held_at(fake, Stage.SWAP, content)

        fake.clock.advance(SETTLE_SECONDS_MAX + 1)
        outcome = await restored
        refused = await fake.write("secret/data/a", {"data": {}})
        fake.replica.holds = False
        fake.replica.commit()

        assert refusal(outcome) == f"Unavailable: {UNKNOWN_OUTCOME}"
        assert refusal(refused) == f"Unavailable: {RESTORING}"
        await written(fake, "after")


@on_loop
async def test_the_log_is_kept_from_where_staging_began() -> None:
    async with started_vault() as fake:
        content = await saved(fake)
        restored = await restoring_held_at(fake, Stage.SWAP, content)

        await fake.store.flush()
        kept_behind = fake.store.durable_index
        began = fake.overlay.staging_since
        fake.replica.commit()
        await restored
        await fake.store.flush()

        assert kept_behind == began - 1
        assert fake.store.durable_index == fake.store.applied[0]


# -- saving --


@on_loop
async def test_no_more_files_are_on_their_way_than_a_few() -> None:
    async with started_vault() as fake:
        outcomes = [await fake.read(PATH) for _ in range(DOWNLOADS_MAX)]
        refused = await fake.read(PATH)
        first = outcomes[0]
        assert isinstance(first, Response)
        assert first.download is not None

        first.download.close()

        assert isinstance(refused, Unavailable)
        assert isinstance(await fake.read(PATH), Response)


@on_loop
async def test_a_node_that_is_cut_off_saves_nothing() -> None:
    async with started_vault() as fake:
        fake.replica.follow()
        fake.replica.has_quorum = False

        assert isinstance(await fake.read(PATH), Unavailable)


@on_loop
async def test_a_node_that_follows_and_knows_no_leader_restores_nothing() -> None:
    async with started_vault() as fake:
        content = await saved(fake)
        fake.replica.follow()

        outcome = await restore(fake, content)

        assert fake.replica.standing is Standing.FOLLOWER
        assert isinstance(outcome, Unavailable)


def test_a_file_is_read_with_half_of_one_core_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    pauses: list[float] = []

    class SlowStore:
        async def in_thread(self, work: Callable[[], bytes | None]) -> bytes | None:
            nonlocal now
            now += 0.25
            return work()

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    async def read() -> list[bytes]:
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
        monkeypatch.setattr(asyncio, "sleep", pause)
        file = snapshots.SavedFile(
            SlowStore(),  # type: ignore[arg-type]  # all that reading asks of a store
            None,  # type: ignore[arg-type]
            iter([b"", b"a", b"", b"b"]),
            lambda _: None,
        )
        return [piece async for piece in file]

    pieces = asyncio.run(read())

    assert pieces == [b"", b"a", b"", b"b"]  # the empty ones let a download see that its client is gone
    assert pauses == [0.25] * 4
