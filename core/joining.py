"""What a node asks another one over its API: to be taken into its cluster, or where it can be reached.

`challenge` fetches something that only a holder of the unseal key can open; `answer` hands in the proof, with the node's
certificate request, and brings back its membership. `meet` is for members that have both moved. Plain HTTP/1.1 in a thread,
every wait and size bounded, TLS as `retry_join` and `operator raft join` describe it. Which proofs are right is decided in
`core/unsealing.py`, what is said in a meeting in `cluster/finding.py`.

Source: Vault's pages "Integrated storage" and "sys/storage/raft".
"""

import asyncio
import base64
import http.client
import ssl
import tempfile
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from conclave.cluster.errors import StatementRefused
from conclave.cluster.replica import Finding, JoinRequest, JoinTicket
from conclave.storage.seal import SealConfig

MEET_SECONDS_MAX: Final = 3.0
"""The same for a meeting, where nothing has to be written."""
ASK_SECONDS_MAX: Final = 15.0
"""How long one answer may take; above what a leader takes to admit a member."""
ANSWER_BYTES_MAX: Final = 1 << 20
"""The largest answer that is read: a membership of many nodes has a few kilobytes."""
CHALLENGE_PATH: Final = "/v1/sys/storage/raft/bootstrap/challenge"
ANSWER_PATH: Final = "/v1/sys/storage/raft/bootstrap/answer"
ADDRESS_PATH: Final = "/v1/sys/storage/raft/bootstrap/address"


class JoinTarget(Struct, frozen=True):
    """One node of the cluster that is to be joined, and how to know it. PEM texts, empty where there is nothing."""

    leader_api_address: str
    authority_pem: str = ""
    client_certificate_pem: str = ""
    client_key_pem: str = ""
    server_name: str = ""


class Challenge(Struct, frozen=True):
    """What a cluster asks a joining node, and how its unseal key is shared."""

    challenge: bytes
    seal_config: SealConfig


class JoinFailed(Exception):
    """The cluster could not be asked, or refused; the text says why.

    Args:
        text: what went wrong.
        is_refusal: whether the cluster answered, so that asking again changes nothing.
    """

    def __init__(self, text: str, *, is_refusal: bool = False) -> None:
        super().__init__(text)
        self.is_refusal = is_refusal


async def ask_challenge(target: JoinTarget, node_id: str) -> Challenge:
    """Fetch a challenge for this node.

    Raises:
        JoinFailed: there was none.
    """
    data = await _ask(target, CHALLENGE_PATH, {"server_id": node_id})
    try:
        config = data["seal_config"]
        sealed = base64.b64decode(data["challenge"], validate=True)
        return Challenge(sealed, SealConfig(int(config["secret_shares"]), int(config["secret_threshold"])))
    except (KeyError, TypeError, ValueError) as error:
        raise JoinFailed(f"{target.leader_api_address} gave a challenge that makes no sense") from error


async def hand_in(target: JoinTarget, request: JoinRequest, proof: bytes, *, is_voter: bool) -> JoinTicket:
    """Hand in the proof and return what makes this node a member.

    Raises:
        JoinFailed: it was not accepted, or the answer did not come.
    """
    fields = {
        "server_id": request.node_id,
        "answer": base64.b64encode(proof).decode(),
        "cluster_addr": request.cluster_address,
        "non_voter": not is_voter,
        "certificate_request": request.request_pem.decode(),
        "incarnation": base64.b64encode(request.incarnation).decode(),
    }
    data = await _ask(target, ANSWER_PATH, fields)
    try:
        return JoinTicket(
            cluster_id=data["cluster_id"],
            raft_id=int(data["raft_id"]),
            certificate_pem=data["certificate"].encode(),
            authority_pem=data["authority"].encode(),
            membership=base64.b64decode(data["membership"], validate=True),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise JoinFailed(f"{target.leader_api_address} gave a membership that makes no sense") from error


async def meet(target: JoinTarget, finding: Finding) -> None:
    """Tell another node where this one is, and hear where that is.

    Raises:
        JoinFailed: they have not met.
    """
    try:
        asked = await _ask(target, ADDRESS_PATH, {}, seconds_max=MEET_SECONDS_MAX)
        signed, draw = finding.ask(base64.b64decode(asked["challenge"], validate=True))
        fields = {"statement": base64.b64encode(signed).decode()}
        answer = await _ask(target, ADDRESS_PATH, fields, seconds_max=MEET_SECONDS_MAX)
        finding.answered(base64.b64decode(answer["statement"], validate=True), draw)
    except (KeyError, TypeError, ValueError) as error:
        raise JoinFailed(f"{target.leader_api_address} gave an answer that makes no sense") from error
    except StatementRefused as error:
        raise JoinFailed(f"what {target.leader_api_address} says is not believed: {error}") from error


async def _ask(
    target: JoinTarget, path: str, fields: dict[str, Any], *, seconds_max: float = ASK_SECONDS_MAX
) -> dict[str, Any]:
    """Return the `data` of the answer to one request."""
    body = msgspec.json.encode(fields)
    try:
        status, answer = await asyncio.get_running_loop().run_in_executor(None, _post, target, path, body, seconds_max)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise JoinFailed(f"cannot reach {target.leader_api_address or 'the leader'}: {error}") from error
    try:
        decoded = msgspec.json.decode(answer)
    except ValueError as error:  # msgspec's own error, or a text that is no UTF-8
        raise JoinFailed(f"{target.leader_api_address} answered no JSON") from error
    if status != http.client.OK or not isinstance(decoded, dict) or not isinstance(decoded.get("data"), dict):
        errors = decoded.get("errors") if isinstance(decoded, dict) else None
        text = "; ".join(str(each) for each in errors) if errors else f"status {status}"
        raise JoinFailed(text, is_refusal=400 <= status < 500)
    data: dict[str, Any] = decoded["data"]
    return data


def _post(target: JoinTarget, path: str, body: bytes, seconds_max: float) -> tuple[int, bytes]:
    """Send one request and return status and body. In a thread."""
    connection = _connect(target, seconds_max)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json", "X-Vault-Request": "true"})
        response = connection.getresponse()
        return response.status, response.read(ANSWER_BYTES_MAX)
    finally:
        connection.close()


def _connect(target: JoinTarget, seconds_max: float) -> http.client.HTTPConnection:
    address = urlsplit(target.leader_api_address)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ValueError(f"{target.leader_api_address!r} is not an address of the form https://host:port")
    if address.scheme == "http":
        return http.client.HTTPConnection(address.hostname, address.port or 80, timeout=seconds_max)
    return _NamedConnection(
        address.hostname,
        address.port or 443,
        server_name=target.server_name,
        context=_tls_context(target),
        seconds_max=seconds_max,
    )


class _NamedConnection(http.client.HTTPSConnection):
    """A TLS connection whose certificate is checked against another name than the one connected to."""

    def __init__(self, host: str, port: int, *, server_name: str, context: ssl.SSLContext, seconds_max: float) -> None:
        super().__init__(host, port, timeout=seconds_max, context=context)
        self._tls = context
        self._server_name = server_name

    def connect(self) -> None:
        """Connect, then prove that it is who it should be."""
        http.client.HTTPConnection.connect(self)
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._server_name or self.host)


def _tls_context(target: JoinTarget) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=target.authority_pem or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if target.client_certificate_pem:
        # OpenSSL reads a key from a file only. This one is 0600 and gone before anything else happens.
        with tempfile.NamedTemporaryFile(prefix="conclave-", suffix=".pem") as file:
            file.write(f"{target.client_key_pem}\n{target.client_certificate_pem}".encode())
            file.flush()
            context.load_cert_chain(file.name)
    return context
