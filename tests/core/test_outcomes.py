"""Outcomes as bytes: what went in comes out, and what an older node wrote is read for ever."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis.strategies import booleans, dictionaries, integers, lists, recursive, text
from hypothesis.strategies import none as nothing

from conclave.core import errors, outcomes
from conclave.core.contract import Auth, Lease, Response, WrapInfo

AUTH = Auth(
    client_token="hvs.x",
    accessor="a",
    policies=["default", "p"],
    token_policies=["default"],
    identity_policies=["p"],
    metadata={"k": "v"},
    lease_duration=60,
    renewable=True,
    entity_id="e",
    token_type="service",
    orphan=True,
)
VALUES = recursive(nothing() | booleans() | integers(-(2**53), 2**53) | text(), lists, max_leaves=5)


@given(
    data=dictionaries(text(), VALUES, min_size=1),
    warnings=lists(text()),
    flags=lists(booleans(), min_size=4, max_size=4),
)
def test_an_answer_comes_out_as_it_went_in(data: dict[str, Any], warnings: list[str], flags: list[bool]) -> None:
    bare, doubled, absent, accepted = flags
    before = Response(data, warnings=warnings, is_bare=bare, is_doubled=doubled, is_absent=absent, is_accepted=accepted)

    after = outcomes.decode(outcomes.encode(before))

    assert isinstance(after, Response)
    assert msgspec.json.decode(after.data) == data
    assert (after.warnings, after.is_bare, after.is_doubled) == (warnings, bare, doubled)
    assert (after.is_absent, after.is_accepted) == (absent, accepted)


def test_tokens_leases_and_wrapped_answers_come_out_as_they_went_in() -> None:
    before = Response(
        auth=AUTH,
        lease=Lease("x/y", 60, renewable=True),
        wrap_info=WrapInfo("hvs.w", "acc", 60, "2026-11-24T00:00:00Z", "p", "wrapped"),
        raw=b"# HELP",
        content_type="text/plain",
        batch_failure_code=400,
    )

    assert outcomes.decode(outcomes.encode(before)) == before


def test_numbers_keep_their_spelling() -> None:
    after = outcomes.decode(outcomes.encode(Response(msgspec.Raw(b'{"a":1.50}'))))

    assert isinstance(after, Response)
    assert bytes(after.data) == b'{"a":1.50}'


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.RequestError) and kind is not errors.Redirected
    ],
)
def test_every_refusal_comes_out_as_it_went_in(kind: type[errors.RequestError]) -> None:
    after = outcomes.decode(outcomes.encode(kind("one", "two")))

    assert type(after) is kind
    assert after.messages == ("one", "two")


def test_a_redirection_keeps_its_address() -> None:
    after = outcomes.decode(outcomes.encode(errors.Redirected("http://x/v1/y")))

    assert isinstance(after, errors.Redirected)
    assert after.location == "http://x/v1/y"


def test_a_refusal_of_a_kind_that_this_node_does_not_know_is_still_a_refusal() -> None:
    encoded = outcomes.encode(errors.NotFound("x")).replace(b"NotFound", b"NotFoumd")

    assert isinstance(outcomes.decode(encoded), errors.InternalError)


def test_an_outcome_of_a_newer_version_is_refused() -> None:
    encoded = bytearray(outcomes.encode(Response({"a": 1})))
    assert encoded[1] == outcomes.VERSION
    encoded[1] = 2

    with pytest.raises(ValueError, match="version 2"):
        outcomes.decode(bytes(encoded))


def test_what_the_first_version_wrote_is_read() -> None:
    golden = bytes.fromhex("9801a090c4077b2261223a317dc0c090 94c2c3c2c2".replace(" ", ""))

    after = outcomes.decode(golden)

    assert isinstance(after, Response)
    assert bytes(after.data) == b'{"a":1}'
    assert after.is_doubled
