"""core/leases.py and sys/leases: leases by id and in order of their end."""

from typing import Any

import pytest

from conclave.core.contract import Response
from conclave.core.leases import LeaseKind, LeaseRecord, Leases
from conclave.storage.barrier import Barrier
from conclave.storage.keyring import Keyring
from conclave.storage.tables import OrderedTable
from tests.clients import client, is_done, refusal
from tests.fakes import START_NS, FakeContext, data_of

SECOND = 10**9


@pytest.fixture
def leases() -> Leases:
    context = FakeContext()
    expiry = OrderedTable(context.transaction, Barrier(Keyring.generate(0)), b"t" * 16)
    return Leases(context.storage, expiry)


def lease(lease_id: str, seconds: int) -> LeaseRecord:
    return LeaseRecord(lease_id, LeaseKind.TOKEN, START_NS, START_NS + seconds * SECOND)


def test_leases_are_due_in_order_of_their_end(leases: Leases) -> None:
    for lease_id, seconds in (("a/3", 30), ("a/1", 10), ("b/2", 20)):
        leases.register(lease(lease_id, seconds))

    over, looked_at = leases.due(START_NS + 20 * SECOND, limit=10)

    assert ([each.id for each in over], looked_at) == (["a/1", "b/2"], 2)
    assert leases.next_expiry_ns() == START_NS + 10 * SECOND


def test_what_is_due_comes_in_pieces(leases: Leases) -> None:
    for number in range(5):
        leases.register(lease(f"a/{number}", number))

    over, looked_at = leases.due(START_NS + 60 * SECOND, limit=2)

    assert ([each.id for each in over], looked_at) == (["a/0", "a/1"], 2)


def test_a_renewed_lease_ends_later(leases: Leases) -> None:
    leases.register(lease("a/1", 10))

    renewed = leases.renew(lease("a/1", 10), START_NS + 99 * SECOND, START_NS + SECOND)

    assert leases.due(START_NS + 50 * SECOND, limit=10) == ([], 0)
    assert leases.lookup("a/1") == renewed
    assert renewed.ttl_left_seconds(START_NS) == 99


def test_a_removed_lease_is_not_due(leases: Leases) -> None:
    leases.register(lease("a/1", 10))

    leases.remove("a/1")
    leases.remove("a/2")

    assert leases.lookup("a/1") is None
    assert leases.next_expiry_ns() is None


@pytest.mark.parametrize("lease_id", ["", "a/", "none"])
def test_what_is_no_lease_is_not_found(leases: Leases, lease_id: str) -> None:
    leases.register(lease("a/1", 10))

    assert leases.lookup(lease_id) is None


# -- sys/leases --


def test_a_lease_is_described_listed_and_revoked() -> None:
    with client() as vault:
        token = vault.new_token(policies=["default"], ttl="1h").client_token
        (name,) = vault.keys("sys/leases/lookup/auth/token/create")
        lease_id = f"auth/token/create/{name}"

        described = data_of(vault.write("sys/leases/lookup", {"lease_id": lease_id}))

        assert (described["id"], described["path"], described["renewable"]) == (lease_id, "auth/token/create", True)
        assert described["ttl"] == 3600
        assert described["last_renewal"] is None
        assert is_done(vault.write("sys/leases/revoke", {"lease_id": lease_id}))
        assert refusal(vault.read("auth/token/lookup-self", token=token)).startswith("PermissionDenied")


def test_leases_are_listed_level_by_level() -> None:
    with client() as vault:
        vault.new_token(policies=["default"])

        assert vault.keys("sys/leases/lookup") == ["auth/"]
        assert vault.keys("sys/leases/lookup/auth") == ["token/"]
        assert refusal(vault.list("sys/leases/lookup/none")) == "NotFound"


@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        ("lookup", {"lease_id": "none/x"}, "invalid lease"),
        ("lookup", {}, "lease_id must be specified"),
        ("renew", {"lease_id": "none/x"}, "lease not found"),
        ("renew/none/x", {"increment": 5}, "lease not found"),
        ("renew", {}, "lease_id must be specified"),
        ("revoke", {}, "lease_id must be specified"),
    ],
)
def test_a_lease_that_is_not_there_is_refused(path: str, fields: dict[str, Any], message: str) -> None:
    with client() as vault:
        assert refusal(vault.write(f"sys/leases/{path}", fields)) == f"InvalidRequest: {message}"


@pytest.mark.parametrize("path", ["revoke/none/x", "revoke-prefix/none", "revoke-force/none"])
def test_revoking_what_is_not_there_is_no_error(path: str) -> None:
    with client() as vault:
        assert is_done(vault.write(f"sys/leases/{path}"))


def test_leases_of_tokens_are_renewed_elsewhere() -> None:
    with client() as vault:
        vault.new_token(policies=["default"])
        (name,) = vault.keys("sys/leases/lookup/auth/token/create")

        renewed = vault.write(f"sys/leases/renew/auth/token/create/{name}")

        assert refusal(renewed) == "InvalidRequest: tokens cannot be renewed through this endpoint"


def test_revoking_by_prefix_takes_sudo() -> None:
    with client() as vault:
        vault.write("sys/policies/acl/p", {"policy": 'path "sys/leases/*" { capabilities = ["update"] }'})
        token = vault.new_token(policies=["p"]).client_token

        assert refusal(vault.write("sys/leases/revoke-prefix/auth/token", token=token)).startswith("PermissionDenied")
        assert is_done(vault.write("sys/leases/revoke-prefix/auth/token"))
        assert refusal(vault.read("auth/token/lookup-self", token=token)).startswith("PermissionDenied")


def test_no_lease_is_irrevocable() -> None:
    with client() as vault:
        assert vault.data("sys/leases/count", query={"type": "irrevocable"}) == {"counts": {}, "lease_count": 0}
        assert vault.data("sys/leases", query={"type": "irrevocable"}) == {"lease_count": 0, "leases": []}
        assert refusal(vault.read("sys/leases/count")) == "NotFound"


def test_tidying_is_accepted() -> None:
    with client() as vault:
        answer = vault.write("sys/leases/tidy")

        assert isinstance(answer, Response)
        assert answer.is_accepted
