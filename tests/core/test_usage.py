"""sys/internal/counters: how much there is."""

from conclave.core.system.usage import COUNTED_MAX
from tests.clients import client, refusal


def test_tokens_are_counted() -> None:
    with client() as vault:
        vault.new_token()
        vault.new_token(type="batch", policies=["default"])  # which is kept nowhere

        assert vault.data("sys/internal/counters/tokens") == {"counters": {"service_tokens": {"total": 2}}}


def test_entities_are_counted_in_pieces() -> None:
    with client() as vault:
        for number in range(COUNTED_MAX + 1):
            vault.write("identity/entity", {"name": str(number)})

        assert vault.data("sys/internal/counters/entities") == {"counters": {"entities": {"total": COUNTED_MAX + 1}}}


def test_requests_are_not_counted() -> None:
    with client() as vault:
        assert refusal(vault.read("sys/internal/counters/requests")).startswith("NotFound: The functionality has been")
