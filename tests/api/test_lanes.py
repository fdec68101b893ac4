"""Both lanes answer the same bytes, over one corpus."""

import re
from collections.abc import Callable
from typing import Any

import pytest

TOKEN = b"X-Vault-Token: hvs.root\r\n"

CORPUS = {
    "read": b"GET /v1/secret/data/app HTTP/1.1\r\nHost: a\r\n" + TOKEN + b"\r\n",
    "bearer": b"GET /v1/secret/data/app HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer hvs.x\r\n\r\n",
    "lower bearer": b"GET /v1/secret/data/app HTTP/1.1\r\nHost: a\r\nAuthorization: bearer hvs.x\r\n\r\n",
    "query": b"GET /v1/secret/data/app?version=1&a=%C3%A9&a=2 HTTP/1.1\r\nHost: a\r\n\r\n",
    "list by query": b"GET /v1/secret/metadata?list=true HTTP/1.1\r\nHost: a\r\n\r\n",
    "list by junk": b"GET /v1/secret/metadata?list=banana HTTP/1.1\r\nHost: a\r\n\r\n",
    "write": b'POST /v1/secret/data/app HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{"a":"b"}',
    "put": b'PUT /v1/secret/data/app HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{"a":"b"}',
    "form": b"POST /v1/kv/a HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    b"Content-Length: 7\r\n\r\na=1&b=2",
    "json as a form": b"POST /v1/kv/a HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    b'Content-Length: 9\r\n\r\n{"a":"="}',
    "patch": b"PATCH /v1/kv/a HTTP/1.1\r\nHost: a\r\nContent-Type: application/merge-patch+json; charset=utf-8\r\n"
    b"Content-Length: 2\r\n\r\n{}",
    "patch as json": b"PATCH /v1/kv/a HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    "delete": b"DELETE /v1/kv/a HTTP/1.1\r\nHost: a\r\n\r\n",
    "options": b"OPTIONS /v1/kv/a HTTP/1.1\r\nHost: a\r\n\r\n",
    "trace": b"TRACE /v1/kv/a HTTP/1.1\r\nHost: a\r\n\r\n",
    "head": b"HEAD /v1/kv/a HTTP/1.1\r\nHost: a\r\n\r\n",
    "head of health": b"HEAD /v1/sys/health HTTP/1.1\r\nHost: a\r\n\r\n",
    "outside": b"GET /foo HTTP/1.1\r\nHost: a\r\n\r\n",
    "root": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "bare prefix": b"GET /v1/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "two slashes": b"GET /v1/secret/data//a?x=1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "dots": b"GET /v1/secret/data/a/../b HTTP/1.1\r\nHost: a\r\n\r\n",
    "hidden dots": b"GET /v1/secret/data/%2e%2e/b HTTP/1.1\r\nHost: a\r\n\r\n",
    "nul": b"GET /v1/secret/a%00b HTTP/1.1\r\nHost: a\r\n\r\n",
    "bad escape": b"GET /v1/secret/a%zz HTTP/1.1\r\nHost: a\r\n\r\n",
    "not UTF-8": b"GET /v1/secret/a%ff HTTP/1.1\r\nHost: a\r\n\r\n",
    "encoded": b"GET /v1/secret/data/dir%2Fsub%20a%C3%A9 HTTP/1.1\r\nHost: a\r\n\r\n",
    "trailing slash": b"GET /v1/secret/data/dir/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "fragment": b"GET /v1/secret/data/a?x=1#y HTTP/1.1\r\nHost: a\r\n\r\n",
    "absent": b"GET /v1/secret/data/none HTTP/1.1\r\nHost: a\r\n\r\n",
    "namespace": b"GET /v1/secret/data/a HTTP/1.1\r\nHost: a\r\nX-Vault-Namespace: ns1\r\n\r\n",
    "root namespace": b"GET /v1/secret/data/a HTTP/1.1\r\nHost: a\r\nX-Vault-Namespace: root\r\n\r\n",
    "health of a namespace": b"GET /v1/sys/health HTTP/1.1\r\nHost: a\r\nX-Vault-Namespace: zz\r\n\r\n",
    "wrap": b"GET /v1/secret/data/a HTTP/1.1\r\nHost: a\r\nX-Vault-Wrap-TTL: 1m0s\r\n\r\n",
    "bad wrap": b"GET /v1/secret/data/a HTTP/1.1\r\nHost: a\r\nX-Vault-Wrap-TTL: abc\r\n\r\n",
    "negative wrap": b"GET /v1/secret/data/a HTTP/1.1\r\nHost: a\r\nX-Vault-Wrap-TTL: -5\r\n\r\n",
    "bad index": b"GET /v1/secret/data/a HTTP/1.1\r\nHost: a\r\nX-Vault-Index: garbage\r\n\r\n",
    "index": b"GET /v1/secret/data/a HTTP/1.1\r\nHost: a\r\nX-Vault-Index: eyJjbHVzdGVyIjoiYiIsInZhbHVlIjoiOTk5OSJ9\r\n\r\n",
}


def without_date(answer: bytes) -> bytes:
    return re.sub(rb"date: [^\r]*\r\n", b"", answer)


@pytest.mark.parametrize("name", CORPUS)
@pytest.mark.parametrize("is_late", [False, True])
def test_both_lanes_answer_the_same_bytes(serve: Callable[..., Any], name: str, is_late: bool) -> None:
    plain = CORPUS[name]
    slow = plain.replace(b"Host: a\r\n", b"Host: a\r\nConnection: keep-alive, x\r\n", 1)  # plain to httptools alone

    async def scenario(served: Any) -> tuple[bytes, bytes]:
        served.vault.is_late = is_late
        answers = []
        for data in (plain, slow):
            async with served.connect() as client:
                client.send(data)
                answers.append(without_date(await client.receive(is_head=plain.startswith(b"HEAD"))))
        return answers[0], answers[1]

    fast_answer, slow_answer = serve(scenario)

    assert fast_answer.startswith(b"HTTP/1.1 ")
    assert fast_answer == slow_answer


def test_the_verb_list_is_known_though_the_parser_does_not_know_it(serve: Callable[..., Any]) -> None:
    async def scenario(served: Any) -> bytes:
        async with served.connect() as client:
            client.send(b"LIST /v1/secret/metadata HTTP/1.1\r\nHost: a\r\n\r\n")
            return bytes(await client.receive())

    assert b'"operation":"list"' in serve(scenario)


def test_a_connection_goes_back_and_forth_between_the_lanes(serve: Callable[..., Any]) -> None:
    async def scenario(served: Any) -> list[bytes]:
        async with served.connect() as client:
            answers = []
            for name in ("read", "write", "read"):
                for header in (b"", b"Connection: keep-alive, x\r\n"):
                    client.send(CORPUS[name].replace(b"Host: a\r\n", b"Host: a\r\n" + header))
                    answers.append(await client.receive())
            return answers

    answers = serve(scenario)

    assert [answer[:15] for answer in answers] == [b"HTTP/1.1 200 OK"] * 6


def test_pipelined_requests_are_answered_in_order(serve: Callable[..., Any]) -> None:
    names = ["a", "b", "c", "d"]
    slow = b"Connection: keep-alive, x\r\n"
    data = b"".join(
        b"GET /v1/kv/%b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (name.encode(), slow if name in "bc" else b"")
        for name in names
    )

    async def scenario(served: Any) -> list[bytes]:
        served.vault.is_late = True
        async with served.connect() as client:
            client.send(data)
            return [await client.receive() for _ in names]

    answers = serve(scenario)

    assert [f'"path":"kv/{name}"'.encode() in answer for name, answer in zip(names, answers, strict=True)] == [True] * 4


def test_bytes_may_come_one_by_one(serve: Callable[..., Any]) -> None:
    async def scenario(served: Any) -> bytes:
        async with served.connect() as client:
            for byte in CORPUS["write"]:
                client.send(bytes([byte]))
                await client.writer.drain()
            return bytes(await client.receive())

    assert b'"operation":"update"' in serve(scenario)


def test_a_chunked_body_is_the_same_body(serve: Callable[..., Any]) -> None:
    async def scenario(served: Any) -> bytes:
        async with served.connect() as client:
            client.send(b"POST /v1/kv/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            client.send(b'3\r\n{"a\r\n6\r\n":"b"}\r\n0\r\n\r\n')
            await client.receive()
            return bytes(served.vault.requests[0].body)

    assert serve(scenario) == b'{"a":"b"}'


def test_a_body_above_the_bound_is_refused_in_words_that_clients_know(serve: Callable[..., Any]) -> None:
    async def scenario(served: Any) -> bytes:
        async with served.connect() as client:
            client.send(b"POST /v1/kv/a HTTP/1.1\r\nHost: a\r\nContent-Length: 200\r\n\r\n" + b"x" * 200)
            return bytes(await client.receive())

    answer = serve(scenario, max_request_size=100)

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b'{"errors":["http: request body too large"]}\n')


def test_a_half_closed_client_gets_its_late_answer(serve: Callable[..., Any]) -> None:
    async def scenario(served: Any) -> bytes:
        served.vault.holds = True
        async with served.connect() as client:
            client.send(CORPUS["read"])
            client.writer.write_eof()
            await served.until(lambda: served.vault.waiting)
            served.vault.waiting[0](served.vault.answer(served.vault.requests[0]))
            return bytes(await client.rest())

    assert serve(scenario).startswith(b"HTTP/1.1 200 OK")


def test_an_answer_after_the_client_has_gone_is_dropped(serve: Callable[..., Any]) -> None:
    async def scenario(served: Any) -> float:
        served.vault.holds = True
        async with served.connect() as client:
            client.send(CORPUS["read"])
            await served.until(lambda: served.vault.waiting)
            client.reset()
        await served.until(lambda: not served.listeners.metrics.in_flight.value)
        served.vault.waiting[0](served.vault.answer(served.vault.requests[0]))
        return float(served.listeners.metrics.in_flight.value)

    assert serve(scenario) == 0
