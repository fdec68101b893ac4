"""What goes wrong, now and then: one disturbance after the other, each with an end, drawn by the weights of a seed."""

import asyncio
import datetime as dt
from collections.abc import Callable, Coroutine
from typing import Any, Final

from conclave.cluster.replica import Standing
from tests.simulator.nodes.server import Server
from tests.simulator.nodes.world import MEMBERS_MAX, World

Disturbance = Callable[[World], Coroutine[Any, Any, None]]


async def disturb(world: World) -> None:
    """Disturb on and on, until the world heals."""
    faults, random = world.faults, world.random
    names = list(DISTURBANCES)
    weights = [getattr(faults, name) for name in names]
    while any(weights):
        await asyncio.sleep(random.expovariate(1 / faults.disturb_seconds))
        if world.is_healing:
            return
        (name,) = random.choices(names, weights)
        world.note("disturb", name)
        world.keep(DISTURBANCES[name](world), name)


def _any_server(world: World) -> Server:
    """Return any machine that is up, the leader's more often than others."""
    leader = world.leader
    if leader is not None and world.random.random() < 0.4:
        return leader
    up = [server for server in world.servers if server.is_up]
    return world.random.choice(up or world.servers)


async def _pause(world: World, shortest: float, longest: float) -> bool:
    """Wait; return whether the world heals meanwhile, which undoes everything."""
    await asyncio.sleep(world.random.uniform(shortest, longest))
    return world.is_healing


async def crash(world: World) -> None:
    """A process ends, maybe with its machine, and comes back."""
    server = _any_server(world)
    if not server.is_up or server.is_wiped:
        return
    server.crash(loses_power=world.random.random() < 0.4)
    server.disk.has_failed = False
    is_healing = await _pause(world, 0.01, world.random.choice([0.3, 3.0]))
    if not is_healing and server.may_return:
        server.restart()


async def freeze(world: World) -> None:
    """A process stops for a while, as by SIGSTOP; or its whole machine, whose peers then have to send again."""
    server = _any_server(world)
    process = server.process
    if not server.is_up or process.is_frozen:
        return
    process.freeze()
    world.note("freeze", server.name)
    is_machine = world.random.random() < 0.5
    ways = [(other.name, server.name) for other in world.servers if is_machine and other is not server]
    for way in ways:
        world.network.cut(*way)
    if not await _pause(world, 0.05, world.random.choice([0.4, 2.0])) and not process.is_dead:
        world.note("thaw", server.name)
        process.thaw()
    for way in ways:
        world.network.mend(*way)


async def partition(world: World) -> None:
    """Some machines are cut off from the others."""
    names = [server.name for server in world.servers]
    apart = world.random.sample(names, world.random.randrange(1, max(2, len(names))))
    ways = [(a, b) for a in names for b in names if (a in apart) != (b in apart)]
    await _cut_for_a_while(world, ways)


async def cut(world: World) -> None:
    """Nothing passes from one machine to another, but answers would."""
    one, other = world.random.sample([server.name for server in world.servers], 2)
    await _cut_for_a_while(world, [(one, other)])


async def depose(world: World) -> None:
    """The leader is cut off from everybody."""
    leader = world.leader
    if leader is not None:
        others = [server.name for server in world.servers if server is not leader]
        ways = [(leader.name, name) for name in others] + [(name, leader.name) for name in others]
        await _cut_for_a_while(world, ways[: len(others)] if world.random.random() < 0.3 else ways)


async def _cut_for_a_while(world: World, ways: list[tuple[str, str]]) -> None:
    world.note("cut", " ".join(f"{a}>{b}" for a, b in ways))
    for way in ways:
        world.network.cut(*way)
    await _pause(world, 0.1, world.random.choice([0.6, 3.0]))
    for way in ways:
        world.network.mend(*way)


async def slow(world: World) -> None:
    """A way takes longer."""
    one, other = world.random.sample([server.name for server in world.servers], 2)
    world.network.slow[one, other] = world.random.uniform(0.01, 0.2)
    await _pause(world, 0.5, 3.0)
    world.network.slow.pop((one, other), None)


async def breaks(world: World) -> None:
    """All connections between two machines break once."""
    one, other = world.random.sample([server.name for server in world.servers], 2)
    world.network.break_between(one, other)


async def transfer(world: World) -> None:
    """The leader hands over."""
    leader = world.leader
    if leader is not None:
        await world.call(leader, leader.node.step_down())


async def seal(world: World) -> None:
    """A member is sealed for a while: it votes and keeps the log, and serves nobody."""
    server = _any_server(world)
    process = server.process
    if not server.is_up:
        return
    process.post(lambda: server.announce(is_sealed=True))
    if not await _pause(world, 0.3, 3.0) and server.is_up:
        server.process.post(lambda: server.announce(is_sealed=False))


async def jump(world: World) -> None:
    """A clock goes forward, as if the machine had slept without anybody noticing."""
    _any_server(world).process.jump(world.random.choice([0.1, 1.0, 10.0]))


async def date(world: World) -> None:
    """A date is set."""
    _any_server(world).date_offset = dt.timedelta(seconds=world.random.uniform(-100_000, 100_000))


def _by_the_operator(change: Disturbance) -> Disturbance:
    """Do nothing while another change is under way: operators who do two things at once get what they ask for."""

    async def change_alone(world: World) -> None:
        if world.is_operated:
            return
        world.is_operated = True
        try:
            await change(world)
        finally:
            world.is_operated = False

    return change_alone


@_by_the_operator
async def add(world: World) -> None:
    """A new node joins, or one that was removed joins again."""
    if len(world.members) >= MEMBERS_MAX or world.leader is None:
        return
    detached = [s for s in world.servers if s.is_up and s.standing is Standing.DETACHED and not s.is_wiped]
    gone = [s for s in world.servers if s.standing is Standing.REMOVED]
    if detached:
        server = world.random.choice(detached)
    elif gone:
        server = world.random.choice(gone)
        server.crash(loses_power=False)
        server.wipe()
        server.is_wiped = False
    elif len(world.servers) < MEMBERS_MAX + 1:
        server = world.server(world.faults)
        server.disk.faults = world.faults
    else:
        return
    await world.join(server, is_voter=world.random.random() < 0.8)


@_by_the_operator
async def remove(world: World) -> None:
    """A member is removed."""
    leader = world.leader
    if leader is not None and len(leader.node.peers()) > 3:
        await world.remove(world.random.choice(leader.node.peers()).node_id)


@_by_the_operator
async def vote(world: World) -> None:
    """A member loses its vote, or is given one."""
    leader = world.leader
    if leader is None:
        return
    peers = leader.node.peers()
    peer = world.random.choice(peers)
    if not peer.may_vote:
        await world.call(leader, leader.node.promote(peer.node_id))
    elif sum(other.is_voter for other in peers) > 2:
        await world.call(leader, leader.node.demote(peer.node_id), 15.0)


@_by_the_operator
async def replace(world: World) -> None:
    """A member's disk is lost for good; it is removed, and joins again under a new id."""
    leader = world.leader
    if leader is None or not leader.node.has_lease() or leader.is_changing:
        return  # what an earlier change has left open could take a vote as well
    voters = [peer.node_id for peer in leader.node.peers() if peer.is_voter]
    server = world.random.choice(world.servers)
    if len(voters) < 3 or not server.is_up or server is leader or server.standing is not Standing.FOLLOWER:
        return
    server.crash(loses_power=False)
    server.wipe()
    while not await _pause(world, 0.2, 0.6):
        leader = world.leader
        if leader is None:
            continue
        if all(peer.node_id != server.name for peer in leader.node.peers()) or await world.remove(server.name):
            server.is_wiped = False
            if not world.is_healing:
                await world.join(server)
            return


DISTURBANCES: Final[dict[str, Disturbance]] = {
    "crash": crash,
    "freeze": freeze,
    "partition": partition,
    "cut": cut,
    "slow": slow,
    "breaks": breaks,
    "depose": depose,
    "transfer": transfer,
    "seal": seal,
    "jump": jump,
    "date": date,
    "add": add,
    "remove": remove,
    "vote": vote,
    "replace": replace,
}
