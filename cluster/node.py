"""One node's part in the cluster, as the rooms above see it: `Replica`, `Peers` and `Membership` in one object.

    detached ─ bootstrap or join ─▶ taking part ─ removal ─▶ removed
       ▲ no identity in the log        ▲ start() finds the identity again

Who this node is stands in the log environment (`membership.Identity`), in the clear: so a node takes part before anybody
unseals it. Here are only the steps from one of these states to the next; what taking part consists of is in
`participation.py`, one turn of its loop in `driver.py`.

A cluster is founded by one entry that admits its founder, so that everything about the membership is in the log.
"""

import asyncio
import contextlib
import datetime as dt
import logging
import random
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from msgspec import Struct, structs

from conclave.cluster.certificates import (
    MEMBER_VALIDITY,
    client_context,
    days_left,
    new_authority,
    new_private_key,
    new_request,
    server_context,
    sign_request,
)
from conclave.cluster.compaction import TRAILING_ENTRIES
from conclave.cluster.errors import (
    CannotListen,
    ClusterError,
    DiskFailed,
    JoinRefused,
    NoQuorum,
    NotLeader,
    WrongDirectory,
)
from conclave.cluster.frames import Announce, Service
from conclave.cluster.installing import recovery, written
from conclave.cluster.members import new_raft_id
from conclave.cluster.membership import (
    INCARNATION_BYTES,
    RECORD_VERSION,
    Identity,
    Member,
    MembershipRecord,
    change_for,
    decode_identity,
    encode_identity,
    encode_record,
)
from conclave.cluster.participation import Participation
from conclave.cluster.persistence import Append, InlineWriter, Job, Reset, SaveIdentity, ThreadWriter, Writer
from conclave.cluster.raft import ConfChangeKind, ConfState, CorruptLog, encode_conf_change
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
from conclave.cluster.surroundings import REAL, Surroundings
from conclave.cluster.timing import Timing
from conclave.cluster.transport import Local, TlsTransport, Transport, listen
from conclave.storage.log import LogStore
from conclave.storage.state import StateStore

log = logging.getLogger(__name__)

FOUNDING_SECONDS_MAX: Final = 10.0
WRITE_SECONDS_MAX: Final = 30.0
"""How long the disk may take to store who this node is."""
FOUNDING_TERM: Final = 1
NO_HARD_STATE: Final = (0, 0, 0)

T = TypeVar("T")
TransportFactory = Callable[[Identity], Transport]
"""Builds the transport once this node has an identity."""
Handler = Callable[[bytes, str], Awaitable[bytes]]
OpenWriter = Callable[[Callable[[str, bool], None]], Writer]


class NodeSettings(Struct, frozen=True):
    """What an operator may set.

    Attributes:
        performance_multiplier: scales every duration of consensus; 1.0 to 10.0 in Vault's terms, less in tests.
        autopilot: how members are judged and promoted, until the vault says otherwise.
        trailing_entries: how many entries the log keeps for peers that were away.
        certificate_seconds: how long members' certificates are valid; whole seconds.
    """

    performance_multiplier: float = 1.0
    autopilot: AutopilotRules = AutopilotRules()
    trailing_entries: int = TRAILING_ENTRIES
    certificate_seconds: float = MEMBER_VALIDITY.total_seconds()

    @property
    def certificate_validity(self) -> dt.timedelta:
        """How long members' certificates are valid."""
        return dt.timedelta(seconds=self.certificate_seconds)


class Node:
    """A node. Every method runs on the event loop.

    Args:
        node_id: its name, unique in the cluster.
        cluster_address: where its peers find it, "host:port".
        log, state: its storage; not closed with the node.
        machine: hears of committed entries.
        connect: builds the transport.
        settings: see `NodeSettings`.
        use_threads: False writes and reads the storage on the event loop, for storage in memory.
        surroundings: time and randomness.
        open_writer: opens what writes the log, given whom to tell of faults; None: what `use_threads` says.
    """

    def __init__(
        self,
        *,
        node_id: str,
        cluster_address: str,
        log: LogStore,
        state: StateStore,
        machine: StateMachine,
        connect: TransportFactory,
        settings: NodeSettings = NodeSettings(),  # noqa: B008  # frozen
        use_threads: bool = True,
        surroundings: Surroundings = REAL,
        open_writer: OpenWriter | None = None,
    ) -> None:
        self._node_id = node_id
        self._log = log
        self._state = state
        self._machine = machine
        self._connect = connect
        self._settings = settings
        self._rules = settings.autopilot
        self._authority_key: Callable[[], bytes | None] = lambda: None
        self._timing = Timing(settings.performance_multiplier)
        self._use_threads = use_threads
        self._surroundings = surroundings
        self._open_writer = open_writer
        self._executor: ThreadPoolExecutor | None = None
        self._writer: Writer | None = None
        self._identity: Identity | None = None
        self._part: Participation | None = None
        self._is_beginning = False
        self._fault = ""
        self._writing: set[asyncio.Future[None]] = set()
        self._handler: Handler | None = None
        self._announce = Announce(node_id, cluster_address, "", "", "", None, 0, 0, 0)

    async def start(self) -> None:
        """Begin with what the data directory says: detached, a member again, or removed.

        Raises:
            WrongDirectory: it belongs to another node.
            ValueError: its identity is damaged, or a newer version wrote it.
        """
        loop = asyncio.get_running_loop()
        if self._use_threads:
            self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="node")
            self._writer = ThreadWriter(
                self._log, loop.call_soon_threadsafe, self._disk_failed, self._surroundings.clock
            )
        elif self._open_writer is not None:
            self._writer = self._open_writer(self._disk_failed)
        else:
            self._writer = InlineWriter(self._log, loop.call_soon, self._disk_failed)
        try:
            self._identity = await self._load_identity()
            if self._identity.raft_id and not self._identity.is_removed:
                await self._take_part(self._identity)
        except BaseException:
            await self._close()
            raise

    async def _load_identity(self) -> Identity:
        stored = self._log.get_identity()
        if not stored:
            identity = Identity(RECORD_VERSION, self._surroundings.random_bytes(INCARNATION_BYTES), self._node_id)
            await self._write(SaveIdentity(encode_identity(identity)))
            return identity
        identity = decode_identity(stored)
        if identity.raft_id and identity.node_id != self._node_id:
            raise WrongDirectory(
                f"the data directory belongs to node {identity.node_id!r}, not to {self._node_id!r}; "
                "give this node its own directory, or its own name back"
            )
        job = recovery(identity, self._machine.applied, self._log.hard_state)
        if job is not None:
            log.info("finishes the installation of a snapshot")
            await self._write(job)
            identity = decode_identity(self._log.get_identity())
        return structs.replace(identity, node_id=self._node_id)

    async def _take_part(self, identity: Identity, transport: Transport | None = None) -> None:
        transport = transport or self._connect(identity)
        try:
            part = Participation(
                identity,
                timing=self._timing,
                rules=self._rules,
                trailing_entries=self._settings.trailing_entries,
                transport=transport,
                log=self._log,
                state=self._state,
                machine=self._machine,
                writer=self._the_writer,
                run_in_thread=self._run_in_thread,
                announcement=lambda: self._announce,
                answer=self._answer,
                authority_key=lambda: self._authority_key(),  # noqa: PLW0108  # it may be lent later
                validity=self._settings.certificate_validity,
                surroundings=self._surroundings,
            )
        except CorruptLog as error:
            # It stays up to say so: an operator decides what becomes of its disk.
            log.critical("this node cannot take part", extra={"reason": str(error)})
            self._fault = str(error)
            await transport.close()
            return
        self._part = part
        await part.start()
        if days_left(identity.certificate_pem, self._surroundings.utc_now()) < 0:
            log.warning("this node was away until its certificate expired; it takes part again once it is unsealed")

    async def stop(self, *, hand_over: bool = True) -> None:
        """End: hand leadership over first if there is somebody to take it, then close connections and threads."""
        part = self._part
        if part is not None and hand_over and not part.driver.is_only_voter:
            with contextlib.suppress(ClusterError):
                await part.step_down()
        await self._close()

    async def _close(self) -> None:
        part, self._part = self._part, None
        if part is not None:
            await part.stop()
        writer, self._writer = self._writer, None
        executor, self._executor = self._executor, None
        if executor is not None:
            if writer is not None:
                await asyncio.get_running_loop().run_in_executor(executor, writer.close)
            executor.shutdown(wait=True)

    # -- what this node is --

    @property
    def fault(self) -> str:
        """Why this node does not take part, or does not lead; empty if nothing is wrong."""
        return self._fault or (self._part.driver.fault if self._part is not None else "")

    @property
    def is_joining(self) -> bool:
        """Whether this node has been admitted, and has not heard of it from the log yet."""
        part = self._part
        return part is not None and part.driver.record.member(part.identity.raft_id) is None

    # -- Replica --

    @property
    def standing(self) -> Standing:
        """See `replica.Replica`."""
        if self._part is not None:
            return self._part.driver.standing
        if self._identity is None or self._identity.raft_id == 0:
            return Standing.DETACHED
        return Standing.REMOVED if self._identity.is_removed else Standing.FOLLOWER

    @property
    def leader(self) -> Peer | None:
        """See `replica.Replica`."""
        part = self._part
        if part is None or not part.driver.leader:
            return None
        return part.roster.peer(part.driver.leader, part.driver.leader, self._surroundings.clock())

    @property
    def term(self) -> int:
        """See `replica.Replica`."""
        return self._part.driver.term if self._part is not None else self._log.hard_state[0]

    def propose(self, data: bytes) -> Ticket:
        """See `replica.Replica`."""
        if self._part is None:
            raise NotLeader("this node takes no part in a cluster")
        return self._part.driver.propose(data)

    def has_lease(self) -> bool:
        """See `replica.Replica`."""
        return self._part is not None and self._part.driver.has_lease()

    async def read_barrier(self) -> int:
        """See `replica.Replica`."""
        if self._part is None:
            raise NoQuorum("this node takes no part in a cluster")
        return await self._part.driver.read_barrier()

    # -- Peers --

    async def ask_leader(self, body: bytes, *, timeout_seconds: float) -> bytes:
        """See `replica.Peers`."""
        return await self._taking_part().ask(Service.APPLICATION, body, timeout_seconds=timeout_seconds)

    def serve(self, handler: Handler) -> None:
        """See `replica.Peers`."""
        self._handler = handler

    async def _answer(self, body: bytes, asker: str) -> bytes:
        if self._handler is None:
            raise NotLeader("this node answers no questions yet")
        return await self._handler(body, asker)

    def announce(
        self, *, is_sealed: bool, api_address: str, version: str, hostname: str, is_damaged: bool = False
    ) -> None:
        """See `replica.Peers`."""
        self._announce = structs.replace(
            self._announce,
            is_sealed=is_sealed,
            api_address=api_address,
            version=version,
            hostname=hostname,
            is_damaged=is_damaged,
        )
        if self._part is not None:
            self._part.links.announce()

    # -- Membership --

    def peers(self) -> Sequence[Peer]:
        """See `replica.Membership`."""
        part = self._part
        return part.roster.peers(part.driver.leader, self._surroundings.clock()) if part is not None else ()

    @property
    def finding(self) -> Finding | None:
        """See `replica.Membership`."""
        return self._part.finding if self._part is not None else None

    @property
    def committed_index(self) -> int:
        """See `replica.Membership`."""
        return self._part.driver.commit_index if self._part is not None else self._log.hard_state[2]

    async def bootstrap(self, cluster_id: str) -> Mapping[str, bytes]:
        """See `replica.Membership`.

        Raises:
            JoinRefused: this node belongs to a cluster already.
            NoQuorum: its own disk did not answer in time.
        """
        detached = self._detached()
        raft_id, now, key = (
            new_raft_id(self._surroundings.random_bytes),
            self._surroundings.utc_now(),
            new_private_key(),
        )
        authority_pem, authority_key_pem = new_authority(cluster_id, now)
        certificate_pem = sign_request(
            new_request(key, self._node_id),
            cluster_id=cluster_id,
            raft_id=raft_id,
            node_id=self._node_id,
            authority_pem=authority_pem,
            authority_key_pem=authority_key_pem,
            now=now,
            validity=self._settings.certificate_validity,
        )
        announce = self._announce
        member = Member(raft_id, self._node_id, announce.cluster_address, announce.api_address, detached.incarnation)
        identity = structs.replace(
            detached,
            cluster_id=cluster_id,
            raft_id=raft_id,
            certificate_pem=certificate_pem,
            authority_pem=authority_pem,
            private_key_pem=key,
            seed=encode_record(MembershipRecord(conf_state=ConfState((raft_id,)), members=(member,))),
        )
        transport = self._listening(identity)
        kind, data = encode_conf_change(change_for(ConfChangeKind.ADD_VOTER, member))
        first = Append((FOUNDING_TERM, 0, 1), [(FOUNDING_TERM, 1, int(kind), data)])
        await self._begin(identity, transport, Reset(0, 0, NO_HARD_STATE, encode_identity(detached)), first)
        watch = self._taking_part().driver.watch
        if not await watch.until(lambda: self.standing is Standing.LEADER, timeout_seconds=FOUNDING_SECONDS_MAX):
            raise NoQuorum("the new cluster's only member does not come to lead; see its log")
        return {"authority_key": authority_key_pem}

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
        """See `replica.Membership`."""
        return await self._taking_part().members.admit(
            node_id=node_id,
            cluster_address=cluster_address,
            request_pem=request_pem,
            incarnation=incarnation,
            is_voter=is_voter,
            authority_key_pem=authority_key_pem,
        )

    def join_request(self) -> JoinRequest:
        """See `replica.Membership`.

        Raises:
            JoinRefused: this node belongs to a cluster already.
        """
        detached = self._detached()
        key = new_private_key()
        request_pem = new_request(key, self._node_id)
        return JoinRequest(self._node_id, self._announce.cluster_address, request_pem, key, detached.incarnation)

    async def join(self, ticket: JoinTicket, private_key_pem: bytes) -> None:
        """See `replica.Membership`.

        Raises:
            JoinRefused: this node belongs to a cluster already, or the ticket is not for this key.
        """
        detached = self._detached()
        identity = structs.replace(
            detached,
            cluster_id=ticket.cluster_id,
            raft_id=ticket.raft_id,
            certificate_pem=ticket.certificate_pem,
            authority_pem=ticket.authority_pem,
            private_key_pem=private_key_pem,
            seed=ticket.membership,
        )
        try:
            transport = self._listening(identity)
        except ssl.SSLError as error:
            raise JoinRefused(f"the certificate that the cluster gave does not fit: {error}") from error
        await self._begin(identity, transport, Reset(0, 0, NO_HARD_STATE, encode_identity(detached)))

    def _listening(self, identity: Identity) -> Transport:
        """Return a transport for a new member, whose address may have been taken by others since its process began.

        Raises:
            CannotListen: the address cannot be had.
            ssl.SSLError: the identity's certificate and key do not fit each other.
        """
        try:
            return self._connect(identity)
        except ssl.SSLError:
            raise
        except OSError as error:
            raise CannotListen(f"cannot listen for the other nodes: {error.strerror}") from error

    async def _begin(self, identity: Identity, transport: Transport, *jobs: Job) -> None:
        """Write what comes first, then the identity: until that is there this node is detached, and may try anew."""
        self._is_beginning = True
        try:
            for job in (*jobs, SaveIdentity(encode_identity(identity))):
                await self._write(job)
        except BaseException:
            await transport.close()
            raise
        else:
            self._identity = identity
        finally:
            self._is_beginning = False
        await self._take_part(identity, transport)
        self._machine.standing_changed(self.standing, self.term)

    async def remove(self, node_id: str) -> bool:
        """See `replica.Membership`."""
        return await self._taking_part().remove(node_id)

    async def promote(self, node_id: str) -> bool:
        """See `replica.Membership`."""
        return await self._taking_part().members.promote(node_id)

    async def demote(self, node_id: str) -> bool:
        """See `replica.Membership`."""
        return await self._taking_part().demote(node_id)

    def judge_by(self, rules: AutopilotRules) -> None:
        """See `replica.Membership`."""
        self._rules = rules
        if self._part is not None:
            self._part.roster.rules = rules

    def lend_authority(self, key_pem: Callable[[], bytes | None]) -> None:
        """See `replica.Membership`."""
        self._authority_key = key_pem

    async def own_authority(self, key_pem: bytes) -> bytes:
        """See `replica.Membership`."""
        return await self._taking_part().own_authority(key_pem)

    async def step_down(self) -> None:
        """See `replica.Membership`."""
        await self._taking_part().step_down()

    # -- helpers --

    def _detached(self) -> Identity:
        if self._identity is None or self._identity.raft_id:
            raise JoinRefused("this node belongs to a cluster already; wipe its data directory first")
        if self._is_beginning:
            raise JoinRefused("this node is about to become a member already")
        return self._identity

    def _taking_part(self) -> Participation:
        if self._part is None:
            raise NotLeader("this node takes no part in a cluster")
        return self._part

    @property
    def _the_writer(self) -> Writer:
        assert self._writer is not None, "start() comes first"
        return self._writer

    async def _write(self, job: Job) -> None:
        """Wait until a job is durable.

        Raises:
            DiskFailed: it could not be written, or not in time.
        """
        writing = asyncio.ensure_future(written(self._the_writer, job))
        self._writing.add(writing)
        try:
            async with asyncio.timeout(WRITE_SECONDS_MAX):
                await writing
        except TimeoutError:
            raise DiskFailed("the disk does not answer") from None
        except asyncio.CancelledError:
            if not self._fault:
                raise
            raise DiskFailed(self._fault) from None
        finally:
            self._writing.discard(writing)

    async def _run_in_thread(self, function: Callable[[], T]) -> T:
        if self._executor is None:
            return function()
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)

    def _disk_failed(self, text: str, is_final: bool) -> None:
        if self._part is not None:
            self._part.driver.disk_failed(text, is_final)
            return
        self._fault = text
        if is_final:
            for writing in self._writing:
                writing.cancel()


def tls_transport_factory(listen_address: tuple[str, int]) -> TransportFactory:
    """Return what listens at an address, and connects over TLS with a node's own certificate.

    The factory raises OSError if the address cannot be had, and ssl.SSLError if certificate and key do not fit.
    """

    def connect(identity: Identity) -> Transport:
        return tls_transport(identity, listen_address)

    return connect


def tls_transport(identity: Identity, listen_address: tuple[str, int]) -> TlsTransport:
    """Return a transport over TLS that listens at an address; raises as `tls_transport_factory` says."""
    pems = {
        "certificate_pem": identity.certificate_pem,
        "private_key_pem": identity.private_key_pem,
        "authority_pem": identity.authority_pem,
    }
    server, client = server_context(**pems), client_context(**pems)
    return TlsTransport(
        Local(identity.cluster_id, identity.raft_id, identity.incarnation),
        listen(listen_address),
        server=server,
        client=client,
        random=random.random,
    )
