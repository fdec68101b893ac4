"""A few cores side by side, for tests that play a history by hand.

Nothing happens by itself: a test delivers, drops, delays and repeats messages, lets ticks pass and decides when a disk
finishes its writes. Disks are instant unless `Member.disk_is_stuck`; a restart keeps what was written and nothing else.
"""

from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

from conclave.cluster.raft import (
    AppendJob,
    ApplyJob,
    ConfState,
    Entry,
    EntryKind,
    Event,
    HardState,
    MemoryStorage,
    Message,
    MessageKind,
    Raft,
    RaftConfig,
    RandomSource,
    ReadState,
    Role,
    Snapshot,
    SnapshotMeta,
    StepError,
    decode_conf_change,
)

ELECTION_TICKS, HEARTBEAT_TICKS, LEASE_TICKS = 10, 2, 4
BASE_INDEX = 1
"""All members start from a snapshot of this index, of term 1."""


class FirstChoice:
    """A random source without surprises: every timeout is the shortest."""

    def randrange(self, stop: int, /) -> int:
        del stop
        return 0


class Member:
    """One core with its disk and its state machine (the list of applied entries)."""

    def __init__(self, cluster: "Cluster", config: RaftConfig, storage: MemoryStorage) -> None:
        self._cluster = cluster
        self._config = config
        self.storage = storage
        self.disk_is_stuck = False
        self._start(config)

    def _start(self, config: RaftConfig) -> None:
        self.raft = Raft(config, self.storage, self._cluster.random_for(config.id))
        self.jobs: list[AppendJob] = []
        self.applied: list[Entry] = []
        self.applies: list[ApplyJob] = []
        self.is_slow_to_apply = False
        self.reads: list[ReadState] = []
        self.events: list[Event] = []

    def restart(self, **settings: Any) -> None:
        """Start again from what was written; the state machine resumes at the snapshot."""
        given = {name: getattr(self._config, name) for name in self._config.__struct_fields__}
        self.disk_is_stuck = False
        self._start(RaftConfig(**{**given, "applied": self.storage.snapshot().meta.index, **settings}))

    def turn(self) -> None:
        """Do all that the core wants done."""
        while self.raft.has_ready():
            ready = self.raft.ready()
            self.events += ready.events
            self.reads += ready.reads
            self._cluster.messages += ready.messages
            if ready.append is not None:
                self.jobs.append(ready.append)
            if not self.disk_is_stuck:
                self.write()
            if ready.apply is not None:
                self.applies.append(ready.apply)
            if not self.is_slow_to_apply:
                self.apply()

    def apply(self) -> None:
        """Apply what waits to be applied."""
        jobs, self.applies = self.applies, []
        for job in jobs:
            for entry in job.entries:
                self.applied.append(entry)
                if entry.kind is not EntryKind.NORMAL:
                    self.raft.apply_conf_change(decode_conf_change(entry))
            for response in job.responses:
                self.raft.step(response)

    def write(self, count: int | None = None) -> None:
        """Make the first `count` waiting writes durable (all by default) and hand out what they promise."""
        done = self.jobs[:count]
        del self.jobs[: len(done)]
        for job in done:
            self.storage.set_hard_state(job.hard_state)
            if job.snapshot is not None:
                self.storage.apply_snapshot(job.snapshot)
            if job.entries:
                self.storage.append(job.entries)
            for response in job.responses:
                if response.to == self.raft.id:
                    self.raft.step(response)
                else:
                    self._cluster.messages.append(response)

    @property
    def values(self) -> list[bytes]:
        """The payloads that were applied, without the markers of new leaders and membership changes."""
        return [entry.data for entry in self.applied if entry.data and entry.kind is EntryKind.NORMAL]

    @property
    def log(self) -> list[tuple[int, int]]:
        """The log behind the first snapshot as (index, term)."""
        log = self.raft.log
        return [(index, log.term(index)) for index in range(log.first_index(), log.last_index() + 1)]


class Cluster:
    """Members and the messages between them, in the order in which they were sent."""

    def __init__(self, voters: int = 3, learners: int = 0, *, seed: int | None = None, **settings: Any) -> None:
        self._seed = seed
        voter_ids = tuple(range(1, voters + 1))
        learner_ids = tuple(range(voters + 1, voters + learners + 1))
        self.messages: list[Message] = []
        self.members: dict[int, Member] = {}
        self._settings = settings
        for member_id in (*voter_ids, *learner_ids):
            self.add(member_id, ConfState(voter_ids, (), learner_ids))

    def add(self, member_id: int, state: ConfState | None = None) -> Member:
        """Start a member from the common snapshot, or with nothing at all."""
        defaults = {"election_ticks": ELECTION_TICKS, "heartbeat_ticks": HEARTBEAT_TICKS}
        config = RaftConfig(id=member_id, **{**defaults, **self._settings})
        snapshot = Snapshot(SnapshotMeta(BASE_INDEX, 1, state)) if state is not None else None
        storage = MemoryStorage(snapshot)
        if snapshot is not None:
            storage.set_hard_state(HardState(1, 0, BASE_INDEX))
        self.members[member_id] = Member(self, config, storage)
        return self.members[member_id]

    def random_for(self, member_id: int) -> RandomSource:
        """Return where a member's timeouts come from: all the same without a seed, all different with one."""
        return FirstChoice() if self._seed is None else Random(1000 * self._seed + member_id)

    def __getitem__(self, member_id: int) -> Raft:
        return self.members[member_id].raft

    def role(self, member_id: int) -> Role:
        """Return what a member is now."""
        return self[member_id].role

    def take(
        self, *kinds: MessageKind, to: int | None = None, source: int | None = None, of: int | None = None
    ) -> list[Message]:
        """Take messages off the network: of these kinds, to or from these members, to or from the member `of`."""
        self.collect()
        taken: list[Message] = []
        rest: list[Message] = []
        for message in self.messages:
            fits = (
                (not kinds or message.kind in kinds)
                and (to is None or message.to == to)
                and (source is None or message.source == source)
                and (of is None or of in (message.to, message.source))
            )
            (taken if fits else rest).append(message)
        self.messages = rest
        return taken

    def deliver(self, *messages: Message) -> None:
        """Give messages to their receivers, and do what follows there."""
        for message in messages:
            if message.to in self.members:
                self[message.to].step(message)
        self.collect()

    def settle(self, drop: Callable[[Message], bool] | None = None) -> None:
        """Deliver everything until nobody has anything to say; what `drop` chooses is lost."""
        self.collect()
        while self.messages:
            message = self.messages.pop(0)
            if drop is not None and drop(message):
                continue
            with suppress(StepError):  # what a core refuses is dropped, as a driver does
                self.deliver(message)

    def settle_without(self, *member_ids: int) -> None:
        """Deliver everything but what goes to or comes from these members."""
        self.settle(lambda message: message.to in member_ids or message.source in member_ids)

    def collect(self) -> None:
        """Let every member do what it has to do; nothing is delivered."""
        for _, member in sorted(self.members.items()):
            member.turn()

    def tick(self, count: int, *member_ids: int) -> None:
        """Let ticks pass, for these members or for all, without delivering anything."""
        for _ in range(count):
            for member_id in member_ids or sorted(self.members):
                self[member_id].tick()
        self.collect()

    def run(self, ticks: int, drop: Callable[[Message], bool] | None = None) -> None:
        """Let time pass for all, with everything delivered in every tick but what `drop` chooses."""
        for _ in range(ticks):
            self.tick(1)
            self.settle(drop)

    @property
    def leaders(self) -> list[int]:
        """Everybody who leads, in whatever term."""
        return [member_id for member_id, member in sorted(self.members.items()) if member.raft.role is Role.LEADER]

    def elect(self, member_id: int) -> None:
        """Let a member win an election in which everybody is heard."""
        self[member_id].campaign()
        self.settle()
        assert self[member_id].role is Role.LEADER, f"{member_id} did not win"

    def propose(self, member_id: int, *values: bytes) -> int:
        """Propose values; return the index of the first. Nothing is delivered."""
        _, index = self[member_id].propose(values)
        self.collect()
        return index


def give_log(member: Member, *terms: int, term: int | None = None, commit: int = BASE_INDEX) -> None:
    """Restart a member with entries of these terms behind the common snapshot, in the last entry's term."""
    member.storage.append([Entry(term, BASE_INDEX + i) for i, term in enumerate(terms, 1)])
    member.storage.set_hard_state(HardState(term if term is not None else max(terms, default=1), 0, commit))
    member.restart()
