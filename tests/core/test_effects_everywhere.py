"""What was taken away is gone on every node when the call returns, whichever node was asked; and each holds its own.

Three vaults apply one log. Whoever asks a standby has its write carried to the leader, and its reads go by what the
standby has applied: there is no moment in which an acknowledged end is not one everywhere.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from conclave.core.contract import Operation, Response
from conclave.core.errors import NotFound, PermissionDenied, RequestError, TooManyRequests
from conclave.core.outcomes import Outcome
from tests.clients import auth_of
from tests.fakes import FakeVault, data_of, on_loop, started_standby, started_vault

READER = 'path "secret/data/*" { capabilities = ["read"] }'
NODES = [0, 1, 2]


class Three:
    """A leader and two standbys; the root token unless another is given."""

    def __init__(self, nodes: list[FakeVault]) -> None:
        self.nodes = nodes

    async def write(self, path: str, fields: Any = None, *, at: int = 0, **more: Any) -> Outcome:
        outcome = await self.nodes[at].write(path, fields, **more)
        assert isinstance(outcome, Response), outcome
        return outcome

    async def delete(self, path: str, *, at: int) -> None:
        outcome = await self.nodes[at].delete(path)
        assert isinstance(outcome, Response), outcome

    async def reads(self, path: str, token: str) -> list[type]:
        """Return what each node says of a read: the type of its outcome."""
        return [type(await node.read(path, token=token)) for node in self.nodes]

    async def new_token(self, **fields: Any) -> str:
        return auth_of(await self.write("auth/token/create", fields)).client_token


@asynccontextmanager
async def three() -> AsyncIterator[Three]:
    """Yield three nodes with a secret, and a policy that may read it."""
    async with AsyncExitStack() as stack:
        leader = await stack.enter_async_context(started_vault())
        nodes = [leader, *[await stack.enter_async_context(started_standby(leader, name)) for name in ("n2", "n3")]]
        made = Three(nodes)
        await made.write("secret/data/a", {"data": {"x": 1}})
        await made.write("sys/policies/acl/reader", {"policy": READER})
        yield made


async def revoke_token(nodes: Three, token: str, at: int) -> None:
    await nodes.write("auth/token/revoke", {"token": token}, at=at)


async def revoke_itself(nodes: Three, token: str, at: int) -> None:
    await nodes.write("auth/token/revoke-self", at=at, token=token)


async def revoke_by_accessor(nodes: Three, token: str, at: int) -> None:
    found = data_of(await nodes.write("auth/token/lookup", {"token": token}))
    await nodes.write("auth/token/revoke-accessor", {"accessor": found["accessor"]}, at=at)


async def revoke_leases(nodes: Three, token: str, at: int) -> None:
    del token
    await nodes.write("sys/leases/revoke-prefix/auth/token", at=at)


async def delete_policy(nodes: Three, token: str, at: int) -> None:
    del token
    await nodes.delete("sys/policies/acl/reader", at=at)


async def change_policy(nodes: Three, token: str, at: int) -> None:
    del token
    denied = 'path "secret/data/*" { capabilities = ["deny"] }'
    await nodes.write("sys/policies/acl/reader", {"policy": denied}, at=at)


Ending = Callable[[Three, str, int], Awaitable[None]]


@pytest.mark.parametrize("at", NODES)
@pytest.mark.parametrize(
    "end", [revoke_token, revoke_itself, revoke_by_accessor, revoke_leases, delete_policy, change_policy]
)
@on_loop
async def test_who_may_no_longer_read_is_refused_everywhere(end: Ending, at: int) -> None:
    async with three() as nodes:
        await nodes.write(
            "sys/policies/acl/self", {"policy": 'path "auth/token/revoke-self" { capabilities = ["update"] }'}
        )
        token = await nodes.new_token(policies=["reader", "self"], no_default_policy=True, ttl="1h")
        assert await nodes.reads("secret/data/a", token) == [Response] * 3

        await end(nodes, token, at)

        assert await nodes.reads("secret/data/a", token) == [PermissionDenied] * 3


@pytest.mark.parametrize("at", NODES)
@on_loop
async def test_children_end_everywhere_with_their_parent(at: int) -> None:
    async with three() as nodes:
        parent = await nodes.new_token(policies=["root"])
        child = auth_of(await nodes.write("auth/token/create", {"policies": ["root"]}, token=parent)).client_token

        await revoke_token(nodes, parent, at)

        assert await nodes.reads("secret/data/a", child) == [PermissionDenied] * 3


@pytest.mark.parametrize("at", NODES)
@on_loop
async def test_a_disabled_mount_answers_nowhere(at: int) -> None:
    async with three() as nodes:
        root = nodes.nodes[0].root
        assert await nodes.reads("secret/data/a", root) == [Response] * 3

        await nodes.delete("sys/mounts/secret", at=at)

        assert await nodes.reads("secret/data/a", root) == [NotFound] * 3


@pytest.mark.parametrize("at", NODES)
@on_loop
async def test_the_tokens_of_a_disabled_auth_method_end_everywhere(at: int) -> None:
    async with three() as nodes:
        await nodes.write("sys/auth/approle", {"type": "approle"})
        await nodes.write("auth/approle/role/r", {"token_policies": "reader"})
        secret_id = data_of(await nodes.write("auth/approle/role/r/secret-id"))["secret_id"]
        role_id = data_of(await nodes.nodes[0].read("auth/approle/role/r/role-id"))["role_id"]
        login = {"role_id": role_id, "secret_id": secret_id}
        token = auth_of(await nodes.write("auth/approle/login", login, token="")).client_token
        assert await nodes.reads("secret/data/a", token) == [Response] * 3

        await nodes.delete("sys/auth/approle", at=at)

        assert await nodes.reads("secret/data/a", token) == [PermissionDenied] * 3


@pytest.mark.parametrize("at", NODES)
@on_loop
async def test_a_group_gives_and_takes_its_policies_everywhere(at: int) -> None:
    async with three() as nodes:
        entity = data_of(await nodes.write("identity/entity", {"name": "e"}))["id"]
        await nodes.write("identity/group", {"name": "g", "member_entity_ids": [entity], "policies": ["reader"]})
        await nodes.write("sys/auth/up", {"type": "userpass"})
        accessor = data_of(await nodes.nodes[0].read("sys/auth/up"))["accessor"]
        alias = {"name": "u", "canonical_id": entity, "mount_accessor": accessor}
        await nodes.write("identity/entity-alias", alias)
        await nodes.write("auth/up/users/u", {"password": "p"})
        token = auth_of(await nodes.write("auth/up/login/u", {"password": "p"}, token="")).client_token
        assert await nodes.reads("secret/data/a", token) == [Response] * 3

        await nodes.delete("identity/group/name/g", at=at)

        assert await nodes.reads("secret/data/a", token) == [PermissionDenied] * 3


@pytest.mark.parametrize("at", NODES)
@on_loop
async def test_a_rate_limit_holds_on_every_node_at_once(at: int) -> None:
    async with three() as nodes:
        await nodes.write("sys/quotas/rate-limit/l", {"rate": 1, "path": "secret", "interval": "1m"}, at=at)
        root = nodes.nodes[0].root

        assert await nodes.reads("secret/data/a", root) == [Response] * 3  # each counts its own clients
        assert await nodes.reads("secret/data/a", root) == [TooManyRequests] * 3


# -- what belongs to one token, mount or role is found by no other --


async def refused(node: FakeVault, operation: Operation, path: str, fields: Any = None, **more: Any) -> type:
    outcome = await node.ask(operation, path, fields, **more)
    assert isinstance(outcome, RequestError), outcome
    return type(outcome)


@on_loop
async def test_a_cubbyhole_is_found_by_its_token_alone() -> None:
    async with three() as nodes:
        one, other = await nodes.new_token(policies=["root"]), await nodes.new_token(policies=["root"])
        await nodes.write("cubbyhole/x", {"a": "1"}, token=one)

        assert await nodes.reads("cubbyhole/x", one) == [Response] * 3
        assert await nodes.reads("cubbyhole/x", other) == [NotFound] * 3


@on_loop
async def test_mounts_of_one_type_share_nothing() -> None:
    async with three() as nodes:
        for mount in ("one", "other"):
            await nodes.write(f"sys/mounts/{mount}", {"type": "kv"})
            await nodes.write(f"sys/mounts/t-{mount}", {"type": "transit"})
        await nodes.write("one/x", {"a": "1"})
        await nodes.write("t-one/keys/k")
        await nodes.write("t-other/keys/k")
        sealed = data_of(await nodes.write("t-one/encrypt/k", {"plaintext": "aGk="}))["ciphertext"]

        assert await refused(nodes.nodes[0], Operation.READ, "other/x") is NotFound
        await refused(nodes.nodes[0], Operation.UPDATE, "t-other/decrypt/k", {"ciphertext": sealed})


@on_loop
async def test_roles_share_no_secret_ids() -> None:
    async with three() as nodes:
        await nodes.write("sys/auth/approle", {"type": "approle"})
        for role in ("one", "other"):
            await nodes.write(f"auth/approle/role/{role}", {"token_policies": "reader"})
        made = data_of(await nodes.write("auth/approle/role/one/secret-id"))
        role_id = data_of(await nodes.nodes[0].read("auth/approle/role/other/role-id"))["role_id"]
        accessor = {"secret_id_accessor": made["secret_id_accessor"]}
        login = {"role_id": role_id, "secret_id": made["secret_id"]}

        await refused(nodes.nodes[0], Operation.UPDATE, "auth/approle/role/other/secret-id-accessor/lookup", accessor)
        await refused(nodes.nodes[0], Operation.UPDATE, "auth/approle/login", login, token="")


@on_loop
async def test_users_of_one_mount_are_unknown_to_another() -> None:
    async with three() as nodes:
        for mount in ("one", "other"):
            await nodes.write(f"sys/auth/{mount}", {"type": "userpass"})
        await nodes.write("auth/one/users/u", {"password": "p"})

        await refused(nodes.nodes[0], Operation.UPDATE, "auth/other/login/u", {"password": "p"}, token="")


@on_loop
async def test_an_accessor_is_no_token() -> None:
    async with three() as nodes:
        accessor = auth_of(await nodes.write("auth/token/create", {"policies": ["root"]})).accessor

        assert await nodes.reads("secret/data/a", accessor) == [PermissionDenied] * 3
