"""Play seeds: `python -m tests.simulator --seeds 300`. A failing one prints a line that plays it again, with its trace."""
# ruff: noqa: T201  (a command line prints)

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import count, islice

from tests.simulator.gate import judge_all
from tests.simulator.nodes.mutations import judge_all as judge_nodes
from tests.simulator.nodes.play import play as play_nodes
from tests.simulator.nodes.world import faults_of as faults_of_nodes
from tests.simulator.play import Outcome, play, summary
from tests.simulator.world import World

MS_PER_HOUR = 3_600_000
Playing = Callable[[int], Outcome]
CHUNK_SEEDS = 10
"""Seeds given to a process at once."""


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status: 0 if nothing was broken and, with --mutations, every broken rule was noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, metavar="N", help="how many seeds (300)")
    parser.add_argument("--from", type=int, default=1, dest="first", metavar="S", help="the first of them (1)")
    parser.add_argument("--hours", type=float, metavar="H", help="instead of --seeds: until so much time was simulated")
    parser.add_argument("--seed", type=int, metavar="S", help="only this seed")
    parser.add_argument("--trace", action="store_true", help="with --seed: print everything that happens")
    parser.add_argument("--nodes", action="store_true", help="play whole nodes instead of cores")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (all processors)")
    parser.add_argument("--mutations", action="store_true", help="break one rule after the other; each must be noticed")
    chosen = parser.parse_args(arguments)
    if chosen.mutations:
        return judge_nodes() if chosen.nodes else judge_all()
    if chosen.seed is not None:
        return _play_one(chosen.seed, is_traced=chosen.trace, are_nodes=chosen.nodes)
    playing = play_nodes if chosen.nodes else play
    if chosen.hours is not None:
        return _play_many(count(chosen.first), playing, chosen.jobs, chosen.hours * MS_PER_HOUR)
    return _play_many(range(chosen.first, chosen.first + chosen.seeds), playing, chosen.jobs, float("inf"))


def _play_one(seed: int, *, is_traced: bool, are_nodes: bool) -> int:
    print(f"seed {seed}: {faults_of_nodes(seed) if are_nodes else World(seed).faults}")
    trace = print if is_traced else None
    outcome = play_nodes(seed, trace=trace) if are_nodes else play(seed, trace=trace)
    print(outcome.line if outcome.failure else f"seed {seed}: hash {outcome.hash:08x}, nothing broken")
    return 1 if outcome.failure else 0


def _play_many(seeds: Iterable[int], playing: Playing, jobs: int, simulated_ms_max: float) -> int:
    began = time.monotonic()
    outcomes: list[Outcome] = []
    simulated_ms = 0.0
    for outcome in _outcomes(seeds, playing, jobs):
        outcomes.append(outcome)
        simulated_ms += outcome.simulated_ms
        if outcome.failure:
            print(outcome.line, flush=True)
        if simulated_ms >= simulated_ms_max:
            break
    print(summary(outcomes, time.monotonic() - began))
    return 1 if any(outcome.failure for outcome in outcomes) else 0


def _outcomes(seeds: Iterable[int], playing: Playing, jobs: int) -> Iterator[Outcome]:
    """Play seeds in several processes, a bounded number ahead; yield what became of them in their order."""
    remaining = iter(seeds)
    with ProcessPoolExecutor(jobs) as pool:
        while batch := list(islice(remaining, jobs * CHUNK_SEEDS)):
            yield from pool.map(playing, batch, chunksize=CHUNK_SEEDS)


if __name__ == "__main__":
    sys.exit(main())
