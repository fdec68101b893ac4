"""Request parsing: what each part of an HTTP request asks for."""

import pytest
from hypothesis import given
from hypothesis.strategies import binary, dictionaries, sampled_from

from conclave.api.fastlane import clean_path, path_of, query_of, request_of, take_body, terms_of
from conclave.core.contract import Operation, Request
from conclave.core.errors import InvalidRequest, NotFound, Redirected, RequestError, UnsupportedContent

REMOTE = ("127.0.0.1", 4711)


def parse(method: bytes, path: bytes, query: bytes = b"", **headers: bytes) -> Request:
    named = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    return request_of(method, path, query, terms_of(named), request_id="id", remote=REMOTE)


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/v1/secret/data/app", "secret/data/app"),
        (b"/v1/secret/data/dir/", "secret/data/dir/"),
        (b"/v1/secret/data/dir%2Fsub", "secret/data/dir/sub"),
        (b"/v1/secret/a%20b", "secret/a b"),
        (b"/v1/secret/%C3%A9", "secret/é"),
        ("/v1/secret/é".encode(), "secret/é"),
        (b"/v1/a..b/.hidden", "a..b/.hidden"),
        (b"/v1/a+b", "a+b"),
    ],
)
def test_a_path_is_decoded(raw: bytes, path: str) -> None:
    assert path_of(raw) == path


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        (b"/v1/secret/data//dir//sub", b"/v1/secret/data/dir/sub"),
        (b"/v1/secret/data/dir/../dir/sub", b"/v1/secret/data/dir/sub"),
        (b"/v1/a/./b/", b"/v1/a/b/"),
        (b"//", b"/"),
        (b"/../..", b"/"),
        (b"/v1/a/..", b"/v1/"),
    ],
)
def test_an_unclean_path_is_redirected_to_the_clean_one(raw: bytes, clean: bytes) -> None:
    assert clean_path(raw) == clean
    with pytest.raises(Redirected) as refused:
        path_of(raw, b"x=1")
    assert refused.value.location == clean.decode() + "?x=1"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"/v1/a/%2e%2e/b", "relative paths not supported"),
        (b"/v1/a/%2E/b", "relative paths not supported"),
        (b"/v1/a%00b", "the path contains a character that cannot be printed"),
        (b"/v1/a%0ab", "the path contains a character that cannot be printed"),
        (b"/v1/a%2F%2Fb", "the path contains an empty segment"),
        (b"/v1/a%ff", "the path is not valid UTF-8"),
        (b"/v1/a%zz", 'invalid URL escape "%zz"'),
        (b"/v1/a%", 'invalid URL escape "%"'),
    ],
)
def test_a_path_that_hides_something_is_refused(raw: bytes, text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        path_of(raw)
    assert refused.value.messages == (text,)


@pytest.mark.parametrize("raw", [b"/", b"/foo", b"/v1", b"/v1/", b"/v2/secret"])
def test_what_is_not_below_v1_is_not_found(raw: bytes) -> None:
    with pytest.raises(NotFound):
        path_of(raw)


@given(raw=binary(max_size=40))
def test_a_clean_path_is_clean_already(raw: bytes) -> None:
    once = clean_path(b"/" + raw)

    assert clean_path(once) == once


@given(
    raw=binary(max_size=40),
    query=binary(max_size=20),
    method=sampled_from([b"GET", b"LIST", b"POST", b"FROB"]),
    headers=dictionaries(
        sampled_from([b"x-vault-wrap-ttl", b"x-vault-index", b"authorization", b"content-type", b"x-vault-namespace"]),
        binary(max_size=20),
    ),
)
def test_anything_is_a_request_or_a_request_error(
    raw: bytes, query: bytes, method: bytes, headers: dict[bytes, bytes]
) -> None:
    try:
        request = request_of(method, b"/v1/" + raw, query, terms_of(headers), request_id="id", remote=REMOTE)
        take_body(request, raw)
    except RequestError:
        return
    assert request.path.isprintable()
    assert ".." not in request.path.split("/")


def test_a_get_that_lists_is_a_list() -> None:
    request = parse(b"GET", b"/v1/secret/metadata", b"list=1&limit=2")

    assert (request.operation, request.query) == (Operation.LIST, {"limit": "2"})


def test_list_false_is_a_read_that_keeps_the_parameter() -> None:
    request = parse(b"GET", b"/v1/secret/x", b"list=false")

    assert (request.operation, request.query) == (Operation.READ, {"list": "false"})


def test_a_repeated_query_field_is_a_list_with_commas() -> None:
    assert query_of(b"a=1&b=&a=2") == {"a": "1,2", "b": ""}


def test_too_many_query_fields_are_refused() -> None:
    with pytest.raises(InvalidRequest):
        query_of(b"&".join(b"a%d=1" % i for i in range(101)))


def test_the_vault_token_goes_before_the_bearer_token() -> None:
    assert parse(b"GET", b"/v1/a", x_vault_token=b" v ", authorization=b"Bearer b").token == "v"
    assert parse(b"GET", b"/v1/a", x_vault_token=b"", authorization=b"Bearer b").token == "b"
    assert parse(b"GET", b"/v1/a", authorization=b"bearer b").token == ""
    assert parse(b"GET", b"/v1/a", authorization=b"Token b").token == ""


def test_a_wrap_ttl_is_rounded_up_to_seconds() -> None:
    assert parse(b"GET", b"/v1/a", x_vault_wrap_ttl=b"1m").wrap_ttl_seconds == 60
    assert parse(b"GET", b"/v1/a", x_vault_wrap_ttl=b"500ms").wrap_ttl_seconds == 1
    assert parse(b"GET", b"/v1/a", x_vault_wrap_ttl=b"0").wrap_ttl_seconds == 0


def test_headers_about_forwarding_are_passed_on() -> None:
    assert parse(b"POST", b"/v1/a", x_vault_no_request_forwarding=b"true").is_forwarding_refused
    assert parse(b"GET", b"/v1/a", x_vault_forward=b"active-node").is_for_leader


def taken(body: bytes, content_type: str, operation: Operation = Operation.UPDATE) -> bytes:
    request = Request("id", operation, "a", content_type=content_type)
    take_body(request, body)
    return request.body


def test_a_form_is_the_object_that_it_stands_for() -> None:
    form = "application/x-www-form-urlencoded"

    assert taken(b"a=1&b=2&a=%C3%A9", form) == '{"a":["1","é"],"b":"2"}'.encode()
    assert taken(b'{"a":"="}', form) == b'{"a":"="}'
    assert taken(b"a=1", "application/json") == b"a=1"


def test_a_body_of_a_read_is_not_looked_at() -> None:
    assert taken(b"{}", "application/json", Operation.READ) == b""


def test_a_patch_must_be_a_merge_patch() -> None:
    assert taken(b"{}", "application/merge-patch+json; charset=utf-8", Operation.PATCH) == b"{}"
    with pytest.raises(UnsupportedContent) as refused:
        taken(b"{}", "application/json", Operation.PATCH)
    assert refused.value.messages == (
        "PATCH requires Content-Type of application/merge-patch+json, provided application/json",
    )
