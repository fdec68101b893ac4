"""Short ways for tests to save the state to a file and restore it, and to hold a restoring at any stage."""

import asyncio
from collections.abc import AsyncIterator, Callable

from conclave.core.contract import Operation, Request, Response
from conclave.core.outcomes import Outcome
from conclave.storage.writeset import Stage, WriteSet
from tests.fakes import FakeVault, data_of, request_for

PATH = "sys/storage/raft/snapshot"
FORCE = PATH + "-force"


async def pieces_of(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 1000):
        yield content[start : start + 1000]


async def saved(fake: FakeVault) -> bytes:
    outcome = await fake.read(PATH)
    assert isinstance(outcome, Response), outcome
    assert outcome.download is not None
    content = b"".join([piece async for piece in outcome.download])
    outcome.download.close()
    return content


def restoring(content: bytes, fake: FakeVault, path: str = PATH) -> Request:
    request = request_for(Operation.UPDATE, path, token=fake.root)
    request.upload = pieces_of(content)
    return request


async def restore(fake: FakeVault, content: bytes, path: str = PATH) -> Outcome:
    return await fake.start(restoring(content, fake, path))


async def saved_before(fake: FakeVault) -> bytes:
    """Return the file of a state with the value "before", which is "after" when this returns."""
    await written(fake, "before")
    content = await saved(fake)
    await written(fake, "after")
    return content


async def written(fake: FakeVault, value: str) -> None:
    assert isinstance(await fake.write("secret/data/a", {"data": {"v": value}}), Response)


async def value(fake: FakeVault) -> str:
    found = data_of(await fake.read("secret/data/a"))["data"]["v"]
    assert isinstance(found, str)
    return found


async def come_true(condition: Callable[[], bool]) -> None:
    """Wait for what another task or thread is about to do."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  (there is no event: a thread is on the way)
            await asyncio.sleep(0.001)


def held_stages(fake: FakeVault) -> list[Stage]:
    return [WriteSet.decode(data).stage for _, _, data in fake.replica.waiting if data]


async def hold_at(fake: FakeVault, stage: Stage) -> None:
    """Commit what a restoring proposes until it has proposed this, which is held."""
    while True:
        await come_true(lambda: bool(fake.replica.waiting))
        if held_stages(fake)[0] is stage:
            return
        fake.replica.commit(1)


async def restoring_held_at(
    fake: FakeVault, stage: Stage, content: bytes, path: str = PATH
) -> "asyncio.Future[Outcome]":
    """Begin to restore a file, and hold what it proposes from this stage on."""
    fake.replica.holds = True
    restored = fake.start(restoring(content, fake, path))
    await hold_at(fake, stage)
    return restored


def lead_again(fake: FakeVault) -> None:
    """Lead a new term, in which nothing is held."""
    fake.replica.holds = False
    fake.replica.lead()
