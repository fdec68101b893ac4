"""What an audit log may show: nothing that a client could have meant to keep to itself."""

from typing import Any

import pytest
from msgspec import json, structs

from conclave.core.audit_records import PREFIX, Style, Subject, hasher, hidden, request_record, response_record
from conclave.core.contract import Operation, Request, Response
from conclave.core.errors import PermissionDenied
from conclave.core.tokens import TokenRecord

STYLE = Style(hasher(b"k" * 32), hasher(b"k" * 32))


def test_every_text_is_hashed_and_keys_are_not() -> None:
    shown = hidden({"a": "secret", "b": [1, True, None, "secret"], "c": {"d": "secret"}}, STYLE)

    assert list(shown) == ["a", "b", "c"]
    assert shown["b"][:3] == [1, True, None]
    assert all(text.startswith(PREFIX) for text in (shown["a"], shown["b"][3], shown["c"]["d"]))


def test_a_key_that_is_left_legible_is_so_at_the_top_alone() -> None:
    shown = hidden({"name": "x", "data": {"name": "secret"}, "more": [{"name": "secret"}]}, STYLE, ["name"])

    assert shown["name"] == "x"
    assert shown["data"]["name"].startswith(PREFIX)
    assert shown["more"][0]["name"].startswith(PREFIX)


def test_times_stay_legible() -> None:
    time = "2026-11-24T00:06:01.344931012Z"

    assert hidden({"created_time": time}, STYLE) == {"created_time": time}


@pytest.mark.parametrize("text", ["1234correct horse Z", "2026-11-24 00:06:01Z", "2026-11-24T00:06:01Z\n", "", "Z"])
def test_a_secret_under_the_name_of_a_time_is_hashed(text: str) -> None:
    assert hidden({"created_time": text}, STYLE)["created_time"].startswith(PREFIX)


def subject(token: TokenRecord, *policies: str, text: str = "hvs.secret") -> Subject:
    request = Request("id", Operation.READ, "secret/data/a", token=text, remote_address="127.0.0.1", remote_port=4)
    return Subject(request, Operation.READ, token=token, policies=policies)


def token_record(**changes: Any) -> TokenRecord:
    return structs.replace(TokenRecord("name", "accessor", ["default"], "auth/token/create", 1), **changes)


def shown(record: dict[str, Any]) -> dict[str, Any]:
    """What a device writes."""
    decoded: dict[str, Any] = json.decode(json.encode(record))
    return decoded


def raw_style() -> Style:
    return Style(str, str)


def test_both_records_of_a_request_say_the_same_of_it() -> None:
    of_read = subject(token_record(), "default")

    request = shown(request_record(of_read, 1, STYLE))
    response = shown(response_record(of_read, 2, STYLE, Response()))

    assert (request["auth"], request["request"]) == (response["auth"], response["request"])
    assert (request["time"], response["time"]) == ("1970-01-01T00:00:00.000000001Z", "1970-01-01T00:00:00.000000002Z")


def test_each_device_writes_in_its_own_style() -> None:
    of_read = subject(token_record(), "default")

    hashed, raw = (shown(request_record(of_read, 1, style)) for style in (STYLE, raw_style()))

    assert hashed["auth"]["client_token"] == hashed["request"]["client_token"] == STYLE.hide("hvs.secret")
    assert raw["auth"]["client_token"] == raw["request"]["client_token"] == "hvs.secret"


def test_what_is_remembered_of_a_token_counts_for_the_same_record_and_policies_alone() -> None:
    style, before = raw_style(), token_record()
    after = token_record(policies=["other"], display_name="changed")

    texts = [
        (auth["display_name"], auth["policies"])
        for record, policies in [(before, ["default"])] * 3 + [(before, ["default", "more"]), (after, ["other"])] * 2
        for auth in [shown(request_record(subject(record, *policies), 1, style))["auth"]]
    ]

    assert texts == [("", ["default"])] * 3 + [("", ["default", "more"]), ("changed", ["other"])] * 2
    assert style.bearers["name"].record is after


def test_batch_tokens_are_told_apart_and_have_no_accessor() -> None:
    style, batch = raw_style(), token_record(name="", accessor="", type="batch")

    records = [shown(request_record(subject(batch, text=text), 1, style)) for text in ("hvb.a", "hvb.b", "hvb.b")]

    assert [record["auth"]["client_token"] for record in records] == ["hvb.a", "hvb.b", "hvb.b"]
    assert all("accessor" not in record["auth"] for record in records)
    assert all("client_token_accessor" not in record["request"] for record in records)


def test_a_refused_request_is_recorded_as_that_though_its_token_is_known() -> None:
    style = raw_style()
    for _ in range(3):
        request_record(subject(token_record(), "default"), 1, style)

    refused = shown(request_record(subject(token_record(), "default"), 1, style, PermissionDenied("permission denied")))

    assert refused["auth"]["policy_results"] == {"allowed": False}
    assert refused["error"] == "permission denied"
