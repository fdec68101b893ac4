"""From nothing to serving, and back: founding a cluster, joining one, unsealing and sealing this node.

    initialize   make the keys, found a cluster of one, put the first records into the log; the node stays sealed
    begin_join   learn from a cluster what unsealing takes; this node then proves with its shares that it may belong
    unseal       collect shares; open the root key with them, and the keyring with that
    seal         hand leadership over, then drop every key

The unseal key exists in memory only while it is made, split, restored or used; it is stored nowhere. What a sealed node
can read are the three records of `storage/seal.py`. Texts and shapes recorded from a real server; source: Vault's pages
"Seal/Unseal" and "Integrated storage".
"""

import asyncio
import contextlib
import logging
import os
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec import Struct

import conclave
from conclave.cluster.errors import ClusterError, JoinRefused, NoQuorum, NotAlone, NotLeader
from conclave.cluster.replica import AutopilotRules, JoinTicket, Standing
from conclave.core import unsealing
from conclave.core.autopilot import read_rules
from conclave.core.ceremonies import NewShares, Rekey, RootGeneration
from conclave.core.errors import InternalError, InvalidRequest, RequestError, Unavailable
from conclave.core.finder import Finder
from conclave.core.joiner import WRONG_KEY, Joiner
from conclave.core.joining import JoinTarget
from conclave.core.keys import Keys
from conclave.core.mounts import MountTable
from conclave.core.policies import ROOT, PolicyStore
from conclave.core.revocation import tokens_of
from conclave.core.services import AREA_CLUSTER, AREA_MOUNTS, AREA_POLICIES, AREA_TOKENS, Services, area_id
from conclave.core.store import RESTORING, Settlement, settlement_of
from conclave.core.vault import REMOVED, Vault
from conclave.storage import shamir
from conclave.storage.barrier import Barrier
from conclave.storage.errors import InvalidSealConfig, StorageError, WrongKey
from conclave.storage.keyring import KEY_BYTES, Keyring, unwrap_keyring, wrap_keyring
from conclave.storage.seal import (
    CLEAR_DIRECTORY,
    KEYRING_KEY,
    ROOT_KEY_KEY,
    SEAL_CONFIG_KEY,
    SealConfig,
    unwrap_root_key,
    wrap_root_key,
)

log = logging.getLogger(__name__)

JOINED_SECONDS_MAX: Final = 3.0
"""How long the last share's answer waits for a new member's state to arrive; unsealing goes on behind it."""
AUTHORITY_RETRY_SECONDS: Final = 1.0
"""Pause after a new authority could not be kept."""
NOT_INITIALIZED: Final = "Vault is not initialized"
ALREADY_INITIALIZED: Final = "Vault is already initialized"
HALF_INITIALIZED: Final = (
    "this node has an identity but no keys: its initialization was cut off, or its state is still on the way; "
    "if it founded its cluster, wipe its data directory and initialize again"
)

JOIN_KEY: Final = "join-key"
AUTHORITY_KEY: Final = "authority-key"
_INFO: Final = "info"


class ClusterInfo(Struct, array_like=True, frozen=True):
    """What a cluster is called. New fields come last, with defaults."""

    name: str
    id: str


class Initialized(Struct, frozen=True):
    """What an operator is given once: the shares of the unseal key, and the first token."""

    shares: list[bytes]
    root_token: str

    @property
    def shares_hex(self) -> list[str]:
        """The shares in hex."""
        return [share.hex() for share in self.shares]

    @property
    def shares_base64(self) -> list[str]:
        """The shares in base64."""
        return [unsealing.encode_share(share) for share in self.shares]


class NodeInfo(Struct, frozen=True):
    """How this node is known to clients and peers."""

    node_id: str
    api_address: str  # "https://127.0.0.1:8200"
    hostname: str = ""
    version: str = conclave.__version__
    cluster_name: str = ""  # for a cluster that this node founds; empty for one made up
    storage_type: str = "raft"


class Allowances(Struct, frozen=True):
    """What a node's configuration lets clients do that may be more than an operator wants."""

    unauthed_rekey: bool = False  # new shares without a token
    unauthed_root_generation: bool = False  # a root token without one
    audit_creation: bool = False  # audit devices, which write to files of the server's host, through the API


class Lifecycle:
    """The lifecycle of one node's vault.

    Args:
        vault: what is carried from state to state.
        node: how this node is known.
        allowances: what this node's configuration lets clients do.
    """

    def __init__(
        self,
        vault: Vault,
        node: NodeInfo,
        allowances: Allowances | None = None,
    ) -> None:
        self.vault = vault
        self.node = node
        self.autopilot = AutopilotRules()
        self._unsubscribe_rules: Callable[[], None] = lambda: None
        self.allowances = allowances or Allowances()
        self.rekey = Rekey()
        self.root_generation = RootGeneration()
        self._progress = unsealing.Progress()
        self._joiner = Joiner(node.node_id, vault.membership, self._may_join, vault.spawn)
        self._finder = Finder(vault.membership, vault.spawn)
        self._is_initializing = False
        self._opening: asyncio.Task[None] | None = None
        self._authorizing: asyncio.Task[None] | None = None
        self._state_arrived = asyncio.Event()
        vault.on_sealed_changed = self._sealed_changed
        vault.store.on_damage = self.announce
        vault.membership.lend_authority(self._authority_key)
        vault.on_state_replaced = self._state_replaced
        vault.on_active = self._became_active
        vault.on_standby = self._cancel_ceremonies
        vault.store.overlay.subscribe(CLEAR_DIRECTORY, self._clear_record_changed)

    # -- what this node is --

    @property
    def is_initialized(self) -> bool:
        """Whether there is a cluster that this node belongs to or is about to join."""
        return self.vault.replica.standing is not Standing.DETACHED or self._joiner.met is not None

    @property
    def condition(self) -> str:
        """What `sys/health` calls the state of this node."""
        if self.vault.replica.standing is Standing.REMOVED:
            return "removed"
        if not self.is_initialized:
            return "uninitialized"
        if self.vault.is_sealed:
            return "sealed"
        if self.fault:
            return "unhealthy"
        return "active" if self.vault.active_since_ns is not None else "standby"

    @property
    def fault(self) -> str:
        """Why this node cannot do its part; empty if nothing is wrong."""
        return self.vault.membership.fault or self.vault.store.fault or ""

    def seal_config(self) -> SealConfig | None:
        """Return how the unseal key is shared; None as long as this node does not know."""
        stored = self.vault.store.overlay.get(SEAL_CONFIG_KEY, uncommitted=False)
        if stored is not None:
            return SealConfig.decode(stored)
        return self._joiner.met.seal_config if self._joiner.met is not None else None

    def cluster_info(self) -> ClusterInfo | None:
        """Return what the cluster is called; None while this node is sealed."""
        services = self._reading()
        return None if services is None else services.area(AREA_CLUSTER).recall(_INFO, ClusterInfo)

    def seal_status(self) -> dict[str, Any]:
        """Return `sys/seal-status`, in Vault's order of keys."""
        config = self.seal_config()
        status: dict[str, Any] = {
            "type": "shamir",
            "initialized": self.is_initialized,
            "sealed": self.vault.is_sealed,
            "t": config.secret_threshold if config else 0,
            "n": config.secret_shares if config else 0,
            "progress": self._progress.count,
            "nonce": self._progress.nonce,
            "recovery_seal": False,
            "version": self.node.version,
            "commit_date": "",
            "migration": False,
        }
        info = self.cluster_info()
        if info is not None:
            status |= {"cluster_name": info.name, "cluster_id": info.id}
        return status | {"storage_type": self.node.storage_type}

    def announce(self) -> None:
        """Tell the peers what this node is."""
        self.vault.peers.announce(
            is_sealed=self.vault.is_sealed,
            api_address=self.node.api_address,
            version=self.node.version,
            hostname=self.node.hostname,
            is_damaged=self.vault.store.is_in_need,
        )

    def _reading(self) -> Services | None:
        keys = self.vault.keys
        if keys is None:
            return None
        store = self.vault.store
        return self.vault.pipeline.services(store.reading(), keys.barrier, store.now_ns())

    # -- founding --

    async def initialize(self, secret_shares: int, secret_threshold: int) -> Initialized:
        """Found a cluster with this node as its only member, which stays sealed.

        Args:
            secret_shares: into how many shares the unseal key is split, 1 to 255.
            secret_threshold: how many of them unseal a node.

        Raises:
            InvalidRequest: these numbers make no sense, or there is a cluster already.
        """
        config = SealConfig(secret_shares, secret_threshold)
        try:
            config.validate()
        except InvalidSealConfig as error:
            raise InvalidRequest(str(error)) from error
        if self.is_initialized or self._is_initializing:
            raise InvalidRequest(ALREADY_INITIALIZED)
        self._is_initializing = True
        try:
            made = await self._found(config)
        finally:
            self._is_initializing = False
        log.info("initialized", extra={"secret_shares": secret_shares, "secret_threshold": secret_threshold})
        return made

    async def _found(self, config: SealConfig) -> Initialized:
        store = self.vault.store
        cluster_id = str(uuid.uuid4())
        secrets = await self.vault.membership.bootstrap(cluster_id)
        unseal_key, root_key = os.urandom(KEY_BYTES), os.urandom(KEY_BYTES)
        keyring = Keyring.generate(store.now_ns())
        transaction = store.writing()
        transaction.put(SEAL_CONFIG_KEY, config.encode())
        transaction.put(ROOT_KEY_KEY, wrap_root_key(unseal_key, root_key))
        transaction.put(KEYRING_KEY, wrap_keyring(root_key, keyring))
        services = self.vault.pipeline.services(transaction, Barrier(keyring), store.now_ns())
        cluster = services.area(AREA_CLUSTER)
        cluster.put(_INFO, ClusterInfo(self.node.cluster_name or f"vault-cluster-{os.urandom(4).hex()}", cluster_id))
        cluster.put(JOIN_KEY, unsealing.join_key(unseal_key))
        cluster.put(AUTHORITY_KEY, secrets["authority_key"])
        MountTable(services.area(AREA_MOUNTS)).create_defaults(services.random, services.now_ns)
        PolicyStore(services.area(AREA_POLICIES)).create_defaults(services.now_ns)
        root_token, _ = tokens_of(services).create(
            services.area(AREA_TOKENS),
            now_ns=services.now_ns,
            policies=[ROOT],
            path="auth/token/root",
            display_name="root",
        )
        if await settlement_of(lambda done: store.commit(transaction, done)) is not Settlement.COMMITTED:
            raise InternalError("the first records could not be committed; wipe the data directory and try again")
        await store.flush_up_to(store.overlay.applied_index)
        shares = shamir.split(
            unseal_key, total=config.secret_shares, threshold=config.secret_threshold, random=os.urandom
        )
        return Initialized(shares, root_token)

    # -- unsealing --

    def reset_progress(self) -> None:
        """Forget the shares given so far, and a whole key that still waits for this node's state."""
        self._progress.reset()
        self._stop_waiting()

    async def unseal(self, key: str) -> None:
        """Take one share, in hex or base64; with the last one that is needed, unseal this node.

        A node that is about to join proves itself with the key and becomes a member first; its state may then arrive
        after this returns, and unsealing goes on by itself.

        Raises:
            InvalidRequest: the share cannot be one, the shares gave another key, or there is nothing to unseal.
        """
        if not self.is_initialized:
            raise InvalidRequest(NOT_INITIALIZED)
        if self.vault.replica.standing is Standing.REMOVED:
            raise Unavailable(REMOVED)
        if not self.vault.is_sealed:
            return
        share = unsealing.parse_share(key)
        config = self.seal_config()
        if config is None:
            raise InvalidRequest(HALF_INITIALIZED)
        unseal_key = self._progress.add(share, threshold=config.secret_threshold)
        if unseal_key is None:
            return
        if self.vault.replica.standing is Standing.DETACHED:
            await self._joiner.prove(unseal_key)
            await self._open_when_there(unseal_key)
        elif self._has_state():
            self._stop_waiting()
            self._open(unseal_key)
        else:
            await self._open_when_there(unseal_key)

    def _has_state(self) -> bool:
        overlay = self.vault.store.overlay
        return all(overlay.get(key, uncommitted=False) is not None for key in (ROOT_KEY_KEY, KEYRING_KEY))

    def _open(self, unseal_key: bytes) -> None:
        """Open root key and keyring, and begin to serve."""
        overlay = self.vault.store.overlay
        wrapped_root = overlay.get(ROOT_KEY_KEY, uncommitted=False)
        wrapped_keyring = overlay.get(KEYRING_KEY, uncommitted=False)
        assert wrapped_root is not None, "asked for only once the state is there"
        assert wrapped_keyring is not None, "written in one entry with the root key"
        try:
            root_key = unwrap_root_key(unseal_key, wrapped_root)
        except WrongKey as error:
            raise InvalidRequest(WRONG_KEY) from error
        self.vault.unseal_with(Keys(root_key, Barrier(unwrap_keyring(root_key, wrapped_keyring))))

    async def _open_when_there(self, unseal_key: bytes) -> None:
        """Unseal as soon as the state has arrived; wait for that only briefly."""
        self._stop_waiting()
        self._opening = self.vault.spawn(self._wait_and_open(unseal_key))
        await asyncio.wait([self._opening], timeout=JOINED_SECONDS_MAX)

    def _stop_waiting(self) -> None:
        """Forget an unseal key that waits for its state: nothing but what is asked for now may unseal this node."""
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None

    async def _wait_and_open(self, unseal_key: bytes) -> None:
        while not self._opens(unseal_key):
            self._state_arrived.clear()
            await self._state_arrived.wait()

    def _opens(self, unseal_key: bytes) -> bool:
        """Unseal if what has arrived can be: a log may begin with a state that another one, of other keys, replaces."""
        if not self._has_state():
            return False
        try:
            self._open(unseal_key)
        except InvalidRequest:
            log.warning("the key shares do not open the state that has arrived; waiting for a later one")
            return False
        return True

    def _clear_record_changed(self, _index: int, key: bytes) -> None:
        """Follow the feed: a state that arrives, and a keyring that another node has rotated."""
        self._state_arrived.set()
        keys = self.vault.keys
        if key == KEYRING_KEY and keys is not None and not keys.refresh(self.vault.store):
            log.error("this node cannot follow a rotation of the keyring and seals itself")
            self.vault.seal()

    def _state_replaced(self) -> None:
        self.announce()
        self._cancel_ceremonies()
        self._state_arrived.set()
        self._use_rules()

    # -- what an unsealed node knows that its part in the cluster needs --

    def _sealed_changed(self) -> None:
        self.announce()
        self._unsubscribe_rules()
        self._unsubscribe_rules = lambda: None
        keys = self.vault.keys
        if keys is not None:
            prefix = area_id(keys.barrier, AREA_CLUSTER)
            self._unsubscribe_rules = self.vault.store.overlay.subscribe(prefix, lambda _index, _key: self._use_rules())
            self._use_rules()

    def _use_rules(self) -> None:
        """Judge members by what the state says now."""
        services = self._reading()
        if services is None:
            return
        try:
            rules = read_rules(services)
        except StorageError as error:  # called inside the feed, which must not be held up; the rules stay as they were
            self.vault.failure(error)
            return
        if rules != self.autopilot:
            self.autopilot = rules
            self.vault.membership.judge_by(rules)

    def _authority_key(self) -> bytes | None:
        services = self._reading()
        return None if services is None else services.area(AREA_CLUSTER).get(AUTHORITY_KEY)

    def _became_active(self) -> None:
        if self._authorizing is not None:
            self._authorizing.cancel()
        self._authorizing = self.vault.spawn(self._keep_authority())

    async def _keep_authority(self) -> None:
        """See that the state holds the key of this node's own authority.

        That of a snapshot from another cluster holds another's. A new one is kept by the node first, then in the state:
        whatever comes in between, they differ still, and it is done once more.
        """
        while self.vault.is_active:
            try:
                if await self._has_own_authority():
                    return
            except NotAlone as error:
                log.error("no node can join, and no certificate be renewed", extra={"reason": str(error)})  # noqa: TRY400
                return
            except (ClusterError, RequestError, StorageError) as error:
                log.warning("the cluster's authority cannot be kept yet", extra={"reason": str(error)})
            await asyncio.sleep(AUTHORITY_RETRY_SECONDS)

    async def _has_own_authority(self) -> bool:
        vault = self.vault
        stored = self._authority_key()
        if stored is None:
            return False
        own = await vault.membership.own_authority(stored)
        if own == stored:
            return True
        transaction = vault.store.writing()
        vault.services(vault.serving_keys(), transaction).area(AREA_CLUSTER).put(AUTHORITY_KEY, own)
        return await settlement_of(lambda done: vault.store.commit(transaction, done)) is Settlement.COMMITTED

    # -- ceremonies --

    def open_root_key(self, unseal_key: bytes) -> bytes:
        """Return the root key, newest state first, so that a ceremony in flight counts.

        Raises:
            InvalidRequest: this unseal key does not open it.
        """
        wrapped = self.vault.store.overlay.get(ROOT_KEY_KEY, uncommitted=True)
        assert wrapped is not None, "an initialized cluster has a root key"
        try:
            return unwrap_root_key(unseal_key, wrapped)
        except WrongKey as error:
            raise InvalidRequest(WRONG_KEY) from error

    def put_new_shares(self, services: Services, made: NewShares) -> None:
        """Let another unseal key open the root key from now on, in the transaction of `services`."""
        services.transaction.put(SEAL_CONFIG_KEY, made.config.encode())
        services.transaction.put(ROOT_KEY_KEY, wrap_root_key(made.unseal_key, made.root_key))
        services.area(AREA_CLUSTER).put(JOIN_KEY, unsealing.join_key(made.unseal_key))

    def _cancel_ceremonies(self) -> None:
        """Forget what share holders have begun: it lives on the node that leads, and this one does no longer."""
        self.rekey.cancel()
        self.root_generation.cancel()

    # -- sealing --

    async def seal(self) -> None:
        """Hand leadership over if this node leads, then drop its keys."""
        if self.vault.replica.standing is Standing.LEADER:
            with contextlib.suppress(ClusterError):  # a node that nobody can follow is sealed all the same
                await self.vault.membership.step_down()
        self._progress.reset()
        self.vault.seal()

    # -- joining, the new node's side --

    async def begin_join(self, target: JoinTarget, *, is_voter: bool = True, keep_trying: bool = False) -> None:
        """Learn from a cluster what unsealing takes. A member that lacks others meets that node; else it does nothing.

        Raises:
            InternalError: the cluster did not answer, and trying on was not asked for.
        """
        if self.vault.replica.standing is Standing.DETACHED:
            await self._joiner.begin(target, is_voter=is_voter, keep_trying=keep_trying)
        else:
            await self._finder.begin(target, keep_trying=keep_trying)

    def retry_join(self, targets: Sequence[JoinTarget], *, is_voter: bool = True) -> None:
        """Ask these nodes, again and again: to join, until one of them answers; as a member, whenever it lacks others."""
        self._joiner.retry(targets, is_voter=is_voter)
        self._finder.look(targets)

    def _may_join(self) -> bool:
        return self.vault.replica.standing is Standing.DETACHED and not self._is_initializing

    # -- joining, the cluster's side --

    def make_challenge(self, node_id: str, now_ns: int) -> bytes:
        """Return what only a holder of the unseal key can open; on the leader."""
        return unsealing.make_challenge(
            self._secret(JOIN_KEY), node_id, now_seconds=now_ns // 1_000_000_000, random=os.urandom
        )

    async def admit(
        self,
        *,
        node_id: str,
        proof: bytes,
        cluster_address: str,
        request_pem: bytes,
        incarnation: bytes,
        is_voter: bool,
        now_ns: int,
    ) -> JoinTicket:
        """Make a node a member that has opened its challenge; on the leader.

        Raises:
            InvalidRequest: the proof does not hold, or the node cannot be a member; the text says why.
        """
        petition = unsealing.Petition(cluster_address, request_pem, incarnation, is_voter)
        now_seconds = now_ns // 1_000_000_000
        if not unsealing.is_proof(self._secret(JOIN_KEY), node_id, proof, petition, now_seconds=now_seconds):
            raise InvalidRequest("invalid answer given: this node does not hold the cluster's unseal key")
        if self._authorizing is not None:
            await asyncio.wait([self._authorizing], timeout=JOINED_SECONDS_MAX)
        if self.vault.store.is_changing_keys:
            raise Unavailable(RESTORING)
        self.vault.admitting += 1
        try:
            return await self.vault.membership.admit(
                node_id=node_id,
                cluster_address=cluster_address,
                request_pem=request_pem,
                incarnation=incarnation,
                is_voter=is_voter,
                authority_key_pem=self._secret(AUTHORITY_KEY),
            )
        except JoinRefused as error:
            raise InvalidRequest(str(error)) from error
        except NoQuorum as error:
            raise Unavailable(str(error)) from error
        finally:
            self.vault.admitting -= 1

    def _secret(self, name: str) -> bytes:
        services = self._reading()
        if services is None:
            raise NotLeader
        secret = services.area(AREA_CLUSTER).get(name)
        assert secret is not None, "written when the cluster was founded"
        return secret
