"""core/quotas.py and sys/quotas: how many requests an address may make, and what is refused as a limit."""

from typing import Any

import pytest

from conclave.core import quotas
from conclave.core.contract import Operation, Request
from conclave.core.errors import TooManyRequests
from conclave.core.quotas import RateLimit, RateLimiter
from tests.clients import client, is_done, refusal

SECOND_NS = 10**9


def limiter(*limits: RateLimit) -> RateLimiter:
    made = RateLimiter()
    made.use(limits)
    return made


def count_admitted(used: RateLimiter, path: str, *, address: str = "1.1.1.1", now_ns: int = 0, tries: int = 10) -> int:
    """Return how many of some requests at one moment are let through."""
    admitted = 0
    for _ in range(tries):
        try:
            used.admit(Request(id="r", operation=Operation.READ, path=path, remote_address=address), now_ns)
        except TooManyRequests:
            continue
        admitted += 1
    return admitted


def test_an_address_makes_as_many_requests_as_the_rate_says() -> None:
    used = limiter(RateLimit("l", "", 3))

    assert count_admitted(used, "secret/data/a") == 3


def test_the_next_interval_begins_anew() -> None:
    used = limiter(RateLimit("l", "", 3, interval_seconds=2))
    count_admitted(used, "secret/data/a")

    assert count_admitted(used, "secret/data/a", now_ns=SECOND_NS) == 0
    assert count_admitted(used, "secret/data/a", now_ns=2 * SECOND_NS) == 3


def test_an_address_that_made_too_many_is_blocked_for_longer_if_that_is_wanted() -> None:
    used = limiter(RateLimit("l", "", 3, block_interval_seconds=30))
    count_admitted(used, "secret/data/a")

    assert count_admitted(used, "secret/data/a", now_ns=29 * SECOND_NS) == 0
    assert count_admitted(used, "secret/data/a", now_ns=30 * SECOND_NS) == 3


def test_each_address_is_counted_for_itself() -> None:
    used = limiter(RateLimit("l", "", 3))
    count_admitted(used, "secret/data/a")

    assert count_admitted(used, "secret/data/a", address="2.2.2.2") == 3


def test_the_longest_path_counts() -> None:
    used = limiter(RateLimit("all", "", 1), RateLimit("mount", "secret/", 2), RateLimit("one", "secret/data/a", 4))

    assert count_admitted(used, "secret/data/a") == 4
    assert count_admitted(used, "secret/data/ab") == 2
    assert count_admitted(used, "secrets") == 1


def test_whoever_has_made_a_limit_can_remove_it() -> None:
    used = limiter(RateLimit("l", "sys/", 1, interval_seconds=3600))

    assert count_admitted(used, "sys/quotas/rate-limit/l") == 10
    assert count_admitted(used, "sys/mounts") == 1


def test_memory_is_bounded_however_many_addresses_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "ADDRESSES_MAX", 100)
    used = limiter(RateLimit("l", "", 1))
    for number in range(110):
        count_admitted(used, "secret/data/a", address=str(number), tries=1)

    assert count_admitted(used, "secret/data/a", address="0") == 1  # forgotten, so it may again
    assert count_admitted(used, "secret/data/a", address="109") == 0


def test_a_limit_holds_from_the_moment_it_is_made_until_it_is_removed() -> None:
    with client() as vault:
        assert is_done(vault.write("sys/quotas/rate-limit/l", {"rate": 1, "path": "cubbyhole", "interval": "1m"}))
        vault.read("cubbyhole/x")

        assert refusal(vault.read("cubbyhole/x")) == (
            'TooManyRequests: request path "cubbyhole/x": rate limit quota exceeded'
        )

        vault.delete("sys/quotas/rate-limit/l")
        assert refusal(vault.read("cubbyhole/x")) == "NotFound"


def test_a_limit_is_described_as_vault_describes_it() -> None:
    with client() as vault:
        vault.write("sys/quotas/rate-limit/l", {"rate": 1.5, "path": "cubbyhole/", "block_interval": 30})

        assert vault.data("sys/quotas/rate-limit/l") == {
            "block_interval": 30,
            "inheritable": False,
            "interval": 1,
            "name": "l",
            "path": "cubbyhole/",
            "rate": 1.5,
            "role": "",
            "type": "rate-limit",
        }
        assert vault.keys("sys/quotas/rate-limit") == ["l"]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "'rate' is invalid"),
        ({"rate": -1}, "'rate' is invalid"),
        ({"rate": 99}, "a limit on all requests must let at least 100 a second through"),
        ({"rate": 1000, "interval": "1m"}, "a limit on all requests must let at least 100 a second through"),
        ({"rate": 1, "path": "nomount/"}, 'invalid mount path "nomount/"'),
        ({"rate": 1, "role": "r"}, "a rate limit cannot be bound to a role"),
        ({"rate": 1, "type": "lease-count"}, 'quota type "lease-count" is not rate-limit'),
        ({"rate": 1, "interval": "-1s"}, "'interval' is invalid"),
        ({"rate": 1, "interval": "x"}, "time: invalid duration"),
    ],
)
def test_what_is_no_limit_is_refused(fields: dict[str, Any], problem: str) -> None:
    with client() as vault:
        assert problem in refusal(vault.write("sys/quotas/rate-limit/l", fields))


def test_two_limits_cannot_be_about_the_same_path() -> None:
    with client() as vault:
        vault.write("sys/quotas/rate-limit/a", {"rate": 100})
        assert is_done(vault.write("sys/quotas/rate-limit/a", {"rate": 200}))

        assert 'exists under the name "a"' in refusal(vault.write("sys/quotas/rate-limit/b", {"rate": 500}))


def test_limits_can_be_asked_what_holds_for_all_of_them() -> None:
    with client() as vault:
        assert "sys/health" in vault.data("sys/quotas/config")["rate_limit_exempt_paths"]
