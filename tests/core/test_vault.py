"""One node's vault: what it answers itself, what it leaves to the leader, and when an answer may go."""

from tests.fakes import data_of, run, started_vault


def test_a_secret_that_was_written_is_read() -> None:
    async def story() -> None:
        async with started_vault() as fake:
            await fake.write("secret/data/app", {"data": {"n": 5}})

            assert data_of(await fake.read("secret/data/app"))["data"] == {"n": 5}

    run(story())
