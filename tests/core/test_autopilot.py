"""The rules of autopilot: what may be set, and that every node that comes to lead judges by them."""

from typing import Any

import pytest

from conclave.cluster.replica import AutopilotRules
from conclave.core.contract import Response
from conclave.core.errors import InternalError, InvalidRequest
from tests.core.test_three_vaults import come_true, trio
from tests.fakes import data_of, on_loop, started_vault

CONFIGURATION = "sys/storage/raft/autopilot/configuration"
STATE = "sys/storage/raft/autopilot/state"
DEFAULTS = {
    "cleanup_dead_servers": False,
    "dead_server_last_contact_threshold": "24h0m0s",
    "last_contact_threshold": "10s",
    "max_trailing_logs": 1000,
    "min_quorum": 0,
    "server_stabilization_time": "10s",
}


@on_loop
async def test_the_rules_are_vault_s_until_they_are_changed() -> None:
    async with started_vault() as fake:
        assert data_of(await fake.read(CONFIGURATION)) == DEFAULTS


@on_loop
async def test_what_is_given_changes_and_the_rest_stays() -> None:
    async with started_vault() as fake:
        wanted = {"cleanup_dead_servers": True, "min_quorum": 3, "dead_server_last_contact_threshold": "5m"}

        assert isinstance(await fake.write(CONFIGURATION, wanted), Response)
        assert isinstance(await fake.write(CONFIGURATION, {"max_trailing_logs": 50}), Response)

        assert data_of(await fake.read(CONFIGURATION)) == DEFAULTS | wanted | {
            "dead_server_last_contact_threshold": "5m0s",
            "max_trailing_logs": 50,
        }
        assert fake.replica.rules == AutopilotRules(
            cleanup_dead_servers=True,
            min_quorum=3,
            dead_server_last_contact_threshold_seconds=300,
            max_trailing_logs=50,
        )


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"cleanup_dead_servers": True, "min_quorum": 1},
            (
                "min_quorum must be set when cleanup_dead_servers is set and it should at least be 3; "
                "cleanup_dead_servers: true, min_quorum: 0x1"
            ),
        ),
        (
            {"cleanup_dead_servers": True, "min_quorum": 3, "dead_server_last_contact_threshold": "30s"},
            "dead_server_last_contact_threshold should not be set to less than 1m; received: 30",
        ),
        ({"min_quorum": -1}, "min_quorum must not be negative"),
        ({"max_trailing_logs": -1}, "max_trailing_logs must not be negative"),
    ],
)
def test_rules_that_make_no_sense_are_refused_and_change_nothing(fields: dict[str, Any], text: str) -> None:
    @on_loop
    async def play() -> None:
        async with started_vault() as fake:
            outcome = await fake.write(CONFIGURATION, fields)

            assert isinstance(outcome, InvalidRequest)
            assert outcome.messages == (text,)
            assert data_of(await fake.read(CONFIGURATION)) == DEFAULTS

    play()


@on_loop
async def test_a_member_gets_and_loses_its_vote_by_its_name() -> None:
    async with started_vault() as fake:
        assert isinstance(await fake.write("sys/storage/raft/demote", {"server_id": "n1"}), Response)
        server = data_of(await fake.read(STATE))["servers"]["n1"]
        assert server["node_type"] == "non-voter"

        assert isinstance(await fake.write("sys/storage/raft/promote", {"server_id": "n1"}), Response)
        assert data_of(await fake.read(STATE))["voters"] == ["n1"]


@pytest.mark.parametrize("operation", ["promote", "demote"])
def test_whoever_is_no_member_has_no_vote_to_give_or_take(operation: str) -> None:
    @on_loop
    async def play() -> None:
        async with started_vault() as fake:
            unnamed = await fake.write(f"sys/storage/raft/{operation}", {})
            unknown = await fake.write(f"sys/storage/raft/{operation}", {"server_id": "nope"})

            assert isinstance(unnamed, InvalidRequest)
            assert unnamed.messages == ("no server id provided",)
            assert isinstance(unknown, InternalError)
            assert unknown.messages == ("1 error occurred:\n\t* server nope not found in raft configuration\n\n",)

    play()


@on_loop
async def test_the_authority_s_key_is_lent_only_while_this_node_is_unsealed() -> None:
    async with started_vault() as fake:
        assert fake.replica.authority_key() == b"authority key"

        fake.vault.seal()

        assert fake.replica.authority_key() is None


@on_loop
async def test_every_node_follows_the_rules_also_one_that_is_unsealed_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async with trio(monkeypatch) as cluster:
        late = cluster.followers[0]
        late.vault.seal()

        assert isinstance(await cluster.write(cluster.followers[1], CONFIGURATION, {"max_trailing_logs": 77}), Response)

        await come_true(
            lambda: all(m.lifecycle.autopilot.max_trailing_logs == 77 for m in cluster.members if m is not late)
        )
        assert late.lifecycle.autopilot == AutopilotRules()
        for share in cluster.shares:
            await late.lifecycle.unseal(share)
        await come_true(lambda: late.lifecycle.autopilot.max_trailing_logs == 77)
