"""Three hundred seeds in every run, in portions that several processes can share; more by `make simulate SEEDS=10000`.

What a seed has found gets a history or a test of its own: every change of the simulator makes other histories of the seeds.
"""

import pytest

from tests.simulator.faults import Faults
from tests.simulator.play import play
from tests.simulator.world import World

SEEDS = 300
PORTION_SEEDS = 25


@pytest.mark.parametrize("first", range(1, SEEDS + 1, PORTION_SEEDS))
def test_no_promise_is_broken_in_any_seed(first: int) -> None:
    failures = [outcome.line for seed in range(first, first + PORTION_SEEDS) if (outcome := play(seed)).failure]

    assert not failures, "\n".join(failures)


def test_some_seeds_have_no_faults_and_some_have_all_kinds() -> None:
    drawn = [World(seed).faults for seed in range(1, SEEDS + 1)]

    assert sum(faults.is_quiet for faults in drawn) >= SEEDS // 50
    for field in Faults.__struct_fields__:
        assert any(getattr(faults, field) != getattr(Faults(), field) for faults in drawn), field
