"""Machines, a network, clients and operators: everything of one seed, and what operators do with members."""

import asyncio
import logging
import zlib
from collections import Counter
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, Final, TypeVar

from conclave.cluster.errors import ClusterError
from conclave.cluster.replica import Standing
from tests.cluster.cluster_of_nodes import admit
from tests.simulator.nodes.checkers import Checkers, LogWatch
from tests.simulator.nodes.clients import KEYS, Client
from tests.simulator.nodes.faults import Faults, draw
from tests.simulator.nodes.loop import VirtualLoop
from tests.simulator.nodes.network import Network
from tests.simulator.nodes.server import Server

T = TypeVar("T")

CLIENTS: Final = 5
MEMBERS_MAX: Final = 5
OPERATION_SECONDS_MAX: Final = 6.0
FOUNDING_SECONDS_MAX: Final = 20.0


def faults_of(seed: int) -> Faults:
    """Return what may go wrong in a seed."""
    return draw(_random_of(seed))


def _random_of(seed: int) -> Random:
    return Random(f"whole nodes {seed}")


class Broken(Exception):
    """A promise was broken; the text says which."""


class World:
    """One seed.

    Args:
        seed: decides everything.
        trace: is told everything that happens.

    Attributes:
        hash: of everything that has happened.
        happened: how often, by kind.
        operations: of clients, by key.
        is_operated: whether an operator changes the membership; there is one operator.
    """

    def __init__(self, seed: int, trace: Callable[[str], None] | None = None) -> None:
        self.random = _random_of(seed)
        self.faults = draw(self.random)
        self.hash = 0
        self.happened: Counter[str] = Counter()
        self.operations = {f"k{number}": 0 for number in range(KEYS)}
        self.loop = VirtualLoop()
        self.loop.set_exception_handler(self._unhandled)
        self.checkers = Checkers(self.loop.world_time, self.note)
        self.network = Network(self.loop, Random(self.random.random()), Faults(), self.note)
        self.servers: list[Server] = []
        self.is_healing = False
        self.is_operated = False
        self._trace = trace
        self._authority_key: bytes | None = None
        self._watch = LogWatch(self.checkers, self.note)
        self._tasks: list[asyncio.Task[Any]] = []

    def note(self, kind: str, text: str) -> None:
        """Take in that something happened."""
        self.happened[kind] += 1
        line = f"{1000 * self.loop.world_time():12.3f} {kind:<14} {text}"
        self.hash = zlib.crc32(line.encode(), self.hash)
        if self._trace is not None:
            self._trace(line)

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        del loop
        self.checkers.fail(f"{context['message']}: {context.get('exception')!r}")

    def run(self, story: Coroutine[Any, Any, None]) -> None:
        """Run a story to its end, with the nodes' log watched."""
        logger = logging.getLogger("conclave.cluster")
        level, propagate = logger.level, logger.propagate
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(self._watch)
        try:
            self.loop.run_until_complete(story)
        finally:
            logger.removeHandler(self._watch)
            logger.setLevel(logging.CRITICAL + 1)  # what is left ends without a word
            self._end()
            logger.setLevel(level)
            logger.propagate = propagate

    def _end(self) -> None:
        self._trace = None
        self.loop.set_exception_handler(lambda *_: None)
        self.loop.end([life for server in self.servers for life in server.lives])

    def keep(self, task: Coroutine[Any, Any, Any], name: str) -> None:
        """Run something beside everything else."""
        self._tasks.append(self.loop.create_task(task, name=name))

    async def wait(self, seconds: float) -> None:
        """Let time pass.

        Raises:
            Broken: a promise was broken meanwhile.
        """
        until = self.loop.time() + seconds
        while (left := until - self.loop.time()) > 0:
            await asyncio.sleep(min(left, 0.05))
            self.check()

    async def wait_until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Let time pass until something holds.

        Raises:
            Broken: it did not in time, or a promise was broken meanwhile.
        """
        until = self.loop.time() + seconds
        while not condition():
            if self.loop.time() > until:
                raise Broken(f"{what} within {seconds:.0f} s")
            await self.wait(0.02)

    def check(self) -> None:
        """Raise if a promise was broken."""
        if self.checkers.failure:
            raise Broken(self.checkers.failure)

    # -- servers --

    def server(self, faults: Faults) -> Server:
        """Return a new machine that runs nothing yet."""
        number = len(self.servers) + 1
        made = Server(
            f"n{number}",
            number,
            loop=self.loop,
            network=self.network,
            checkers=self.checkers,
            random=self.random,
            faults=faults,
            authority_key=lambda: self._authority_key,
        )
        self.servers.append(made)
        return made

    @property
    def leader(self) -> Server | None:
        """The machine whose node leads the newest term, if any says so."""
        leading = [server for server in self.servers if server.standing is Standing.LEADER]
        return max(leading, key=lambda server: server.node.term, default=None)

    @property
    def members(self) -> list[Server]:
        """The machines that are up and take part."""
        return [s for s in self.servers if s.standing in (Standing.LEADER, Standing.FOLLOWER)]

    async def call(
        self, server: Server, coroutine: Coroutine[Any, Any, T], seconds: float = OPERATION_SECONDS_MAX
    ) -> T | None:
        """Run something within a server's process; None if it failed, or did not end in time."""
        task = server.process.start(coroutine, name="operation")
        await asyncio.wait([task], timeout=seconds)
        if not task.done() or task.cancelled():
            return None
        error = task.exception()
        if isinstance(error, ClusterError):
            self.note("refused", f"{type(error).__name__} {error}")
            return None
        if error is not None:
            self.checkers.fail(f"an operation failed: {error!r}")
            return None
        return task.result()

    async def found(self, count: int, faults: Faults) -> None:
        """Found a cluster without any fault, and have all of it vote."""
        first = self.server(faults)
        await first.boot()
        keys = await self.call(first, first.node.bootstrap("cluster"), FOUNDING_SECONDS_MAX)
        if keys is None:
            raise Broken("the cluster was not founded")
        self._authority_key = keys["authority_key"]
        for _ in range(1, count):
            await self.join(self.server(faults))
        await self.wait_until(
            lambda: all(sum(p.is_voter for p in s.node.peers()) == count for s in self.servers),
            FOUNDING_SECONDS_MAX,
            "not all members came to vote",
        )

    async def join(self, server: Server, *, is_voter: bool = True) -> bool:
        """Have a detached node admitted and join; what the vault's join does between two nodes."""
        if not server.is_up:
            await asyncio.wait([server.boot()], timeout=OPERATION_SECONDS_MAX)
        leader = self.leader
        key = self._authority_key
        if leader is None or key is None or server.standing is not Standing.DETACHED:
            return False
        try:
            request = server.process.context.copy().run(server.node.join_request)
        except ClusterError:
            return False
        ticket = await self.call(leader, admit(request, leader.node, key, is_voter=is_voter))
        if ticket is None or not server.is_up or server.standing is not Standing.DETACHED:
            return False
        self.note("join", server.name)
        await self.call(server, server.node.join(ticket, request.private_key_pem))
        return True

    async def remove(self, name: str) -> bool:
        """Have a member removed by whoever leads."""
        leader = self.leader
        if leader is None:
            return False
        self.note("remove", name)
        return await self.call(leader, leader.node.remove(name), 15.0) is not None

    def begin_clients(self) -> None:
        """Have clients ask on and on."""
        for number in range(1, CLIENTS + 1):
            client = Client(number, self)
            self.keep(client.run(self.faults.client_pause_seconds, self.faults.write_share), f"client {number}")

    # -- the end --

    async def heal(self) -> None:
        """Undo every fault."""
        self.is_healing = True
        self.note("heal", "")
        self.network.heal()
        for server in self.servers:
            server.disk.faults = Faults()
            if server.is_up and server.process.is_frozen:
                server.process.thaw()
            if server.is_up and server.disk.has_failed:
                server.crash(loses_power=False)
            server.disk.has_failed = False
            if not server.is_up:
                server.restart()
            if server.is_sealed:
                server.process.context.copy().run(lambda s=server: s.announce(is_sealed=False))  # type: ignore[misc]
        await self.wait(0.1)

    async def settle(self) -> None:
        """Have operators end what they had begun: who was lost is removed, who was admitted joins."""
        for server in self.servers:
            leader = self.leader
            if leader is None:
                return
            member = next((p for p in leader.node.peers() if p.node_id == server.name), None)
            if server.is_wiped and member is not None and member.raft_id != server.raft_id:
                await self.remove(server.name)
            elif server.standing is Standing.DETACHED and member is not None:
                await self.join(server)
            if member is None or member.raft_id == server.raft_id:
                server.is_wiped = False

    def has_converged(self) -> bool:
        """Tell whether all members hold the same, and nobody is missing."""
        leader = self.leader
        if leader is None:
            return False
        by_name = {server.name: server for server in self.members}
        applied = leader.machine.applied
        return all(
            (server := by_name.get(peer.node_id)) is not None
            and server.raft_id == peer.raft_id
            and server.machine.applied == applied
            and server.machine.digest == leader.machine.digest
            for peer in leader.node.peers()
        )
