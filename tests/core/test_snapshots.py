"""Saving the state to a file and restoring it, on one node: what is refused, and what a broken-off restoring leaves."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from conclave.cluster.replica import Standing
from conclave.core import snapshots
from conclave.core.contract import Response
from conclave.core.errors import InvalidRequest, PermissionDenied, RequestError, TooLarge, Unavailable
from conclave.core.forwarding import UNKNOWN_OUTCOME
from conclave.core.snapshots import BROKEN_OFF, DOWNLOADS_MAX, FOREIGN
from conclave.core.store import RESTORING, SETTLE_SECONDS_MAX
from conclave.storage.writeset import Stage
from tests.clients import auth_of, refusal
from tests.core.snapshot_files import (
    FORCE,
    PATH,
    come_true,
    lead_again,
    restore,
    restoring,
    restoring_held_at,
    saved,
    saved_before,
    value,
    written,
)
from tests.fakes import data_of, on_loop, started_vault

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
