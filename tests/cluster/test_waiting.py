"""Waiting for a condition."""

import asyncio

import pytest

from conclave.cluster.errors import NotLeader
from conclave.cluster.waiting import Watch


def test_a_condition_that_holds_is_not_waited_for() -> None:
    assert asyncio.run(Watch().until(lambda: True, timeout_seconds=0))


def test_a_condition_that_never_holds_is_given_up() -> None:
    assert not asyncio.run(Watch().until(lambda: False, timeout_seconds=0.001))


def test_looking_wakes_those_whose_condition_holds_now() -> None:
    async def play() -> None:
        watch, facts = Watch(), {"a": False, "b": False}
        a = asyncio.ensure_future(watch.until(lambda: facts["a"], timeout_seconds=5))
        b = asyncio.ensure_future(watch.until(lambda: facts["b"], timeout_seconds=5))
        await asyncio.sleep(0)
        facts["a"] = True

        watch.look()

        assert await a
        assert not b.done()
        watch.close(NotLeader("the end"))
        with pytest.raises(NotLeader):
            await b

    asyncio.run(play())
