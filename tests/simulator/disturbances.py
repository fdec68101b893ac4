"""What happens to a world beside its messages and disks: crashes, cuts, pauses, transfers, membership changes.

Faults stay within what the protocol can repair: at most one voter's disk is lost or rots before it is replaced, and a lost
disk never comes back under its old id.
"""

from collections.abc import Callable

from conclave.cluster.raft import ConfChange, ConfChangeKind, ConfChangeTransition, ConfChangeV2, ProposalDropped, Role
from tests.simulator.node import Node
from tests.simulator.world import World

MEMBERS_MAX = 5
VOTERS_MIN = 3
FREE_BYTES_MAX = 4096


def disturb(world: World) -> None:
    """Do one of the things that go wrong in this seed, and plan the next."""
    if world.is_healing:
        return
    node = world.nodes[world.random.choice(sorted(world.nodes))]
    name = world.random.choice(sorted(_DISTURBANCES))
    if world.fails(getattr(world.faults, name)):
        _DISTURBANCES[name](world, node)
        if node.is_running:
            node.turn()
    world.after(world.random.random() * 2 * world.faults.disturb_ms, lambda: disturb(world))


def _may_be_lost(world: World, node: Node) -> bool:
    state = max(world.nodes.values(), key=lambda other: other.applied).conf_at_applied
    members = [world.nodes[member] for member in (*state.voters, *state.learners)]
    # Nobody must lean on the disk of an earlier loss any more, not even somebody who is behind.
    is_repaired = all(other.is_up and other.raft.conf_state == state for other in members) and not state.voters_outgoing
    is_sound = not any(other.disk.files.are_rotten for other in members)
    return is_repaired and is_sound and node.id in state.voters and len(state.voters) >= VOTERS_MIN


def _lose_disk(world: World, node: Node) -> None:
    if _may_be_lost(world, node):
        world.note(f"lose disk {node.id}")
        world.lose(node)


def _bit_rot(world: World, node: Node) -> None:
    if _may_be_lost(world, node) and node.disk.files.flip_bit():
        world.note(f"rot {node.id}")


def _full_disk(world: World, node: Node) -> None:
    files = node.disk.files
    files.limit_bytes = files.used_bytes + world.random.randrange(FREE_BYTES_MAX)
    world.note(f"fill {node.id}")
    world.after(world.random.random() * 4000, files.grow)


def _cut(world: World, node: Node) -> None:
    link = (node.id, world.random.choice(sorted(world.nodes)))
    world.cut({link}, 1500)


def _partition(world: World, node: Node) -> None:
    others = [other for other in sorted(world.nodes) if other != node.id]
    side = {node.id, *world.random.sample(others, world.random.randrange(len(others)))}
    world.cut({(a, b) for a in world.nodes for b in world.nodes if (a in side) != (b in side)}, 2000)


def _clog(world: World, node: Node) -> None:
    """Cut off several nodes one after the other, each for its own time."""
    ids = sorted(world.nodes)
    for member in world.random.sample(ids, world.random.randrange(1, len(ids))):
        links = {(member, b) for b in ids} | {(b, member) for b in ids}
        world.after(world.random.random() * 300, lambda links=links: world.cut(links, 800))  # type: ignore[misc]  # a default binds the loop's value
    del node


def _depose(world: World, node: Node) -> None:
    """Cut a node off from its leader for about as long as its promise lasts, then the leader from everybody."""
    leader = world.nodes.get(node.raft.leader)
    if leader is None or leader is node:
        return
    world.cut({(leader.id, node.id), (node.id, leader.id)}, 1500)
    witnesses = [other for other in world.nodes.values() if other not in (node, leader)]

    def isolate() -> None:
        if witnesses and world.fails(0.5):
            world.crash(world.random.choice(witnesses), down_ms_max=20)
        others = [other for other in world.nodes if other != leader.id]
        world.cut({(leader.id, other) for other in others} | {(other, leader.id) for other in others}, 800)
        if node.is_running:
            node.raft.leader_connection_lost()

    world.after(100 + world.random.random() * 300, isolate)


def _pause(world: World, node: Node) -> None:
    node.paused_until = world.now + world.random.random() * 1500
    world.note(f"pause {node.id} until {node.paused_until:.0f}")


def _transfer(world: World, node: Node) -> None:
    if node.is_running:
        node.raft.transfer_leader(world.random.choice(sorted(world.nodes)))


def _resign(world: World, node: Node) -> None:
    del world
    if node.is_running:
        node.raft.resign()


def _hint(world: World, node: Node) -> None:
    del world
    if node.is_running:
        node.raft.leader_connection_lost()


def _compact(world: World, node: Node) -> None:
    if not node.is_running:
        return
    (node.compact if world.fails(0.6) else node.flush)()
    if world.fails(0.3 * world.faults.crash):
        world.after(world.random.random() * world.faults.sync_ms_max, lambda: world.crash(node))


def _membership(world: World, node: Node) -> None:
    leaders = [other for other in world.nodes.values() if other.is_running and other.raft.role is Role.LEADER]
    for leader in leaders:
        change = _change(world, leader)
        if change is not None:
            world.note(f"membership by {leader.id}: " + " ".join(f"{c.kind.name} {c.node}" for c in change.changes))
            try:
                leader.raft.propose_conf_change(change)
            except ProposalDropped:
                continue
            leader.turn()
    del node


def _change(world: World, leader: Node) -> ConfChangeV2 | None:
    random, state = world.random, leader.raft.conf_state
    lost = [member for member in state.voters if world.nodes[member].is_lost]
    spare = [member for member in state.voters if member not in lost]
    if lost and random.random() < 0.6:
        return ConfChangeV2((ConfChange(ConfChangeKind.REMOVE, lost[0]),))
    if state.learners and random.random() < 0.6:
        add = ConfChange(ConfChangeKind.ADD_VOTER, state.learners[0])
        if len(state.voters) >= VOTERS_MIN and random.random() < 0.4:
            remove = ConfChange(
                random.choice([ConfChangeKind.REMOVE, ConfChangeKind.ADD_LEARNER]), random.choice(spare)
            )
            return ConfChangeV2(
                (add, remove), random.choice([ConfChangeTransition.AUTO, ConfChangeTransition.IMPLICIT])
            )
        return ConfChangeV2((add,))
    if len(state.voters) + len(state.learners) < MEMBERS_MAX and random.random() < 0.6:
        return ConfChangeV2((ConfChange(ConfChangeKind.ADD_LEARNER, world.new_node()),))
    if len(state.voters) > VOTERS_MIN:
        return ConfChangeV2((ConfChange(ConfChangeKind.REMOVE, random.choice(spare)),))
    return None


_DISTURBANCES: dict[str, Callable[[World, Node], None]] = {
    "crash": lambda world, node: world.crash(node),
    "lose_disk": _lose_disk,
    "bit_rot": _bit_rot,
    "full_disk": _full_disk,
    "cut": _cut,
    "partition": _partition,
    "clog": _clog,
    "depose": _depose,
    "pause": _pause,
    "transfer": _transfer,
    "resign": _resign,
    "membership": _membership,
    "hint": _hint,
    "compact": _compact,
}
