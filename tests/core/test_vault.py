"""One node's vault: what it answers itself, what it leaves to the leader, and when an answer may go."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from conclave.cluster.replica import Standing
from conclave.core.contract import Context, Engine, Operation, Response, operation
from conclave.core.errors import (
    InternalError,
    InvalidRequest,
    PermissionDenied,
    Redirected,
    RequestError,
    TooLarge,
    Unavailable,
)
from conclave.core.execution import OVERLOADED
from conclave.core.forwarding import NO_LEADER
from conclave.core.outcomes import Outcome
from conclave.core.vault import REMOVED
from tests.clients import auth_of, refusal
from tests.fakes import FakeVault, data_of, on_loop, request_for, started_vault, until


class Slow(Engine):
    """An engine whose operations wait."""

    type = "slow"

    @operation("{name}", update=True)
    async def write(self, ctx: Context, name: str) -> Response:
        """Compute in a thread, then write."""
        value = await ctx.in_thread(lambda: name.encode() * 2)

        def step(inner: Context) -> Response:
            inner.storage.put(name, value)
            return Response({"written": name})

        return await ctx.atomically(step)

    @operation("twice/{name}", update=True)
    async def write_twice(self, ctx: Context, name: str) -> Response:
        """Write in two steps."""
        for number in range(2):
            await ctx.atomically(lambda inner, key=f"{name}{number}": _put(inner, key))  # type: ignore[misc]  # bound now
        return Response({"written": name})

    @operation("{name}", read=True)
    def read(self, ctx: Context, name: str) -> Response:
        """Read."""
        value = ctx.storage.get(name)
        return Response({"value": value.decode() if value else ""})

    @operation("broken", delete=True)
    def broken(self, ctx: Context) -> Response:
        """Fail."""
        del ctx
        raise ZeroDivisionError


def _put(ctx: Context, key: str) -> Response:
    ctx.storage.put(key, b"x")
    return Response({"step": key})


@asynccontextmanager
async def slow_vault() -> AsyncIterator[FakeVault]:
    """Yield a vault with an engine at slow/ whose operations wait."""
    async with started_vault(engines={"slow": Slow()}) as fake:
        await fake.mount("slow/", "slow")
        yield fake


def writing(fake: FakeVault, path: str, fields: Any = None, token: str = "") -> "asyncio.Future[Outcome]":
    """Begin a write; with the root token unless another is given."""
    return fake.start(request_for(Operation.UPDATE, path, fields, token=token or fake.root))


async def new_token(fake: FakeVault, by: str = "", **fields: Any) -> str:
    """Make a token that may do everything; `by` is the token that makes it, the root token by default."""
    made = await fake.write("auth/token/create", {"policies": ["root"], **fields}, token=by or fake.root)
    return auth_of(made).client_token


def follow_another(fake: FakeVault) -> None:
    """Let a node n2 lead, which does not answer."""
    fake.replica.follow()
    other = type(fake.replica)("n2")
    other.standing = Standing.LEADER
    fake.replica.network["n2"] = other


def outcome_now(future: "asyncio.Future[Outcome]") -> Any:
    """Return what has been answered before anything could wait."""
    assert future.done(), "it should have been answered at once"
    return future.result()


# -- reads --


@on_loop
async def test_a_secret_that_was_written_is_read() -> None:
    async with started_vault() as fake:
        await fake.write("secret/data/app", {"data": {"n": 5}})

        assert data_of(await fake.read("secret/data/app"))["data"] == {"n": 5}


@on_loop
async def test_a_read_with_the_lease_is_answered_at_once() -> None:
    async with started_vault() as fake:
        future = fake.start(request_for(Operation.READ, "sys/mounts", token=fake.root))

        assert isinstance(outcome_now(future), Response)


@on_loop
async def test_reads_without_the_lease_share_one_round() -> None:
    async with started_vault() as fake:
        fake.replica.is_leased = False
        before = fake.replica.barriers

        outcomes = await asyncio.gather(*(fake.read("sys/mounts") for _ in range(5)))

        assert all(isinstance(outcome, Response) for outcome in outcomes)
        assert fake.replica.barriers == before + 1


@on_loop
async def test_a_read_without_a_quorum_is_refused() -> None:
    async with started_vault() as fake:
        fake.replica.is_leased = fake.replica.has_quorum = False

        outcome = await fake.read("sys/mounts")

        assert refusal(outcome) == f"Unavailable: {NO_LEADER}"


@on_loop
async def test_a_read_never_sees_what_is_not_committed() -> None:
    async with started_vault() as fake:
        fake.replica.holds = True
        written = writing(fake, "secret/data/a", {"data": {"v": 1}})

        outcome = await fake.read("secret/data/a")

        assert isinstance(outcome, RequestError)
        assert not written.done()
        fake.replica.commit()
        assert data_of(await fake.read("secret/data/a"))["data"] == {"v": 1}


@on_loop
async def test_a_sealed_node_answers_what_is_about_itself_and_nothing_else() -> None:
    async with started_vault() as fake:
        fake.vault.seal()

        assert data_of(await fake.read("sys/seal-status"))["sealed"] is True
        outcome = await fake.read("secret/data/a")

        assert refusal(outcome) == "Sealed: Vault is sealed"


@on_loop
async def test_a_removed_node_serves_nothing() -> None:
    async with started_vault() as fake:
        fake.replica.standing = Standing.REMOVED
        fake.store.standing_changed(Standing.REMOVED, 1)

        outcome = await fake.read("secret/data/a")

        assert refusal(outcome) == f"Unavailable: {REMOVED}"
        assert fake.vault.is_sealed


# -- writes --


@on_loop
async def test_a_write_is_answered_only_once_it_is_committed() -> None:
    async with started_vault() as fake:
        fake.replica.holds = True

        future = writing(fake, "secret/data/a", {"data": {}})
        assert not future.done()
        fake.replica.commit()

        assert data_of(outcome_now(future))["version"] == 1


@on_loop
async def test_a_refusal_that_saw_uncommitted_state_waits_for_it() -> None:
    async with started_vault() as fake:
        fake.replica.holds = True
        first = writing(fake, "secret/data/a", {"data": {}})
        second = writing(fake, "secret/data/a", {"data": {}, "options": {"cas": 0}})

        assert not second.done()
        fake.replica.commit()

        assert data_of(outcome_now(first))["version"] == 1
        assert isinstance(outcome_now(second), InvalidRequest)


@on_loop
async def test_writers_one_after_another_build_on_each_other_before_either_is_committed() -> None:
    async with started_vault() as fake:
        fake.replica.holds = True
        futures = [writing(fake, "secret/data/a", {"data": {"n": n}}) for n in range(3)]

        fake.replica.commit()

        assert [data_of(outcome_now(future))["version"] for future in futures] == [1, 2, 3]


@on_loop
async def test_a_write_that_was_lost_is_tried_again_by_whoever_leads() -> None:
    async with started_vault() as fake:
        fake.replica.holds = True
        future = writing(fake, "secret/data/a", {"data": {"v": 1}})
        fake.replica.lose_leadership()
        fake.replica.holds = False
        assert not future.done()

        fake.replica.lead()

        assert data_of(await future)["version"] == 1
        assert data_of(await fake.read("secret/data/a"))["data"] == {"v": 1}


@on_loop
async def test_a_write_of_which_nothing_is_heard_is_unknown() -> None:
    async with started_vault() as fake:
        fake.replica.holds = True
        future = writing(fake, "secret/data/a", {"data": {}})
        fake.clock.advance(60)

        fake.store.start()
        outcome = await future

        assert isinstance(outcome, Unavailable)
        assert "unknown" in outcome.messages[0]


@on_loop
async def test_a_write_on_an_overloaded_leader_is_refused_and_changes_nothing() -> None:
    async with started_vault() as fake:
        fake.replica.is_overloaded = True

        outcome = await fake.write("secret/data/a", {"data": {}})

        assert refusal(outcome) == f"Unavailable: {OVERLOADED}"
        fake.replica.is_overloaded = False
        assert data_of(await fake.write("secret/data/a", {"data": {}}))["version"] == 1


@on_loop
async def test_an_entry_over_its_bound_is_refused_as_too_large() -> None:
    async with started_vault() as fake:
        outcome = await fake.write("secret/data/a", {"data": {"x": "y" * (1 << 20)}})

        assert isinstance(outcome, TooLarge)


@on_loop
async def test_a_client_that_wants_no_forwarding_is_sent_to_the_leader() -> None:
    async with started_vault() as fake:
        follow_another(fake)

        outcome = await fake.write("secret/data/a", {"data": {}}, is_forwarding_refused=True, query={"a": "b c"})

        assert isinstance(outcome, Redirected)
        assert outcome.location == "http://127.0.0.1:8201/v1/secret/data/a?a=b+c"


@pytest.mark.parametrize(
    ("operation", "path", "location"),
    [
        (Operation.READ, "secret/data/a?list=true#b", "/v1/secret/data/a%3Flist%3Dtrue%23b"),
        (Operation.READ, "secret/data/50% é", "/v1/secret/data/50%25%20%C3%A9"),
        (Operation.LIST, "secret/metadata/", "/v1/secret/metadata/?list=true"),
    ],
)
@on_loop
async def test_whoever_is_sent_to_the_leader_asks_it_for_the_same(
    operation: Operation, path: str, location: str
) -> None:
    async with started_vault() as fake:
        follow_another(fake)

        outcome = await fake.ask(operation, path, is_forwarding_refused=True, is_for_leader=True)

        assert isinstance(outcome, Redirected)
        assert outcome.location == f"http://127.0.0.1:8201{location}"


@on_loop
async def test_a_bug_in_a_handler_is_an_error_for_its_client_alone(caplog: pytest.LogCaptureFixture) -> None:
    async with slow_vault() as fake:
        outcome = await fake.delete("slow/broken")

        assert isinstance(outcome, InternalError)
        assert "ZeroDivisionError" in caplog.text
        assert isinstance(await fake.write("slow/x"), Response)


# -- operations that wait --


@on_loop
async def test_a_coroutine_changes_state_in_an_atomic_step() -> None:
    async with slow_vault() as fake:
        assert data_of(await fake.write("slow/ab")) == {"written": "ab"}
        assert data_of(await fake.read("slow/ab")) == {"value": "abab"}


@on_loop
async def test_a_coroutine_whose_first_step_was_lost_is_tried_again() -> None:
    async with slow_vault() as fake:
        fake.replica.holds = True
        future = writing(fake, "slow/ab")
        await until(lambda: bool(fake.replica.waiting))
        fake.replica.lose_leadership()
        fake.replica.holds = False

        fake.replica.lead()

        assert data_of(await future) == {"written": "ab"}


@on_loop
async def test_a_coroutine_that_loses_leadership_in_its_midst_says_so_and_is_not_repeated() -> None:
    async with slow_vault() as fake:
        fake.replica.holds = True
        future = writing(fake, "slow/twice/ab")
        await until(lambda: bool(fake.replica.waiting))
        fake.replica.commit()
        await until(lambda: bool(fake.replica.waiting))

        fake.replica.lose_leadership()
        outcome = await future

        assert isinstance(outcome, Unavailable)
        assert "midst" in outcome.messages[0]


@on_loop
async def test_a_token_revoked_while_a_coroutine_waits_stops_it() -> None:
    async with slow_vault() as fake:
        token = await new_token(fake)
        future = writing(fake, "slow/ab", token=token)
        await fake.write("auth/token/revoke", {"token": token})

        assert isinstance(await future, PermissionDenied)
        assert data_of(await fake.read("slow/ab")) == {"value": ""}


@on_loop
async def test_a_coroutine_can_be_the_last_use_of_its_token() -> None:
    async with slow_vault() as fake:
        token = await new_token(fake, num_uses=1)

        first = await fake.write("slow/ab", token=token)
        second = await fake.write("slow/ab", token=token)

        assert data_of(first) == {"written": "ab"}
        assert isinstance(second, PermissionDenied)


@on_loop
async def test_the_last_use_of_a_token_ends_with_its_parent() -> None:
    async with slow_vault() as fake:
        parent = await new_token(fake)
        child = await new_token(fake, by=parent, num_uses=1)
        future = writing(fake, "slow/ab", token=child)

        await fake.write("auth/token/revoke", {"token": parent})

        assert isinstance(await future, PermissionDenied)
        assert data_of(await fake.read("slow/ab")) == {"value": ""}


@on_loop
async def test_a_mount_disabled_while_a_coroutine_waits_stops_it() -> None:
    async with slow_vault() as fake:
        future = writing(fake, "slow/ab")

        await fake.delete("sys/mounts/slow")

        outcome = await future
        assert isinstance(outcome, RequestError)
        assert "no handler for route" in outcome.messages[0]


# -- standing --


@on_loop
async def test_seal_hands_leadership_over_first() -> None:
    async with started_vault() as fake:
        assert isinstance(await fake.write("sys/seal"), Response)

        assert fake.replica.standing is Standing.FOLLOWER
        assert fake.vault.is_sealed


@on_loop
async def test_a_node_that_is_cut_off_can_still_be_sealed() -> None:
    async with started_vault() as fake:
        fake.replica.follow()
        fake.replica.has_quorum = False

        assert isinstance(await fake.write("sys/seal"), Response)
        assert fake.vault.is_sealed


@on_loop
async def test_becoming_active_is_announced_by_its_time() -> None:
    async with started_vault() as fake:
        assert data_of(await fake.read("sys/leader"))["is_self"] is True
        fake.replica.follow()

        data = data_of(await fake.read("sys/leader"))

        assert data["is_self"] is False
        assert "active_time" not in data


@on_loop
async def test_stopping_answers_what_still_waits() -> None:
    async with started_vault() as fake:
        fake.replica.follow()
        future = writing(fake, "secret/data/a", {"data": {}})
        await asyncio.sleep(0)

        await fake.vault.stop()

        assert isinstance(outcome_now(future), Unavailable)


@on_loop
async def test_a_snapshot_of_another_vault_seals_this_node() -> None:
    async with started_vault() as fake, started_vault() as other:
        await other.store.flush()
        fake.overlay._state = other.overlay._state

        fake.store.state_replaced()

        assert fake.vault.is_sealed


@on_loop
async def test_answers_are_json() -> None:
    async with started_vault() as fake:
        for path in ("sys/mounts", "sys/host-info", "sys/key-status", "sys/leader", "sys/health", "sys/ha-status"):
            outcome = await fake.read(path)

            assert isinstance(outcome, Response), path
            assert msgspec.json.encode(outcome.data), path
