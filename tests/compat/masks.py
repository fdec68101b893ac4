"""What of an answer is compared: ids, times, tokens, ciphertexts and addresses made neutral, the rest as it is.

A value is neutral because of its shape (a UUID, a point in time, a token) or because of its name (`nonce`, `keys`).
Numbers that time changes (`ttl`) are equal when they are near.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

NEAR_SECONDS: Final = 5
"""Two servers answer the same step so many seconds apart, at most."""

BY_NAME: Final = frozenset(
    {
        "accessor",
        "active_time",
        "build_date",
        "challenge",
        "cluster_id",
        "cluster_name",
        "commit_date",
        "encoded_root_token",
        "encoded_token",
        "encryptions",
        "entity_id",
        "hostname",
        "id",
        "index",
        "install_time",
        "keys_base64",
        "last_contact",
        "last_index",
        "last_term",
        "nonce",
        "otp",
        "public_key",
        "raft_applied_index",
        "raft_committed_index",
        "request_id",
        "revocation_time",
        "root_token",
        "running_sha256",
        "secret_id",
        "secret_id_accessor",
        "server_time_utc",
        "term",
        "uuid",
        "verification_nonce",
        "version",
    }
)
"""Fields whose value says nothing; that they are there, and empty or not, does."""
NEAR: Final = frozenset({"ttl", "creation_time", "lease_duration", "creation_ttl", "last_renewal_time", "token_ttl"})

_EPOCH_SECONDS: Final = range(1_700_000_000, 2_100_000_000)
"""Numbers that are points in time: late 2023 to 2036."""

_SHAPES: Final = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"), "<time>"),
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<uuid>"),
    (re.compile(r"\b(hv)?[sb]\.[A-Za-z0-9_-]{16,}"), "<token>"),
    (re.compile(r"\bh[0-9a-f]{64}\b"), "<lease>"),
    (re.compile(r"hmac-sha256:[0-9a-f]{64}"), "<hmac>"),
    (re.compile(r"vault:(v\d+):[A-Za-z0-9+/=]{20,}"), r"<\1 text>"),
    (re.compile(r"\b([a-z]+(_[a-z]+)?)_[0-9a-f]{8}\b"), r"<\1>"),
    (re.compile(r"\bv?\d+\.\d+\.\d+(\+builtin\.\w+)?\b"), "<version>"),
    (re.compile(r"\b[0-9A-Za-z]{24}\b"), "<random>"),
    (re.compile(r"\b[0-9a-f]{64,66}\b"), "<hex>"),
)


class Masks:
    """Makes values of one cluster neutral: `addresses` maps its addresses to names that are the same everywhere."""

    def __init__(self, addresses: Mapping[str, str]) -> None:
        self._addresses = addresses

    def neutral(self, value: Any, name: str = "") -> Any:
        """Return a value with all of it made neutral that its name or shape tells to be so."""
        if isinstance(value, dict):
            return {self._text(key): self.neutral(each, key) for key, each in value.items()}
        if isinstance(value, list):
            return [self.neutral(each, name) for each in value]
        if name in BY_NAME and value not in (None, ""):
            return f"<{name}>"
        if isinstance(value, int) and value in _EPOCH_SECONDS:
            return "<time>"
        return self._text(value) if isinstance(value, str) else value

    def _text(self, text: str) -> str:
        for address, name in self._addresses.items():
            text = re.sub(rf"\b{re.escape(address)}\b", name, text)
        for shape, name in _SHAPES:
            text = shape.sub(name, text)
        return text


def differences(there: Any, here: Any, where: str = "", name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield where two values differ, as `body.data.keys.0`, with both sides; what is missing is shown as `<absent>`."""
    if isinstance(there, dict) and isinstance(here, dict):
        if there.get("status", 0) != here.get("status", 0) and not where:
            yield "status", f"{there['status']} {there['body']}", f"{here['status']} {here['body']}"
            return
        for key in sorted(there.keys() | here.keys()):
            below = f"{where}.{key}" if where else key
            yield from differences(there.get(key, "<absent>"), here.get(key, "<absent>"), below, key)
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for number, (one, other) in enumerate(zip(there, here, strict=True)):
            yield from differences(one, other, f"{where}.{number}", name)
    elif there != here and not (name in NEAR and _is_near(there, here)):
        yield where, there, here


def _is_near(there: Any, here: Any) -> bool:
    return isinstance(there, int) and isinstance(here, int) and abs(there - here) <= NEAR_SECONDS
