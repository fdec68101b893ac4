"""One machine: a disk that lasts, and a process with a real `Node` that comes and goes; and the door for its clients."""

import asyncio
import datetime as dt
from collections.abc import Callable
from random import Random
from typing import Final

from conclave.cluster.errors import ClusterError, NotLeader
from conclave.cluster.membership import Identity, decode_identity
from conclave.cluster.node import Node, NodeSettings
from conclave.cluster.replica import AutopilotRules, Standing
from conclave.cluster.surroundings import Surroundings
from conclave.cluster.transport import Local, Transport
from tests.simulator.linearizability import Kind
from tests.simulator.nodes.checkers import Checkers
from tests.simulator.nodes.disk import Disk, SimulatedWriter
from tests.simulator.nodes.faults import Faults
from tests.simulator.nodes.loop import Process, VirtualLoop
from tests.simulator.nodes.machine import (
    REFUSED,
    UNKNOWN,
    Outcome,
    Register,
    Reply,
    Request,
    decode_reply,
    decode_request,
    encoded,
)
from tests.simulator.nodes.network import Network, SimulatedTransport

EPOCH: Final = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
FORWARD_SECONDS_MAX: Final = 1.0
APPLY_SECONDS_MAX: Final = 1.5
CERTIFICATE_SECONDS: Final = 8.0
"""So short that it is renewed several times in each play."""


class Server:
    """One machine.

    Args:
        name: of the node.
        number: makes its address.
        loop, network, checkers: the world around it.
        random: decides what is random on it.
        faults: what may go wrong here.
        authority_key: the cluster authority's private key, once there is one.
    """

    def __init__(
        self,
        name: str,
        number: int,
        *,
        loop: VirtualLoop,
        network: Network,
        checkers: Checkers,
        random: Random,
        faults: Faults,
        authority_key: Callable[[], bytes | None],
    ) -> None:
        self.name = name
        self.address = f"10.0.0.{number}:8201"
        self.faults = faults
        self.is_up = False
        self.is_sealed = False
        self.is_wiped = False  # its disk was lost while it was a member
        self.raft_id = 0
        self.date_offset = dt.timedelta()
        self.lives: list[Process] = []
        self.disk = Disk(loop, random, Faults())
        self._loop = loop
        self._network = network
        self._checkers = checkers
        self._random = random
        self._authority_key = authority_key
        self._transport: SimulatedTransport | None = None
        self._writer: SimulatedWriter | None = None
        network.names[self.address] = name

    def boot(self) -> asyncio.Task[None]:
        """Begin a new life on what the disk holds."""
        drift = self.faults.drift
        self.process = Process(self._loop, 1.0 + self._random.uniform(-drift, drift), self._random.uniform(0.0, 1000.0))
        self.lives.append(self.process)
        self.is_up = True
        self._build()
        return self.process.start(self._begin(), name=f"start {self.name}")

    def _build(self) -> None:
        self._transport = self._writer = None
        self.machine = Register(self.name, self.disk.state, self._checkers)
        self.node = Node(
            node_id=self.name,
            cluster_address=self.address,
            log=self.disk.log,
            state=self.disk.state,
            machine=self.machine,
            connect=self._connect,
            settings=NodeSettings(
                performance_multiplier=0.5,
                autopilot=AutopilotRules(
                    server_stabilization_time_seconds=0.3, last_contact_threshold_seconds=2.0, max_trailing_logs=100
                ),
                trailing_entries=self.faults.trailing_entries,
                certificate_seconds=CERTIFICATE_SECONDS,
            ),
            use_threads=False,
            surroundings=Surroundings(self.process.boot_seconds, self._utc_now, self._random.randbytes),
            open_writer=self._open_writer,
        )
        self.node.serve(self._answer)
        self.node.lend_authority(lambda: None if self.is_sealed else self._authority_key())
        self.announce(is_sealed=self.is_sealed)

    async def _begin(self) -> None:
        stored = self.disk.log.get_identity()
        identity = decode_identity(stored) if stored else None
        await self.node.start()
        was_removed = identity is not None and identity.is_removed
        self._checkers.started(self.name, was_removed=was_removed, standing=self.node.standing)
        self.process.start(self._flush_now_and_then(), name=f"flush {self.name}")

    def _utc_now(self) -> dt.datetime:
        return EPOCH + dt.timedelta(seconds=self._loop.world_time()) + self.date_offset

    def _connect(self, identity: Identity) -> Transport:
        self.raft_id = self.machine.raft_id = identity.raft_id
        self._checkers.disks[identity.raft_id] = self.disk
        local = Local(identity.cluster_id, identity.raft_id, identity.incarnation)
        self._transport = SimulatedTransport(local, self.name, self.address, self.process, self._network)
        return self._transport

    def _open_writer(self, on_fault: Callable[[str, bool], None]) -> SimulatedWriter:
        self._writer = SimulatedWriter(self.disk, self.process, on_fault)
        return self._writer

    async def _flush_now_and_then(self) -> None:
        machine = self.machine
        while True:
            await asyncio.sleep(self._random.uniform(0.5, 1.5) * self.faults.flush_seconds)
            machine.flush()

    def announce(self, *, is_sealed: bool) -> None:
        """Say whether this node serves."""
        self.is_sealed = is_sealed
        self.node.announce(
            is_sealed=is_sealed, api_address=f"http://{self.address}", version="0.1.0", hostname=self.name
        )

    # -- what happens to it --

    def crash(self, *, loses_power: bool) -> None:
        """End the process; with the power its connections end without a word."""
        self.is_up = False
        self.process.kill()
        if self._writer is not None:
            self._writer.crash()
        if loses_power:
            self._network.off.add(self.name)
        if self._transport is not None:
            self._transport.end()
        self._network.note("crash", self.name)

    def restart(self) -> asyncio.Task[None]:
        """Begin again after a crash."""
        self._network.off.discard(self.name)
        if self._transport is not None:
            self._transport.end()  # whoever held on to an old connection is told now
        self._network.note("restart", self.name)
        return self.boot()

    def wipe(self) -> None:
        """Lose the disk; the process has ended before."""
        assert not self.is_up, "whose process has ended"
        self.disk = Disk(self._loop, self._random, self.disk.faults)
        self.is_wiped, self.raft_id = True, 0
        self._network.note("wipe", self.name)

    @property
    def standing(self) -> Standing:
        """What its node is; detached while there is none."""
        return self.node.standing if self.is_up else Standing.DETACHED

    @property
    def may_return(self) -> bool:
        """Whether it is down, and has its disk."""
        return not self.is_up and not self.is_wiped

    @property
    def is_changing(self) -> bool:
        """Whether a membership change is under way, as far as this leader knows."""
        part = self.node._part  # the simulator sees everything
        return part is None or not part.driver.may_change

    # -- the door --

    def ask(self, request: Request, answered: Callable[[Reply], None]) -> None:
        """Take in a client's request; called within its process."""
        self.process.start(self._serve(request, answered), name="request")

    async def _serve(self, request: Request, answered: Callable[[Reply], None]) -> None:
        if self.is_sealed:
            reply = REFUSED
        elif request.kind in (Kind.READ, Kind.LIST):
            reply = await self._read(request)
        elif self.node.standing is Standing.LEADER:
            reply = await self._propose(request)
        else:
            reply = await self._forward(request)
        answered(reply)

    async def _read(self, request: Request) -> Reply:
        try:
            if not self.node.has_lease():
                await self.node.read_barrier()
        except ClusterError:
            return REFUSED
        value = self.machine.values.get(request.key)
        self._checkers.reads += 1
        return Reply(Outcome.DONE, value is not None, value)

    async def _propose(self, request: Request) -> Reply:
        data = encoded(request)
        try:
            ticket = self.node.propose(data)
        except ClusterError:
            return REFUSED
        try:
            async with asyncio.timeout(APPLY_SECONDS_MAX):
                return await self.machine.wait(ticket, data)
        except TimeoutError:
            return UNKNOWN

    async def _forward(self, request: Request) -> Reply:
        try:
            return decode_reply(await self.node.ask_leader(encoded(request), timeout_seconds=FORWARD_SECONDS_MAX))
        except NotLeader:
            return REFUSED
        except ClusterError:
            return UNKNOWN

    async def _answer(self, body: bytes, asker: str) -> bytes:
        del asker
        return encoded(REFUSED if self.is_sealed else await self._propose(decode_request(body)))
