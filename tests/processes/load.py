"""A steady load on a cluster: clients that write, read, compare and set, list, and hold tokens, each on one connection.

They run in a thread of their own, so that faults can be written as plain code beside them. Half of the clients share the
keys of one group, and the other half those of another: eight clients and `OPERATIONS_OF_A_KEY_MAX` operations a key are what
the judge can search (`tests.simulator.linearizability`); then the group moves to new keys.

Each client has a node of its own, so that all nodes are asked all the time; half of them use tokens, on any node, and the
others stay where they are: so at each node there are some that wait for no other. A client that is not answered, or is
answered 503, goes on with another one for a while, and never repeats a write: its outcome is unknown. Any other answer than
expected is a surprise, and fails the run.
"""

import asyncio
import gc
import json
import random
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, Final, Self

from msgspec import Struct

from tests.processes.history import History, Moment
from tests.processes.nodes import Node
from tests.simulator.linearizability import UNKNOWN, Kind, Operation

CLIENTS: Final = 16
GROUPS: Final = 2
KEYS_OF_A_GROUP: Final = 4
OPERATIONS_OF_A_KEY_MAX: Final = 110
"""Below 150, with room for the reads at the end."""
ANSWER_SECONDS_MAX: Final = 15.0
"""Above the 12 s for which a node holds a request: so that who gives up first is the node, and says so."""
PAUSE_SECONDS: Final = 0.02
"""Between a refusal and the next try elsewhere."""
OPERATIONS_AWAY: Final = 100
"""After so many operations elsewhere a client goes back to its own node."""
MOUNT: Final = "secret"
UNREACHED: Final = "unreached"
"""What a request is counted as whose node took no connection."""


Step = Callable[[str], Coroutine[Any, Any, object]]


class Unanswered(Exception):
    """Nothing, or only a part of an answer came: the outcome is unknown."""


class NotSent(Exception):
    """The node could not be reached: nothing happened."""


class Place(Struct, frozen=True):
    """A node as a client knows it."""

    name: str
    port: int


def places_of(nodes: Iterable[Node]) -> list[Place]:
    """Return nodes as clients know them."""
    return [Place(node.name, node.api_port) for node in nodes]


class Connection:
    """One HTTP/1.1 connection that is kept, and opened again after an error."""

    def __init__(self) -> None:
        self.place: Place | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def go_to(self, place: Place) -> None:
        """Use a node from now on."""
        if place != self.place:
            await self.close()
            self.place = place

    async def request(self, method: str, path: str, fields: Any = None, token: str = "") -> tuple[int, Any]:
        """Send one request and return status and answer.

        Raises:
            NotSent, Unanswered: see there; the connection is closed.
        """
        assert self.place is not None, "go_to() comes first"
        body = b"" if fields is None else json.dumps(fields).encode()
        lines = (
            f"{method} /v1/{path} HTTP/1.1",
            "Host: conclave",
            f"X-Vault-Token: {token}",
            f"Content-Length: {len(body)}",
            "\r\n",
        )
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                reader, writer = await self._open(self.place)
                try:
                    writer.write("\r\n".join(lines).encode() + body)
                    return await _answer(reader)
                except (OSError, EOFError) as error:
                    raise Unanswered(type(error).__name__) from error
        except TimeoutError:
            await self.close()
            raise Unanswered(f"no answer within {ANSWER_SECONDS_MAX:.0f} s") from None
        except (Unanswered, asyncio.CancelledError):
            await self.close()
            raise

    async def _open(self, place: Place) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._reader is None or self._writer is None:
            try:
                self._reader, self._writer = await asyncio.open_connection("127.0.0.1", place.port)
            except OSError as error:
                raise NotSent(type(error).__name__) from error
        return self._reader, self._writer

    async def close(self) -> None:
        writer, self._reader, self._writer = self._writer, None, None
        if writer is not None:
            writer.transport.abort()


async def read_everything(
    places: list[Place], token: str, keys: list[str]
) -> tuple[list[Operation], dict[str, list[str]]]:
    """Read every key on every node, and all that any key ever held on one of them.

    Returns:
        the reads, and of each key its values, oldest first; "" for one that is gone.
    """
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_read_all(place, token, keys, number, len(places))) for number, place in enumerate(places)
        ]
    reads: list[Operation] = []
    versions: dict[str, list[str]] = {}
    for task in tasks:
        reads += task.result()[0]
        versions |= task.result()[1]
    return reads, versions


async def _read_all(
    place: Place, token: str, keys: list[str], number: int, nodes: int
) -> tuple[list[Operation], dict[str, list[str]]]:
    connection = Connection()
    await connection.go_to(place)

    async def read(path: str) -> Any:
        status, answer = await connection.request("GET", f"{MOUNT}/data/{path}", token=token)
        if status not in (200, 404):
            raise Unanswered(f"{place.name} answers {status}: {answer}")
        return answer["data"] if status == 200 else None

    reads, versions = [], {}
    for position, key in enumerate(keys):
        begin = time.monotonic()
        newest = await read(key)
        value = newest["data"]["value"] if newest else None
        reads.append(Operation(key, Kind.READ, begin, time.monotonic(), value))
        if position % nodes == number:
            count = newest["metadata"]["version"] if newest else 0
            held = [await read(f"{key}?version={version}") for version in range(1, count + 1)]
            versions[key] = [each["data"]["value"] if each else "" for each in held]
    await connection.close()
    return reads, versions


async def _answer(reader: asyncio.StreamReader) -> tuple[int, Any]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status = int(head[9:12])
    length = 0
    for line in head.split("\r\n")[1:]:
        name, _, value = line.partition(":")
        if name.lower() == "content-length":
            length = int(value)
    text = await reader.readexactly(length)
    return status, json.loads(text) if text else None


class Keys:
    """The keys that a group of clients works on; new ones when these have been used enough."""

    def __init__(self, canary: str, name: str) -> None:
        self._canary = canary
        self._name = name
        self._generation = 0
        self._uses: dict[str, int] = {}

    def take(self, chooser: random.Random) -> str:
        """Return a key for one operation."""
        if not self._uses:
            self._generation += 1
            folder = f"{self._canary}-{self._name}-{self._generation}"
            self._uses = {f"{folder}/{number}": 0 for number in range(KEYS_OF_A_GROUP)}
        key = chooser.choice(list(self._uses))
        self._uses[key] += 1
        if self._uses[key] >= OPERATIONS_OF_A_KEY_MAX:
            del self._uses[key]
        return key


class Load:
    """Clients in a thread, from `with` to the end of its block.

    Args:
        places: the nodes; `only` changes whom the clients use.
        token: may do everything.
        canary: stands in every key and value, to be searched in files.
        seed: for what the clients choose.
    """

    def __init__(self, places: list[Place], token: str, *, canary: str, seed: int, clients: int = CLIENTS) -> None:
        self.history = History()
        self.places = places
        self.keys = [Keys(canary, f"g{number}") for number in range(GROUPS)]
        self.token = token
        self.canary = canary
        self._seed = seed
        self.clients = clients
        self._numbers = 0
        self._ends = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="load")

    def __enter__(self) -> Self:
        # Looking through a history of half a million operations for garbage takes a third of a second, in which no client
        # asks and no answer is taken in: it would count as the cluster's.
        gc.disable()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.end()
        finally:
            gc.enable()

    def only(self, places: list[Place]) -> None:
        """Let the clients use these nodes from their next operation on."""
        self.places = places

    def end(self) -> None:
        """Let every client finish what it has begun.

        Raises:
            Exception: a client met what it had no rule for.
        """
        self._ends.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    @property
    def is_ending(self) -> bool:
        return self._ends.is_set()

    def new_value(self) -> str:
        """Return a value that was never written before."""
        self._numbers += 1
        return f"{self.canary}-{self._numbers}"

    def _run(self) -> None:
        try:
            asyncio.run(self._run_clients())
        except BaseException as error:  # noqa: BLE001  # handed to the thread that waits for this one
            self._error = error

    async def _run_clients(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(self.clients):
                chooser = random.Random(f"{self._seed}/{number}")
                group.create_task(Client(self, number, chooser).run())


class Client:
    """One client: one operation after the other."""

    def __init__(self, load: Load, number: int, chooser: random.Random) -> None:
        self.load = load
        self.history = load.history
        self.number = number
        self.keys = load.keys[number % GROUPS]
        self.chooser = chooser
        self.connection = Connection()
        self.away = 0

    async def run(self) -> None:
        """Work until the load ends."""
        steps: list[Callable[[str], Coroutine[Any, Any, object]]] = [
            self.write,
            self.read,
            self.compare_and_set,
            self.list_beside,
            self.use_a_token,
        ]
        weights = [50, 30, 14, 3, 6 if self.number >= self.load.clients // 2 else 0]
        while not self.load.is_ending:
            await self._choose_node()
            (step,) = self.chooser.choices(steps, weights)
            try:
                await step(self.keys.take(self.chooser))
            except NotSent:
                self._leave()
            except Unanswered as error:
                self._note(self.history.failures, str(error))
                self._leave()
            if self.away == OPERATIONS_AWAY:
                await asyncio.sleep(PAUSE_SECONDS)
        await self.connection.close()

    async def _choose_node(self) -> None:
        """Use this client's own node, or for a while another one."""
        places = self.load.places
        home = places[self.number // GROUPS % len(places)]
        if self.away == OPERATIONS_AWAY:
            others = [place for place in places if place != self.connection.place]
            await self.connection.go_to(self.chooser.choice(others or places))
        elif self.away == 0 or self.connection.place not in places:
            await self.connection.go_to(home)
        self.away = max(0, self.away - 1)

    def _leave(self) -> None:
        self.away = OPERATIONS_AWAY

    async def write(self, key: str, cas: int | None = None, expected: str | None = None) -> None:
        """Write a new value, if a version is given only in its place."""
        kind = Kind.WRITE if cas is None else Kind.CAS
        sent = Operation(key, kind, time.monotonic(), UNKNOWN, self.load.new_value(), expected)
        fields: dict[str, Any] = {"data": {"value": sent.value}}
        if cas is not None:
            fields["options"] = {"cas": cas}
        try:
            status, answer = await self._ask("POST", f"{MOUNT}/data/{key}", fields)
        except Unanswered:
            self.history.operations.append(sent)
            raise
        operation = Operation(key, kind, sent.begin, time.monotonic(), sent.value, expected, status == 200)
        if status == 200:
            self.history.wrote(operation, answer["data"]["version"])
        elif status == 400 and cas is not None and "check-and-set" in str(answer):
            self.history.operations.append(operation)
        else:
            self._surprised(f"a write was answered {status}: {answer}")

    async def read(self, key: str) -> tuple[str | None, int]:
        """Read a key, and return its value and version; None and 0 if it is not there."""
        begin = time.monotonic()
        status, answer = await self._ask("GET", f"{MOUNT}/data/{key}")
        value, version = None, 0
        if status == 200:
            value, version = answer["data"]["data"]["value"], answer["data"]["metadata"]["version"]
        elif status != 404:
            self._surprised(f"a read was answered {status}: {answer}")
            return None, 0
        self.history.operations.append(Operation(key, Kind.READ, begin, time.monotonic(), value))
        return value, version

    async def compare_and_set(self, key: str) -> None:
        """Write in place of what was read a moment before."""
        value, version = await self.read(key)
        await self.write(key, version, value)

    async def list_beside(self, key: str) -> None:
        """List the keys beside a key."""
        folder, _, name = key.rpartition("/")
        begin = time.monotonic()
        status, answer = await self._ask("GET", f"{MOUNT}/metadata/{folder}?list=true")
        if status not in (200, 404):
            self._surprised(f"a listing was answered {status}: {answer}")
            return
        is_there = status == 200 and name in answer["data"]["keys"]
        self.history.operations.append(Operation(key, Kind.LIST, begin, time.monotonic(), succeeded=is_there))

    async def use_a_token(self, _: str) -> None:
        """Make a token, see that any node knows it, revoke it, see that none does."""
        status, answer = await self._ask("POST", "auth/token/create", {"ttl": "1h", "policies": ["default"]})
        if status != 200:
            self._surprised(f"the making of a token was answered {status}: {answer}")
            return
        token = answer["auth"]["client_token"]
        await self._expect_of_token(token, 200)
        status, answer = await self._ask("POST", "auth/token/revoke", {"token": token})
        if status != 204:
            self._surprised(f"a revocation was answered {status}: {answer}")
            return
        await self._expect_of_token(token, 403)

    async def _expect_of_token(self, token: str, expected: int) -> None:
        self.away = max(self.away, 1)
        await self.connection.go_to(self.chooser.choice(self.load.places))
        status, answer = await self._ask("GET", "auth/token/lookup-self", token=token)
        if status != expected:
            self._surprised(f"a token that should be answered {expected} was answered {status}: {answer}")

    async def _ask(self, method: str, path: str, fields: Any = None, token: str = "") -> tuple[int, Any]:
        """Send one request; a 503 tells as little as no answer.

        Raises:
            NotSent, Unanswered: see there.
        """
        try:
            status, answer = await self.connection.request(method, path, fields, token or self.load.token)
        except NotSent:
            self.history.answers[UNREACHED] += 1
            raise
        self.history.answers[str(status)] += 1
        if status == 503:
            errors = (answer or {}).get("errors") or [""]
            if "sealed" in errors[0]:
                raise NotSent(errors[0])
            raise Unanswered(f"503 {errors[0]}")
        return status, answer

    def _surprised(self, what: str) -> None:
        self._note(self.history.surprises, what)

    def _note(self, moments: list[Moment], what: str) -> None:
        moments.append(Moment(time.monotonic(), self.connection.place.name if self.connection.place else "", what))
