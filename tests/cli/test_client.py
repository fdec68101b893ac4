from io import BytesIO
from pathlib import Path

import pytest

from conclave.cli.client import Client, Settings, curl_command, policy_for, tls_context
from conclave.cli.errors import OutputOnly, Refused, ServerError, Unreachable
from tests.cli.conftest import FakeServer

NO_ERRORS: dict[str, list[str]] = {"errors": []}


def client(server: FakeServer, **settings: object) -> Client:
    waits: list[float] = []
    return Client(Settings(address=server.address)._replace(**settings), pause=waits.append)  # type: ignore[arg-type]  # any setting


def test_a_request_carries_what_the_settings_say(server: FakeServer) -> None:
    server.answer("PUT /v1/secret/data/a%20b", body={"data": {"version": 1}})

    client(
        server, token="hvs.t", namespace="ns1/", wrap_ttl="1m0s", mfa=("m:1", "n:2"), headers=(("X-Own", "y"),)
    ).write("secret/data/a b", {"data": {"n": "1"}})

    (seen,) = server.seen
    assert seen.body == {"data": {"n": "1"}}
    assert seen.headers["X-Vault-Token"] == "hvs.t"
    assert seen.headers["X-Vault-Namespace"] == "ns1/"
    assert seen.headers["X-Vault-Wrap-Ttl"] == "1m0s"
    assert seen.headers["X-Vault-Request"] == "true"
    assert seen.headers["X-Vault-Mfa"] == "m:1,n:2"
    assert seen.headers["X-Own"] == "y"


def test_a_patch_says_what_kind_of_patch_it_is(server: FakeServer) -> None:
    server.answer("PATCH /v1/secret/data/a", body={})

    client(server).patch("secret/data/a", {"data": {}})

    assert server.seen[0].headers["Content-Type"] == "application/merge-patch+json"


def test_wrapping_ones_own_data_never_goes_without_a_lifetime(server: FakeServer) -> None:
    server.answer("PUT /v1/sys/wrapping/wrap", body={})

    client(server).write("sys/wrapping/wrap", {"a": "b"})

    assert server.seen[0].headers["X-Vault-Wrap-Ttl"] == "5m"


def test_nothing_there_is_no_error_of_a_read(server: FakeServer) -> None:
    assert client(server).read("secret/data/none") is None


def test_a_404_may_still_hold_data(server: FakeServer) -> None:
    server.answer("GET /v1/secret/data/deleted", 404, {"data": {"data": None, "metadata": {"version": 1}}})

    secret = client(server).read("secret/data/deleted")

    assert secret is not None
    assert secret.data["metadata"] == {"version": 1}


def test_an_error_says_what_was_asked_and_what_was_answered(server: FakeServer) -> None:
    server.answer("PUT /v1/secret/data/a", 400, {"errors": ["first", "second"]})

    with pytest.raises(Refused) as raised:
        client(server).write("secret/data/a", {})

    assert str(raised.value) == (
        f"Error making API request.\n\nURL: PUT {server.address}/v1/secret/data/a\nCode: 400. Errors:\n\n* first\n* second"
    )
    assert raised.value.status == 400
    assert raised.value.messages == ["first", "second"]


def test_an_error_names_the_namespace(server: FakeServer) -> None:
    server.answer("GET /v1/a", 403, {"errors": ["permission denied"]})

    with pytest.raises(Refused, match=r"Namespace: ns1/\nURL: GET"):
        client(server, namespace="ns1/").read("a")


def test_an_error_that_is_no_json_is_shown_as_it_is(server: FakeServer) -> None:
    server.answer("GET /v1/a", 502, b"<html>bad gateway")

    with pytest.raises(Refused, match=r"Code: 502\. Raw Message:\n\n<html>bad gateway"):
        client(server).read("a")


def test_an_answer_that_is_no_json_is_an_error(server: FakeServer) -> None:
    server.answer("GET /v1/a", body=b"{broken")

    with pytest.raises(ServerError, match="failed to read the answer"):
        client(server).read("a")


def test_nothing_is_sent_again_unless_asked_for(server: FakeServer) -> None:
    server.answer("GET /v1/a", 503, {"errors": ["Vault is sealed"]})

    with pytest.raises(Refused):
        client(server).read("a")

    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [412, 500, 503])
def test_a_temporary_failure_is_tried_again(server: FakeServer, status: int) -> None:
    server.answer("GET /v1/a", status, NO_ERRORS)
    server.answer("GET /v1/a", body={"data": {"x": 1}})

    secret = client(server, retries_max=2).read("a")

    assert secret is not None
    assert secret.data == {"x": 1}
    assert len(server.seen) == 2


@pytest.mark.parametrize("status", [400, 403, 429, 501])
def test_a_lasting_failure_is_not_tried_again(server: FakeServer, status: int) -> None:
    server.answer("GET /v1/a", status, NO_ERRORS)

    with pytest.raises(Refused):
        client(server, retries_max=2).read("a")

    assert len(server.seen) == 1


def test_trying_again_comes_to_an_end(server: FakeServer) -> None:
    server.answer("GET /v1/a", 500, NO_ERRORS)

    with pytest.raises(Refused):
        client(server, retries_max=2).read("a")

    assert len(server.seen) == 3


def test_one_redirect_is_followed_with_the_same_method_and_body(server: FakeServer) -> None:
    server.answer("PUT /v1/a", 307, Location=f"{server.address}/v1/b")
    server.answer("PUT /v1/b", body={"data": {"x": 1}})

    secret = client(server, token="hvs.t").write("a", {"k": "v"})

    assert secret is not None
    assert server.seen[1].body == {"k": "v"}
    assert server.seen[1].headers["X-Vault-Token"] == "hvs.t"


def test_a_second_redirect_is_not_followed(server: FakeServer) -> None:
    server.answer("GET /v1/a", 307, Location="/v1/b")
    server.answer("GET /v1/b", 307, Location="/v1/a")

    client(server).request("GET", "a")

    assert [seen.path for seen in server.seen] == ["/v1/a", "/v1/b"]


def test_redirects_can_be_switched_off(server: FakeServer) -> None:
    server.answer("GET /v1/a", 307, Location="/v1/b")

    answer = client(server, are_redirects_followed=False).request("GET", "a")

    assert answer.status == 307
    assert len(server.seen) == 1


def test_a_refused_connection_is_named_as_go_does() -> None:
    with pytest.raises(Unreachable) as raised:
        Client(Settings(address="http://127.0.0.1:1")).read("sys/seal-status")

    assert str(raised.value) == (
        'Get "http://127.0.0.1:1/v1/sys/seal-status": dial tcp 127.0.0.1:1: connect: connection refused'
    )


def test_plain_http_behind_https_is_named(server: FakeServer) -> None:
    address = server.address.replace("http", "https")

    with pytest.raises(Unreachable, match="http: server gave HTTP response to HTTPS client"):
        Client(Settings(address=address)).read("a")


def test_an_address_without_a_scheme_is_refused() -> None:
    with pytest.raises(Unreachable, match="unsupported protocol scheme"):
        Client(Settings(address="127.0.0.1:8200")).read("a")


def test_a_missing_certificate_file_is_named() -> None:
    with pytest.raises(ServerError, match="failed to configure TLS"):
        tls_context(Settings(ca_cert="/does/not/exist.pem"))


def test_a_socket_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Unreachable):
        Client(Settings(address=f"unix://{tmp_path}/none.sock")).read("a")


def test_a_snapshot_is_copied_without_being_changed(server: FakeServer) -> None:
    server.answer("GET /v1/sys/storage/raft/snapshot", body=b"\x00\x01bytes")
    server.answer("POST /v1/sys/storage/raft/snapshot", 204)
    target = BytesIO()

    client(server).download("sys/storage/raft/snapshot", target)
    client(server).upload("sys/storage/raft/snapshot", BytesIO(b"\x00\x01bytes"), 7)

    assert target.getvalue() == b"\x00\x01bytes"
    assert server.seen[1].body == b"\x00\x01bytes"


def test_a_request_can_be_shown_instead_of_sent(server: FakeServer) -> None:
    with pytest.raises(OutputOnly) as shown:
        client(server, show="curl", token="hvs.t").write("secret/x", {"q": "it's"})

    assert str(shown.value) == (
        'curl -X PUT -H "X-Vault-Request: true" -H "X-Vault-Token: $(conclave print token)" '
        f'-d \'{{"q":"it\'"\'"\'s"}}\' "{server.address}/v1/secret/x"'
    )
    assert server.seen == []


def test_a_shown_read_has_no_method_and_no_body() -> None:
    assert curl_command("GET", "http://h/v1/a?list=true", {"X-Vault-Request": "true"}, None) == (
        'curl -H "X-Vault-Request: true" "http://h/v1/a?list=true"'
    )


@pytest.mark.parametrize(
    ("method", "path", "url", "capabilities"),
    [
        ("GET", "secret/data/x", "http://h/v1/secret/data/x", '"read"'),
        ("GET", "secret/metadata", "http://h/v1/secret/metadata?list=true", '"list"'),
        ("PUT", "secret/data/x", "http://h/v1/secret/data/x", '"create", "update"'),
        ("PATCH", "secret/data/x", "http://h/v1/secret/data/x", '"patch"'),
        ("DELETE", "sys/audit/file", "http://h/v1/sys/audit/file", '"delete", "sudo"'),
        ("PUT", "sys/seal", "http://h/v1/sys/seal", '"create", "update", "sudo"'),
    ],
)
def test_a_policy_allows_just_the_request(method: str, path: str, url: str, capabilities: str) -> None:
    assert policy_for(method, path, url) == f'path "{path}" {{\n  capabilities = [{capabilities}]\n}}'
