"""Playing seeds from beginning to end, and what is told about them afterwards."""

import struct
from collections import Counter
from collections.abc import Callable
from typing import Final

from msgspec import MsgspecError, Struct

from conclave.cluster.raft import RaftError
from conclave.cluster.raft import StorageError as CoreStorageError
from conclave.storage.errors import StorageError
from tests.simulator.checkers import Violation
from tests.simulator.disturbances import disturb
from tests.simulator.world import World

PLAY_MS = 20_000
"""How long a seed is played before it is healed."""
SYMPTOMS: Final[tuple[type[Exception], ...]] = (
    *(Violation, AssertionError, RaftError, CoreStorageError),
    *(StorageError, LookupError, ValueError, struct.error, MsgspecError),
)
"""How a broken rule shows: sometimes first as a table of the core, or the body of a batch, that does not fit any more."""


class Outcome(Struct, frozen=True):
    """What became of one seed.

    Attributes:
        failure: what was broken; empty if all is well.
        hash: of everything that happened.
        simulated_ms: how long it lasted, healing included.
        happened: how often each kind of message and disturbance occurred.
        option: of the command line, that plays this kind of seed.
    """

    seed: int
    failure: str
    hash: int
    simulated_ms: float
    writes: int
    reads: int
    leaders: int
    happened: dict[str, int]
    option: str = ""

    @property
    def line(self) -> str:
        """One line that says what broke and how to see it again."""
        command = f"python -m tests.simulator {self.option}--seed {self.seed} --trace"
        return f"seed {self.seed}: {self.failure}\n    replay: {command}"


def play(seed: int, *, play_ms: float = PLAY_MS, trace: Callable[[str], None] | None = None) -> Outcome:
    """Play one seed: faults first, then healing."""
    world = World(seed, trace=trace)
    failure = ""
    try:
        _play(world, play_ms)
    except SYMPTOMS as error:
        failure = f"at {world.now:.0f} ms: {type(error).__name__}: {error}"
    return Outcome(
        seed,
        failure,
        world.hash,
        world.now,
        world.checkers.writes_acknowledged,
        world.checkers.reads_answered,
        len(world.checkers.leaders),
        dict(world.happened),
    )


def _play(world: World, play_ms: float) -> None:
    is_quiet = world.faults.is_quiet
    world.after(1, world.operate)
    if world.faults.disturb_ms:
        world.after(world.faults.disturb_ms, lambda: disturb(world))
    if is_quiet:
        world.demand_quiet_progress()
    world.run(play_ms)
    if is_quiet and len(world.checkers.leaders) != 1:
        raise Violation(f"{len(world.checkers.leaders)} leaders without any fault")
    world.heal()


def summary(outcomes: list[Outcome], seconds: float) -> str:
    """Return what many seeds amounted to."""
    simulated_seconds = sum(outcome.simulated_ms for outcome in outcomes) / 1000
    happened: Counter[str] = Counter()
    for outcome in outcomes:
        happened.update(outcome.happened)
    faults = ", ".join(f"{happened[kind]} {kind}" for kind in _TOLD if happened[kind])
    return (
        f"{len(outcomes)} seeds, {simulated_seconds / 3600:.2f} simulated hours in {seconds:.0f} s "
        f"({simulated_seconds / max(seconds, 0.001):.0f} times as fast as time)\n"
        f"{sum(o.writes for o in outcomes)} writes and {sum(o.reads for o in outcomes)} reads checked, "
        f"{sum(o.leaders for o in outcomes)} leaders; {faults}\n"
        f"{sum(1 for o in outcomes if o.failure)} failures"
    )


_TOLD = (
    "snapshot",
    "join",
    "remove",
    "wipe",
    "freeze",
    "unjudged",
    "crash",
    "failed",
    "full",
    "rot",
    "damaged",
    "fence",
    "lose",
    "cut",
    "pause",
    "membership",
    "SNAPSHOT",
    "TIMEOUT_NOW",
    "RESIGNED",
)
