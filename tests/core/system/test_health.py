"""sys/health: what a node says about itself when something is wrong with it."""

from conclave.core.contract import Response
from tests.fakes import on_loop, started_vault


@on_loop
async def test_a_node_whose_disk_is_sick_says_so() -> None:
    async with started_vault() as fake:
        fake.replica.fault = "no room for the log"

        outcome = await fake.read("sys/health", token="")

        assert isinstance(outcome, Response)
        assert outcome.condition == "unhealthy"
        assert outcome.data["fault"] == "no room for the log"


@on_loop
async def test_a_node_with_which_nothing_is_wrong_says_nothing_of_it() -> None:
    async with started_vault() as fake:
        outcome = await fake.read("sys/health", token="")

        assert isinstance(outcome, Response)
        assert outcome.condition == "active"
        assert "fault" not in outcome.data
