"""Clients that ask any node, repeat what nobody answered, and write down what they saw."""

import asyncio
from random import Random
from typing import Final, Protocol

from tests.simulator.linearizability import OPERATIONS_MAX, UNKNOWN, Kind, Operation
from tests.simulator.nodes.checkers import Checkers
from tests.simulator.nodes.loop import VirtualLoop
from tests.simulator.nodes.machine import REFUSED, Outcome, Reply, Request
from tests.simulator.nodes.machine import UNKNOWN as NOT_KNOWN
from tests.simulator.nodes.server import Server

KEYS: Final = 8
ATTEMPTS_MAX: Final = 5
PATIENCE_SECONDS: Final = 2.0
AGAIN_SECONDS_MAX: Final = 0.1


class Place(Protocol):
    """What clients have to know of the world."""

    loop: VirtualLoop
    random: Random
    checkers: Checkers
    servers: list[Server]
    operations: dict[str, int]


class Client:
    """One client: one request at a time.

    Args:
        number: its name.
        place: where it lives.
    """

    def __init__(self, number: int, place: Place) -> None:
        self._number = number
        self._place = place
        self._sequence = 0
        self._seen: dict[str, str | None] = {}
        self._favourite: Server | None = None

    async def run(self, pause_seconds: float, write_share: float) -> None:
        """Ask on and on."""
        random = self._place.random
        while True:
            await asyncio.sleep(random.expovariate(1 / pause_seconds))
            keys = [key for key, count in self._place.operations.items() if count < OPERATIONS_MAX]
            if not keys:
                return
            await self.operate(random.choice(keys), is_write=random.random() < write_share)

    async def operate(self, key: str, *, is_write: bool) -> bool:
        """Do one thing and write it down; return whether it was done."""
        place = self._place
        self._sequence += 1
        request = self._drawn(key, is_write=is_write)
        begin = place.loop.time()
        self._write_down(request, begin)
        reply = await self._insist(request)
        del place.checkers.pending[self._number]
        if reply.outcome is Outcome.REFUSED or (reply.outcome is Outcome.UNKNOWN and not is_write):
            return False
        is_known = reply.outcome is Outcome.DONE
        value = request.value if is_write else reply.value
        place.operations[key] += 1
        succeeded = reply.succeeded if request.kind in (Kind.CAS, Kind.LIST) else True
        end = place.loop.time() if is_known else UNKNOWN
        place.checkers.history.append(Operation(key, request.kind, begin, end, value, request.expected, succeeded))
        if is_known and reply.succeeded and request.kind is not Kind.LIST:
            self._seen[key] = value
        return is_known

    def _write_down(self, request: Request, begin: float) -> None:
        self._place.checkers.pending[self._number] = Operation(
            request.key, request.kind, begin, UNKNOWN, request.value, request.expected
        )

    def _drawn(self, key: str, *, is_write: bool) -> Request:
        random, name = self._place.random, f"{self._number}.{self._sequence}"
        if not is_write:
            kind = Kind.LIST if random.random() < 0.2 else Kind.READ
            return Request(self._number, self._sequence, kind, key)
        if random.random() < 0.3:
            return Request(self._number, self._sequence, Kind.CAS, key, name, self._seen.get(key))
        value = None if random.random() < 0.1 else name
        return Request(self._number, self._sequence, Kind.WRITE, key, value)

    async def _insist(self, request: Request) -> Reply:
        """Ask until somebody answers, a few times; what may have happened once stays unknown unless somebody knows."""
        place, worst = self._place, REFUSED
        for _ in range(ATTEMPTS_MAX):
            server = self._favourite
            if server is None or not server.is_up or place.random.random() < 0.3:
                server = self._favourite = place.random.choice(place.servers)
            reply = await self._ask(server, request)
            if reply.outcome is Outcome.DONE:
                return reply
            if reply.outcome is Outcome.UNKNOWN:
                worst = reply
            self._favourite = None
            await asyncio.sleep(place.random.uniform(0.005, AGAIN_SECONDS_MAX))
        return worst

    async def _ask(self, server: Server, request: Request) -> Reply:
        """Ask one node, over a connection of its own that nothing cuts."""
        if not server.is_up:
            return REFUSED
        place, answer = self._place, asyncio.get_running_loop().create_future()
        process = server.process

        def arrived(reply: Reply) -> None:
            if not answer.done():
                answer.set_result(reply)

        def answered(reply: Reply) -> None:
            place.loop.in_world(place.random.uniform(0.0002, 0.003), lambda: arrived(reply))

        place.loop.in_world(place.random.uniform(0.0002, 0.003), lambda: process.post(server.ask, request, answered))
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                reply: Reply = await answer
                return reply
        except TimeoutError:
            return NOT_KNOWN
