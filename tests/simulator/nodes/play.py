"""Playing seeds of whole nodes from beginning to end."""

from collections.abc import Callable
from typing import Final

from tests.simulator.linearizability import NotLinearizable, SearchTooLong, check
from tests.simulator.nodes.clients import Client
from tests.simulator.nodes.disturbances import disturb
from tests.simulator.nodes.loop import Stuck
from tests.simulator.nodes.world import CLIENTS, Broken, World
from tests.simulator.play import Outcome

PLAY_SECONDS: Final = 10.0
"""How long a seed is played before it is healed."""
LIVE_SECONDS_MAX: Final = 12.0
"""How soon after healing a write must commit, and all members must hold the same."""


def play(seed: int, *, play_seconds: float = PLAY_SECONDS, trace: Callable[[str], None] | None = None) -> Outcome:
    """Play one seed: faults first, then healing."""
    world = World(seed, trace=trace)
    failure = ""
    try:
        world.run(_story(world, play_seconds))
    except (Broken, Stuck) as error:
        failure = str(error)
    if not failure:
        failure = _judge(world)
    return Outcome(
        seed,
        failure,
        world.hash,
        1000 * world.loop.world_time(),
        world.checkers.writes,
        world.checkers.reads,
        len(world.checkers.leaders),
        {**world.happened, "snapshot": world.checkers.snapshots},
        option="--nodes ",
    )


async def _story(world: World, play_seconds: float) -> None:
    await world.found(world.random.choice([3, 3, 3, 5]), world.faults)
    world.network.faults = world.faults
    for server in world.servers:
        server.disk.faults = world.faults
    world.begin_clients()
    world.keep(disturb(world), "disturb")
    await world.wait(play_seconds)
    if world.faults.is_quiet and len(world.checkers.leaders) != 1:
        raise Broken(f"{len(world.checkers.leaders)} leaders without any fault")
    await world.heal()
    await _must_live(world)


async def _must_live(world: World) -> None:
    deadline = world.loop.time() + LIVE_SECONDS_MAX
    probe, has_written = Client(CLIENTS + 1, world), False
    while world.loop.time() < deadline:
        await world.wait(0.1)
        await world.settle()
        world.operations["probe"] = 0
        has_written = has_written or await probe.operate("probe", is_write=True)
        if has_written and world.has_converged():
            return
    state = "; ".join(
        f"{s.name} {s.standing.name} {s.machine.applied if s.is_up else ''} {s.node.fault}" for s in world.servers
    )
    what = "the members do not converge" if has_written else "nothing can be written"
    raise Broken(f"{what} within {LIVE_SECONDS_MAX:.0f} s of healing: {state}")


def _judge(world: World) -> str:
    try:
        check([*world.checkers.history, *world.checkers.pending.values()])
    except NotLinearizable as error:
        return f"not linearizable: {error}"
    except SearchTooLong:
        world.happened["unjudged"] += 1
    return ""
