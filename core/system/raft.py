"""sys/leader, ha-status, step-down and sys/storage/raft: who is in the cluster, who leads, who joins and leaves.

Shapes as recorded of a real server; where it differs from consensus as we do it (for instance, standbys there answer
from old state), the operation says so.
"""

import base64
import binascii
from collections.abc import Awaitable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from conclave.cluster.errors import RemovalRefused, StatementRefused
from conclave.cluster.replica import Peer
from conclave.core.autopilot import change_rules, read_rules
from conclave.core.contract import Context, Engine, Response, operation
from conclave.core.durations import Seconds, format_duration
from conclave.core.errors import InternalError, InvalidRequest, RequestError, Unavailable
from conclave.core.forwarding import NO_LEADER
from conclave.core.joining import JoinTarget
from conclave.core.lifecycle import Lifecycle
from conclave.core.privileged import VaultContext
from conclave.core.timestamps import rfc3339

PROTOCOL_VERSION: Final = "3"
"""What Vault's clients expect in the peer list; the Raft protocol version of its library."""
NODE_ID_CHARACTERS_MAX: Final = 255
"""No longer one is admitted; anybody may ask for a challenge, so no more is hashed and sealed for it."""

STATEMENT_CHARACTERS_MAX: Final = 128 * 1024
"""Anybody may send one; what is longer is not even decoded."""


class Join(Struct):
    """Which cluster to join."""

    leader_api_addr: Annotated[str, Meta(description="API address of a node of the cluster.")] = ""
    leader_ca_cert: Annotated[str, Meta(description="PEM of the CA that signed its API certificate.")] = ""
    leader_client_cert: Annotated[str, Meta(description="PEM of a client certificate for that API.")] = ""
    leader_client_key: Annotated[str, Meta(description="PEM of that certificate's key.")] = ""
    leader_tls_servername: Annotated[str, Meta(description="Name to expect in its certificate.")] = ""
    retry: Annotated[bool, Meta(description="Go on trying in the background if the cluster does not answer.")] = False
    non_voter: Annotated[bool, Meta(description="Join without a vote.")] = False


class StepDown(Struct):
    """Who is to step down."""

    leader: Annotated[str, Meta(description="Only this node, if it leads; whoever leads by default.")] = ""


class Challenge(Struct):
    """Who wants to join."""

    server_id: Annotated[str, Meta(description="Node id of the joining node.")] = ""


class ChallengeAnswer(Struct):
    """The proof, and what the leader needs to admit the node."""

    server_id: Annotated[str, Meta(description="Node id of the joining node.")] = ""
    answer: Annotated[
        str, Meta(description="The proof, base64: a hash of the other fields under what the challenge held.")
    ] = ""
    cluster_addr: Annotated[str, Meta(description="Where peers reach the joining node.")] = ""
    non_voter: Annotated[bool, Meta(description="Stay without a vote.")] = False
    certificate_request: Annotated[str, Meta(description="PEM of a certificate request of the node's own key.")] = ""
    incarnation: Annotated[str, Meta(description="Id of the node's data directory, base64.")] = ""


class Whereabouts(Struct):
    """Where a member is."""

    statement: Annotated[
        str, Meta(description="What the member signs over the challenge, base64; without it a challenge is given.")
    ] = ""


class ServerId(Struct):
    """Which member."""

    server_id: Annotated[str, Meta(description="Its node id.")] = ""


class Autopilot(Struct):
    """What is to change of the rules; what is not given stays."""

    cleanup_dead_servers: Annotated[bool | None, Meta(description="Whether dead members are removed.")] = None
    dead_server_last_contact_threshold: Annotated[
        Seconds | None, Meta(description="How long a silent member is not yet dead; at least 1m.")
    ] = None
    last_contact_threshold: Annotated[
        Seconds | None, Meta(description="How long a silent member is still healthy.")
    ] = None
    max_trailing_logs: Annotated[int | None, Meta(description="How many entries a healthy member may lag behind.")] = (
        None
    )
    min_quorum: Annotated[int | None, Meta(description="How many voters clean-up leaves; at least 3.")] = None
    server_stabilization_time: Annotated[
        Seconds | None, Meta(description="How long a new member has to be healthy before it votes.")
    ] = None
    disable_upgrade_migration: Annotated[bool | None, Meta(description="Taken for compatibility; has no effect.")] = (
        None
    )


class RaftOperations(Engine):
    """The consensus part of `sys/`; mixed into `System`, which provides the lifecycle."""

    type = "system-raft"
    lifecycle: Lifecycle

    @operation("leader", read=True, authenticated=False, is_local=True)
    def leader(self, ctx: Context) -> Response:
        """Tell which node leads, as this node knows it."""
        del ctx
        vault = self.lifecycle.vault
        leader = vault.replica.leader
        data: dict[str, Any] = {"ha_enabled": True, "is_self": vault.is_active}
        if vault.active_since_ns is not None:
            data["active_time"] = rfc3339(vault.active_since_ns)
        data |= {
            "leader_address": leader.api_address if leader else "",
            "leader_cluster_address": f"https://{leader.cluster_address}" if leader else "",
            "raft_committed_index": vault.membership.committed_index,
            "raft_applied_index": vault.store.applied[0],
        }
        return Response(data, is_bare=True)

    @operation("ha-status", read=True, writes=True)
    def ha_status(self, ctx: Context) -> Response:
        """List the nodes and when the leader last heard of each."""
        nodes = [self._ha_node(peer, ctx.now_ns) for peer in self.lifecycle.vault.membership.peers()]
        return Response({"nodes": nodes}, is_doubled=True)

    @staticmethod
    def _ha_node(peer: Peer, now_ns: int) -> dict[str, Any]:
        heard = None if peer.last_contact_seconds is None else now_ns - int(peer.last_contact_seconds * 1e9)
        return {
            "hostname": peer.hostname,
            "api_address": peer.api_address,
            "cluster_address": f"https://{peer.cluster_address}",
            "active_node": peer.is_leader,
            "last_echo": None if peer.is_leader or heard is None else rfc3339(heard),
            "version": peer.version,
            "upgrade_version": peer.version,
        }

    @operation("step-down", update=StepDown, sudo=True, is_local=True)
    async def step_down(self, ctx: Context, body: StepDown) -> Response:
        """Have the node that leads hand leadership to another one, whichever node was asked."""
        vault = self.lifecycle.vault
        if vault.is_active:
            if body.leader in ("", self.lifecycle.node.node_id):
                await vault.membership.step_down()
            return Response()
        leader = vault.replica.leader
        if leader is None:
            raise Unavailable(NO_LEADER)
        # The answer may get lost with the leadership that it is about; naming the leader makes asking again harmless.
        named = msgspec.json.encode({"leader": body.leader or leader.node_id})
        request = msgspec.structs.replace(ctx.request, body=named)
        outcome = await vault.forwarder.forward(request, retry_here=lambda: vault.is_active)
        if isinstance(outcome, RequestError):
            raise outcome
        return Response()

    @operation("storage/raft/join", update=Join, authenticated=False, while_sealed=True)
    async def join(self, ctx: Context, body: Join) -> Response:
        """Ask a cluster to take this node; the answer's proof is given when this node is unsealed.

        A member that cannot reach all others tells the node at that address where it is, and hears where that is.
        """
        del ctx
        target = JoinTarget(
            leader_api_address=body.leader_api_addr,
            authority_pem=body.leader_ca_cert,
            client_certificate_pem=body.leader_client_cert,
            client_key_pem=body.leader_client_key,
            server_name=body.leader_tls_servername,
        )
        await self.lifecycle.begin_join(target, is_voter=not body.non_voter, keep_trying=body.retry)
        return Response({"joined": True}, is_bare=True)

    @operation("storage/raft/bootstrap/challenge", update=Challenge, authenticated=False, writes=True)
    def challenge(self, ctx: Context, body: Challenge) -> Response:
        """Give a joining node something that only a holder of the unseal key can open."""
        if not body.server_id:
            raise InvalidRequest("no server id provided")
        if len(body.server_id) > NODE_ID_CHARACTERS_MAX:
            raise InvalidRequest(f"a node id has 1 to {NODE_ID_CHARACTERS_MAX} characters")
        challenge = self.lifecycle.make_challenge(body.server_id, ctx.now_ns)
        config = self.lifecycle.seal_config()
        assert config is not None, "the leader of an unsealed vault knows it"
        data = {
            "challenge": base64.b64encode(challenge).decode(),
            "seal_config": {
                "type": "shamir",
                "secret_shares": config.secret_shares,
                "secret_threshold": config.secret_threshold,
                "pgp_keys": None,
                "nonce": "",
                "backup": False,
            },
        }
        return Response(data)

    @operation("storage/raft/bootstrap/answer", update=ChallengeAnswer, authenticated=False, writes=True)
    async def answer(self, ctx: Context, body: ChallengeAnswer) -> Response:
        """Admit a node that has opened its challenge: sign its certificate and add it as a learner."""
        try:
            proof = base64.b64decode(body.answer, validate=True)
            incarnation = base64.b64decode(body.incarnation, validate=True)
        except (binascii.Error, ValueError):
            raise InvalidRequest("'answer' and 'incarnation' must be base64") from None
        ticket = await self.lifecycle.admit(
            node_id=body.server_id,
            proof=proof,
            cluster_address=body.cluster_addr,
            request_pem=body.certificate_request.encode(),
            incarnation=incarnation,
            is_voter=not body.non_voter,
            now_ns=ctx.now_ns,
        )
        data = {
            "cluster_id": ticket.cluster_id,
            "raft_id": str(ticket.raft_id),
            "certificate": ticket.certificate_pem.decode(),
            "authority": ticket.authority_pem.decode(),
            "membership": base64.b64encode(ticket.membership).decode(),
        }
        return Response(data)

    @operation("storage/raft/bootstrap/address", update=Whereabouts, authenticated=False, while_sealed=True)
    def address(self, ctx: Context, body: Whereabouts) -> Response:
        """Hear where a member is that has moved, and answer where this node is: to members only, by their signature."""
        del ctx
        finding = self.lifecycle.vault.membership.finding
        if finding is None:
            raise InvalidRequest("this node takes no part in a cluster")
        try:
            if not body.statement:
                return Response({"challenge": base64.b64encode(finding.challenge()).decode()})
            if len(body.statement) > STATEMENT_CHARACTERS_MAX:
                raise InvalidRequest(f"a statement has at most {STATEMENT_CHARACTERS_MAX} characters")
            answer = finding.answer(base64.b64decode(body.statement, validate=True))
        except (binascii.Error, ValueError):
            raise InvalidRequest("'statement' must be base64") from None
        except StatementRefused as error:
            raise InvalidRequest(str(error)) from error
        return Response({"statement": base64.b64encode(answer).decode()})

    @operation("storage/raft/configuration", read=True, writes=True)
    def configuration(self, ctx: Context) -> Response:
        """List the members as the leader knows them."""
        del ctx
        servers = [
            {
                "node_id": peer.node_id,
                "address": peer.cluster_address,
                "leader": peer.is_leader,
                "protocol_version": PROTOCOL_VERSION,
                "voter": peer.is_voter,
            }
            for peer in self.lifecycle.vault.membership.peers()
        ]
        return Response({"config": {"servers": servers, "index": 0}})

    @operation("storage/raft/remove-peer", update=ServerId)
    async def remove_peer(self, ctx: Context, body: ServerId) -> Response:
        """Remove a member; it refuses to serve from then on. A node that is no member is removed already."""
        del ctx
        _check_is_named(body)
        await _changed(self.lifecycle.vault.membership.remove(body.server_id))
        return Response()

    @operation("storage/raft/promote", update=ServerId)
    async def promote(self, ctx: Context, body: ServerId) -> Response:
        """Let a member vote: at once if it has caught up, else as soon as it has."""
        del ctx
        _check_is_named(body)
        if not await _changed(self.lifecycle.vault.membership.promote(body.server_id)):
            raise _no_server(body)
        return Response()

    @operation("storage/raft/demote", update=ServerId)
    async def demote(self, ctx: Context, body: ServerId) -> Response:
        """Take a member's vote until it is promoted again; it stays a member and keeps up."""
        del ctx
        _check_is_named(body)
        if not await _changed(self.lifecycle.vault.membership.demote(body.server_id)):
            raise _no_server(body)
        return Response()

    @operation("storage/raft/autopilot/state", read=True, writes=True)
    def autopilot_state(self, ctx: Context) -> Response:
        """Describe the health of every member, as the leader sees it."""
        peers = self.lifecycle.vault.membership.peers()
        voters = [peer for peer in peers if peer.is_voter]
        data = {
            "failure_tolerance": failure_tolerance(peers),
            "healthy": all(peer.is_healthy for peer in peers),
            "leader": next((peer.node_id for peer in peers if peer.is_leader), ""),
            "servers": {peer.node_id: self._autopilot_server(peer, ctx.now_ns) for peer in peers},
            "voters": [peer.node_id for peer in voters],
        }
        return Response(data)

    def _autopilot_server(self, peer: Peer, now_ns: int) -> dict[str, Any]:
        contact = peer.last_contact_seconds or 0.0
        status = "leader" if peer.is_leader else "voter" if peer.is_voter else "non-voter"
        stable_since = peer.stable_since_ns if peer.stable_since_ns is not None else now_ns
        return {
            "id": peer.node_id,
            "name": peer.node_id,
            "address": peer.cluster_address,
            "node_status": "alive" if self._is_heard(peer) else "failed",
            "last_contact": format_duration(0 if peer.is_leader else contact),
            "last_term": peer.last_term,
            "last_index": peer.last_index,
            "healthy": peer.is_healthy,
            "stable_since": datetime.fromtimestamp(stable_since / 1e9, UTC).isoformat().replace("+00:00", "Z"),
            "status": status,
            "version": peer.version,
            "node_type": "voter" if peer.may_vote else "non-voter",
        }

    def _is_heard(self, peer: Peer) -> bool:
        contact = peer.last_contact_seconds
        return contact is not None and contact <= self.lifecycle.autopilot.last_contact_threshold_seconds

    @operation("storage/raft/autopilot/configuration", read=True)
    def autopilot_configuration(self, ctx: VaultContext) -> Response:
        """Return the rules by which learners are promoted, members judged and the dead removed."""
        rules = read_rules(ctx.services)
        return Response(
            {
                "cleanup_dead_servers": rules.cleanup_dead_servers,
                "dead_server_last_contact_threshold": format_duration(rules.dead_server_last_contact_threshold_seconds),
                "last_contact_threshold": format_duration(rules.last_contact_threshold_seconds),
                "max_trailing_logs": rules.max_trailing_logs,
                "min_quorum": rules.min_quorum,
                "server_stabilization_time": format_duration(rules.server_stabilization_time_seconds),
            }
        )

    @operation("storage/raft/autopilot/configuration", update=Autopilot)
    def configure_autopilot(self, ctx: VaultContext, body: Autopilot) -> Response:
        """Change these rules, for whichever node leads."""
        given = {
            "cleanup_dead_servers": body.cleanup_dead_servers,
            "dead_server_last_contact_threshold_seconds": body.dead_server_last_contact_threshold,
            "last_contact_threshold_seconds": body.last_contact_threshold,
            "max_trailing_logs": body.max_trailing_logs,
            "min_quorum": body.min_quorum,
            "server_stabilization_time_seconds": body.server_stabilization_time,
        }
        change_rules(ctx.services, {name: value for name, value in given.items() if value is not None})
        return Response()


async def _changed(change: Awaitable[bool]) -> bool:
    """Wait for a membership change, and return whether there was such a member."""
    try:
        return await change
    except RemovalRefused as error:
        raise InvalidRequest(str(error)) from error


def _check_is_named(body: ServerId) -> None:
    if not body.server_id:
        raise InvalidRequest("no server id provided")


def _no_server(body: ServerId) -> InternalError:
    return InternalError(f"1 error occurred:\n\t* server {body.server_id} not found in raft configuration\n\n")


def failure_tolerance(peers: Sequence[Peer]) -> int:
    """Return how many voters may fail before the cluster loses its quorum, as far as this node knows."""
    voters = [peer for peer in peers if peer.is_voter]
    return max(0, sum(peer.is_healthy for peer in voters) - (len(voters) // 2 + 1))
