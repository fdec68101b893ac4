"""core/revocation.py: what ends with a token, a lease or a prefix, and that the rest is cleared in bounded pieces.

Each test works in one transaction of a vault, so nothing goes on beside it.
"""

from collections.abc import Callable, Iterator

import pytest

from conclave.core.cubbyholes import cubbyhole_of
from conclave.core.errors import TooManyRequests
from conclave.core.identity import Identities
from conclave.core.mounts import CUBBYHOLE_PATH, MountTable
from conclave.core.records import Records
from conclave.core.revocation import (
    ENDED_PREFIXES_MAX,
    REVOKED_AT_ONCE_MAX,
    clear_step,
    doom,
    doom_aliases,
    empty_step,
    expire_due,
    leases_of,
    lookup_lease,
    register_token,
    release_token,
    revoke_prefix,
    revoke_token,
    tokens_of,
)
from conclave.core.services import AREA_DOOMED, AREA_IDENTITY, AREA_LEASES, AREA_MOUNTS, AREA_TOKENS, Services
from conclave.core.tokens import ENDED_PREFIXES, EndedPrefix, EndedPrefixes, TokenRecord
from tests.clients import client


@pytest.fixture
def services() -> Iterator[Services]:
    with client() as vault:
        yield vault.fake.services()


def token(
    services: Services, *, path: str = "auth/up/login/bob", parent: str = "", ttl_seconds: int = 60
) -> TokenRecord:
    _, record = tokens_of(services).create(
        services.area(AREA_TOKENS),
        now_ns=services.now_ns,
        policies=["default"],
        path=path,
        ttl_seconds=ttl_seconds,
        parent=parent,
    )
    register_token(services, record)
    return record


def is_alive(services: Services, record: TokenRecord) -> bool:
    tokens = tokens_of(services)
    return tokens.lookup_accessor(services.area(AREA_TOKENS), record.accessor, services.now_ns) is not None


def finish(services: Services, step: Callable[[Services], int]) -> int:
    """Take steps until nothing is left to do; return how many did something."""
    count = 0
    while step(services):
        count += 1
    return count


def cubbyholes(services: Services) -> Records:
    mount = MountTable(services.area(AREA_MOUNTS)).at(CUBBYHOLE_PATH)
    assert mount is not None
    return services.mount_storage(mount.uuid)


def test_a_revoked_token_is_gone_with_its_lease_and_cubbyhole(services: Services) -> None:
    record = token(services)
    place = f"{cubbyhole_of(record.accessor)}/x"
    cubbyholes(services).put(place, b"1")

    revoke_token(services, record)

    assert not is_alive(services, record)
    assert lookup_lease(services, record.lease_id) is None
    assert finish(services, empty_step)
    assert cubbyholes(services).get(place) is None


def test_a_tree_of_tokens_ends_with_its_root(services: Services) -> None:
    root = token(services)
    children = [token(services, parent=root.name) for _ in range(5)]
    grandchild = token(services, parent=children[0].name)

    revoke_token(services, root)

    assert not any(is_alive(services, record) for record in [*children, grandchild])


def test_what_is_left_of_a_tree_is_cleared_in_pieces(services: Services) -> None:
    root = token(services)
    children = [token(services, parent=root.name) for _ in range(10)]

    revoke_token(services, root)

    assert finish(services, lambda each: clear_step(each, limit=3)) > 3
    storage = services.area(AREA_TOKENS)
    assert all(storage.get(child.name) is None for child in children)
    assert storage.list("ending") == []


def test_children_of_a_released_token_become_orphans(services: Services) -> None:
    parent = token(services)
    children = [token(services, parent=parent.name) for _ in range(5)]

    release_token(services, parent)

    assert not is_alive(services, parent)
    assert all(is_alive(services, child) for child in children)
    finish(services, lambda each: clear_step(each, limit=2))
    assert all(is_alive(services, child) for child in children)
    found = services.area(AREA_TOKENS).get(children[0].name, TokenRecord)
    assert found is not None
    assert found.parent == ""


def test_leases_that_are_over_end_what_they_stand_for(services: Services) -> None:
    short, long = token(services, ttl_seconds=5), token(services, ttl_seconds=50)
    services.now_ns += 10 * 10**9

    expire_due(services)

    assert services.area(AREA_TOKENS).get(short.name) is None
    assert is_alive(services, long)


# -- prefixes --


def test_all_leases_below_a_prefix_end_at_once(services: Services) -> None:
    below = [token(services) for _ in range(REVOKED_AT_ONCE_MAX + 20)]
    beside = token(services, path="auth/upper/login/bob")

    revoke_prefix(services, "auth/up")

    assert not any(is_alive(services, record) for record in below)
    assert not any(lookup_lease(services, record.lease_id) for record in below)
    assert is_alive(services, beside)


def test_few_leases_are_cleared_before_the_answer(services: Services) -> None:
    record = token(services)

    revoke_prefix(services, "auth/up/")

    assert services.area(AREA_TOKENS).get(record.name) is None
    assert services.area(AREA_TOKENS).get(ENDED_PREFIXES) is None


def test_many_leases_are_cleared_in_pieces(services: Services) -> None:
    for number in range(60):
        token(services, path=f"auth/up/login/user{number % 7}")
    revoke_prefix(services, "auth/up")

    assert finish(services, lambda each: clear_step(each, limit=4)) > 5

    assert services.area(AREA_LEASES).list("auth/up") == []
    assert services.area(AREA_TOKENS).list("accessor") != []  # the root token's
    assert services.area(AREA_TOKENS).get(ENDED_PREFIXES) is None


def test_what_is_issued_later_below_the_prefix_lives(services: Services) -> None:
    for _ in range(REVOKED_AT_ONCE_MAX + 5):
        token(services)
    revoke_prefix(services, "auth/up")
    services.now_ns += 1
    later = token(services)

    assert is_alive(services, later)
    finish(services, lambda each: clear_step(each, limit=4))
    assert is_alive(services, later)
    assert services.area(AREA_LEASES).list("auth/up/login/bob") == [later.lease_id.rpartition("/")[2]]


def test_children_of_what_ends_by_prefix_end_too(services: Services) -> None:
    for _ in range(REVOKED_AT_ONCE_MAX + 5):
        token(services)
    parent = token(services)
    child = token(services, path="auth/token/create", parent=parent.name)

    revoke_prefix(services, "auth/up")

    assert not is_alive(services, child)


def test_a_prefix_can_be_one_lease(services: Services) -> None:
    one, other = token(services), token(services)

    revoke_prefix(services, one.lease_id)

    assert not is_alive(services, one)
    assert is_alive(services, other)


def test_a_prefix_without_leases_leaves_nothing_to_do(services: Services) -> None:
    revoke_prefix(services, "no/such")

    assert clear_step(services) == 0


def test_tokens_that_never_end_have_no_lease_and_no_prefix(services: Services) -> None:
    endless = token(services, ttl_seconds=0)
    token(services)

    revoke_prefix(services, "auth/up")

    assert is_alive(services, endless)


def test_prefixes_that_wait_are_bounded(services: Services) -> None:
    waiting = [EndedPrefix(f"mount{number}/", 1) for number in range(ENDED_PREFIXES_MAX)]
    services.area(AREA_TOKENS).put(ENDED_PREFIXES, EndedPrefixes(waiting))
    token(services)

    with pytest.raises(TooManyRequests):
        revoke_prefix(services, "auth/up")


# -- doomed directories --


def test_a_doomed_mount_is_emptied_in_pieces(services: Services) -> None:
    storage = services.mount_storage("some-mount")
    for number in range(10):
        storage.put(f"a/{number}", b"x")
    doom(services, "some-mount")

    assert finish(services, lambda each: empty_step(each, limit=3)) > 2

    assert storage.list() == []
    assert services.area(AREA_DOOMED).list() == []


def test_aliases_of_a_mount_that_is_gone_are_removed_in_pieces(services: Services) -> None:
    identities = Identities(services.area(AREA_IDENTITY), services.random, services.now_ns)
    people = [identities.logged_in("auth_up_1", f"user{number}", {}) for number in range(7)]
    stays = identities.logged_in("auth_up_2", "user0", {})
    doom_aliases(services, "auth_up_1")

    assert finish(services, lambda each: empty_step(each, limit=3)) > 2

    assert [alias.mount_accessor for alias in identities.aliases()] == ["auth_up_2"]
    assert all(identities.entity(person.id) for person in [*people, stays])
    assert services.area(AREA_DOOMED).list() == []


def test_an_empty_directory_is_not_doomed(services: Services) -> None:
    doom(services, "some-mount", "a/")

    assert services.area(AREA_DOOMED).list() == []


def test_a_lease_is_found_in_order_of_its_end(services: Services) -> None:
    later, sooner = token(services, ttl_seconds=50), token(services, ttl_seconds=5)
    services.now_ns += 60 * 10**9

    over, _ = leases_of(services).due(services.now_ns, 10)

    assert [lease.token for lease in over] == [sooner.name, later.name]
