"""What a driver makes of time: stalls of its own, broken connections, and reads that share a round."""

import asyncio
from collections.abc import Callable

import pytest

from conclave.cluster.driver import LOOK_SECONDS_MAX, LOOKS_MAX, Driver
from conclave.cluster.errors import NoQuorum
from conclave.cluster.frames import Frame, Lane, Messages
from conclave.cluster.persistence import Append, Done, Job
from conclave.cluster.raft import Message, MessageKind, ProgressState
from conclave.cluster.replica import Standing
from conclave.cluster.timing import ELECTION_TICKS, LEASE_TICKS
from tests.cluster.cluster_of_nodes import Cluster, Member, commit, until


def driver_of(member: Member) -> Driver:
    assert member.node._part is not None
    return member.node._part.driver


def test_a_follower_that_was_stalled_itself_waits_longer_before_it_campaigns() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        driver = driver_of(cluster.followers[0])

        driver.tick(10.0)

        assert driver._raft.handicap_ticks == ELECTION_TICKS
        await until(lambda: driver._raft.handicap_ticks == 0)  # the leader was heard again
        assert cluster.leader.node.standing is Standing.LEADER
        await cluster.stop()

    asyncio.run(play())


def test_a_stall_of_its_own_is_no_evidence_against_the_disk() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        driver = driver_of(cluster.leader)
        driver._writer.oldest_pending_seconds = lambda _: 100.0  # type: ignore[method-assign, assignment]

        driver.tick(10.0)
        is_blamed_after_a_stall = bool(driver.fault)
        driver.tick(0.0)

        assert not is_blamed_after_a_stall
        assert driver.fault
        await cluster.stop()

    asyncio.run(play())


def test_a_broken_connection_to_the_leader_shortens_the_wait_but_not_below_the_promise() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        driver = driver_of(cluster.followers[0])
        receiver = cluster.network.nodes[cluster.followers[0].raft_id].receiver
        assert receiver is not None

        receiver.peer_disconnected(cluster.leader.raft_id, Lane.CONTROL)

        assert LEASE_TICKS < driver._raft.randomized_election_ticks < ELECTION_TICKS
        await cluster.stop()

    asyncio.run(play())


def test_readers_that_wait_when_a_node_stops_hear_of_it() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        follower = cluster.followers[0]
        cluster.network.isolate(follower.raft_id)
        reader = asyncio.ensure_future(follower.node.read_barrier())
        await asyncio.sleep(0)

        await follower.node.stop()

        with pytest.raises(NoQuorum):
            await reader
        await cluster.stop()

    asyncio.run(play())


def test_a_lease_does_not_cover_what_is_committed_and_not_applied() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        leader = cluster.leader
        await until(leader.node.has_lease)
        driver = driver_of(leader)

        driver._raft.log.committed += 1

        assert not leader.node.has_lease()
        driver._raft.log.committed -= 1
        await cluster.stop()

    asyncio.run(play())


def test_a_change_of_the_membership_voids_the_lease_until_the_new_quorum_confirms() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        leader = cluster.leader
        await until(leader.node.has_lease)
        lease = driver_of(leader)._lease

        await leader.node.remove(cluster.followers[0].name)

        assert lease.until == 0.0
        await until(leader.node.has_lease)
        await cluster.stop()

    asyncio.run(play())


def test_while_it_hands_over_a_node_neither_takes_proposals_nor_reads_by_its_lease() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        leader = cluster.leader
        await until(leader.node.has_lease)

        driver_of(leader).transfer(cluster.followers[0].raft_id)

        assert leader.node.standing is Standing.FOLLOWER
        assert not leader.node.has_lease()
        await until(lambda: len(cluster.leaders()) == 1)
        await commit(cluster.leader, b"after")
        await cluster.stop()

    asyncio.run(play())


def test_a_leader_whose_transfer_failed_leads_on_when_all_it_proposed_is_applied() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        leader, target = cluster.leader, cluster.followers[0]
        cluster.network.cut(leader.raft_id, target.raft_id)
        leader.node.propose(b"in flight")

        driver_of(leader).transfer(target.raft_id)
        standing = leader.node.standing
        await until(lambda: bool(cluster.leaders()))

        assert standing is Standing.FOLLOWER
        assert cluster.leader.machine.datas == [b"in flight"]
        await cluster.stop()

    asyncio.run(play())


def test_a_leader_with_a_lease_answers_a_follower_s_read_without_asking_anybody() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        leader, follower = cluster.leader, cluster.followers[0]
        await until(leader.node.has_lease)
        raft = driver_of(leader)._raft
        sequence = raft.heartbeat_sequence
        ask = Message(MessageKind.READ_INDEX, leader.raft_id, follower.raft_id, sequence=7)

        driver_of(leader)._inbox.append(ask)
        driver_of(leader)._step_received()

        answers = [m for m in raft.ready().messages if m.kind is MessageKind.READ_INDEX_RESPONSE]
        assert [(m.to, m.index, m.sequence) for m in answers] == [(follower.raft_id, raft.log.committed, 7)]
        assert raft.heartbeat_sequence == sequence
        await cluster.stop()

    asyncio.run(play())


def test_a_leader_without_a_lease_asks_a_quorum_before_it_answers_a_read() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        leader, follower = cluster.leader, cluster.followers[0]
        await until(leader.node.has_lease)
        driver = driver_of(leader)
        driver._lease.until = 0.0
        ask = Message(MessageKind.READ_INDEX, leader.raft_id, follower.raft_id, sequence=7)

        driver._inbox.append(ask)
        driver._step_received()

        kinds = {message.kind for message in driver._raft.ready().messages}
        assert MessageKind.HEARTBEAT in kinds
        assert MessageKind.READ_INDEX_RESPONSE not in kinds
        await cluster.stop()

    asyncio.run(play())


@pytest.mark.parametrize("end", [lambda driver: driver.halt("the test says so"), Driver.close])
def test_a_node_that_takes_no_part_any_more_lets_out_nothing_that_waits(end: Callable[[Driver], None]) -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        driver, sent = driver_of(cluster.leader), list[Message]()
        peer = cluster.followers[0].raft_id
        progress = driver._raft.tracker.progress[peer]
        await until(lambda: driver.may_change and progress.state is ProgressState.REPLICATE)

        def send(_peer: int, _lane: Lane, frame: Frame) -> bool:
            assert isinstance(frame, Messages)
            sent.extend(frame.messages)
            return True

        driver._outbox._send = send
        committed = driver.commit_index
        driver._outbox.send_all([Message(MessageKind.APPEND, peer, 1, term=driver.term, index=committed)])
        assert driver._outbox._notices

        end(driver)
        driver._outbox._send_notices()
        driver._durable([Message(MessageKind.APPEND_RESPONSE, peer, 1, term=driver.term)])

        assert {message.kind for message in sent} <= {MessageKind.RESIGNED}
        await cluster.stop()

    asyncio.run(play())


def test_a_node_that_leads_no_more_tells_no_commits() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        leader = cluster.leader
        driver = driver_of(leader)
        driver._outbox._notices[cluster.followers[0].raft_id] = Message(MessageKind.APPEND, 2, 1)

        driver.resign()
        await until(lambda: leader.node.leader is not None and leader.node.leader.raft_id != leader.raft_id)

        assert driver._outbox._notices == {}
        await cluster.stop()

    asyncio.run(play())


def test_who_decides_alone_stands_once_and_waits_for_its_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        cluster = await Cluster().found("a")
        leader = cluster.leader
        driver, held = driver_of(leader), list[tuple[Job, Done]]()
        submit = driver._writer.submit

        def submit_slowly(job: Job, done: Done) -> None:
            if held or not isinstance(job, Append) or job.entries or job.hard_state is not None:
                held.append((job, done))
            else:
                done()  # there is nothing to write

        monkeypatch.setattr(driver._writer, "submit", submit_slowly)
        driver.resign()
        term = driver.term

        for _ in range(ELECTION_TICKS - 1):  # not yet T, when it would stand again
            driver.tick(0.0)
            await asyncio.sleep(0)
        assert leader.node.standing is Standing.FOLLOWER
        monkeypatch.undo()
        for job, done in held:
            submit(job, done)
        await until(lambda: leader.node.standing is Standing.LEADER)

        assert driver.term == term + 1
        await cluster.stop()

    asyncio.run(play())


def batches_of(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> list[list[bytes]]:
    """Return a list that from now on gets each batch that the core is given."""
    batches: list[list[bytes]] = []
    propose = driver._raft.propose

    def note(datas: list[bytes]) -> tuple[int, int]:
        batches.append(list(datas))
        return propose(datas)

    monkeypatch.setattr(driver._raft, "propose", note)
    return batches


def test_proposals_that_come_while_a_turn_looks_for_them_join_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        driver = driver_of(cluster.leader)
        batches = batches_of(driver, monkeypatch)

        driver.propose(b"1")
        driver.propose(b"2")
        await asyncio.sleep(0)
        driver.propose(b"3")
        await until(lambda: b"3" in cluster.leader.machine.datas)

        assert batches == [[b"1", b"2", b"3"]]
        await cluster.stop()

    asyncio.run(play())


def test_a_turn_does_not_look_for_proposals_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        driver = driver_of(cluster.leader)
        batches = batches_of(driver, monkeypatch)

        driver.propose(b"first")
        for number in range(10 * LOOKS_MAX):
            driver.propose(b"%d" % number)
            await asyncio.sleep(0)

        assert batches
        assert len(batches[0]) <= 2 + LOOKS_MAX
        await cluster.stop()

    asyncio.run(play())


def test_a_turn_that_is_late_looks_for_no_further_proposals(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        driver = driver_of(cluster.leader)
        await until(lambda: not driver._is_scheduled)
        batches = batches_of(driver, monkeypatch)

        driver.propose(b"1")
        driver.propose(b"2")
        driver._scheduled_seconds -= 2 * LOOK_SECONDS_MAX
        await asyncio.sleep(0)

        assert batches == [[b"1", b"2"]]
        await cluster.stop()

    asyncio.run(play())


def test_a_proposal_that_comes_alone_waits_for_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        driver = driver_of(cluster.leader)
        await until(lambda: not driver._is_scheduled)
        batches = batches_of(driver, monkeypatch)

        for data in (b"1", b"2"):
            driver.propose(data)
            await asyncio.sleep(0)
            assert batches[-1] == [data]

        await cluster.stop()

    asyncio.run(play())
