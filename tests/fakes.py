"""Fakes that ship with the seams of core: a replica of one node, its peers and membership, and a vault built on them.

`FakeReplica` orders entries itself: each is committed at once, or, with `holds = True`, when `commit()` or `lose()` says
so. `started_vault()` is an initialized, unsealed vault with its root token, all in memory, in a few milliseconds.
`FakeContext` is what an engine's test hands to a handler.
"""

import asyncio
import functools
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec

from conclave.cluster.errors import NoQuorum, NotAlone, NotLeader, Overloaded, Unreachable
from conclave.cluster.replica import (
    AutopilotRules,
    Finding,
    JoinRequest,
    JoinTicket,
    Peer,
    Standing,
    StateMachine,
    Ticket,
)
from conclave.core.acl import Acl
from conclave.core.contract import Engine, MountInfo, Operation, Request, Response, TokenView
from conclave.core.lifecycle import Allowances, Initialized, Lifecycle, NodeInfo
from conclave.core.mounts import MountTable, new_mount
from conclave.core.outcomes import Outcome
from conclave.core.pipeline import Pipeline
from conclave.core.records import Records
from conclave.core.services import AREA_MOUNTS, Services
from conclave.core.store import Settlement, Store
from conclave.core.system import System
from conclave.core.tokens import TokenRecord
from conclave.core.vault import Vault
from conclave.engines import REGISTRY as ENGINES
from conclave.methods import REGISTRY as METHODS
from conclave.storage.barrier import Barrier
from conclave.storage.keyring import Keyring
from conclave.storage.memory import MemoryState
from conclave.storage.overlay import Overlay
from conclave.storage.transaction import Transaction
from conclave.storage.tree import Directory

T = TypeVar("T")

START_NS = 1_800_000_000 * 10**9
_ids = itertools.count(1)


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now_ns = START_NS

    def advance(self, seconds: float) -> None:
        self.now_ns += int(seconds * 1e9)

    def wall_ns(self) -> int:
        return self.now_ns

    def monotonic_seconds(self) -> float:
        return self.now_ns / 1e9


class FakeReplica:
    """`Replica`, `Peers` and `Membership` of one node, which is all the cluster there is."""

    def __init__(self, node_id: str = "n1") -> None:
        self.node_id = node_id
        self.machine: StateMachine | None = None
        self.standing = Standing.DETACHED
        self.term = 0
        self.holds = False
        self.is_leased = True
        self.is_overloaded = False
        self.has_quorum = True
        self.index = 0
        self.waiting: list[tuple[int, int, bytes]] = []
        self.network: dict[str, FakeReplica] = {node_id: self}
        self.leader_id = ""
        self.handler: Callable[[bytes, str], Awaitable[bytes]] | None = None
        self.announced: dict[str, Any] = {}
        self.barriers = 0
        self.admitted: list[str] = []
        self.non_voters: set[str] = set()
        self.fault = ""
        self.rules = AutopilotRules()
        self.authority_key: Callable[[], bytes | None] = lambda: None
        self.authority = b"authority key"
        self.loses_answers = False
        self.broken = asyncio.Event()  # set: whoever waits for an answer of this node learns that there will be none
        self.asked: list[asyncio.Future[bytes]] = []

    # -- what tests do --

    def lead(self) -> None:
        """Become leader of a new term."""
        assert self.machine is not None
        self.term += 1
        self.standing = Standing.LEADER
        for replica in self.network.values():
            replica.leader_id = self.node_id
        self._apply(self.index + 1, self.term, b"")
        self.machine.standing_changed(Standing.LEADER, self.term)

    def follow(self, term: int | None = None) -> None:
        """Stop leading; what is held stays undecided."""
        assert self.machine is not None
        self.term = term if term is not None else self.term
        self.standing = Standing.FOLLOWER
        self.machine.standing_changed(Standing.FOLLOWER, self.term)

    def commit(self, count: int | None = None) -> None:
        """Commit held entries, on every node of the network."""
        taken, self.waiting = self.waiting[:count], self.waiting[count:] if count is not None else []
        for term, index, data in taken:
            self._apply(index, term, data)

    def lose(self) -> None:
        """Let entries of a later term take the indexes of what is held."""
        lost, self.waiting = self.waiting, []
        self.index = lost[0][1] - 1 if lost else self.index
        self.term += 1
        for _, index, _ in lost:
            self._apply(index, self.term, b"")

    def lose_leadership(self) -> None:
        """Stop leading, and let what is held be lost."""
        self.follow()
        self.lose()

    def _apply(self, index: int, term: int, data: bytes) -> None:
        for replica in self.network.values():
            assert replica.machine is not None
            if replica.machine.applied[0] == index - 1:
                replica.machine.apply(index, term, data)
                replica.index = max(replica.index, index)

    # -- Replica --

    @property
    def leader(self) -> Peer | None:
        return next((peer for peer in self.peers() if peer.is_leader), None)

    def propose(self, data: bytes) -> Ticket:
        if self.standing is not Standing.LEADER:
            raise NotLeader
        if self.is_overloaded:
            raise Overloaded
        self.index += 1
        ticket = Ticket(self.term, self.index)
        self.waiting.append((self.term, self.index, data))
        if not self.holds:
            asyncio.get_running_loop().call_soon(self.commit)
        return ticket

    def has_lease(self) -> bool:
        return self.standing is Standing.LEADER and self.is_leased

    async def read_barrier(self) -> int:
        await asyncio.sleep(0)
        if not self.has_quorum:
            raise NoQuorum("no quorum")
        self.barriers += 1
        return self.index

    # -- Peers --

    async def ask_leader(self, body: bytes, *, timeout_seconds: float) -> bytes:
        del timeout_seconds
        leader = self.network.get(self.leader_id)
        if leader is None or leader is self or leader.standing is not Standing.LEADER or leader.handler is None:
            raise NotLeader
        answering = asyncio.ensure_future(leader.handler(body, self.node_id))
        leader.asked.append(answering)
        breaking = asyncio.ensure_future(leader.broken.wait())
        await asyncio.wait({answering, breaking}, return_when=asyncio.FIRST_COMPLETED)
        breaking.cancel()
        if leader.loses_answers or not answering.done():
            raise Unreachable("the connection broke")
        return answering.result()

    def serve(self, handler: Callable[[bytes, str], Awaitable[bytes]]) -> None:
        self.handler = handler

    def announce(
        self, *, is_sealed: bool, api_address: str, version: str, hostname: str, is_damaged: bool = False
    ) -> None:
        self.announced = {
            "is_sealed": is_sealed,
            "api_address": api_address,
            "version": version,
            "hostname": hostname,
            "is_damaged": is_damaged,
        }

    # -- Membership --

    def peers(self) -> Sequence[Peer]:
        return [
            Peer(
                node_id=name,
                raft_id=number + 1,
                cluster_address=f"127.0.0.1:{8201 + number}",
                api_address=f"http://127.0.0.1:{8200 + number}",
                is_voter=name not in self.non_voters,
                may_vote=name not in self.non_voters,
                is_leader=self.network[name].standing is Standing.LEADER,
                is_healthy=True,
                last_contact_seconds=0.0,
            )
            for number, name in enumerate(sorted(self.network))
        ]

    finding: Finding | None = None

    @property
    def committed_index(self) -> int:
        return self.index

    async def bootstrap(self, cluster_id: str) -> Mapping[str, bytes]:
        assert cluster_id
        self.lead()
        return {"authority_key": self.authority}

    async def admit(
        self,
        *,
        node_id: str,
        cluster_address: str,
        request_pem: bytes,
        incarnation: bytes,
        is_voter: bool,
        authority_key_pem: bytes,
    ) -> JoinTicket:
        del cluster_address, request_pem, incarnation, is_voter
        assert authority_key_pem == self.authority
        self.admitted.append(node_id)
        return JoinTicket("cluster", 7, b"certificate", b"authority", b"membership")

    def join_request(self) -> JoinRequest:
        return JoinRequest(self.node_id, "127.0.0.1:8201", b"request", b"private key", bytes(16))

    async def join(self, ticket: JoinTicket, private_key_pem: bytes) -> None:
        assert ticket.raft_id == 7
        assert private_key_pem == b"private key"
        assert self.machine is not None
        self.standing = Standing.FOLLOWER
        self.machine.standing_changed(Standing.FOLLOWER, self.term)

    async def remove(self, node_id: str) -> bool:
        return self.network.pop(node_id, None) is not None

    async def promote(self, node_id: str) -> bool:
        self.non_voters.discard(node_id)
        return node_id in self.network

    async def demote(self, node_id: str) -> bool:
        if node_id in self.network:
            self.non_voters.add(node_id)
        return node_id in self.network

    def judge_by(self, rules: AutopilotRules) -> None:
        self.rules = rules

    def lend_authority(self, key_pem: Callable[[], bytes | None]) -> None:
        self.authority_key = key_pem

    async def own_authority(self, key_pem: bytes) -> bytes:
        if key_pem != self.authority:
            if len(self.network) > 1:
                raise NotAlone("there are other members")
            self.authority = b"another " + self.authority
        return self.authority

    async def step_down(self) -> None:
        self.follow()


class FakeVault:
    """A vault with everything around it, and short ways to use it."""

    def __init__(self, node_id: str = "n1", engines: Mapping[str, Engine] | None = None) -> None:
        self.clock = Clock()
        self.replica = FakeReplica(node_id)
        self.overlay = Overlay(MemoryState())
        self.store = Store(
            self.overlay, wall_clock_ns=self.clock.wall_ns, monotonic_seconds=self.clock.monotonic_seconds
        )
        self.replica.machine = self.store
        self.store.connect(self.replica)
        self.pipeline = Pipeline(
            {name: kind() for name, kind in ENGINES.items()} | dict(engines or {}),
            {name: kind() for name, kind in METHODS.items()},
        )
        self.vault = Vault(self.store, self.replica, self.replica, self.replica, self.pipeline)
        self.lifecycle = Lifecycle(
            self.vault,
            NodeInfo(node_id, "http://127.0.0.1:8200", cluster_name="test"),
            allowances=Allowances(audit_creation=True),
        )
        self.pipeline.install_system(System(self.lifecycle))
        self.made: Initialized | None = None
        self.root = ""

    async def initialize(self, shares: int = 1, threshold: int = 1) -> Initialized:
        self.made = await self.lifecycle.initialize(shares, threshold)
        self.root = self.made.root_token
        return self.made

    async def unseal(self) -> None:
        assert self.made is not None
        for share in self.made.shares_hex:
            await self.lifecycle.unseal(share)

    async def stop(self) -> None:
        await self.vault.stop()
        await self.store.stop()

    def services(self) -> Services:
        """Return the records in a transaction that sees everything and may write; see `commit`."""
        assert self.vault.keys is not None
        return self.pipeline.services(self.store.writing(), self.vault.keys.barrier, self.store.now_ns())

    async def commit(self, services: Services) -> None:
        settled: asyncio.Future[Settlement] = asyncio.get_running_loop().create_future()
        self.store.commit(services.transaction, settled.set_result)
        assert await settled in (Settlement.COMMITTED, Settlement.NOTHING)

    async def mount(self, path: str, kind: str) -> None:
        """Mount an engine, as sys/mounts would."""
        services = self.services()
        mount = new_mount(path, kind, services.random, services.now_ns)
        MountTable(services.area(AREA_MOUNTS)).enable(mount)
        await self.commit(services)

    def start(self, request: Request) -> "asyncio.Future[Outcome]":
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.vault.handle(request, future.set_result)
        return future

    async def ask(self, operation: Operation, path: str, fields: Any = None, **more: Any) -> Outcome:
        """Return the outcome of a request; with the root token unless another is given."""
        return await self.start(request_for(operation, path, fields, **({"token": self.root} | more)))

    async def read(self, path: str, **more: Any) -> Outcome:
        return await self.ask(Operation.READ, path, **more)

    async def write(self, path: str, fields: Any = None, **more: Any) -> Outcome:
        return await self.ask(Operation.UPDATE, path, fields, **more)

    async def delete(self, path: str, **more: Any) -> Outcome:
        return await self.ask(Operation.DELETE, path, **more)

    async def list(self, path: str, **more: Any) -> Outcome:
        return await self.ask(Operation.LIST, path, **more)


def request_for(operation: Operation, path: str, fields: Any = None, **more: Any) -> Request:
    """Return a request with a body of these fields."""
    body = b"" if fields is None else msgspec.json.encode(fields)
    return Request(id=f"request-{next(_ids)}", operation=operation, path=path, body=body, **more)


def data_of(outcome: Outcome) -> Any:
    """Return the data of an answer as plain values."""
    assert isinstance(outcome, Response), outcome
    return outcome.data if not isinstance(outcome.data, msgspec.Raw) else msgspec.json.decode(outcome.data)


@asynccontextmanager
async def started_vault(
    shares: int = 1, threshold: int = 1, engines: Mapping[str, Engine] | None = None
) -> AsyncIterator[FakeVault]:
    """Yield an initialized and unsealed vault, active, with kv-v2 at secret/."""
    fake = FakeVault(engines=engines)
    await fake.initialize(shares, threshold)
    await fake.unseal()
    await fake.mount("secret/", "kv-v2")
    try:
        yield fake
    finally:
        await fake.stop()


@asynccontextmanager
async def started_standby(leader: FakeVault, node_id: str = "n2") -> AsyncIterator[FakeVault]:
    """Yield an unsealed standby of a vault, which has what the vault had, and applies what it commits from now on."""
    standby = FakeVault(node_id)
    standby.replica.network = leader.replica.network
    standby.replica.network[node_id] = standby.replica
    standby.replica.standing = Standing.FOLLOWER
    standby.replica.leader_id = leader.replica.node_id
    await leader.store.flush()
    standby.overlay._state = leader.overlay._state
    standby.store.state_replaced()
    standby.replica.index = leader.replica.index
    standby.made, standby.root = leader.made, leader.root
    await standby.unseal()
    try:
        yield standby
    finally:
        await standby.stop()


def on_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Let a coroutine be a test: it runs on an event loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


async def until(condition: Callable[[], bool], turns_max: int = 10_000) -> None:
    """Let the loop turn until something has come about."""
    for _ in range(turns_max):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("what was waited for has not come about")


class FakeContext:
    """The context of an engine's test: storage in memory, a clock and random bytes that the test sets."""

    def __init__(
        self,
        *,
        request: Request | None = None,
        mount: MountInfo | None = None,
        token: TokenView | None = None,
        now_ns: int = START_NS,
    ) -> None:
        self._barrier = Barrier(Keyring.generate(now_ns))
        self._overlay = Overlay(MemoryState())
        self.transaction = Transaction(self._overlay, uncommitted=True)
        self.storage = Records(Directory(self.transaction, self._barrier, bytes(16)))
        self.request = request or request_for(Operation.READ, "secret/x")
        self.mount = mount or MountInfo("secret/", "kv_0", "uuid", {}, 2_764_800, 2_764_800)
        self.token = token or TokenView("accessor", ["root"], "root", "", is_root=True)
        self.token_record: TokenRecord | None = None
        self.acl: Acl | None = None
        self.now_ns = now_ns
        self.warnings: list[str] = []
        self._counter = itertools.count()

    def random(self, length: int) -> bytes:
        """Return bytes that differ from call to call and are the same in every run."""
        return next(self._counter).to_bytes(8, "big").rjust(length, b"\x01")[-length:]

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    async def in_thread(self, work: Callable[[], T]) -> T:
        return work()

    async def atomically(self, step: Callable[[Any], Response]) -> Response:
        return step(self)
