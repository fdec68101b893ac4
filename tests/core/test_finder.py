"""A member that has moved meets others over their APIs: what it asks, when it stops, and what the asked one answers."""

import asyncio
import base64
from collections.abc import Iterator

import pytest

from conclave.cluster.errors import StatementRefused
from conclave.core import finder, joining
from conclave.core.errors import InternalError, InvalidRequest
from conclave.core.finder import NOT_MET
from conclave.core.joining import JoinFailed, JoinTarget
from conclave.core.outcomes import Outcome
from tests.core.test_joining import Leader, leader  # noqa: F401  # a fixture
from tests.fakes import FakeVault, data_of, on_loop, until

FIRST, SECOND = JoinTarget("http://127.0.0.1:1"), JoinTarget("http://127.0.0.1:2")


class FakeFinding:
    """A part that lacks others until it has met `wanted`; it refuses what begins with `x`."""

    def __init__(self) -> None:
        self.is_needed = True
        self.answers: list[tuple[bytes, bytes]] = []

    def challenge(self) -> bytes:
        return b"challenge"

    def answer(self, signed: bytes) -> bytes:
        if signed.startswith(b"x"):
            raise StatementRefused("this node has been removed from the cluster")
        return b"answer to " + signed

    def ask(self, challenge: bytes) -> tuple[bytes, bytes]:
        return b"over " + challenge, b"draw"

    def answered(self, signed: bytes, draw: bytes) -> None:
        if signed.startswith(b"x"):
            raise StatementRefused("another cluster")
        self.answers.append((signed, draw))


class Meetings:
    """What is asked, in place of HTTP; whoever is in `up` answers."""

    def __init__(self) -> None:
        self.asked: list[JoinTarget] = []
        self.up: set[JoinTarget] = set()

    async def meet(self, target: JoinTarget, finding: FakeFinding) -> None:
        self.asked.append(target)
        if target not in self.up:
            raise JoinFailed("cannot reach it")
        finding.is_needed = False


@pytest.fixture
def meetings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Meetings]:
    fake = Meetings()
    monkeypatch.setattr(joining, "meet", fake.meet)
    for pause in ("LOOK_SECONDS", "ASK_AGAIN_SECONDS", "ASK_LATER_SECONDS"):
        monkeypatch.setattr(finder, pause, 0.0)
    return fake  # type: ignore[return-value]  # pytest hands it on


def member() -> tuple[FakeVault, FakeFinding]:
    """Return the vault of a member that is sealed and lacks others."""
    fake, finding = FakeVault("n2"), FakeFinding()
    fake.replica.follow()
    fake.replica.finding = finding
    return fake, finding


async def turns(count: int) -> None:
    """Let whatever is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def join(fake: FakeVault, **more: object) -> Outcome:
    return await fake.write("sys/storage/raft/join", {"leader_api_addr": FIRST.leader_api_address, **more}, token="")


@on_loop
async def test_all_are_asked_again_and_again_until_nobody_is_lacking(meetings: Meetings) -> None:
    fake, finding = member()
    fake.lifecycle.retry_join([FIRST, SECOND])
    await until(lambda: meetings.asked.count(SECOND) > 2)
    assert FIRST in meetings.asked

    meetings.up.add(SECOND)

    await until(lambda: not finding.is_needed)
    await turns(10)
    meetings.asked.clear()
    await turns(50)
    assert meetings.asked == []
    await fake.stop()


@on_loop
async def test_whoever_gets_lost_later_is_looked_for_again(meetings: Meetings) -> None:
    fake, finding = member()
    finding.is_needed = False
    meetings.up.add(FIRST)
    fake.lifecycle.retry_join([FIRST])
    await turns(50)
    assert meetings.asked == []

    finding.is_needed = True

    await until(lambda: not finding.is_needed)
    assert meetings.asked
    await fake.stop()


@on_loop
async def test_joining_again_meets_the_node_named(meetings: Meetings) -> None:
    fake, finding = member()
    meetings.up.add(FIRST)

    assert data_of(await join(fake)) == {"joined": True}

    assert meetings.asked == [FIRST]
    assert not finding.is_needed
    await fake.stop()


@on_loop
async def test_joining_again_asks_nobody_if_nobody_is_lacking(meetings: Meetings) -> None:
    """For anybody may say it, and could have a node send requests wherever he likes."""
    fake, finding = member()
    finding.is_needed = False

    assert data_of(await join(fake)) == {"joined": True}

    assert meetings.asked == []
    await fake.stop()


@on_loop
async def test_joining_again_in_vain_is_an_error_that_tells_nothing_of_what_answered(meetings: Meetings) -> None:
    fake, _ = member()

    outcome = await join(fake)

    assert isinstance(outcome, InternalError)
    assert outcome.messages == (NOT_MET,)
    assert meetings.asked == [FIRST]
    await fake.stop()


@on_loop
async def test_joining_again_goes_on_in_the_background_if_it_is_told_to(meetings: Meetings) -> None:
    fake, finding = member()
    assert data_of(await join(fake, retry=True)) == {"joined": True}

    meetings.up.add(FIRST)

    await until(lambda: not finding.is_needed)
    await fake.stop()


# -- over HTTP --


def meet(leader: Leader, finding: FakeFinding) -> str:  # noqa: F811  # the fixture's value
    try:
        asyncio.run(joining.meet(leader.target, finding))
    except JoinFailed as error:
        return str(error)
    return ""


def encoded(text: bytes) -> str:
    return base64.b64encode(text).decode()


def test_a_meeting_is_a_challenge_and_an_answer(leader: Leader) -> None:  # noqa: F811
    leader.answers({"challenge": encoded(b"challenge"), "statement": encoded(b"answer")})
    finding = FakeFinding()

    assert meet(leader, finding) == ""

    assert finding.answers == [(b"answer", b"draw")]
    assert leader.asked == [
        (joining.ADDRESS_PATH, {}),
        (joining.ADDRESS_PATH, {"statement": encoded(b"over challenge")}),
    ]


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"challenge": 1},
        {"challenge": "?"},
        {"challenge": "", "statement": None},
        {"challenge": "", "statement": encoded(b"x")},
    ],
    ids=str,
)
def test_an_answer_that_makes_no_sense_or_is_not_believed_is_no_meeting(
    leader: Leader,  # noqa: F811
    answer: dict[str, object],
) -> None:
    leader.answers(answer)
    finding = FakeFinding()

    assert meet(leader, finding) != ""

    assert finding.answers == []


# -- the node that is asked --

PATH = "sys/storage/raft/bootstrap/address"


@on_loop
async def test_a_sealed_member_gives_a_challenge_and_answers_a_statement() -> None:
    fake, _ = member()

    assert data_of(await fake.write(PATH, {}, token="")) == {"challenge": encoded(b"challenge")}
    answer = data_of(await fake.write(PATH, {"statement": encoded(b"here")}, token=""))

    assert answer == {"statement": encoded(b"answer to here")}
    await fake.stop()


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("?", "'statement' must be base64"),
        (encoded(b"x"), "removed from the cluster"),
        ("A" * 2**20, "at most"),
    ],
    ids=["no base64", "refused", "too long"],
)
@on_loop
async def test_what_is_not_believed_is_refused(statement: str, problem: str) -> None:
    fake, _ = member()

    outcome = await fake.write(PATH, {"statement": statement}, token="")

    assert isinstance(outcome, InvalidRequest)
    assert problem in outcome.messages[0]
    await fake.stop()


@on_loop
async def test_a_node_of_no_cluster_says_so() -> None:
    fake = FakeVault("n2")

    outcome = await fake.write(PATH, {}, token="")

    assert isinstance(outcome, InvalidRequest)
    await fake.stop()
