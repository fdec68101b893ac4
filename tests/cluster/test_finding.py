"""Nodes that have all moved find each other: over real connections on loopback sockets, on new ports each time."""

import asyncio
import datetime as dt
import os
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from conclave.cluster.certificates import new_authority, new_private_key, new_request, sign_request
from conclave.cluster.errors import StatementRefused
from conclave.cluster.finding import CHALLENGE_SECONDS_MAX, Finding
from conclave.cluster.links import REMOVED_TEXT
from conclave.cluster.membership import Identity
from conclave.cluster.replica import Standing
from conclave.cluster.statements import STATEMENT_VERSION, Side, Statement, encode_signed
from conclave.cluster.surroundings import Surroundings
from tests.cluster.cluster_of_nodes import Cluster, Member, commit, commit_somewhere, until
from tests.cluster.test_node_tls import found, member_over_tls

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
AUTHORITY, AUTHORITY_KEY = new_authority("c", NOW)


def play(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


async def move_all(cluster: Cluster) -> None:
    """Stop all members, and start them on what they have stored, each on another port."""
    for data in (b"one", b"two"):  # with the second the disks know that the first, and all voters, are committed
        await commit(cluster.leader, data)
        await until(lambda data=data: all(m.machine.datas[-1:] == [data] for m in cluster.members))  # type: ignore[misc]
    for old in cluster.members:
        await old.node.stop(hand_over=False)
    cluster.members = [member_over_tls(old.name, log=old.log, state=old.state) for old in cluster.members]
    for again in cluster.members:
        await again.start(is_sealed=True)


def finding_of(member: Member) -> Any:
    finding = member.node.finding
    assert finding is not None
    return finding


def meet(asker: Member, answerer: Member) -> None:
    """Carry what two members say to each other."""
    signed, draw = finding_of(asker).ask(finding_of(answerer).challenge())
    finding_of(asker).answered(finding_of(answerer).answer(signed), draw)


def test_nodes_that_have_all_moved_find_each_other_if_each_meets_one() -> None:
    """The second to meet is told of the first, by the node that both have met; nobody tells the first."""

    async def work() -> None:
        cluster = await found(3)
        await move_all(cluster)
        a, b, c = cluster.members
        await until(lambda: all(finding_of(m).is_needed for m in cluster.members))

        meet(a, b)
        meet(c, b)

        await commit_somewhere(cluster, b"after")
        await until(lambda: all(m.machine.datas[-1:] == [b"after"] for m in cluster.members))
        await until(lambda: not any(finding_of(m).is_needed for m in cluster.members))
        wanted = {m.address for m in cluster.members}
        await until(lambda: all({p.cluster_address for p in m.node.peers()} == wanted for m in cluster.members))
        await cluster.stop()

    play(work())


def test_two_of_three_that_have_moved_go_on_after_one_meeting() -> None:
    async def work() -> None:
        cluster = await found(3)
        await move_all(cluster)
        gone = cluster.members.pop()
        await gone.node.stop(hand_over=False)

        meet(*cluster.members)

        await commit_somewhere(cluster, b"after")
        assert all(finding_of(m).is_needed for m in cluster.members)  # the third is still to be found
        await cluster.stop()

    play(work())


def test_a_node_that_was_removed_meets_nobody_and_is_told_why() -> None:
    async def work() -> None:
        cluster = await found(3)
        gone = cluster.followers[0]
        asked, _ = finding_of(gone).ask(finding_of(cluster.leader).challenge())
        await cluster.leader.node.remove(gone.name)

        with pytest.raises(StatementRefused, match=REMOVED_TEXT):
            finding_of(cluster.leader).answer(asked)
        await until(lambda: gone.node.standing is Standing.REMOVED)
        assert not finding_of(gone).is_needed
        for refuses in (finding_of(gone).challenge, lambda: finding_of(gone).ask(b"")):
            with pytest.raises(StatementRefused, match="takes no part"):
                refuses()
        await cluster.stop()

    play(work())


# -- one node's part, without a cluster around it --


class FakeLinks:
    """The members 1, 2 and 3; 9 has been removed."""

    def __init__(self, raft_id: int) -> None:
        self.raft_id = raft_id
        self.dialed: dict[int, str] = {}
        self.guessed: dict[int, str] = {}

    def lacks_voters(self) -> bool:
        return True

    def check_may_be_dialed(self, peer: int, incarnation: bytes) -> None:
        if peer == self.raft_id or peer not in {1, 2, 3} or incarnation != bytes(16):
            raise StatementRefused("no peer")

    def is_at(self, peer: int, address: str) -> None:
        self.dialed[peer] = address

    def may_be_at(self, peer: int, address: str) -> None:
        self.guessed[peer] = address

    def heard_addresses(self, asker: int) -> tuple[tuple[int, str], ...]:
        return tuple((peer, address) for peer, address in self.dialed.items() if peer != asker)


class Party:
    """One node's part, with a clock that a test sets."""

    def __init__(self, raft_id: int, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self.links = FakeLinks(raft_id)
        self.address = f"127.0.0.1:{8200 + raft_id}"
        self.now = 1000.0
        self.takes_part = True
        key = new_private_key()
        certificate = sign_request(
            new_request(key, "n"),
            cluster_id="c",
            raft_id=raft_id,
            node_id="n",
            authority_pem=AUTHORITY,
            authority_key_pem=AUTHORITY_KEY,
            now=NOW,
        )
        self.identity = Identity(1, bytes(16), "n", "c", raft_id, certificate, AUTHORITY, key)
        self.finding = Finding(
            lambda: self.identity,
            self.links,  # type: ignore[arg-type]  # what of it is used
            address=lambda: self.address,
            takes_part=lambda: self.takes_part,
            surroundings=Surroundings(clock=lambda: self.now, utc_now=lambda: NOW, random_bytes=random_bytes),
        )


def test_two_that_meet_dial_each_other_and_nobody_else() -> None:
    asker, answerer = Party(1), Party(2)

    signed, draw = asker.finding.ask(answerer.finding.challenge())
    asker.finding.answered(answerer.finding.answer(signed), draw)

    assert answerer.links.dialed == {1: asker.address}
    assert asker.links.dialed == {2: answerer.address}
    assert asker.links.guessed == {}


def test_who_is_met_later_is_told_of_who_was_met_before() -> None:
    first, second, between = Party(1), Party(2), Party(3)

    for asker in (first, second):
        signed, draw = asker.finding.ask(between.finding.challenge())
        asker.finding.answered(between.finding.answer(signed), draw)

    assert second.links.guessed == {1: first.address}
    assert first.links.guessed == {}


def test_a_statement_is_heard_once() -> None:
    asker, answerer = Party(1), Party(2)
    signed, _ = asker.finding.ask(answerer.finding.challenge())
    answerer.finding.answer(signed)

    with pytest.raises(StatementRefused, match="said something later"):
        answerer.finding.answer(signed)


def test_an_earlier_statement_that_was_held_back_does_not_undo_a_later_one() -> None:
    asker, answerer = Party(1), Party(2)
    held_back, _ = asker.finding.ask(answerer.finding.challenge())
    asker.address = "127.0.0.1:9999"
    signed, _ = asker.finding.ask(answerer.finding.challenge())
    answerer.finding.answer(signed)

    with pytest.raises(StatementRefused, match="said something later"):
        answerer.finding.answer(held_back)

    assert answerer.links.dialed == {1: "127.0.0.1:9999"}


def test_a_statement_over_an_old_challenge_is_refused() -> None:
    asker, answerer = Party(1), Party(2)
    signed, _ = asker.finding.ask(answerer.finding.challenge())
    answerer.now += CHALLENGE_SECONDS_MAX + 1

    with pytest.raises(StatementRefused, match="too old"):
        answerer.finding.answer(signed)


@pytest.mark.parametrize("challenge", [b"", b"x" * 39, b"x" * 4096])
def test_what_can_be_no_challenge_is_not_signed(challenge: bytes) -> None:
    with pytest.raises(StatementRefused, match="no challenge"):
        Party(1).finding.ask(challenge)


@pytest.mark.parametrize("challenge", [b"x" * 40, Party(3).finding.challenge()], ids=["made up", "another's"])
def test_a_statement_over_anything_but_its_own_challenge_is_refused(challenge: bytes) -> None:
    asker, answerer = Party(1), Party(2)
    signed, _ = asker.finding.ask(challenge)

    with pytest.raises(StatementRefused, match="no challenge of this process"):
        answerer.finding.answer(signed)

    assert answerer.links.dialed == {}


@pytest.mark.parametrize("stranger", [9, 4, 2], ids=["removed", "unknown", "itself"])
def test_whoever_is_no_peer_is_neither_dialed_nor_told_anything(stranger: int) -> None:
    asker, answerer = Party(stranger), Party(2)
    signed, _ = asker.finding.ask(answerer.finding.challenge())

    with pytest.raises(StatementRefused, match="no peer"):
        answerer.finding.answer(signed)

    assert answerer.links.dialed == {}


def test_a_node_cannot_speak_for_another() -> None:
    """With the other one's certificate it lacks the key; with its own it is itself."""
    asker, victim, answerer = Party(1), Party(3), Party(2)
    asker.identity = Identity(1, bytes(16), "n", "c", 3, victim.identity.certificate_pem, AUTHORITY, new_private_key())
    signed, _ = asker.finding.ask(answerer.finding.challenge())

    with pytest.raises(StatementRefused, match="signature is wrong"):
        answerer.finding.answer(signed)


def test_an_answer_to_another_question_is_refused() -> None:
    asker, answerer = Party(1), Party(2)
    signed, _ = asker.finding.ask(answerer.finding.challenge())
    answer = answerer.finding.answer(signed)
    _, draw = asker.finding.ask(answerer.finding.challenge())

    with pytest.raises(StatementRefused, match="another question"):
        asker.finding.answered(answer, draw)

    assert asker.links.dialed == {}


def test_what_an_asker_says_is_no_answer() -> None:
    """One that lets itself be asked could else have an asker sign its answer to a third."""
    asker, other = Party(1), Party(3)
    challenge = other.finding.challenge()
    signed, _ = asker.finding.ask(challenge)

    with pytest.raises(StatementRefused, match="other side"):
        other.finding.answered(signed, challenge)


def test_an_answer_that_guesses_nonsense_is_refused() -> None:
    asker, answerer = Party(1), Party(2)
    _, draw = asker.finding.ask(answerer.finding.challenge())
    identity = answerer.identity
    statement = Statement(
        STATEMENT_VERSION,
        Side.ANSWERER,
        "c",
        identity.certificate_pem,
        identity.incarnation,
        answerer.address,
        draw,
        others=((3, "nowhere"),),
    )

    with pytest.raises(StatementRefused, match="host:port"):
        asker.finding.answered(encode_signed(statement, identity.private_key_pem), draw)

    assert asker.links.guessed == {}
