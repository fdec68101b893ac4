"""Reads that share rounds: one outstanding, one forming, and a question that got lost."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from conclave.cluster.errors import NoQuorum
from conclave.cluster.reads import RETRY_SECONDS, ReadRounds


class Core:
    """Remembers which numbers were asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.now = 0.0
        self.rounds = ReadRounds(self.asked.append, lambda: self.now, first_context=10)


def play(scenario: Callable[[Core], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        await scenario(Core())

    asyncio.run(run())


def test_reads_that_come_together_share_a_question() -> None:
    async def scenario(core: Core) -> None:
        first, second = core.rounds.join(), core.rounds.join()
        core.rounds.advance()

        core.rounds.answered(core.asked[0], 42)

        assert (await first, await second, len(core.asked)) == (42, 42, 1)

    play(scenario)


def test_a_read_that_comes_later_waits_for_the_next_round() -> None:
    async def scenario(core: Core) -> None:
        first = core.rounds.join()
        core.rounds.advance()
        late = core.rounds.join()
        core.rounds.advance()

        core.rounds.answered(core.asked[0], 42)

        assert (await first, late.done(), len(core.asked)) == (42, False, 2)
        core.rounds.answered(core.asked[1], 43)
        assert await late == 43

    play(scenario)


def test_an_answer_to_nobody_s_question_counts_for_nothing() -> None:
    async def scenario(core: Core) -> None:
        read = core.rounds.join()
        core.rounds.answered(11, 1)
        core.rounds.advance()
        core.rounds.answered(core.asked[0] + 1, 1)

        assert not read.done()

    play(scenario)


def test_a_lost_question_is_asked_again_after_a_while_under_another_number() -> None:
    async def scenario(core: Core) -> None:
        read = core.rounds.join()
        core.rounds.advance()
        core.rounds.ask_again(at_once=False)
        asked_early = len(core.asked)
        core.now += RETRY_SECONDS
        core.rounds.ask_again(at_once=False)

        core.rounds.answered(core.asked[0], 42)  # the first was only late

        assert (asked_early, len(set(core.asked)), await read) == (1, 2, 42)

    play(scenario)


def test_a_new_leader_is_asked_at_once() -> None:
    async def scenario(core: Core) -> None:
        core.rounds.join()
        core.rounds.advance()
        core.rounds.ask_again(at_once=True)

        assert len(core.asked) == 2

    play(scenario)


def test_a_round_that_all_have_given_up_makes_room_for_the_next() -> None:
    async def scenario(core: Core) -> None:
        core.rounds.join().cancel()
        core.rounds.advance()
        core.rounds.join()
        core.rounds.ask_again(at_once=False)

        assert len(core.asked) == 2

    play(scenario)


def test_closing_ends_every_wait() -> None:
    async def scenario(core: Core) -> None:
        outstanding = core.rounds.join()
        core.rounds.advance()
        forming = core.rounds.join()

        core.rounds.close(NoQuorum("stopping"))

        for read in (outstanding, forming):
            with pytest.raises(NoQuorum):
                await read

    play(scenario)
