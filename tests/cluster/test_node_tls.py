"""Three nodes over real TLS connections on loopback sockets."""

import asyncio
import datetime as dt
import socket

import pytest

from conclave.cluster.certificates import (
    check_issued,
    client_context,
    is_authority_key,
    new_authority,
    server_context,
)
from conclave.cluster.errors import NotAlone
from conclave.cluster.membership import Identity, decode_identity
from conclave.cluster.node import NodeSettings, TransportFactory
from conclave.cluster.replica import Standing
from conclave.cluster.transport import Local, TlsTransport, Transport, listen
from conclave.storage.log import LogStore
from conclave.storage.state import StateStore
from tests.cluster.cluster_of_nodes import SETTINGS, Cluster, Member, commit, commit_somewhere, is_settled, until


def over(listener: socket.socket) -> TransportFactory:
    """Connect over TLS, through a socket that listens already, so that its port is known before."""

    def connect(identity: Identity) -> Transport:
        pems = {
            "certificate_pem": identity.certificate_pem,
            "private_key_pem": identity.private_key_pem,
            "authority_pem": identity.authority_pem,
        }
        local = Local(identity.cluster_id, identity.raft_id, identity.incarnation)
        server, client = server_context(**pems), client_context(**pems)
        return TlsTransport(local, listener, server=server, client=client, random=lambda: 0.5)

    return connect


def member_over_tls(
    name: str, settings: NodeSettings = SETTINGS, *, log: LogStore | None = None, state: StateStore | None = None
) -> Member:
    listener = listen(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    return Member(name, port, over(listener), log=log, state=state, settings=settings)


async def found(count: int, settings: NodeSettings = SETTINGS) -> Cluster:
    cluster = Cluster()
    for name in "abcde"[:count]:
        member = member_over_tls(name, settings)
        cluster.members.append(member)
        if name == "a":
            await member.start()
            cluster.authority_key = (await member.node.bootstrap("cluster"))["authority_key"]
        else:
            await cluster.add(member)
    await until(lambda: all(is_settled(m, count) for m in cluster.members))
    return cluster


def test_three_nodes_replicate_over_tls_and_survive_the_loss_of_their_leader() -> None:
    async def play() -> None:
        cluster = await found(3)
        await commit(cluster.leader, b"before")
        old = cluster.leader
        assert await cluster.followers[0].node.read_barrier() >= old.machine.applied[0]

        await old.node.stop(hand_over=False)
        cluster.members.remove(old)
        await commit_somewhere(cluster, b"after")

        await until(lambda: all(m.machine.datas == [b"before", b"after"] for m in cluster.members))
        await cluster.stop()

    asyncio.run(play())


def test_a_node_removed_over_tls_learns_that_it_is_one() -> None:
    async def play() -> None:
        cluster = await found(3)
        gone = cluster.followers[0]

        await cluster.leader.node.remove(gone.name)

        await until(lambda: gone.node.standing is Standing.REMOVED)
        await cluster.stop()

    asyncio.run(play())


def test_two_of_three_nodes_may_come_back_on_other_ports_at_the_same_time() -> None:
    """Then no majority can record the addresses before the one that stayed reaches the others there."""

    async def play() -> None:
        cluster = await found(3)
        stayed, moved = cluster.leader, cluster.followers
        for old in moved:
            await old.node.stop()

        cluster.members = [stayed, *(member_over_tls(old.name, log=old.log, state=old.state) for old in moved)]
        for again in cluster.members[1:]:
            await again.start()

        await commit_somewhere(cluster, b"after")
        await until(lambda: all(m.machine.datas[-1:] == [b"after"] for m in cluster.members))
        await cluster.stop()

    asyncio.run(play())


def test_a_node_that_comes_back_on_another_port_is_found_there() -> None:
    async def play() -> None:
        cluster = await found(3)
        moved = cluster.followers[0]
        leader = cluster.leader
        await moved.node.stop()
        cluster.members.remove(moved)

        again = member_over_tls(moved.name, log=moved.log, state=moved.state)
        cluster.members.append(again)
        await again.start()

        await commit(leader, b"after")
        await until(lambda: again.machine.datas[-1:] == [b"after"])
        await until(lambda: again.address in {peer.cluster_address for m in cluster.members for peer in m.node.peers()})
        await leader.node.step_down()  # whoever leads next has to find it as well
        await commit_somewhere(cluster, b"later")
        await until(lambda: all(m.machine.datas[-1:] == [b"later"] for m in cluster.members))
        await cluster.stop()

    asyncio.run(play())


def stored(member: Member) -> Identity:
    return decode_identity(member.log.get_identity())


def another_authority_key() -> bytes:
    """Return the key of an authority that no node here knows."""
    return new_authority("another", dt.datetime.now(dt.UTC))[1]


def test_a_node_that_is_alone_makes_a_new_authority_when_it_has_not_the_key_of_its_own() -> None:
    async def play() -> None:
        cluster = await found(1)
        founder, before = cluster.leader, stored(cluster.leader)

        kept = await founder.node.own_authority(cluster.authority_key)
        assert (kept, stored(founder)) == (cluster.authority_key, before)
        cluster.authority_key = await founder.node.own_authority(another_authority_key())

        after = stored(founder)
        assert is_authority_key(after.authority_pem, cluster.authority_key)
        assert not is_authority_key(before.authority_pem, cluster.authority_key)
        check_issued(
            after.certificate_pem, after.private_key_pem, after.authority_pem, known_authority_pem=after.authority_pem
        )
        joined = member_over_tls("b")  # greeted with the new certificate, by a node that has not been restarted
        cluster.members.append(joined)
        await cluster.add(joined)
        await commit(founder, b"after")
        await until(lambda: joined.machine.datas == [b"after"])
        await cluster.stop()

    asyncio.run(play())


def test_a_new_authority_is_there_after_a_restart_and_made_once_more_if_its_key_was_lost() -> None:
    async def play() -> None:
        cluster = await found(1)
        founder, lost = cluster.leader, another_authority_key()
        first = await founder.node.own_authority(lost)
        await founder.node.stop()

        again = member_over_tls(founder.name, log=founder.log, state=founder.state)
        cluster.members = [again]
        await again.start()
        await until(lambda: again.node.standing is Standing.LEADER)

        assert await again.node.own_authority(first) == first
        second = await again.node.own_authority(lost)
        assert second not in {first, lost}
        assert is_authority_key(stored(again).authority_pem, second)
        await cluster.stop()

    asyncio.run(play())


def test_no_new_authority_is_made_where_others_know_the_present_one() -> None:
    async def play() -> None:
        cluster = await found(2)
        before = stored(cluster.leader)

        with pytest.raises(NotAlone):
            await cluster.leader.node.own_authority(another_authority_key())

        assert stored(cluster.leader) == before
        await cluster.stop()

    asyncio.run(play())
