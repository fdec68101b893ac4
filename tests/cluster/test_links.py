"""What a node does with frames that no honest peer sends, or that come from somebody it does not know."""

import asyncio
from random import Random

import msgspec

from conclave.cluster.frames import (
    Announce,
    Answer,
    ChunkReply,
    ChunkRequest,
    Forward,
    Frame,
    Messages,
    Outcome,
    Service,
)
from conclave.cluster.raft import ConfState, Entry, Message, MessageKind, Snapshot, SnapshotMeta
from conclave.cluster.replica import Standing
from conclave.cluster.transfer import Descriptor
from tests.cluster.cluster_of_nodes import Cluster, Member, commit, commit_somewhere, join, until


class Heard:
    """The replies to a frame."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def __call__(self, frame: Frame) -> bool:
        self.frames.append(frame)
        return True


def tell(cluster: Cluster, member: Member, source: int, frame: Frame) -> Heard:
    """Let a member hear a frame as if it came from `source`; return what it replies."""
    receiver = cluster.network.nodes[member.raft_id].receiver
    assert receiver is not None
    heard = Heard()
    receiver.frame_received(source, frame, heard)
    return heard


def test_messages_that_only_a_node_itself_may_send_are_dropped() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        follower, leader = cluster.followers[0], cluster.leader
        for kind in (MessageKind.STORAGE_APPEND_RESPONSE, MessageKind.STORAGE_APPLY_RESPONSE, MessageKind.PROPOSE):
            message = Message(
                kind, follower.raft_id, leader.raft_id, leader.node.term, 1, 10_000, entries=(Entry(1, 1),)
            )
            tell(cluster, follower, leader.raft_id, Messages([message]))

        await commit(leader, b"one")

        await until(lambda: follower.machine.datas == [b"one"])
        await cluster.stop()

    asyncio.run(play())


def test_what_a_peer_says_in_the_name_of_another_is_dropped() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        follower, leader = cluster.followers[0], cluster.leader
        other = cluster.followers[1]
        term = leader.node.term
        vote = Message(MessageKind.VOTE, follower.raft_id, leader.raft_id, term + 5, 100, 100, forced=True)

        tell(cluster, follower, other.raft_id, Messages([vote]))

        await commit(leader, b"one")
        assert leader.node.term == term
        await cluster.stop()

    asyncio.run(play())


def test_messages_that_contradict_themselves_change_nothing() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        follower, leader = cluster.followers[0], cluster.leader
        term = leader.node.term
        gap = (Entry(term, 50), Entry(term, 52))
        for message in (
            Message(MessageKind.APPEND, follower.raft_id, leader.raft_id, term, term, 49, entries=gap),
            Message(MessageKind.APPEND, leader.raft_id, leader.raft_id, term, term, 49),
            Message(MessageKind.HEARTBEAT, follower.raft_id, leader.raft_id, 0),
            Message(MessageKind.SNAPSHOT, follower.raft_id, leader.raft_id, term),
        ):
            tell(cluster, follower, leader.raft_id, Messages([message]))

        await commit(leader, b"one")

        await until(lambda: follower.machine.datas == [b"one"])
        assert not follower.node.fault
        await cluster.stop()

    asyncio.run(play())


def test_random_messages_of_a_member_never_end_in_an_exception() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        follower, leader = cluster.followers[0], cluster.leader
        random = Random(1)
        for _ in range(2000):
            numbers = [random.choice([0, 1, 2, 5, 2**40]) for _ in range(4)]
            kind = random.choice(list(MessageKind))
            message = Message(
                kind,
                follower.raft_id,
                leader.raft_id,
                leader.node.term,
                log_term=numbers[0],
                index=numbers[1],
                reject=random.random() < 0.5,
                reject_hint=numbers[2],
                sequence=numbers[3],
            )
            tell(cluster, follower, leader.raft_id, Messages([message]))
        tell(cluster, follower, leader.raft_id, ChunkReply(b"none", b"", b"chunk"))
        tell(cluster, follower, leader.raft_id, Answer(1, Outcome.ANSWERED))

        await commit_somewhere(cluster, b"one")  # by whom does not matter: it was told to campaign, among other things

        await until(lambda: follower.machine.datas[-1:] == [b"one"])
        assert not follower.node.fault
        await cluster.stop()

    asyncio.run(play())


def test_a_question_for_another_term_is_not_looked_at() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b")
        leader, follower = cluster.leader, cluster.followers[0]

        async def answer(_body: bytes, _asker: str) -> bytes:
            raise AssertionError

        leader.node.serve(answer)

        question = Forward(7, leader.node.term - 1, Service.APPLICATION, b"")
        heard = tell(cluster, leader, follower.raft_id, question)

        assert heard.frames == [Answer(7, Outcome.NOT_LEADER)]
        await cluster.stop()

    asyncio.run(play())


def test_somebody_who_is_no_member_is_answered_nothing_but_raft_messages() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b")
        leader = cluster.leader
        stranger = 4711

        silent = [
            tell(cluster, leader, stranger, Forward(7, leader.node.term, Service.APPLICATION, b"")),
            tell(cluster, leader, stranger, ChunkRequest(b"id", b"")),
            tell(cluster, leader, stranger, Announce("x", "", "", "", "", False, 0, 0, 0)),
        ]
        pre_vote = Message(MessageKind.PRE_VOTE, leader.raft_id, stranger, leader.node.term, 1, 1)
        heard = tell(cluster, leader, stranger, Messages([pre_vote]))

        await until(lambda: bool(heard.frames))
        assert [one.frames for one in silent] == [[], [], []]
        (frame,) = heard.frames
        assert isinstance(frame, Messages)
        assert frame.messages[0].kind is MessageKind.PRE_VOTE_RESPONSE
        assert frame.messages[0].reject
        await cluster.stop()

    asyncio.run(play())


def test_a_snapshot_that_is_not_on_offer_is_answered_with_an_empty_chunk() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b")

        heard = tell(cluster, cluster.leader, cluster.followers[0].raft_id, ChunkRequest(b"id", b"progress"))

        assert heard.frames == [ChunkReply(b"id", b"progress", b"")]
        await cluster.stop()

    asyncio.run(play())


def test_one_may_only_have_oneself_removed_by_the_next_leader() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        follower, other = cluster.followers
        question = Forward(7, cluster.leader.node.term, Service.MEMBERSHIP, other.name.encode())

        heard = tell(cluster, cluster.leader, follower.raft_id, question)

        await until(lambda: bool(heard.frames))
        assert len(cluster.leader.node.peers()) == 3
        await cluster.stop()

    asyncio.run(play())


def test_a_node_comes_back_under_its_name_with_an_empty_disk_once_it_has_been_removed() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        old = cluster.followers[0]
        await cluster.leader.node.remove(old.name)
        await until(lambda: old.node.standing is Standing.REMOVED)
        await old.node.stop()
        new = cluster.member(old.name)
        new.address = old.address
        new.renew()
        await new.start()

        await join(new, cluster.leader, cluster.authority_key)

        await until(lambda: sum(peer.is_voter for peer in new.node.peers()) == 3)
        assert new.raft_id != old.raft_id
        await cluster.stop()

    asyncio.run(play())


def test_an_identity_of_a_newer_version_is_not_guessed_at() -> None:
    async def play() -> None:
        cluster = Cluster()
        member = cluster.member("a")
        member.log.set_identity(msgspec.msgpack.encode([2, bytes(16), "a"]))
        refusal = ""
        try:
            await member.start()
        except ValueError as error:
            refusal = str(error)

        assert "newer version" in refusal

    asyncio.run(play())


def test_a_leader_that_a_node_does_not_know_yet_is_asked_for_its_snapshot_where_it_has_offered_it() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        away, stranger = cluster.followers[0], 99
        term = cluster.leader.node.term + 1
        members = tuple(sorted([stranger, *(member.raft_id for member in cluster.members)]))
        snapshot = Snapshot(SnapshotMeta(1000, term, ConfState(members)), msgspec.msgpack.encode(Descriptor(b"s" * 16)))
        offer = Message(MessageKind.SNAPSHOT, away.raft_id, stranger, term, snapshot=snapshot)

        heard = tell(cluster, away, stranger, Messages([offer]))
        await until(lambda: any(isinstance(frame, ChunkRequest) for frame in heard.frames))
        (question,) = [frame for frame in heard.frames if isinstance(frame, ChunkRequest)]
        tell(cluster, away, stranger, ChunkReply(question.snapshot_id, question.progress, b""))

        await commit_somewhere(cluster, b"one")  # the answer was heard: without it, the fetch would go on
        await until(lambda: away.machine.datas == [b"one"])
        await cluster.stop()

    asyncio.run(play())
