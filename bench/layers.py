"""Each layer alone, in one process: what a piece costs before anything is built on it.

A figure is microseconds of an operation: the median of several repetitions of many operations, with the spread of the
middle half. Disk layers use the disk that the temporary folder lies on.
"""

import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final, cast

from uvicorn.config import Config

from bench.commits import commit
from bench.figures import REPETITIONS, Figure
from conclave.api.app import new_app
from conclave.api.handler import Handler
from conclave.api.protocol import FastLaneProtocol, Shared
from conclave.core.acl import Acl
from conclave.core.contract import Operation, Request, Response
from conclave.core.metrics import Metrics
from conclave.core.outcomes import Outcome
from conclave.core.policies import parse_policy
from conclave.core.revocation import tokens_of
from conclave.core.services import AREA_TOKENS
from conclave.storage.barrier import Barrier
from conclave.storage.file_log import FileLog
from conclave.storage.keyring import Keyring
from conclave.storage.overlay import Overlay
from conclave.storage.state import LmdbState
from conclave.storage.transaction import Transaction
from conclave.storage.tree import Directory
from conclave.storage.writeset import WriteSet
from tests.clients import auth_of
from tests.cluster.raft.harness import Cluster as Cores
from tests.fakes import started_vault

SECONDS_OF_A_REPETITION: Final = 0.15
LOCATION: Final = bytes(32)
ROOT: Final = bytes(16)
CLIENTS: Final = 16
"""Connections that ask at once."""
ENTRIES_OF_A_CORE: Final = 10_000
"""A core's log is compacted when it has grown by so much."""


def _measure(layer: str, name: str, operate: Callable[[], object], operations: int = 1) -> Figure:
    """Time an operation; `operations` says how many of them one call does."""
    operate()
    calls = 1
    started = time.perf_counter()
    while time.perf_counter() - started < SECONDS_OF_A_REPETITION / 4:
        operate()
        calls += 1
    times, cpu_times = [], []
    for _ in range(REPETITIONS):
        started, cpu_started = time.perf_counter(), time.thread_time()
        for _ in range(4 * calls):
            operate()
        times.append((time.perf_counter() - started) / (4 * calls * operations) * 1e6)
        cpu_times.append((time.thread_time() - cpu_started) / (4 * calls * operations) * 1e6)
    first, median, third = statistics.quantiles(times, n=4)
    return Figure(layer, name, median, third - first, min(cpu_times))


def barrier() -> Iterator[Figure]:
    """Seal and open records of several sizes."""
    shield = Barrier(Keyring.generate(0))
    for size in (100, 1024, 65_536):
        plaintext = random.randbytes(size)
        sealed = shield.seal_record(LOCATION, plaintext)
        yield _measure("barrier", f"seal {size} B", lambda p=plaintext: shield.seal_record(LOCATION, p))  # type: ignore[misc]
        yield _measure("barrier", f"open {size} B", lambda s=sealed: shield.open_record(LOCATION, s))  # type: ignore[misc]


@contextmanager
def _filled_tree(names: int) -> Iterator[tuple[Overlay, Barrier]]:
    """Yield a state on disk with so many records in one directory, and in one eight levels deep."""
    shield = Barrier(Keyring.generate(0))
    with tempfile.TemporaryDirectory(prefix="conclave-bench-") as folder:
        state = LmdbState(Path(folder) / "state")
        overlay = Overlay(state)
        for start in range(0, names, 500):
            transaction = Transaction(overlay, uncommitted=True)
            tree = Directory(transaction, shield, ROOT)
            for number in range(start, min(start + 500, names)):
                tree.put(f"wide/n{number}", b"x" * 100)
            tree.put("a/b/c/d/e/f/g/h", b"x" * 100)
            write_set = transaction.write_set(1)
            assert write_set is not None, "it holds what was put"
            overlay.apply(overlay.applied_index + 1, 1, write_set.encode())
            job = overlay.begin_flush()
            assert job is not None, "there is something to flush"
            job.run()
            overlay.finish_flush(job)
        try:
            yield overlay, shield
        finally:
            state.close()


def tree() -> Iterator[Figure]:
    """Read, write and list the sealed tree."""
    with _filled_tree(10_000) as (overlay, shield):
        numbers = [random.randrange(10_000) for _ in range(1000)]

        def reading() -> Directory:  # a new one each time, as for each request: it remembers where things are
            return Directory(Transaction(overlay, uncommitted=False), shield, ROOT)

        def get_many() -> None:
            wide = reading()
            for number in numbers:
                wide.get(f"wide/n{number}")

        def put_many() -> None:
            writing = Directory(Transaction(overlay, uncommitted=True), shield, ROOT)
            for number in numbers:
                writing.put(f"wide/n{number}", b"x" * 100)

        yield _measure("tree", "get, 10k names wide", get_many, operations=1000)
        yield _measure("tree", "get, 8 levels deep", lambda: reading().get("a/b/c/d/e/f/g/h"))
        yield _measure("tree", "put, 10k names wide", put_many, operations=1000)
        yield _measure("tree", "list 10k names, each", lambda: reading().list("wide"), operations=10_000)


def log() -> Iterator[Figure]:
    """Append and sync batches of entries."""
    with tempfile.TemporaryDirectory(prefix="conclave-bench-") as folder:
        store = FileLog(Path(folder) / "log")
        for batch in (1, 16, 64):
            payload = random.randbytes(300)

            def append(batch: int = batch, payload: bytes = payload) -> None:
                first = store.last_index + 1
                store.append((1, 1, first - 1), [(1, first + n, 0, payload) for n in range(batch)])

            yield _measure("log", f"append + sync, batch of {batch}, each entry", append, operations=batch)
        store.close()


def overlay() -> Iterator[Figure]:
    """Apply write sets and flush them to the state."""
    shield = Barrier(Keyring.generate(0))
    with tempfile.TemporaryDirectory(prefix="conclave-bench-") as folder:
        state = LmdbState(Path(folder) / "state")
        memory = Overlay(state)

        def apply_and_flush() -> None:
            for _ in range(500):
                keys = [random.randbytes(32) for _ in range(2)]
                puts = [(key, shield.seal_record(key, b"x" * 100)) for key in keys]
                memory.apply(memory.applied_index + 1, 1, WriteSet(1, puts).encode())
            job = memory.begin_flush()
            assert job is not None, "there is something to flush"
            job.run()
            memory.finish_flush(job)

        yield _measure("overlay", "apply + flush of 500 writes, each", apply_and_flush, operations=500)
        state.close()


def policy() -> Iterator[Figure]:
    """Check a path against compiled policies."""
    text = "\n".join(f'path "secret/data/team{n}/*" {{ capabilities = ["read"] }}' for n in range(50))
    acl = Acl.compile([parse_policy("bench", text)])
    yield _measure("policy", "check, 50 rules, remembered", lambda: acl.check("secret/data/team7/x", Operation.READ))


def token() -> Iterator[Figure]:
    """Find a service token: the first time after a change, and as long as nothing has changed."""
    loop = asyncio.new_event_loop()
    serving = started_vault()
    fake = loop.run_until_complete(serving.__aenter__())
    text = auth_of(loop.run_until_complete(fake.write("auth/token/create", {"policies": ["default"]}))).client_token
    services = fake.vault.services(fake.vault.serving_keys(), fake.store.reading())
    tokens, caches = tokens_of(services), fake.pipeline.caches
    yield _measure("token", "lookup", lambda: tokens.lookup(services.area(AREA_TOKENS), text, services.now_ns))
    yield _measure("token", "lookup, remembered", lambda: tokens.lookup(caches.tokens(services), text, services.now_ns))
    loop.run_until_complete(serving.__aexit__(None, None, None))
    loop.close()


def raft() -> Iterator[Figure]:
    """Steps of the core: three of them, proposals committed and applied everywhere, disks and network left out."""
    for batch in (1, 64):
        group = Cores()
        group.elect(1)
        payloads = [random.randbytes(300) for _ in range(batch)]

        def commit(group: Cores = group, payloads: list[bytes] = payloads) -> None:
            group.members[1].raft.propose(payloads)
            group.settle()
            if group.members[1].storage.last_index() > ENTRIES_OF_A_CORE:
                for member in group.members.values():
                    member.applied.clear()
                    member.storage.compact(member.raft.applied_index)

        yield _measure("raft", f"propose to applied on three cores, {batch} at a time, each", commit, operations=batch)


def http() -> Iterator[Figure]:
    """A request's bytes in, an answer's bytes out, with nothing but an echo behind."""
    body = b'{"data":{"password":"%b"}}' % (b"x" * 100)
    requests = {
        "parse a read, answer 100 B": _request_bytes("GET", "secret/data/bench"),
        "parse a write of 100 B, answer": _request_bytes("PUT", "secret/data/bench", body),
    }
    loop = asyncio.new_event_loop()
    with _connections(loop, Echo()) as clients:
        for name, request in requests.items():
            ask = partial(_ask_at_once, loop, clients, request)
            yield _measure("http", name, ask, operations=CLIENTS)
    loop.close()


def vault() -> Iterator[Figure]:
    """Whole requests from bytes to bytes: token, policies, engine and barrier; one node, no sockets, no disk.

    Requests come from several connections at once; writes are committed without consensus, in the next turn of the loop.
    """
    loop = asyncio.new_event_loop()
    serving = started_vault()
    fake = loop.run_until_complete(serving.__aenter__())

    def ask(path: str, fields: object) -> None:
        loop.run_until_complete(fake.write(path, fields))

    ask("secret/data/bench", {"data": {"password": "x" * 100}})
    loop.run_until_complete(fake.mount("transit/", "transit"))
    ask("transit/keys/bench", {})
    requests = {
        "token lookup-self": _request_bytes("GET", "auth/token/lookup-self", token=fake.root),
        "kv-v2 read": _request_bytes("GET", "secret/data/bench", token=fake.root),
        "transit encrypt": _request_bytes("PUT", "transit/encrypt/bench", b'{"plaintext":"aGVsbG8="}', token=fake.root),
        "kv-v2 write": _request_bytes(
            "PUT", "secret/data/bench", b'{"data":{"password":"%b"}}' % (b"x" * 100), token=fake.root
        ),
        "token create": _request_bytes(
            "PUT", "auth/token/create", b'{"ttl":"1h","policies":["default"]}', token=fake.root
        ),
    }
    with _connections(loop, fake.vault) as clients:
        for name, request in requests.items():
            send = partial(_ask_at_once, loop, clients, request)
            yield _measure("vault", name, send, operations=CLIENTS)
    loop.run_until_complete(serving.__aexit__(None, None, None))
    loop.close()


def _ask_at_once(loop: asyncio.AbstractEventLoop, clients: Sequence[FastLaneProtocol], request: bytes) -> None:
    """Send a request on each connection, and run the loop until all are answered."""
    loop.run_until_complete(_ask(clients, request))


async def _ask(clients: Sequence[FastLaneProtocol], request: bytes) -> None:
    wires = [cast("_Wire", client.transport) for client in clients]
    wanted = sum(wire.answers for wire in wires) + len(wires)
    for client in clients:
        client.data_received(request)
    while sum(wire.answers for wire in wires) < wanted:  # noqa: ASYNC110  # what is waited for are turns of the loop
        await asyncio.sleep(0)


class Echo:
    """Answers everything at once."""

    _data: Final = {"password": "x" * 100}

    def handle(self, request: Request, done: Callable[[Outcome], None], /) -> None:
        """Answer a request."""
        del request
        done(Response(self._data))


class _Wire(asyncio.Transport):
    """A connection whose other end takes everything."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take what was answered."""
        self.answers += 1
        assert bytes(data).startswith(b"HTTP/1.1 2"), bytes(data)

    def is_closing(self) -> bool:
        """Tell that it is open."""
        return False

    def pause_reading(self) -> None:
        """Nothing to do: what is read is handed over by hand."""

    def resume_reading(self) -> None:
        """See `pause_reading`."""


def protocols(handler: Handler) -> Callable[[], FastLaneProtocol]:
    """Return what makes the protocol of each connection to a server with this handler behind it."""
    shared = Shared(handler, Metrics())
    shared.set_date(b"Thu, 01 Jan 1970 00:00:00 GMT")
    config = Config(new_app(shared), lifespan="off", log_config=None)
    return lambda: FastLaneProtocol(config, shared)


@contextmanager
def _connections(loop: asyncio.AbstractEventLoop, handler: Handler) -> Iterator[list[FastLaneProtocol]]:
    """Yield open connections of one server to this handler."""
    asyncio.set_event_loop(loop)
    try:
        new_protocol = protocols(handler)
        clients = [new_protocol() for _ in range(CLIENTS)]
        for client in clients:
            client.connection_made(_Wire())
        yield clients
    finally:
        asyncio.set_event_loop(None)


def _request_bytes(method: str, path: str, body: bytes = b"", *, token: str = "") -> bytes:
    head = f"{method} /v1/{path} HTTP/1.1\r\nHost: 127.0.0.1:8200\r\nX-Vault-Token: {token}\r\n"
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{head}{length}\r\n".encode() + body


LAYERS: Final[dict[str, Callable[[], Iterator[Figure]]]] = {
    "barrier": barrier,
    "tree": tree,
    "log": log,
    "overlay": overlay,
    "policy": policy,
    "token": token,
    "raft": raft,
    "commit": commit,
    "http": http,
    "vault": vault,
}
