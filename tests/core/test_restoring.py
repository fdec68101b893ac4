"""Restoring a snapshot on three real nodes: every one of them has the old state or the new one, whoever dies meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from conclave.cluster import upkeep
from conclave.cluster.compaction import compaction_index
from conclave.cluster.loopback import LoopbackNetwork
from conclave.cluster.replica import Ticket
from conclave.core import joining, snapshots
from conclave.core.contract import Operation, Response
from conclave.core.errors import Redirected, RequestError
from conclave.core.joining import JoinTarget
from conclave.core.outcomes import Outcome
from conclave.core.store import Settlement
from conclave.storage.memory import MemoryLog, MemoryState
from conclave.storage.writeset import Stage, WriteSet
from tests.core.snapshot_files import FORCE, PATH, pieces_of
from tests.core.test_three_vaults import Member, Trio, asking, come_true, trio
from tests.fakes import on_loop, request_for


async def saved(cluster: Trio, through: Member) -> bytes:
    outcome = await through.ask(Operation.READ, PATH, token=cluster.root)
    assert isinstance(outcome, Response), outcome
    assert outcome.download is not None
    content = b"".join([piece async for piece in outcome.download])
    outcome.download.close()
    return content


def restoring(cluster: Trio, through: Member, content: bytes, path: str = PATH) -> "asyncio.Future[Outcome]":
    request = request_for(Operation.UPDATE, path, token=cluster.root)
    request.upload = pieces_of(content)
    future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    through.vault.handle(request, lambda outcome: None if future.done() else future.set_result(outcome))
    return future


async def put(cluster: Trio, value: str) -> None:
    for number in range(20):
        await cluster.write(cluster.leader, f"secret/data/k{number}", {"data": {"v": value}})


async def values(cluster: Trio, through: Member) -> set[str]:
    found = [await cluster.read(through, f"secret/data/k{number}") for number in range(20)]
    return {each["data"]["v"] for each in found}


async def reborn(cluster: Trio, dead: Member) -> Member:
    """Start a member's process anew, and unseal it."""
    cluster.members[cluster.members.index(dead)] = again = dead.reborn()
    await again.start()
    await come_true(lambda: again.lifecycle.seal_config() is not None)  # what it had not flushed comes from the log
    for share in cluster.shares:
        await again.lifecycle.unseal(share)
    await come_true(lambda: not again.vault.is_sealed)
    return again


@pytest.fixture
def small_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a small state take many entries."""
    monkeypatch.setattr(snapshots, "STAGED_BYTES", 2000)


class Death:
    """Ends a member at the moment when it proposes a certain step of a restoring."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, member: Member, stage: Stage) -> None:
        self._member = member
        self._stage = stage
        self._propose = member.store._propose  # the one place that every proposal passes
        self.task: asyncio.Task[None] | None = None
        monkeypatch.setattr(member.store, "_propose", self._watch)

    def _watch(self, write_set: WriteSet, done: Callable[[Settlement], None]) -> Ticket:
        ticket = self._propose(write_set, done)
        if write_set.stage is self._stage and self.task is None:
            self.task = asyncio.ensure_future(self._member.die())
        return ticket

    async def has_come(self) -> None:
        await come_true(lambda: self.task is not None and self.task.done())


@on_loop
@pytest.mark.usefixtures("small_entries")
async def test_every_node_has_the_restored_state_and_stays_unsealed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with trio(monkeypatch) as cluster:
        await put(cluster, "before")
        content = await saved(cluster, cluster.followers[0])
        await put(cluster, "after")

        outcome = await restoring(cluster, cluster.leader, content)

        assert outcome == Response()
        for member in cluster.members:
            assert await values(cluster, member) == {"before"}
            assert not member.vault.is_sealed


@on_loop
async def test_a_follower_passes_an_upload_on_to_the_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    async with trio(monkeypatch) as cluster:
        await put(cluster, "before")
        content = await saved(cluster, cluster.leader)
        await put(cluster, "after")

        outcome = await restoring(cluster, cluster.followers[0], content)

        assert outcome == Response()
        assert await values(cluster, cluster.followers[1]) == {"before"}


@on_loop
async def test_a_follower_redirects_an_upload_that_is_not_to_be_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async with trio(monkeypatch) as cluster:
        request = request_for(Operation.UPDATE, PATH, token=cluster.root, is_forwarding_refused=True)
        request.upload = pieces_of(b"")
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        cluster.followers[0].vault.handle(request, future.set_result)
        outcome = await future

        assert isinstance(outcome, Redirected)
        assert outcome.location.startswith(cluster.leader.lifecycle.node.api_address)


@on_loop
async def test_the_leaders_refusal_comes_back_through_a_follower(monkeypatch: pytest.MonkeyPatch) -> None:
    async with trio(monkeypatch) as cluster:
        outcome = await restoring(cluster, cluster.followers[0], b"no snapshot" * 200_000)

        assert isinstance(outcome, RequestError)
        assert outcome.messages == ("failed to decompress snapshot: gzip: invalid header",)


@on_loop
@pytest.mark.usefixtures("small_entries")
async def test_a_follower_that_was_down_while_a_state_was_restored_gets_it_from_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with trio(monkeypatch) as cluster:
        await put(cluster, "before")
        content = await saved(cluster, cluster.leader)
        await put(cluster, "after")
        away = cluster.followers[0]
        await away.die()

        assert await restoring(cluster, cluster.leader, content) == Response()
        again = await reborn(cluster, away)

        assert await values(cluster, again) == {"before"}


@on_loop
@pytest.mark.usefixtures("small_entries")
async def test_a_follower_that_restarts_in_the_middle_ends_with_the_same_state(monkeypatch: pytest.MonkeyPatch) -> None:
    async with trio(monkeypatch) as cluster:
        await put(cluster, "before")
        content = await saved(cluster, cluster.leader)
        await put(cluster, "after")
        away = cluster.followers[0]
        dying: list[asyncio.Task[None]] = []
        apply = away.store.apply

        async def die() -> None:
            await away.store.flush()
            await away.die()

        def dies_while_staging(index: int, term: int, data: bytes) -> None:
            apply(index, term, data)
            if away.store.overlay.staging_since and not dying:
                dying.append(asyncio.ensure_future(die()))

        monkeypatch.setattr(away.store, "apply", dies_while_staging)

        restored = restoring(cluster, cluster.leader, content)
        await come_true(lambda: bool(dying) and dying[0].done())
        again = await reborn(cluster, away)

        assert await restored == Response()
        for member in (*cluster.followers, cluster.leader):
            assert await values(cluster, member) == {"before"}
        assert again.store.overlay.staging_since == 0


@on_loop
@pytest.mark.usefixtures("small_entries")
@pytest.mark.parametrize("stage", [Stage.BEGIN, Stage.PUTS, Stage.SWAP])
async def test_a_leader_that_dies_while_it_restores_leaves_one_state_on_all_nodes(
    monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    async with trio(monkeypatch) as cluster:
        await put(cluster, "before")
        content = await saved(cluster, cluster.leader)
        await put(cluster, "after")
        dead, others = cluster.leader, cluster.followers
        death = Death(monkeypatch, dead, stage)

        restored = restoring(cluster, dead, content)
        await death.has_come()
        outcome = await restored
        await come_true(lambda: any(member.vault.is_active for member in others))
        seen = [await values(cluster, member) for member in others]
        again = await reborn(cluster, dead)

        assert isinstance(outcome, RequestError)
        assert seen[0] == seen[1] == await values(cluster, again)
        assert seen[0] == {"after"} or (stage is Stage.SWAP and seen[0] == {"before"})
        await come_true(lambda: all(member.store.overlay.staging_since == 0 for member in cluster.members))
        assert await restoring(cluster, cluster.leader, content) == Response()
        assert await values(cluster, cluster.followers[0]) == {"before"}


@on_loop
@pytest.mark.usefixtures("small_entries")
async def test_the_log_is_cut_up_to_where_staging_began_and_no_further_before_the_swap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_staged, may_swap, swap = asyncio.Event(), asyncio.Event(), snapshots._Staging._swap

    async def held(staging: snapshots._Staging, count: int) -> None:
        is_staged.set()
        await may_swap.wait()
        await swap(staging, count)

    monkeypatch.setattr(snapshots._Staging, "_swap", held)
    monkeypatch.setattr(upkeep, "compaction_index", lambda facts, **_: compaction_index(facts, trailing_entries=1))
    async with trio(monkeypatch) as cluster:
        await put(cluster, "before")
        content = await saved(cluster, cluster.leader)
        await put(cluster, "after")
        away, leader = cluster.followers[0], cluster.leader
        await away.die()

        restored = restoring(cluster, leader, content)
        await is_staged.wait()
        await leader.store.flush()
        began = leader.store.overlay.staging_since
        await come_true(lambda: leader.log.first_index >= began)
        first_while_staging = leader.log.first_index
        may_swap.set()
        outcome = await restored
        await come_true(lambda: leader.log.first_index > began)
        again = await reborn(cluster, away)

        assert first_while_staging == began
        assert outcome == Response()
        assert await values(cluster, again) == {"before"}


@asynccontextmanager
async def replaced(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Trio]:
    """Yield a new node that a snapshot of three others, which are gone, has replaced; with their shares and root token."""
    async with trio(monkeypatch) as old:
        await put(old, "old")
        content = await saved(old, old.leader)
    network = LoopbackNetwork()
    members = [Member(number, network, MemoryLog(), MemoryState()) for number in (4, 5)]
    monkeypatch.setattr(joining, "_ask", asking(members))
    first = members[0]
    await first.start()
    made = await first.lifecycle.initialize(1, 1)
    await first.lifecycle.unseal(made.shares_hex[0])
    try:
        assert await restoring(Trio([first], [], made.root_token), first, content, FORCE) == Response()
        yield Trio(members, old.shares, old.root)
    finally:
        await asyncio.gather(*(member.die() for member in members))


async def unsealed(cluster: Trio, member: Member) -> None:
    for share in cluster.shares:
        await member.lifecycle.unseal(share)
    await come_true(lambda: not member.vault.is_sealed)


@on_loop
@pytest.mark.usefixtures("small_entries")
async def test_a_new_node_takes_over_a_lost_cluster_and_others_join_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with replaced(monkeypatch) as cluster:
        first, second = cluster.members
        assert first.vault.is_sealed
        await unsealed(cluster, first)

        await second.start()
        await second.lifecycle.begin_join(JoinTarget(first.lifecycle.node.api_address))
        # What it gets first from the log is the state that was replaced, which these shares do not open.
        await unsealed(cluster, second)

        assert await values(cluster, first) == await values(cluster, second) == {"old"}
        await cluster.settle()
        assert isinstance(await cluster.write(second, "secret/data/k0", {"data": {"v": "more"}}), Response)


@on_loop
async def test_a_node_that_dies_with_the_swap_to_other_keys_is_opened_by_the_old_shares(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with replaced(monkeypatch) as cluster:
        first = cluster.members[0]
        await first.die()

        again = await reborn(cluster, first)
        await come_true(lambda: again.vault.is_active)

        assert await values(cluster, again) == {"old"}


@on_loop
async def test_three_nodes_refuse_a_state_of_other_keys_and_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async with trio(monkeypatch) as other:
        content = await saved(other, other.leader)
    async with trio(monkeypatch) as cluster:
        outcome = await restoring(cluster, cluster.followers[0], content, FORCE)

        assert isinstance(outcome, RequestError)
        assert outcome.messages == (snapshots.NOT_ALONE,)
        await put(cluster, "after")
        for member in cluster.members:
            assert await values(cluster, member) == {"after"}
