"""core/system/tools.py: random bytes, hashes, wrapping, the catalog and loggers."""

import base64
import hashlib
import logging
from typing import Any

import pytest

from conclave.core.contract import Response
from conclave.core.system.tools import RANDOM_BYTES_MAX
from tests.clients import client, is_done, refusal
from tests.fakes import data_of


@pytest.mark.parametrize(
    ("path", "fields", "length"),
    [("random", {}, 32), ("random/5", {}, 5), ("random", {"bytes": 7}, 7), ("random/platform/9", {}, 9)],
)
def test_random_bytes_come_in_any_number(path: str, fields: dict[str, Any], length: int) -> None:
    with client() as vault:
        told = data_of(vault.write(f"sys/tools/{path}", fields))

        assert len(base64.b64decode(told["random_bytes"])) == length


@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        ("random", {"bytes": 0}, "'bytes' cannot be less than 1"),
        ("random", {"bytes": RANDOM_BYTES_MAX + 1}, "'bytes' should be less than 131072"),
        ("random", {"format": "zz"}, 'unsupported encoding format "zz"; must be "hex" or "base64"'),
        ("random/x", {}, 'error parsing url-set byte count: strconv.Atoi: parsing "x": invalid syntax'),
        ("hash", {"algorithm": "zz"}, "unsupported algorithm zz"),
        ("hash/sha1", {}, "unsupported algorithm sha1"),
        ("hash", {"format": "zz"}, 'unsupported encoding format zz; must be "hex" or "base64"'),
    ],
)
def test_what_cannot_be_had_is_refused(path: str, fields: dict[str, Any], message: str) -> None:
    with client() as vault:
        assert refusal(vault.write(f"sys/tools/{path}", fields)) == f"InvalidRequest: {message}"


def test_data_is_hashed_by_any_algorithm() -> None:
    with client() as vault:
        plain = data_of(vault.write("sys/tools/hash", {"input": "aGk="}))
        other = data_of(vault.write("sys/tools/hash/sha3-512", {"input": "aGk=", "format": "base64"}))

        assert plain == {"sum": hashlib.sha256(b"hi").hexdigest()}
        assert other == {"sum": base64.b64encode(hashlib.sha3_512(b"hi").digest()).decode()}


@pytest.mark.parametrize("padding", ["", "="])
def test_a_root_token_is_decoded_without_a_token(padding: str) -> None:
    with client() as vault:
        encoded = base64.b64encode(bytes(a ^ b for a, b in zip(b"hvs.x", b"12345", strict=True))).decode().rstrip("=")

        told = data_of(vault.write("sys/decode-token", {"encoded_token": encoded + padding, "otp": "12345"}, token=""))

        assert told == {"token": "hvs.x"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "provided 'encoded_token' or 'otp' is empty"),
        (
            {"encoded_token": "AAAA", "otp": "abcd"},
            "error xoring token: length of byte slices is not equivalent: 3 != 4",
        ),
    ],
)
def test_what_is_no_encoded_token_is_refused(fields: dict[str, Any], message: str) -> None:
    with client() as vault:
        assert refusal(vault.write("sys/decode-token", fields, token="")) == f"InvalidRequest: {message}"


def test_something_is_wrapped_looked_up_and_unwrapped_once() -> None:
    with client() as vault:
        wrapped = vault.write("sys/wrapping/wrap", {"a": 1}, wrap_ttl_seconds=60)
        assert isinstance(wrapped, Response)
        assert wrapped.wrap_info is not None
        token = wrapped.wrap_info.token

        looked_up = data_of(vault.write("sys/wrapping/lookup", {"token": token}, token=""))
        unwrapped = data_of(vault.write("sys/wrapping/unwrap", {"token": token}))
        again = vault.write("sys/wrapping/unwrap", {"token": token})

        assert (looked_up["creation_path"], looked_up["creation_ttl"]) == ("sys/wrapping/wrap", 60)
        assert unwrapped == {"a": 1}
        assert refusal(again) == "InvalidRequest: wrapping token is not valid or does not exist"


def test_wrapping_needs_a_lifetime() -> None:
    with client() as vault:
        unwrapped = vault.write("sys/wrapping/wrap", {"a": 1})

        assert refusal(unwrapped) == "InvalidRequest: endpoint requires response wrapping to be used"


def test_the_catalog_lists_what_is_built_in() -> None:
    with client() as vault:
        assert "kv" in vault.keys("sys/plugins/catalog/secret")
        assert "userpass" in vault.keys("sys/plugins/catalog/auth")
        assert vault.data("sys/plugins/catalog/secret/kv")["builtin"] is True
        assert refusal(vault.read("sys/plugins/catalog/secret/none")) == "NotFound"
        assert not {"system", "cubbyhole", "token"} & set(vault.data("sys/plugins/catalog")["secret"])


def test_a_logger_is_set_and_reset() -> None:
    logger = logging.getLogger("conclave.test-of-tools")
    with client() as vault:
        assert is_done(vault.write("sys/loggers/test-of-tools", {"level": "debug"}))
        assert logger.level == logging.DEBUG
        assert vault.data("sys/loggers/test-of-tools") == {"test-of-tools": "debug"}

        assert is_done(vault.delete("sys/loggers/test-of-tools"))
        assert logger.level == logging.NOTSET


@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        ("loggers", {}, "level is required"),
        ("loggers", {"level": "zz"}, "invalid level provided: unknown log level: zz"),
        ("loggers/none", {"level": "info"}, 'logger "none" not found'),
    ],
)
def test_a_logger_that_is_not_there_is_refused(path: str, fields: dict[str, Any], message: str) -> None:
    with client() as vault:
        assert refusal(vault.write(f"sys/{path}", fields)) == f"InvalidRequest: {message}"
