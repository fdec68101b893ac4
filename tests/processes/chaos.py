"""One run: a cluster of real nodes, a load on it, faults one after the other, and the judgement at the end.

Each fault is a method of `Run` that does its harm, waits for the cluster to be whole again, and leaves it so; `RANDOM_FAULTS`
says which a run without a plan draws from. Beside what `history.judge` says, a run fails if

* fewer than `RATE_MIN` writes a second were accepted, all in all: a cluster that stands still proves nothing,
* any log of a node holds a traceback, or any file of its data something that clients have sent,
* a node's memory or files have grown beyond their bounds,
* a token ended early, late or not for good because a clock jumped.
"""

import asyncio
import contextlib
import os
import random
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import lmdb
from msgspec import Struct, field

from conclave.storage.environment import LMDB_FILE
from conclave.storage.state import TABLES
from tests.processes.faults import SickDisk, SmallDisk, WallClock, rot, rot_records, wipe
from tests.processes.history import judge
from tests.processes.load import MOUNT, Load, places_of, read_everything
from tests.processes.nodes import Cluster, Node, wait_until
from tests.processes.wires import Wires, both_ways
from tests.simulator.linearizability import Kind

NAMES: Final = ("a", "b", "c")
FOURTH: Final = "d"
UNHEALTHY: Final = 474
"""What health says of a node that cannot do its part."""
RATE_MIN: Final = 5
ROTTING_BYTES_MIN: Final = 64 << 10
"""A state that holds less has just been begun: its records are in the log, and memory, only."""
MEMORY_BYTES_MAX: Final = 256 << 20
FILE_BYTES_MAX: Final = 512 << 20
STATE_SHARE_MAX: Final = 1.75
STATE_SLACK_BYTES: Final = 64 << 20
"""Of a state's file, if that is more than other files may take, beside so many times what it holds: while a snapshot of it
is sent, no page that is given up is used again, and how long that takes grows with the state. Less than the 682 MiB for
340 that a reader left which was kept too long."""
VERSIONS_MAX: Final = 400
"""More than a key ever gets: all of them are read at the end."""
ACCEPTED_SECONDS_MAX: Final = 30.0
HARM_SECONDS: Final = 2.0
"""How long a harm lasts, and what clients feel of it is measured; time for two elections."""
DELAY_SECONDS: Final = 0.04
JUMP_HOURS_MAX: Final = 20
"""Below a day: so far apart the clocks of nodes may be that accept each other's certificates."""
LASTING_TTL: Final = "30m"
BRIEF_TTL: Final = "2s"
BRIEF_SECONDS_MAX: Final = 10.0
"""When a token of that lifetime is over at the latest, asked on a machine that has other work."""


class Event(Struct, frozen=True):
    """One fault and what clients felt of it; moments are seconds of `time.monotonic`.

    Attributes:
        gap_seconds: the longest time without an accepted write while the harm lasted.
        pause_seconds: the same until all was whole again, with new processes that want the same cores.
        failed: requests to nodes that were not harmed themselves that got no answer, or a 503.
    """

    fault: str
    node: str
    has_led: bool
    at: float
    ended_at: float
    gap_seconds: float
    pause_seconds: float
    failed: list[str]


class Verdict(Struct, frozen=True):
    """What came of a run."""

    complaints: list[str]
    events: list[Event]
    operations: int
    accepted: int
    keys: int
    seconds: float
    answers: dict[str, int]
    notes: list[str] = field(default_factory=list)


class Surroundings(Struct, frozen=True):
    """What can fail nodes, by name of the node, beside the wires."""

    sick_disks: dict[str, SickDisk]
    small_disks: dict[str, SmallDisk]
    clocks: dict[str, WallClock]

    def environment(self, name: str) -> dict[str, str]:
        """Return what a node's process has to know of them."""
        known = self.sick_disks[name].environment
        return {**known, **self.clocks[name].environment} if self.clocks else known


class Run:
    """A cluster under load.

    Args:
        cluster: started.
        load: started.
        wires: between the nodes, if they can be cut.
        surroundings: what else can fail the nodes.
        chooser: chooses victims.
    """

    def __init__(
        self, cluster: Cluster, load: Load, wires: Wires | None, surroundings: Surroundings, chooser: random.Random
    ) -> None:
        self.cluster = cluster
        self.load = load
        self.wires = wires
        self.surroundings = surroundings
        self.places = load.places
        self.chooser = chooser
        self.harm_seconds = HARM_SECONDS
        self.events: list[Event] = []
        self.complaints: list[str] = []
        self.notes: list[str] = []
        self.observed_at = 0.0
        self.began_at = time.monotonic()

    # -- the frame of every fault --

    @contextlib.contextmanager
    def fault(self, name: str, node: Node, *more: Node) -> Iterator[None]:
        """Measure what clients of the other nodes feel of a fault, and wait until writes are accepted again."""
        has_led = node.health() == 200
        at = time.monotonic()
        self.observed_at = 0.0
        yield
        self.wait_accepted(time.monotonic())
        ended_at = time.monotonic()
        history = self.load.history
        before = max((moment for moment in history.accepted_at if moment <= at), default=at)
        harmed = {each.name for each in (node, *more)}
        failed = [moment for moment in history.failures_between(at, ended_at) if moment.node not in harmed]
        self.events.append(
            Event(
                name,
                node.name,
                has_led,
                at,
                ended_at,
                history.pause(before, self.observed_at or ended_at),
                history.pause(before, ended_at),
                [f"{moment.node}: {moment.what}" for moment in failed],
            )
        )

    def observe(self) -> None:
        """Let the harm last, and wait for a write that was accepted all the same."""
        self.observed_at = self.wait_accepted(time.monotonic() + self.harm_seconds)

    def wait_accepted(self, since: float) -> float:
        """Wait for a write that was accepted after a moment, and return when."""
        seconds_max = ACCEPTED_SECONDS_MAX + max(0, since - time.monotonic())
        found: float = wait_until(lambda: self.load.history.first_accepted(since), "a write is accepted", seconds_max)
        return found

    def any_node(self) -> Node:
        """Choose a victim: two times in three the leader."""
        return self.chooser.choice([self.cluster.leader(), self.chooser.choice(self.cluster.nodes)])

    def others(self, node: Node) -> list[Node]:
        """Return the other nodes."""
        return [each for each in self.cluster.nodes if each is not node]

    def restart(self, node: Node) -> None:
        """Start a node that has ended, and unseal it."""
        node.start()
        self.cluster.unseal(node)

    # -- processes --

    def kill(self, victim: Node | None = None) -> None:
        """SIGKILL; writes are accepted again before it is started.

        It has caught up at the end: until then the cluster lacks a node already, and the next to fail is one too many.
        """
        node = victim or self.any_node()
        with self.fault("kill", node):
            node.end(signal.SIGKILL)
            self.observe()
            self.restart(node)
            self.wait_whole()

    def freeze(self, victim: Node | None = None) -> None:
        """SIGSTOP, and SIGCONT when others have gone on."""
        node = victim or self.any_node()
        with self.fault("freeze", node):
            node.send(signal.SIGSTOP)
            self.observe()
            node.send(signal.SIGCONT)
            self.wait_whole()

    def terminate(self, victim: Node | None = None) -> None:
        """SIGTERM, and a new process."""
        node = victim or self.any_node()
        with self.fault("terminate", node):
            assert node.end(signal.SIGTERM) == 0, f"{node.name} did not end cleanly"
            self.observe()
            self.restart(node)

    def step_down(self, victim: Node | None = None) -> None:
        """Hand leadership over on request."""
        node = victim or self.cluster.leader()
        with self.fault("step down", node):
            status, answer = node.request("PUT", "sys/step-down", token=self.cluster.token)
            assert status == 204, answer
            self.observe()

    def leave_sealed(self) -> None:
        """A node that was killed comes back sealed; with another one dead, its vote and its log are needed."""
        sealed = self.any_node()
        other = self.chooser.choice(self.others(sealed))
        with self.fault("sealed, then kill", other, sealed):
            sealed.end(signal.SIGKILL)
            sealed.start()
            self.wait_caught_up(sealed)
            other.end(signal.SIGKILL)
            self.observe()
            other.start()
            for node in (sealed, other):
                self.cluster.unseal(node)
            self.wait_whole()

    def roll(self) -> None:
        """Restart every node, one after the other, each when the one before is back."""
        for node in self.cluster.nodes:
            with self.fault("rolling restart", node):
                assert node.end(signal.SIGTERM) == 0, f"{node.name} did not end cleanly"
                self.restart(node)
                self.wait_whole()

    def kill_all(self) -> None:
        """A power cut: every process at once."""
        with self.fault("kill all", self.cluster.leader(), *self.cluster.nodes):
            for node in self.cluster.nodes:
                node.send(signal.SIGKILL)
            for node in self.cluster.nodes:
                node.end(signal.SIGKILL)
                node.start()
            for node in self.cluster.nodes:
                self.cluster.unseal(node)

    # -- wires --

    def cut_off(self, victim: Node | None = None) -> None:
        """Cut a node off from both others, then let it come back."""
        self._with_wires("cut off", victim, lambda node, others: self.the_wires.cut(*both_ways(node, *others)))

    def cut_one_way(self) -> None:
        """Let nothing that a node sends reach anybody; it hears all."""
        self._with_wires(
            "deaf ears", None, lambda node, others: self.the_wires.cut(*((node, other) for other in others))
        )

    def cut_one_link(self) -> None:
        """Cut the wire between two nodes; the third reaches both."""
        self._with_wires("one link", None, lambda node, others: self.the_wires.cut(*both_ways(node, others[0])))

    def slow_down(self) -> None:
        """Let everything between a node and the others take longer."""
        self._with_wires(
            "delay", None, lambda node, others: self.the_wires.delay(DELAY_SECONDS, *both_ways(node, *others))
        )

    def _with_wires(self, name: str, victim: Node | None, harm: Callable[[str, list[str]], None]) -> None:
        node = victim or self.any_node()
        others = [other.name for other in self.others(node)]
        self.chooser.shuffle(others)
        with self.fault(name, node):
            harm(node.name, others)
            self.observe()
            self.the_wires.heal()
            self.wait_whole()

    @property
    def the_wires(self) -> Wires:
        """The wires of a cluster that has some."""
        assert self.wires is not None, "this cluster has no wires that can be cut"
        return self.wires

    # -- disks and members --

    def fill_disk(self) -> None:
        """Leave a node no room to write; it comes back by itself when it has some."""
        disks = self.surroundings.small_disks
        name = self.chooser.choice(list(disks))
        node = next(node for node in self.cluster.nodes if node.name == name)
        with self.fault("full disk", node):
            disks[name].fill()
            self.observe()
            disks[name].free()
            self.wait_whole()

    def hang_disk(self, victim: Node | None = None) -> None:
        """Let no sync of a node's log end; it comes back by itself when they do."""
        node = victim or self.any_node()
        disk = self.surroundings.sick_disks[node.name]
        with self.fault("disk hangs", node):
            disk.hang()
            self.observe()
            disk.heal()
            self.wait_whole()

    def fail_disk(self, victim: Node | None = None) -> None:
        """Let every sync of a node's log fail: it stays up and takes no part, though the disk is well, until a restart."""
        node = victim or self.any_node()
        disk = self.surroundings.sick_disks[node.name]
        with self.fault("disk fails", node):
            disk.fail()
            self.observe()
            wait_until(lambda: node.health() == UNHEALTHY, f"{node.name} says that its disk failed")
            disk.heal()
            self.wait_accepted(time.monotonic())
            if node.health() != UNHEALTHY:
                self.complaints.append(f"{node.name} goes on after a sync that failed")
            assert node.end(signal.SIGTERM) == 0, f"{node.name} did not end cleanly"
            self.restart(node)
            self.wait_whole()

    def rot_log(self) -> None:
        """Damage the log of a stopped follower: it notices, or what it shows is right; then it is replaced."""
        node = self.chooser.choice(self.cluster.standbys())
        with self.fault("rotten log", node):
            node.end(signal.SIGKILL)
            rot(max(node.data.glob("log/*.log")), self.chooser)
            with contextlib.suppress(AssertionError):  # it may refuse to start at all
                node.start()
            self._replace(node)

    def rot_state(self) -> None:
        """Damage records of a stopped node's state: what it shows is right, it says so, and it is replaced."""
        node = self.any_node()
        with self.fault("rotten state", node):
            wait_until(
                lambda: _live_bytes(node.data / "state") > ROTTING_BYTES_MIN, f"{node.name} has flushed its state"
            )
            assert node.end(signal.SIGTERM) == 0, f"{node.name} did not end cleanly"
            rot_records(node.data / "state", self.chooser)
            node.start()
            node.request("PUT", "sys/unseal", {"key": self.cluster.key})
            wait_until(lambda: node.health() == UNHEALTHY, f"{node.name} says that its state is damaged")
            self.observe()
            self._replace(node)

    def replace_member(self) -> None:
        """Remove a member, wipe its disk, and let it join anew."""
        node = self.any_node()
        with self.fault("replace", node):
            self._replace(node)

    def demote_and_promote(self) -> None:
        """Take a member's vote for a while."""
        node = self.any_node()
        with self.fault("demote", node):
            self._change_member("demote", node)
            wait_until(lambda: self._voters() == len(self.cluster.nodes) - 1, f"{node.name} votes no more")
            self.observe()
            self._change_member("promote", node)
            self.wait_whole()

    def grow_and_shrink(self) -> None:
        """Let a fourth node join, vote and answer clients, and remove it again."""
        nodes = self.cluster.nodes
        node = Node(self.cluster.folder, FOURTH, more_environment=self.surroundings.environment(FOURTH))
        with self.fault("fourth node", node):
            nodes.append(node)
            node.start()
            self.cluster.join(node, self.cluster.leader())
            self.wait_caught_up(node)
            self._change_member("promote", node)
            self.wait_whole()
            self.load.only(places_of(nodes))
            self.observe()
            self.load.only(self.places)
            self._change_member("remove-peer", node)
            assert node.end(signal.SIGTERM) == 0, f"{node.name} did not end cleanly"
            nodes.remove(node)
            self.wait_whole()
        self.complaints += [*self._logs(node), *self._canaries(node)]
        shutil.rmtree(node.data)

    def _replace(self, node: Node) -> None:
        self._change_member("remove-peer", node)
        node.end(signal.SIGTERM)
        wipe(node.data)
        node.start()
        self.cluster.join(node, self.cluster.leader())
        self.wait_whole()

    def _change_member(self, change: str, node: Node) -> None:
        """Ask another node for a change until it says that it is made."""

        def is_changed() -> bool:
            body = {"server_id": node.name}
            asked = self.others(node)[0]
            return asked.request("POST", f"sys/storage/raft/{change}", body, self.cluster.token)[0] == 204

        wait_until(is_changed, f"{change} {node.name}")

    # -- clocks --

    def jump_clock(self) -> None:
        """Set a node's clock hours ahead or back while it runs, and right again; no token ends early, late or for a while."""
        node = self.any_node()
        clock = self.surroundings.clocks[node.name]
        seconds = self.chooser.choice((-1, 1)) * self.chooser.randrange(3600, JUMP_HOURS_MAX * 3600)
        lasting = self._make_token(LASTING_TTL)
        with self.fault("clock ahead" if seconds > 0 else "clock back", node):
            clock.jump(seconds)
            brief = self._make_token(BRIEF_TTL)
            began_at = time.monotonic()
            self.observe()
            self._expect_of_tokens(f"{seconds / 3600:+.1f} h at {node.name}", [lasting], 200)
            wait_until(lambda: self._is_over(brief), "a brief token is over")
            if time.monotonic() - began_at > BRIEF_SECONDS_MAX:
                self.complaints.append(f"a token of {BRIEF_TTL} took {time.monotonic() - began_at:.0f} s to end")
            clock.back()
            self.wait_whole()
            self._expect_of_tokens(f"{node.name} is right again", [lasting], 200)
            self._expect_of_tokens(f"{node.name} is right again", [brief], 403)

    def _make_token(self, ttl: str) -> str:
        def make() -> str:
            fields = {"ttl": ttl, "policies": ["default"]}
            status, answer = self.cluster.leader().request("POST", "auth/token/create", fields, self.cluster.token)
            return str(answer["auth"]["client_token"]) if status == 200 else ""

        token: str = wait_until(make, "a token is made")
        return token

    def _is_over(self, token: str) -> bool:
        return self._status(self.chooser.choice(self.cluster.nodes), token) == 403

    def _expect_of_tokens(self, when: str, tokens: list[str], expected: int) -> None:
        for node in self.cluster.nodes:
            for token in tokens:
                status = self._status(node, token)
                if status != expected:
                    self.complaints.append(f"{node.name} answered {status} to a token, not {expected}, while {when}")

    def _status(self, node: Node, token: str) -> int:
        """Return what a node says of a token, once it says anything."""

        def ask() -> int:
            status = node.request("GET", "auth/token/lookup-self", token=token)[0]
            return status if status in (200, 403) else 0

        status: int = wait_until(ask, f"{node.name} answers to a token")
        return status

    # -- being whole again --

    def wait_caught_up(self, node: Node) -> None:
        """Wait until a node, sealed or not, holds what the leader had committed a moment ago, as the leader knows."""
        index = self.cluster.leader().request("GET", "sys/leader")[1]["raft_committed_index"]
        wait_until(lambda: self._last_index(node) >= index, f"{node.name} has caught up")

    def _last_index(self, node: Node) -> int:
        path = "sys/storage/raft/autopilot/state"
        status, answer = self.cluster.leader().request("GET", path, token=self.cluster.token)
        servers = answer["data"]["servers"] if status == 200 else {}
        return int(servers[node.name]["last_index"]) if node.name in servers else 0

    def wait_serving(self, node: Node) -> None:
        """Wait until a node answers requests."""
        wait_until(lambda: node.request("GET", "sys/health?standbyok=true")[0] == 200, f"{node.name} serves")

    def wait_whole(self) -> None:
        """Wait until every node serves, votes, and has caught up."""
        for node in self.cluster.nodes:
            self.wait_serving(node)
        wait_until(lambda: self._voters() == len(self.cluster.nodes), "all nodes vote")
        for node in self.cluster.nodes:
            self.wait_caught_up(node)

    def _voters(self) -> int:
        leader = self.cluster.leader()
        status, answer = leader.request("GET", "sys/storage/raft/configuration", token=self.cluster.token)
        return sum(each["voter"] for each in answer["data"]["config"]["servers"]) if status == 200 else 0

    # -- the end --

    def finish(self) -> Verdict:
        """End the load, read everything on every node, and judge."""
        self.wait_whole()
        self.load.end()
        seconds = time.monotonic() - self.began_at
        history = self.load.history
        # Every key that was ever sent, so that a write nobody heard of is found as well.
        keys = sorted({operation.key for operation in history.operations if operation.kind in (Kind.WRITE, Kind.CAS)})
        reads, versions = asyncio.run(read_everything(self.places, self.cluster.token, keys))
        history.operations += reads
        complaints = [*self.complaints, *judge(history, versions), *self._bounds()]
        for node in self.cluster.nodes:
            complaints += [*self._logs(node), *self._canaries(node)]
        if len(history.accepted_at) < RATE_MIN * seconds:
            complaints.append(f"only {len(history.accepted_at)} writes were accepted in {seconds:.0f} s")
        return Verdict(
            complaints,
            self.events,
            len(history.operations),
            len(history.accepted_at),
            len(keys),
            seconds,
            dict(history.answers),
            [*self.notes, f"load average at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"],
        )

    def _bounds(self) -> list[str]:
        complaints = []
        for node in self.cluster.nodes:
            assert node.process is not None
            status = Path(f"/proc/{node.process.pid}/status").read_text().splitlines()
            memory = next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon:"))
            if memory > MEMORY_BYTES_MAX:
                complaints.append(f"{node.name} holds {memory >> 20} MiB of memory")
            sizes = {file.relative_to(node.folder): file.stat().st_blocks * 512 for file in _files(node)}
            state = node.data / "state"
            live = _live_bytes(state)
            state_bound = max(FILE_BYTES_MAX, int(STATE_SHARE_MAX * live) + STATE_SLACK_BYTES)
            bounds = {(state / LMDB_FILE).relative_to(node.folder): state_bound}
            complaints += [
                f"{name} takes {size >> 20} MiB"
                for name, size in sizes.items()
                if size > bounds.get(name, FILE_BYTES_MAX)
            ]
            largest = max(sizes, key=lambda name: sizes[name])
            self.notes.append(
                f"{node.name} holds {memory >> 20} MiB; its state {live >> 20} MiB; "
                f"{largest} takes {sizes[largest] >> 20} MiB"
            )
        return complaints

    def _logs(self, node: Node) -> list[str]:
        return [f"{node.name} has logged a traceback"] if "Traceback" in node.log.read_text() else []

    def _canaries(self, node: Node) -> list[str]:
        secret = (self.load.canary.encode(), self.cluster.token.encode(), self.cluster.key.encode())
        return [
            f"{file.name} of {node.name} holds a canary"
            for file in (*_files(node), node.log)
            if any(each in file.read_bytes() for each in secret)
        ]


def _live_bytes(folder: Path) -> int:
    """Return how many bytes of a state's file are in use; the rest is used again."""
    with lmdb.open(str(folder), readonly=True, max_dbs=len(TABLES)) as env, env.begin() as transaction:
        stats = [transaction.stat(env.open_db(name.encode(), transaction, create=False)) for name in TABLES]
    return sum(each["psize"] * (each["branch_pages"] + each["leaf_pages"] + each["overflow_pages"]) for each in stats)


def _files(node: Node) -> list[Path]:
    return [path for path in node.data.rglob("*") if path.is_file()]


RANDOM_FAULTS: Final[dict[str, Callable[[Run], None]]] = {
    "kill": Run.kill,
    "freeze": Run.freeze,
    "terminate": Run.terminate,
    "step-down": Run.step_down,
    "leave-sealed": Run.leave_sealed,
    "roll": Run.roll,
    "kill-all": Run.kill_all,
    "cut-off": Run.cut_off,
    "cut-one-way": Run.cut_one_way,
    "cut-one-link": Run.cut_one_link,
    "slow-down": Run.slow_down,
    "fill-disk": Run.fill_disk,
    "rot-log": Run.rot_log,
    "rot-state": Run.rot_state,
    "replace-member": Run.replace_member,
    "hang-disk": Run.hang_disk,
    "fail-disk": Run.fail_disk,
    "jump-clock": Run.jump_clock,
    "demote-and-promote": Run.demote_and_promote,
    "grow-and-shrink": Run.grow_and_shrink,
}


@contextlib.contextmanager
def running(
    folder: Path, seed: int, *, has_wires: bool = True, has_small_disks: bool = False, has_clocks: bool = False
) -> Iterator[Run]:
    """Yield a run on a new cluster, and end all of it.

    Raises:
        OSError: clocks are wanted, and there is no libfaketime; or small disks, and this user may not mount.
    """
    chooser = random.Random(seed)
    with contextlib.ExitStack() as stack:
        wires = stack.enter_context(Wires(NAMES)) if has_wires else None
        around = Surroundings(
            {name: SickDisk(folder / f"disk-{name}") for name in (*NAMES, FOURTH)},
            {},
            {name: WallClock(folder / f"clock-{name}") for name in (*NAMES, FOURTH)} if has_clocks else {},
        )
        for name in NAMES if has_small_disks else ():
            around.small_disks[name] = SmallDisk(folder / f"data-{name}")
            stack.callback(around.small_disks[name].close)
        cluster = Cluster(folder)
        ports = wires.ports if wires is not None else {}
        cluster.nodes = [
            Node(folder, name, known_port=ports.get(name, 0), more_environment=around.environment(name))
            for name in NAMES
        ]
        if wires is not None:
            wires.connect(cluster.nodes)
        stack.callback(cluster.stop)
        cluster.start()
        body = {"max_versions": VERSIONS_MAX}
        status, answer = cluster.leader().request("POST", f"{MOUNT}/config", body, cluster.token)
        assert status in (200, 204), answer
        places = places_of(cluster.nodes)
        load = Load(places, cluster.token, canary=f"canary{secrets.token_hex(8)}", seed=seed)
        stack.enter_context(load)
        run = Run(cluster, load, wires, around, chooser)
        run.wait_accepted(run.began_at)
        yield run


def can_have_small_disks() -> bool:
    """Tell whether this user may mount."""
    folder = Path(tempfile.mkdtemp(prefix="conclave-chaos-"))
    try:
        SmallDisk(folder / "disk").close()
    except OSError:
        return False
    finally:
        shutil.rmtree(folder)
    return True
