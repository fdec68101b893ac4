"""A cluster of real nodes: elections, proposals, reads, handing over."""

import asyncio

from conclave.cluster.replica import Standing
from tests.cluster.cluster_of_nodes import Cluster, commit, until


def test_a_founder_leads_its_cluster_and_applies_what_it_proposes() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a")

        await commit(cluster.leader, b"one")

        assert cluster.leader.machine.datas == [b"one"]
        assert cluster.leader.node.has_lease()
        assert [peer.node_id for peer in cluster.leader.node.peers()] == ["a"]
        await cluster.stop()

    asyncio.run(play())


def test_three_nodes_apply_what_their_leader_proposes() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")

        for number in range(20):
            await commit(cluster.leader, b"%d" % number)

        expected = [b"%d" % number for number in range(20)]
        await until(lambda: all(m.machine.datas == expected for m in cluster.members))
        assert [m.node.standing for m in cluster.members] == [Standing.LEADER, Standing.FOLLOWER, Standing.FOLLOWER]
        await cluster.stop()

    asyncio.run(play())
