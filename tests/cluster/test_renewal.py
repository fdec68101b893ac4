"""Certificates that are renewed while the cluster runs: who signs, and what becomes of a node that was away too long."""

import asyncio
import datetime as dt

import pytest
from cryptography import x509
from msgspec import structs

from conclave.cluster import membership
from conclave.cluster.certificates import days_left, new_authority, new_private_key, new_request, sign_request
from conclave.cluster.errors import NotLeader
from conclave.cluster.membership import Identity, MembershipRecord, decode_identity
from conclave.cluster.node import NodeSettings
from conclave.cluster.raft import ConfState
from conclave.cluster.renewal import Issued, Renewal
from tests.cluster.cluster_of_nodes import SETTINGS, Cluster, Member, commit, until
from tests.cluster.test_node_tls import found, member_over_tls

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
VALIDITY = dt.timedelta(days=30)
AUTHORITY, AUTHORITY_KEY = new_authority("c", NOW)
SHORT_LIVED: NodeSettings = structs.replace(SETTINGS, certificate_seconds=4.0)


def identity_of(raft_id: int, node_id: str) -> Identity:
    key = new_private_key()
    certificate = sign_request(
        new_request(key, node_id),
        cluster_id="c",
        raft_id=raft_id,
        node_id=node_id,
        authority_pem=AUTHORITY,
        authority_key_pem=AUTHORITY_KEY,
        now=NOW,
    )
    return Identity(1, bytes(16), node_id, "c", raft_id, certificate, AUTHORITY, key)


class Party:
    """One side of a renewal."""

    def __init__(self, raft_id: int, node_id: str, authority_key: bytes | None, leader: "Party | None" = None) -> None:
        self.identity = identity_of(raft_id, node_id)
        self.authority_key = authority_key
        self.leader = leader
        self.now = NOW
        self.seconds = 0.0
        self.asked = 0
        self.adopted: list[tuple[Issued, bytes]] = []
        members = tuple(membership.Member(raft_id, name, "", "", b"") for raft_id, name in ((1, "a"), (2, "b")))
        self.renewal = Renewal(
            lambda: self.identity,
            record=lambda: MembershipRecord(conf_state=ConfState((1, 2)), members=members),
            authority_key=lambda: self.authority_key,
            ask=self.ask,
            adopt=self.adopt,
            validity=VALIDITY,
            clock=lambda: self.seconds,
            utc_now=lambda: self.now,
        )

    async def ask(self, body: bytes, _seconds: float) -> bytes:
        self.asked += 1
        if self.leader is None:
            raise NotLeader("no other node is known to lead")
        return await self.leader.renewal.answer(body, self.identity.node_id)

    async def adopt(self, issued: Issued, private_key_pem: bytes) -> None:
        self.adopted.append((issued, private_key_pem))


def test_nothing_happens_in_the_first_half_of_a_certificate_s_life() -> None:
    party = Party(1, "a", AUTHORITY_KEY)
    party.now = NOW + dt.timedelta(days=14)

    asyncio.run(party.renewal.attempt())

    assert not party.adopted


def test_an_unsealed_node_signs_for_itself() -> None:
    party = Party(1, "a", AUTHORITY_KEY)
    party.now = NOW + dt.timedelta(days=100)  # long expired

    asyncio.run(party.renewal.attempt())

    ((issued, key),) = party.adopted
    assert days_left(issued.certificate_pem, party.now) == VALIDITY.days
    assert key != party.identity.private_key_pem
    assert party.asked == 0


def test_a_sealed_node_asks_the_leader() -> None:
    leader, party = Party(1, "a", AUTHORITY_KEY), Party(2, "b", None)
    party.leader = leader
    leader.now = party.now = NOW + dt.timedelta(days=16)

    asyncio.run(party.renewal.attempt())

    ((issued, _),) = party.adopted
    assert days_left(issued.certificate_pem, party.now) == VALIDITY.days


def test_a_leader_that_cannot_sign_is_not_asked_again_at_once() -> None:
    party = Party(2, "b", None, leader=Party(1, "a", None))
    party.now = NOW + dt.timedelta(days=16)

    async def play() -> None:
        for second in (0.0, 1.0, 599.0, 601.0):
            party.seconds = second
            await party.renewal.attempt()

    asyncio.run(play())

    assert party.asked == 2
    assert not party.adopted


def test_another_cluster_s_authority_signs_nothing() -> None:
    _, stranger_key = new_authority("c", NOW)
    party = Party(1, "a", stranger_key)
    party.now = NOW + dt.timedelta(days=16)

    asyncio.run(party.renewal.attempt())

    assert not party.adopted


def test_nothing_is_signed_for_somebody_who_is_no_member() -> None:
    leader = Party(1, "a", AUTHORITY_KEY)

    assert asyncio.run(leader.renewal.answer(new_request(new_private_key(), "z"), "z")) == b""
    assert asyncio.run(leader.renewal.answer(b"junk", "b")) == b""


def end_of(member: Member) -> dt.datetime:
    """When the certificate ends that a member has stored."""
    identity = decode_identity(member.log.get_identity())
    return x509.load_pem_x509_certificate(identity.certificate_pem).not_valid_after_utc


def is_over(moment: dt.datetime) -> bool:
    return dt.datetime.now(dt.UTC) > moment


async def come_back(cluster: Cluster, gone: Member) -> Member:
    """Start a member again that has stopped, on another port."""
    again = member_over_tls(gone.name, gone.settings, log=gone.log, state=gone.state)
    cluster.members[cluster.members.index(gone)] = again
    await again.start()
    return again


def test_certificates_are_renewed_while_the_cluster_runs_also_of_nodes_that_are_sealed() -> None:
    async def play() -> None:
        cluster = await found(3, SHORT_LIVED)
        first_ends = max(end_of(member) for member in cluster.members)
        cluster.leader.node.lend_authority(lambda: cluster.authority_key)  # to nobody else: the others are sealed

        await until(lambda: is_over(first_ends) and all(end_of(member) > first_ends for member in cluster.members))
        gone = cluster.followers[0]
        await gone.node.stop()
        again = await come_back(cluster, gone)

        # Every certificate that it is greeted with is a later one than that with which its peer began.
        await commit(cluster.leader, b"renewed")
        await until(lambda: again.machine.datas == [b"renewed"])
        await cluster.stop()

    asyncio.run(play())


def test_a_node_that_was_away_until_its_certificate_ended_takes_part_again_once_it_is_unsealed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def play() -> None:
        cluster = await found(3, SHORT_LIVED)
        for member in cluster.members:
            member.node.lend_authority(lambda: cluster.authority_key)
        gone = cluster.followers[0]
        await gone.node.stop()
        await until(lambda: is_over(end_of(gone)))
        await commit(cluster.leader, b"meanwhile")

        again = await come_back(cluster, gone)
        assert "until its certificate expired" in caplog.text
        assert not again.machine.datas
        again.node.lend_authority(lambda: cluster.authority_key)

        await until(lambda: again.machine.datas == [b"meanwhile"])
        await cluster.stop()

    asyncio.run(play())
