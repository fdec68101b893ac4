"""What a joining node asks over HTTP: a server on the loopback answers as a test wants, and the client copes."""

import asyncio
import base64
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import msgspec
import pytest

from conclave.cluster.replica import JoinRequest
from conclave.core import joining
from conclave.core.joining import Challenge, JoinFailed, JoinTarget
from conclave.storage.seal import SealConfig

REQUEST = JoinRequest("n2", "127.0.0.1:8211", b"request", b"private key", b"i" * 16)


class Leader:
    """An API that gives one answer to everything, and remembers what it was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.answer: bytes = b"{}"
        self.asked: list[tuple[str, dict[str, Any]]] = []
        leader = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                leader.asked.append((self.path, msgspec.json.decode(body)))
                self.send_response(leader.status)
                self.send_header("Content-Length", str(len(leader.answer)))
                self.end_headers()
                self.wfile.write(leader.answer)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (its name there)
                """Say nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.target = JoinTarget(f"http://127.0.0.1:{self.server.server_port}")

    def answers(self, data: Any) -> None:
        self.answer = msgspec.json.encode({"data": data})


@pytest.fixture
def leader() -> Iterator[Leader]:
    fake = Leader()
    thread = threading.Thread(target=fake.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()
    thread.join()


def ask(target: JoinTarget) -> Challenge:
    return asyncio.run(joining.ask_challenge(target, "n2"))


def refusal(act: Callable[[], object]) -> JoinFailed:
    with pytest.raises(JoinFailed) as caught:
        act()
    return caught.value


def test_a_challenge_comes_with_what_unsealing_takes(leader: Leader) -> None:
    config = {"type": "shamir", "secret_shares": 5, "secret_threshold": 3}
    leader.answers({"challenge": base64.b64encode(b"sealed").decode(), "seal_config": config})

    assert ask(leader.target) == Challenge(b"sealed", SealConfig(5, 3))
    assert leader.asked == [(joining.CHALLENGE_PATH, {"server_id": "n2"})]


def test_the_proof_brings_a_membership(leader: Leader) -> None:
    leader.answers(
        {
            "cluster_id": "c",
            "raft_id": "18446744073709551615",
            "certificate": "C",
            "authority": "A",
            "membership": base64.b64encode(b"m").decode(),
        }
    )

    ticket = asyncio.run(joining.hand_in(leader.target, REQUEST, b"proof", is_voter=False))

    assert (ticket.raft_id, ticket.certificate_pem, ticket.membership) == (2**64 - 1, b"C", b"m")
    path, fields = leader.asked[0]
    assert path == joining.ANSWER_PATH
    assert fields["non_voter"] is True
    assert base64.b64decode(fields["incarnation"]) == b"i" * 16
    assert "private" not in str(fields)


def test_a_refusal_is_told_in_the_leaders_words(leader: Leader) -> None:
    leader.status, leader.answer = 400, b'{"errors":["node id \\"n2\\" is taken"]}'

    failed = refusal(lambda: ask(leader.target))

    assert str(failed) == 'node id "n2" is taken'
    assert failed.is_refusal


@pytest.mark.parametrize("status", [500, 503])
def test_a_leader_that_cannot_answer_now_has_not_refused(leader: Leader, status: int) -> None:
    leader.status, leader.answer = status, b'{"errors":["Vault is sealed"]}'

    assert not refusal(lambda: ask(leader.target)).is_refusal


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"data":null}',
        b'{"data":{}}',
        b'{"data":{"challenge":"?","seal_config":{"secret_shares":1,"secret_threshold":1}}}',
        b'{"data":{"challenge":"","seal_config":[]}}',
        b'{"data":{"x":"' + b"y" * joining.ANSWER_BYTES_MAX + b'"}}',
    ],
)
def test_an_answer_that_makes_no_sense_is_a_failure(leader: Leader, answer: bytes) -> None:
    leader.answer = answer

    assert isinstance(refusal(lambda: ask(leader.target)), JoinFailed)


@pytest.mark.parametrize("address", ["", "nonsense", "ftp://x", "http://127.0.0.1:1", "http://127.0.0.1:99999"])
def test_an_address_that_leads_nowhere_is_a_failure(address: str) -> None:
    assert not refusal(lambda: ask(JoinTarget(address))).is_refusal


def test_a_plain_port_is_no_tls_server(leader: Leader) -> None:
    target = JoinTarget(leader.target.leader_api_address.replace("http:", "https:"))

    assert "cannot reach" in str(refusal(lambda: ask(target)))
