"""Outcomes become the bytes that were recorded from a real server."""

import msgspec
import pytest

from conclave.api.envelope import STATUS, answer, refusal
from conclave.core import errors
from conclave.core.contract import Auth, Lease, Operation, Request, Response, WrapInfo

ID = "d5a943d3-ecbb-7c7e-cca6-999c64c71bac"


def request(path: str = "secret/data/app", **query: str) -> Request:
    return Request(ID, Operation.READ, path, query=query)


def body(response: Response) -> bytes:
    return answer(request(), response).body


def test_data_stands_in_the_envelope_with_its_keys_sorted() -> None:
    data = {"version": 1, "created_time": "2026-11-24T00:06:01.265583619Z", "custom_metadata": None}

    assert body(Response(data)) == (
        b'{"request_id":"d5a943d3-ecbb-7c7e-cca6-999c64c71bac","lease_id":"","renewable":false,"lease_duration":0,'
        b'"data":{"created_time":"2026-11-24T00:06:01.265583619Z","custom_metadata":null,"version":1},'
        b'"wrap_info":null,"warnings":null,"auth":null}\n'
    )


def test_json_text_goes_in_as_it_is() -> None:
    text = b'{"big":123456789012345678901234567890,"foo":1.50}'

    assert b'"data":' + text + b',"wrap_info"' in body(Response(msgspec.Raw(text)))


def test_characters_are_escaped_as_go_does() -> None:
    assert b'{"u":"\xc3\xa9\\u003c\\u003e\\u0026\\u2028"}' in body(Response({"u": "é<>&\u2028"}))


def test_a_lease_is_shown() -> None:
    lease = Lease("", 2764800, renewable=False)

    assert b'"lease_id":"","renewable":false,"lease_duration":2764800,' in body(Response({}, lease=lease))


def test_an_auth_block_keeps_its_order() -> None:
    auth = Auth(
        client_token="t",
        accessor="a",
        policies=["root"],
        token_policies=["root"],
        metadata={"b": "2", "a": "1"},
        lease_duration=3600,
        renewable=True,
        entity_id="",
        token_type="service",
        orphan=False,
    )

    assert body(Response(auth=auth)).endswith(
        b'"auth":{"client_token":"t","accessor":"a","policies":["root"],"token_policies":["root"],'
        b'"metadata":{"a":"1","b":"2"},"lease_duration":3600,"renewable":true,"entity_id":"","token_type":"service",'
        b'"orphan":false,"mfa_requirement":null,"num_uses":0}}\n'
    )


def test_a_wrapped_answer_has_no_request_id_and_no_data() -> None:
    info = WrapInfo("s.z", "sS", 45, "2026-11-24T00:07:40.412285321Z", "kv/wrap")

    assert body(Response(wrap_info=info)) == (
        b'{"request_id":"","lease_id":"","renewable":false,"lease_duration":0,"data":null,"wrap_info":{"token":"s.z",'
        b'"accessor":"sS","ttl":45,"creation_time":"2026-11-24T00:07:40.412285321Z","creation_path":"kv/wrap"},'
        b'"warnings":null,"auth":null}\n'
    )


def test_a_wrapped_login_names_the_accessor_of_its_token() -> None:
    info = WrapInfo("s.z", "sS", 45, "now", "auth/token/create", "gz")

    assert b'"creation_path":"auth/token/create","wrapped_accessor":"gz"}' in body(Response(wrap_info=info))


def test_doubled_data_also_stands_at_the_top() -> None:
    assert body(Response({"nodes": []}, is_doubled=True)).startswith(b'{"nodes":[],"request_id":"')
    assert body(Response({}, is_doubled=True)).startswith(b'{"request_id":"')


def test_bare_data_keeps_the_order_it_was_given() -> None:
    assert body(Response({"b": 1, "a": 2}, is_bare=True)) == b'{"b":1,"a":2}\n'


def test_nothing_to_say_is_a_204_without_a_body() -> None:
    found = answer(request(), Response())

    assert (found.status, found.body) == (204, b"")


def test_a_warning_makes_an_envelope() -> None:
    found = answer(request(), Response(warnings=["w"]))

    assert found.status == 200
    assert b'"data":null,"wrap_info":null,"warnings":["w"],"auth":null' in found.body


def test_a_deleted_version_is_a_404_with_an_envelope() -> None:
    found = answer(request(), Response({"data": None}, is_absent=True))

    assert found.status == 404
    assert b'"data":{"data":null}' in found.body


def test_work_that_goes_on_is_a_202() -> None:
    assert answer(request(), Response(warnings=["w"], is_accepted=True)).status == 202


def test_a_raw_body_goes_out_with_its_content_type() -> None:
    found = answer(request(), Response(raw=b"x 1\n", content_type="text/plain"))

    assert (found.status, found.body, found.content_type) == (200, b"x 1\n", b"text/plain")


def test_every_kind_of_refusal_has_a_status() -> None:
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.RequestError)}

    assert kinds - {errors.RequestError} == set(STATUS)


def test_a_refusal_lists_its_texts() -> None:
    found = refusal(errors.unsupported_operation())

    assert (found.status, found.body) == (405, b'{"errors":["1 error occurred:\\n\\t* unsupported operation\\n\\n"]}\n')
    assert len(found.body) == 64  # as recorded
    assert refusal(errors.NotFound()).body == b'{"errors":[]}\n'


def test_an_operation_that_a_front_path_lacks_is_refused_without_a_text() -> None:
    assert answer(request("sys/health"), errors.unsupported_operation()).body == b'{"errors":[]}\n'


def test_a_redirect_has_a_location_and_nothing_else() -> None:
    found = refusal(errors.Redirected("http://127.0.0.1:8200/v1/x"))

    assert (found.status, found.body, found.content_type) == (307, b"", b"")
    assert found.headers == ((b"location", b"http://127.0.0.1:8200/v1/x"),)


def test_unavailable_says_when_to_come_back() -> None:
    assert refusal(errors.Unavailable("x", retry_after_seconds=3)).headers == ((b"retry-after", b"3"),)


@pytest.mark.parametrize(
    ("condition", "query", "status"),
    [
        ("active", {}, 200),
        ("standby", {}, 429),
        ("sealed", {}, 503),
        ("uninitialized", {}, 501),
        ("standby", {"standbyok": "true"}, 200),
        ("standby", {"standbyok": ""}, 200),
        ("standby", {"standbyok": "false"}, 429),
        ("standby", {"perfstandbyok": "true"}, 200),
        ("standby", {"perfstandbyok": "true", "standbycode": "277"}, 277),
        ("sealed", {"standbyok": "true"}, 503),
        ("sealed", {"sealedcode": "200"}, 200),
        ("uninitialized", {"uninitcode": "299"}, 299),
        ("active", {"activecode": "abc"}, 400),
        ("active", {"activecode": "100"}, 400),
        ("active", {"activecode": "999"}, 400),
    ],
)
def test_health_has_the_code_that_the_query_wants(condition: str, query: dict[str, str], status: int) -> None:
    response = Response({"sealed": False}, is_bare=True, condition=condition)

    assert answer(request("sys/health", **query), response).status == status


def test_every_condition_of_a_node_has_a_code() -> None:
    for condition in ("active", "standby", "sealed", "uninitialized", "removed"):
        assert answer(request("sys/health"), Response({}, is_bare=True, condition=condition)).status >= 200
