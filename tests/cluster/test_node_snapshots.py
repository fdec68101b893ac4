"""Compaction, snapshots and restarts of real nodes, on storage in memory and on disk."""

import asyncio
from pathlib import Path

import pytest
from msgspec import structs

from conclave.cluster.membership import decode_identity, encode_identity
from conclave.cluster.raft import Snapshot
from conclave.cluster.replica import Standing
from conclave.storage.log import LmdbLog
from conclave.storage.state import LmdbState
from tests.cluster.cluster_of_nodes import Cluster, Member, commit, commit_somewhere, is_settled, until

MAP_BYTES = 1 << 28


async def write_and_cut(cluster: Cluster, count: int) -> None:
    """Commit entries on the leader, flush it, and wait until its log is cut."""
    leader = cluster.leader
    first = leader.log.first_index
    for number in range(count):
        leader.node.propose(b"%d" % number)
    last = await commit(leader, b"last")
    leader.machine.flush()
    await until(lambda: leader.log.first_index > max(first, last.index - 100))


def test_the_log_is_cut_behind_what_the_state_holds() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a")

        await write_and_cut(cluster, 300)

        leader = cluster.leader
        assert leader.log.first_index <= leader.machine.durable_index + 1
        assert leader.log.last_index - leader.log.first_index >= leader.settings.trailing_entries - 1
        await cluster.stop()

    asyncio.run(play())


def test_a_new_node_whose_log_entries_are_gone_gets_a_snapshot() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        await write_and_cut(cluster, 300)
        new = cluster.member("d")

        await cluster.add(new)
        cluster.leader.machine.flush()  # with the membership in which the new node exists

        await until(lambda: is_settled(new, 4))
        assert new.machine.replacements == 1
        assert new.state.get(cluster.leader.machine.applied[0].to_bytes(32, "big")) is None
        ticket = await commit(cluster.leader, b"after")
        await until(lambda: new.machine.applied[0] >= ticket.index)
        assert new.machine.datas[-1] == b"after"
        await cluster.stop()

    asyncio.run(play())


def test_a_state_from_before_a_node_was_added_is_not_offered_to_it_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        await write_and_cut(cluster, 300)
        part = cluster.leader.node._part
        assert part is not None
        sender = part.sender
        take, tries = sender.take, list[int]()

        def counted(*, index_min: int = 0) -> Snapshot:
            tries.append(index_min)
            return take(index_min=index_min)

        monkeypatch.setattr(sender, "take", counted)
        new = cluster.member("d")
        await cluster.add(new)
        await until(lambda: len(tries) > 1)

        cluster.leader.machine.flush()

        await until(lambda: is_settled(new, 4))
        await cluster.stop()

    asyncio.run(play())


def test_a_follower_that_was_away_for_too_long_gets_a_snapshot_and_votes_again() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        away = cluster.followers[0]
        await away.node.stop()
        await write_and_cut(cluster, 300)

        await away.restart()

        await until(lambda: away.machine.applied[0] >= cluster.leader.machine.applied[0])
        assert away.machine.replacements == 1
        assert decode_identity(away.log.get_identity()).installing == (0, 0)
        other = next(follower for follower in cluster.followers if follower is not away)
        await other.node.stop()
        await commit(cluster.leader, b"with its vote")
        await cluster.stop()

    asyncio.run(play())


def test_a_follower_whose_snapshot_source_dies_gets_the_state_from_the_next_leader() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c", "d")
        away = cluster.followers[0]
        await away.node.stop()
        await write_and_cut(cluster, 300)
        for follower in cluster.followers:
            if follower is not away:
                await until(lambda m=follower: m.machine.applied[0] >= cluster.leader.machine.applied[0])  # type: ignore[misc]
                follower.machine.flush()
        old = cluster.leader
        await away.restart()
        await until(lambda: away.node.leader is not None)

        await old.node.stop(hand_over=False)
        cluster.members.remove(old)

        await commit_somewhere(cluster, b"after")
        await until(lambda: away.machine.applied[0] >= cluster.leader.machine.applied[0])
        await cluster.stop()

    asyncio.run(play())


def test_a_cluster_on_disk_goes_on_after_all_its_nodes_have_restarted(tmp_path: Path) -> None:
    async def play() -> None:
        cluster = Cluster()
        stores = {}
        for name in "abc":
            stores[name] = (
                LmdbLog(tmp_path / f"{name}-log", map_bytes=MAP_BYTES),
                LmdbState(tmp_path / f"{name}-state", map_bytes=MAP_BYTES),
            )
            options = {"log": stores[name][0], "state": stores[name][1], "use_threads": True}
            if name == "a":
                await cluster.found(name, **options)
            else:
                await cluster.add(cluster.member(name, **options))
        await until(lambda: all(is_settled(m, 3) for m in cluster.members))
        await commit(cluster.leader, b"one")
        cluster.leader.machine.flush()
        await commit(cluster.leader, b"two")
        for member in cluster.members:
            await member.node.stop(hand_over=False)

        for member in cluster.members:
            await member.restart()

        await commit_somewhere(cluster, b"three")
        await until(lambda: len({m.machine.applied for m in cluster.members}) == 1)
        assert all(m.machine.datas[-2:] == [b"two", b"three"] for m in cluster.members)
        await cluster.stop()

    asyncio.run(play())


def test_a_node_on_disk_takes_a_snapshot(tmp_path: Path) -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b")
        await write_and_cut(cluster, 300)
        new = cluster.member(
            "c",
            log=LmdbLog(tmp_path / "log", map_bytes=MAP_BYTES),
            state=LmdbState(tmp_path / "state", map_bytes=MAP_BYTES),
            use_threads=True,
        )

        await cluster.add(new)
        cluster.leader.machine.flush()

        await until(lambda: is_settled(new, 3))
        assert new.machine.replacements == 1
        assert new.log.first_index > 1
        await cluster.stop()

    asyncio.run(play())


@pytest.mark.parametrize("has_replaced_state", [False, True])
def test_a_crash_in_the_middle_of_an_installation_is_recovered_from(has_replaced_state: bool) -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        away = cluster.followers[0]
        await until(lambda: away.machine.applied == cluster.leader.machine.applied)
        away.machine.flush()
        await away.node.stop()
        await write_and_cut(cluster, 300)
        leader = cluster.leader
        index, term = leader.state.applied
        crash_before_the_log_is_reset(away, leader, (index, term), has_replaced_state=has_replaced_state)

        await away.restart()

        await until(lambda: away.machine.applied[0] >= leader.machine.applied[0])
        assert away.machine.replacements == (0 if has_replaced_state else 1)
        assert decode_identity(away.log.get_identity()).installing == (0, 0)
        await cluster.stop()

    asyncio.run(play())


def crash_before_the_log_is_reset(
    member: Member, leader: Member, place: tuple[int, int], *, has_replaced_state: bool
) -> None:
    identity = structs.replace(decode_identity(member.log.get_identity()), installing=place)
    member.log.set_identity(encode_identity(identity))
    if has_replaced_state:
        reader = leader.state.open_reader()
        member.state.flush(dict(reader.pairs()), reader.applied)
        member.state.refresh()
        reader.close()


def test_a_state_that_is_ahead_of_the_log_keeps_a_node_from_taking_part() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        damaged = cluster.followers[0]
        await damaged.node.stop()
        damaged.machine.applied = (1000, 1000)
        damaged.machine.flush()

        await damaged.restart()

        assert "log" in damaged.node.fault
        assert damaged.node.standing is Standing.FOLLOWER
        await cluster.stop()

    asyncio.run(play())


def test_bug_b67_a_restarted_node_counts_what_its_log_holds_already() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a")
        member = cluster.leader
        await commit(member, bytes(1000))
        await member.node.stop(hand_over=False)

        await member.restart()

        assert member.node._part is not None
        assert member.node._part.driver._jobs.trail._total >= 1000
        await cluster.stop()

    asyncio.run(play())
