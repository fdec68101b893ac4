"""Real nodes in one event loop: logs and states in memory, a loopback network, a state machine that only remembers."""

import asyncio
from collections.abc import Callable

from conclave.cluster.errors import NotLeader
from conclave.cluster.loopback import LoopbackNetwork, LoopbackTransport
from conclave.cluster.membership import Identity
from conclave.cluster.node import Node, NodeSettings, TransportFactory
from conclave.cluster.replica import AutopilotRules, JoinRequest, JoinTicket, Standing, Ticket
from conclave.cluster.transport import Local, Transport
from conclave.storage.log import LogStore
from conclave.storage.memory import MemoryLog, MemoryState
from conclave.storage.state import Applied, StateStore

WAIT_SECONDS_MAX = 20.0
SETTINGS = NodeSettings(
    performance_multiplier=0.3, autopilot=AutopilotRules(server_stabilization_time_seconds=0.0), trailing_entries=50
)


class FakeMachine:
    """A state machine that keeps what it was told, and writes it to its state when a test says so."""

    def __init__(self, state: StateStore) -> None:
        self.state = state
        self.applied = state.applied
        self.membership = state.membership
        self.entries: list[tuple[int, int, bytes]] = []
        self.standings: list[tuple[Standing, int]] = []
        self.is_being_replaced = False
        self.replacements = 0

    @property
    def durable_index(self) -> int:
        return self.state.applied[0]

    @property
    def datas(self) -> list[bytes]:
        """What was applied, in order, without the no-ops of new leaders."""
        return [data for _, _, data in self.entries if data]

    def apply(self, index: int, term: int, data: bytes) -> None:
        assert index == self.applied[0] + 1, f"entry {index} after entry {self.applied[0]}"
        self.entries.append((index, term, data))
        self.applied = (index, term)

    def apply_membership(self, index: int, term: int, membership: bytes) -> None:
        assert index == self.applied[0] + 1, f"entry {index} after entry {self.applied[0]}"
        self.applied, self.membership = (index, term), membership

    async def prepare_replacement(self) -> None:
        self.is_being_replaced = True

    def standing_changed(self, standing: Standing, term: int) -> None:
        self.standings.append((standing, term))

    def state_replaced(self) -> None:
        self.is_being_replaced = False
        self.replacements += 1
        self.applied, self.membership = self.state.applied, self.state.membership

    def flush(self) -> None:
        """Make what was applied durable."""
        data = {index.to_bytes(32, "big"): payload for index, _, payload in self.entries}
        self.state.flush(data, Applied(*self.applied, 1, self.membership))
        self.state.refresh()


class Member:
    """One node of a test, which can be stopped or crashed, and started again on what it has stored."""

    def __init__(
        self,
        name: str,
        port: int,
        connect: TransportFactory,
        *,
        log: LogStore | None = None,
        state: StateStore | None = None,
        settings: NodeSettings = SETTINGS,
        use_threads: bool = False,
    ) -> None:
        self.name = name
        self.address = f"127.0.0.1:{port}"
        self.log = log or MemoryLog()
        self.state = state or MemoryState()
        self.settings = settings
        self._connect = connect
        self._use_threads = use_threads
        self.raft_id = 0
        self.renew()

    def connect(self, identity: Identity) -> Transport:
        self.raft_id = identity.raft_id
        return self._connect(identity)

    def renew(self) -> None:
        """Build the node anew from what is stored."""
        self.machine = FakeMachine(self.state)
        self.node = Node(
            node_id=self.name,
            cluster_address=self.address,
            log=self.log,
            state=self.state,
            machine=self.machine,
            connect=self.connect,
            settings=self.settings,
            use_threads=self._use_threads,
        )

    async def start(self, *, is_sealed: bool = False) -> None:
        self.announce(is_sealed=is_sealed)
        await self.node.start()

    def announce(self, *, is_sealed: bool = False, is_damaged: bool = False) -> None:
        self.node.announce(
            is_sealed=is_sealed,
            api_address=f"http://{self.address}",
            version="0.1.0",
            hostname=self.name,
            is_damaged=is_damaged,
        )

    async def restart(self) -> None:
        self.renew()
        await self.start()


class Cluster:
    """Members on one loopback network."""

    def __init__(self) -> None:
        self.network = LoopbackNetwork()
        self.members: list[Member] = []
        self.authority_key = b""

    def member(self, name: str, **options: object) -> Member:
        """Return a new member that is not started yet."""
        found = Member(name, 21001 + len(self.members), self.connect, **options)  # type: ignore[arg-type]  # as given
        self.members.append(found)
        return found

    def connect(self, identity: Identity) -> Transport:
        local = Local(identity.cluster_id, identity.raft_id, identity.incarnation)
        return LoopbackTransport(local, self.network)

    async def found(self, *names: str, **options: object) -> "Cluster":
        """Found a cluster: the first member bootstraps, the others join and become voters."""
        first = self.member(names[0], **options)
        await first.start()
        self.authority_key = (await first.node.bootstrap("cluster"))["authority_key"]
        for name in names[1:]:
            await self.add(self.member(name, **options))
        await until(lambda: all(is_settled(m, len(names)) for m in self.members))
        return self

    async def add(self, member: Member, *, is_voter: bool = True) -> None:
        """Start a detached member and have it join."""
        await member.start()
        await join(member, self.leader, self.authority_key, is_voter=is_voter)

    @property
    def leader(self) -> Member:
        """The member that leads."""
        (leader,) = [m for m in self.members if m.node.standing is Standing.LEADER]
        return leader

    @property
    def followers(self) -> list[Member]:
        """The others."""
        return [m for m in self.members if m.node.standing is not Standing.LEADER]

    def leaders(self) -> list[Member]:
        """All that believe to lead."""
        return [m for m in self.members if m.node.standing is Standing.LEADER]

    async def stop(self) -> None:
        for member in self.members:
            await member.node.stop(hand_over=False)
            member.log.close()
            member.state.close()


async def join(member: Member, leader: Member, authority_key: bytes, *, is_voter: bool = True) -> None:
    """Do what the vault's join does between two nodes."""
    request = member.node.join_request()
    ticket = await admit(request, leader.node, authority_key, is_voter=is_voter)
    await member.node.join(ticket, request.private_key_pem)


async def admit(request: JoinRequest, leader: Node, authority_key: bytes, *, is_voter: bool = True) -> JoinTicket:
    """Have a leader answer a node that wants to join."""
    return await leader.admit(
        node_id=request.node_id,
        cluster_address=request.cluster_address,
        request_pem=request.request_pem,
        incarnation=request.incarnation,
        is_voter=is_voter,
        authority_key_pem=authority_key,
    )


def is_settled(member: Member, voters: int) -> bool:
    """Whether a member knows of so many voters."""
    return sum(peer.is_voter for peer in member.node.peers()) == voters


async def until(condition: Callable[[], bool], *, seconds: float = WAIT_SECONDS_MAX) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # conditions of any kind; nodes have no event for each
            await asyncio.sleep(0.002)


async def commit(member: Member, data: bytes) -> Ticket:
    """Propose an entry on a leader and wait until it is applied there."""
    ticket = member.node.propose(data)
    await until(lambda: member.machine.applied[0] >= ticket.index)
    assert (ticket.index, ticket.term, data) in member.machine.entries
    return ticket


async def commit_somewhere(cluster: Cluster, data: bytes) -> Member:
    """Propose an entry on whoever leads, as soon as somebody does and takes it."""
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while True:
            for member in cluster.leaders():
                try:
                    ticket = member.node.propose(data)
                except NotLeader:
                    continue
                await until(lambda m=member, t=ticket: m.machine.applied[0] >= t.index)  # type: ignore[misc]
                if (ticket.index, ticket.term, data) in member.machine.entries:
                    return member
            await asyncio.sleep(0.002)
