"""Exactly once: what a standby sends to its leader happens once or not at all, whatever breaks in between."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from conclave.core.contract import Operation, Response
from conclave.core.errors import NotFound, PermissionDenied, TooLarge, Unavailable
from conclave.core.forwarding import FORWARDED_BYTES_MAX, NO_LEADER, VERSION, Answer, Ask, Question, Reply
from conclave.core.outcomes import Outcome
from conclave.core.store import SETTLE_SECONDS_MAX
from tests.fakes import FakeVault, data_of, on_loop, request_for, started_standby, started_vault, until


class Pair:
    """A leader and a standby that apply the same log."""

    def __init__(self, leader: FakeVault, standby: FakeVault) -> None:
        self.leader = leader
        self.standby = standby

    def start(self, fields: Any = None) -> "asyncio.Future[Outcome]":
        """Send a write to the standby."""
        body = {"data": {"v": 1}} if fields is None else fields
        return self.standby.start(request_for(Operation.UPDATE, "secret/data/a", body, token=self.leader.root))

    async def version(self) -> int:
        """Return how often the secret was written, by whoever leads."""
        outcome = await self.standby.read("secret/metadata/a", token=self.leader.root)
        return 0 if isinstance(outcome, NotFound) else int(data_of(outcome)["current_version"])

    def fail_over(self) -> None:
        """Let the standby lead instead; what the old leader held and nobody has is gone."""
        self.leader.replica.follow()
        self.leader.replica.waiting = []
        self.standby.replica.term = self.leader.replica.term
        self.standby.replica.index = self.standby.store.applied[0]
        self.standby.replica.lead()


@asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    async with started_vault() as leader, started_standby(leader) as standby:
        yield Pair(leader, standby)


async def ask(fake: FakeVault, kind: Ask, name: bytes, *, token: str = "") -> Answer:
    """Put a question to a leader as a standby does."""
    request = request_for(Operation.UPDATE, "secret/data/a", {"data": {}}, token=token) if kind is Ask.EXECUTE else None
    body = msgspec.msgpack.encode(Question(VERSION, kind, name, request))
    return msgspec.msgpack.decode(await fake.vault.forwarder.serve(body, "n2"), type=Answer)


@on_loop
async def test_what_fits_into_no_frame_is_not_sent() -> None:
    async with pair() as nodes:
        fields = {"data": {"v": "x" * FORWARDED_BYTES_MAX}}

        assert isinstance(await nodes.start(fields), TooLarge)
        assert nodes.leader.replica.asked == []


@on_loop
async def test_a_write_at_a_standby_is_done_by_the_leader() -> None:
    async with pair() as nodes:
        assert data_of(await nodes.start())["version"] == 1
        assert await nodes.version() == 1


@on_loop
async def test_what_only_creates_is_left_to_the_leader_until_it_is_there() -> None:
    async with pair() as nodes:
        await nodes.leader.write("sys/mounts/transit", {"type": "transit"})
        plaintext = {"plaintext": "aGVsbG8="}

        for asked in (1, 1):  # the first makes the key; any node can encrypt with it then
            outcome = await nodes.standby.write("transit/encrypt/k", plaintext, token=nodes.leader.root)
            assert data_of(outcome)["ciphertext"].startswith("vault:v1:")
            assert len(nodes.leader.replica.asked) == asked

        opened = await nodes.leader.write("transit/decrypt/k", {"ciphertext": data_of(outcome)["ciphertext"]})
        assert data_of(opened) == plaintext


@on_loop
async def test_without_a_good_token_nobody_learns_what_is_there_to_be_created() -> None:
    async with pair() as nodes:
        await nodes.leader.write("sys/mounts/transit", {"type": "transit"})
        await nodes.leader.write("transit/keys/k")

        for token in ("", "hvs.bogus"):
            for name in ("k", "missing"):
                outcome = await nodes.standby.write(
                    f"transit/encrypt/{name}", {"plaintext": ""}, token=token, is_forwarding_refused=True
                )
                assert isinstance(outcome, PermissionDenied)


@on_loop
async def test_a_refusal_comes_back_as_it_was() -> None:
    async with pair() as nodes:
        outcome = await nodes.start({"data": {}, "options": {"cas": 7}})

        assert not isinstance(outcome, Response)
        assert outcome.messages == ("check-and-set parameter did not match the current version",)


@on_loop
async def test_an_answer_lost_after_the_commit_is_asked_for_and_the_write_not_repeated() -> None:
    async with pair() as nodes:
        nodes.leader.replica.loses_answers = True
        future = nodes.start()
        await until(lambda: nodes.leader.replica.index == nodes.standby.replica.index and not future.done())

        nodes.leader.replica.loses_answers = False

        assert data_of(await future)["version"] == 1
        assert await nodes.version() == 1


@on_loop
async def test_an_answer_lost_with_its_leader_is_found_by_the_next_one() -> None:
    async with pair() as nodes:
        nodes.leader.replica.loses_answers = True
        before = nodes.leader.replica.index
        future = nodes.start()
        await until(lambda: nodes.standby.store.applied[0] > before)

        nodes.fail_over()

        assert data_of(await future)["version"] == 1
        assert await nodes.version() == 1


@on_loop
async def test_a_write_that_died_with_its_leader_is_sent_again() -> None:
    async with pair() as nodes:
        nodes.leader.replica.holds = True
        nodes.leader.replica.loses_answers = True
        future = nodes.start()
        await until(lambda: bool(nodes.leader.replica.waiting))

        nodes.fail_over()
        nodes.leader.replica.broken.set()

        assert data_of(await future)["version"] == 1
        assert await nodes.version() == 1


@on_loop
async def test_without_a_leader_a_request_is_held_and_then_refused() -> None:
    async with pair() as nodes:
        nodes.leader.replica.follow()
        clock = iter(range(0, 1000, 5))
        nodes.standby.vault.forwarder._now = lambda: float(next(clock))

        outcome = await nodes.start()

        assert isinstance(outcome, Unavailable)
        assert outcome.messages == (NO_LEADER,)


@on_loop
async def test_a_request_held_while_there_is_no_leader_is_done_by_the_next_one() -> None:
    async with pair() as nodes:
        nodes.leader.replica.follow()
        future = nodes.start()
        await asyncio.sleep(0)

        nodes.leader.replica.lead()

        assert data_of(await future)["version"] == 1


@on_loop
async def test_a_node_that_comes_to_lead_does_what_it_held_itself() -> None:
    async with pair() as nodes:
        nodes.leader.replica.follow()
        future = nodes.start()
        await asyncio.sleep(0)

        nodes.fail_over()

        assert data_of(await future)["version"] == 1


@on_loop
async def test_what_a_leader_declared_not_happened_never_happens() -> None:
    async with pair() as nodes:
        name = b"n" * 16
        assert (await ask(nodes.leader, Ask.OUTCOME, name)).reply is Reply.NOT_HAPPENED

        late = await ask(nodes.leader, Ask.EXECUTE, name, token=nodes.leader.root)

        assert late.reply is Reply.NOT_HAPPENED
        assert await nodes.version() == 0


@on_loop
async def test_the_same_request_sent_twice_at_once_happens_once() -> None:
    async with pair() as nodes:
        name = b"n" * 16

        answers = await asyncio.gather(
            *(ask(nodes.leader, Ask.EXECUTE, name, token=nodes.leader.root) for _ in range(2))
        )

        assert [answer.reply for answer in answers] == [Reply.ANSWER, Reply.ANSWER]
        assert answers[0] == answers[1]
        assert await nodes.version() == 1


@on_loop
async def test_a_sealed_leader_says_that_nothing_happened() -> None:
    async with pair() as nodes:
        nodes.leader.vault.seal()

        answer = await ask(nodes.leader, Ask.EXECUTE, b"n" * 16, token=nodes.leader.root)

        assert answer.reply is Reply.NOT_HAPPENED


@on_loop
async def test_a_sealed_leader_does_not_know_what_its_predecessor_has_committed() -> None:
    async with pair() as nodes:
        name = b"n" * 16
        assert (await ask(nodes.leader, Ask.EXECUTE, name, token=nodes.leader.root)).reply is Reply.ANSWER
        nodes.fail_over()
        nodes.standby.vault.seal()

        sealed = await ask(nodes.standby, Ask.OUTCOME, name)
        await nodes.standby.unseal()
        unsealed = await ask(nodes.standby, Ask.OUTCOME, name)

        assert (sealed.reply, unsealed.reply) == (Reply.UNKNOWN, Reply.ANSWER)
        assert await nodes.version() == 1


@on_loop
async def test_an_outcome_that_does_not_open_is_unknown() -> None:
    async with pair() as nodes:
        name = b"n" * 16
        await ask(nodes.leader, Ask.EXECUTE, name, token=nodes.leader.root)
        index, sealed = nodes.leader.overlay._outcomes.get(name)  # type: ignore[misc]  # it is there
        nodes.leader.overlay._outcomes.add(index, name, bytes(len(sealed)), 0)

        answer = await ask(nodes.leader, Ask.OUTCOME, name)

        assert answer.reply is Reply.UNKNOWN


@on_loop
async def test_what_was_given_up_waiting_for_may_still_happen() -> None:
    async with pair() as nodes:
        name = b"n" * 16
        nodes.leader.replica.holds = True
        asking = asyncio.ensure_future(ask(nodes.leader, Ask.EXECUTE, name, token=nodes.leader.root))
        await until(lambda: bool(nodes.leader.replica.waiting))
        nodes.leader.clock.advance(SETTLE_SECONDS_MAX + 1)
        nodes.leader.store._expire_pending()
        assert (await asking).reply is Reply.UNKNOWN

        before = await ask(nodes.leader, Ask.OUTCOME, name)
        nodes.leader.replica.commit()
        after = await ask(nodes.leader, Ask.OUTCOME, name)

        assert (before.reply, after.reply) == (Reply.UNKNOWN, Reply.ANSWER)


@on_loop
async def test_a_leader_that_does_not_remember_that_far_back_says_that_it_does_not_know() -> None:
    async with pair() as nodes:
        await nodes.start()
        await nodes.leader.store.flush()
        nodes.leader.store.state_replaced()

        answer = await ask(nodes.leader, Ask.OUTCOME, b"n" * 16)

        assert answer.reply is Reply.UNKNOWN


@on_loop
async def test_reads_at_a_standby_stay_there() -> None:
    async with pair() as nodes:
        await nodes.start()
        nodes.leader.vault.seal()

        assert data_of(await nodes.standby.read("secret/data/a", token=nodes.leader.root))["data"] == {"v": 1}


@on_loop
async def test_a_read_for_the_leader_goes_there() -> None:
    async with pair() as nodes:
        nodes.standby.replica.has_quorum = False

        outcome = await nodes.standby.read("sys/mounts", token=nodes.leader.root, is_for_leader=True)

        assert isinstance(outcome, Response)
