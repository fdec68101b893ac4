"""engines/kv1.py through a whole vault: one value a path, kept as it was sent."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from conclave.core.contract import Response
from tests.clients import Client, client, is_done, refusal


@pytest.fixture
def vault() -> Iterator[Client]:
    with client() as started:
        started.write("sys/mounts/kv", {"type": "kv"})
        yield started


def test_a_secret_is_written_read_and_deleted(vault: Client) -> None:
    assert is_done(vault.write("kv/a/b", {"foo": "bar"}))
    assert vault.data("kv/a/b") == {"foo": "bar"}

    assert is_done(vault.delete("kv/a/b"))
    assert refusal(vault.read("kv/a/b")) == "NotFound"


def test_a_body_is_kept_as_it_was_sent(vault: Client) -> None:
    vault.write("kv/n", msgspec.Raw(b'{"x":1.50,"big":123456789012345678901234567890}{"ignored":1}'))

    answer = vault.read("kv/n")

    assert isinstance(answer, Response)
    assert bytes(answer.data) == b'{"big":123456789012345678901234567890,"x":1.50}'


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"ttl": "1h"}, 3600),
        ({"lease": "10m"}, 600),
        ({"ttl": 5}, 5),
        ({"ttl": "junk"}, 2_764_800),
        ({"x": 1}, 2_764_800),
    ],
)
def test_a_secret_may_say_how_long_to_keep_it(vault: Client, fields: dict[str, Any], seconds: int) -> None:
    vault.write("kv/a", fields)

    answer = vault.read("kv/a")

    assert isinstance(answer, Response)
    assert answer.lease is not None
    assert (answer.lease.lease_id, answer.lease.duration_seconds, answer.lease.renewable) == ("", seconds, False)


@pytest.mark.parametrize("fields", [{}, None])
def test_a_write_without_fields_is_refused(vault: Client, fields: Any) -> None:
    assert refusal(vault.write("kv/a", fields)) == "InvalidRequest: missing data fields"


def test_a_name_ends_in_no_slash(vault: Client) -> None:
    assert refusal(vault.write("kv/a/", {"x": 1})) == "InvalidRequest: cannot write to a path ending in '/'"


def test_names_are_listed_level_by_level(vault: Client) -> None:
    for path in ("a/b", "c"):
        vault.write(f"kv/{path}", {"x": 1})

    assert vault.keys("kv") == ["a/", "c"]
    assert vault.keys("kv/a/") == ["b"]
    assert refusal(vault.list("kv/none")) == "NotFound"


def test_a_secret_is_not_patched(vault: Client) -> None:
    vault.write("kv/a", {"x": 1})

    assert refusal(vault.patch("kv/a", {"x": 2})).startswith("UnsupportedOperation")


def test_a_name_and_a_directory_can_be_called_alike(vault: Client) -> None:
    vault.write("kv/a", {"x": 1})
    vault.write("kv/a/b", {"x": 2})

    assert vault.keys("kv") == ["a", "a/"]
    assert vault.data("kv/a") == {"x": 1}
