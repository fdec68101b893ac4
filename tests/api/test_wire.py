"""What the fast lane recognises, httptools reads the same way."""

from typing import Any

import httptools
import pytest
from hypothesis import given
from hypothesis.strategies import binary, builds, lists, sampled_from, text, tuples

from conclave.api.wire import HEAD_BYTES_MAX, PLAIN_BODY_BYTES_MAX, Message, Verdict, recognise

SIMPLE = b"GET /v1/secret/data/app?version=1 HTTP/1.1\r\nHost: a\r\nX-Vault-Token:  t \r\n\r\n"


class Judge:
    """Collects what httptools says of some bytes."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.is_complete = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.strip(b" \t")))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.is_complete = True


names = sampled_from(
    [b"Host", b"X-Vault-Token", b"Content-Length", b"Transfer-Encoding", b"Connection", b"X", b"x-Y", b"Ex pect"]
)
values = sampled_from(
    [b"a", b"3", b"0", b"-1", b"chunked", b"close", b"keep-alive", b" x ", b"", b"a\tb", b"\xff", b"a\x00"]
) | binary(max_size=6)
targets = sampled_from(
    [b"/", b"/v1/a", b"/v1/a?b=c", b"/v1/a%20?", b"/v1/?x", b"//", b"/v1/a#b", b"/\x7f", b"v1"]
) | builds(lambda tail: b"/v1/" + tail.encode(), text(max_size=8))
heads = builds(
    lambda method, target, version, fields: (
        method + b" " + target + b" HTTP/" + version + b"\r\n" + b"".join(b"%b: %b\r\n" % f for f in fields) + b"\r\n"
    ),
    sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"HEAD"]),
    targets,
    sampled_from([b"1.1", b"1.1", b"1.1", b"1.0", b"2.0"]),
    lists(tuples(names, values), max_size=4),
)


@given(head=heads, body=sampled_from([b"", b"abc", b"0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"]))
def test_httptools_agrees_with_whatever_is_recognised(head: bytes, body: bytes) -> None:
    message = recognise(head + body)
    if not isinstance(message, Message):
        return
    if any(byte > 127 for byte in message.path + message.query):
        return  # httptools takes ASCII only; the percent-decoder checks the rest
    judge: Any = Judge()
    parser = httptools.HttpRequestParser(judge)

    parser.feed_data((head + body)[: message.length])

    assert judge.is_complete
    assert parser.get_method() == message.method
    path, _, query = judge.url.partition(b"#")[0].partition(b"?")
    assert (path, query) == (message.path, message.query)
    assert dict(reversed(judge.headers)) == message.headers.values
    assert judge.body == message.body


@given(data=binary(max_size=200))
def test_any_bytes_have_a_verdict(data: bytes) -> None:
    recognise(b"G" + data)


@pytest.mark.parametrize("length", range(1, len(SIMPLE)))
def test_a_part_of_a_plain_request_is_waited_for(length: int) -> None:
    assert recognise(SIMPLE[:length]) is Verdict.INCOMPLETE


def test_the_same_header_block_is_not_read_twice() -> None:
    first = recognise(SIMPLE)
    assert isinstance(first, Message)

    second = recognise(SIMPLE.replace(b"/app", b"/other"), first.headers)

    assert isinstance(second, Message)
    assert second.headers is first.headers
    assert second.path == b"/v1/secret/data/other"


def test_a_message_ends_where_its_body_ends() -> None:
    message = recognise(b"POST /v1/a HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}GET / HTTP/1.1\r\n\r\n")

    assert isinstance(message, Message)
    assert message.body == b"{}"


@pytest.mark.parametrize(
    "fields",
    [
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 1\r\nContent-Length: 1\r\n",
        b"Content-Length: +1\r\n",
        b"Content-Length: %d\r\n" % (PLAIN_BODY_BYTES_MAX + 1),
        b"Expect: 100-continue\r\n",
        b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
        b"X : a\r\n",
        b"X: a\r\n b\r\n",
    ],
)
def test_what_is_not_plain_is_left_to_the_parser(fields: bytes) -> None:
    assert recognise(b"POST /v1/a HTTP/1.1\r\n" + fields + b"\r\nx") is Verdict.ODD


def test_a_head_without_an_end_is_too_large() -> None:
    assert recognise(b"GET /v1/a HTTP/1.1\r\nX: " + b"a" * HEAD_BYTES_MAX) is Verdict.TOO_LARGE
    assert recognise(b"GET /" + b"a" * HEAD_BYTES_MAX) is Verdict.TOO_LARGE
