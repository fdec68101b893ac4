"""From nothing to serving: founding, unsealing, sealing, and the shapes that operators' tools read."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from conclave.cluster.replica import JoinRequest, JoinTicket, Standing
from conclave.core import joining, unsealing
from conclave.core.contract import Response
from conclave.core.errors import InternalError, InvalidRequest
from conclave.core.joiner import NO_CHALLENGE, WRONG_KEY
from conclave.core.joining import Challenge, JoinFailed, JoinTarget
from conclave.core.lifecycle import ALREADY_INITIALIZED
from conclave.core.outcomes import Outcome
from conclave.storage.seal import SealConfig
from tests.fakes import FakeVault, data_of, on_loop, started_vault, until

TARGET = JoinTarget("http://127.0.0.1:8200")


def message_of(outcome: Outcome) -> str:
    assert not isinstance(outcome, Response), outcome
    return outcome.messages[0]


# -- founding --


@pytest.mark.parametrize(
    ("shares", "threshold", "problem"),
    [
        (1, 3, "threshold cannot be larger than shares"),
        (5, 1, "threshold must be greater than one for multiple shares"),
        (0, 0, "shares must be at least one"),
    ],
)
@on_loop
async def test_numbers_that_make_no_sense_found_nothing(shares: int, threshold: int, problem: str) -> None:
    fake = FakeVault()

    outcome = await fake.write("sys/init", {"secret_shares": shares, "secret_threshold": threshold}, token="")

    assert message_of(outcome) == f"invalid seal configuration: {problem}"
    assert fake.replica.standing is Standing.DETACHED
    await fake.stop()


@on_loop
async def test_founding_gives_shares_in_both_spellings_and_a_root_token() -> None:
    fake = FakeVault()

    data = data_of(await fake.write("sys/init", {"secret_shares": 5, "secret_threshold": 3}, token=""))

    assert [len(bytes.fromhex(key)) for key in data["keys"]] == [33] * 5
    assert [base64.b64decode(key).hex() for key in data["keys_base64"]] == data["keys"]
    assert data["root_token"].startswith("hvs.")
    assert fake.vault.is_sealed
    await fake.stop()


@on_loop
async def test_one_share_is_the_key_itself() -> None:
    fake = FakeVault()

    made = await fake.initialize(1, 1)

    assert [len(share) for share in made.shares] == [32]
    await fake.stop()


@on_loop
async def test_a_cluster_is_founded_once() -> None:
    fake = FakeVault()

    first, second = await asyncio.gather(
        fake.lifecycle.initialize(1, 1), fake.lifecycle.initialize(1, 1), return_exceptions=True
    )

    assert not isinstance(first, BaseException)
    assert isinstance(second, InvalidRequest)
    assert second.messages == (ALREADY_INITIALIZED,)
    await fake.stop()


@on_loop
async def test_nothing_that_was_made_is_readable_in_the_state() -> None:
    async with started_vault(3, 2) as fake:
        await fake.write("secret/data/canary-name", {"data": {"canary-key": "canary-value"}})
        await fake.store.flush()

        stored = b"".join(key + value for key, value in fake.overlay._state.open_reader().pairs())

        assert fake.made is not None
        for clear in (b"canary", b"root", b"default", fake.root.encode(), *fake.made.shares):
            assert clear not in stored


# -- what operators see --


@on_loop
async def test_seal_status_in_each_state() -> None:
    fake = FakeVault()
    keys = ["type", "initialized", "sealed", "t", "n", "progress", "nonce", "recovery_seal", "version", "commit_date"]
    keys += ["migration", "storage_type"]

    status = data_of(await fake.read("sys/seal-status", token=""))
    assert list(status) == keys
    assert (status["initialized"], status["sealed"], status["t"], status["n"]) == (False, True, 0, 0)

    await fake.initialize(5, 3)
    status = data_of(await fake.read("sys/seal-status", token=""))
    assert (status["initialized"], status["sealed"], status["t"], status["n"]) == (True, True, 3, 5)

    await fake.unseal()
    status = data_of(await fake.read("sys/seal-status", token=""))
    assert list(status) == [*keys[:-1], "cluster_name", "cluster_id", "storage_type"]
    assert (status["sealed"], status["progress"], status["nonce"]) == (False, 0, "")
    await fake.stop()


@on_loop
async def test_health_in_each_state() -> None:
    fake = FakeVault()
    conditions = []

    async def look() -> dict[str, object]:
        outcome = await fake.read("sys/health", token="")
        assert isinstance(outcome, Response)
        conditions.append(outcome.condition)
        return data_of(outcome)  # type: ignore[no-any-return]  # JSON

    assert (await look())["replication_performance_mode"] == "unknown"
    await fake.initialize()
    assert (await look())["initialized"] is True
    await fake.unseal()
    assert (await look())["replication_performance_mode"] == "primary"
    fake.replica.follow()
    assert (await look())["standby"] is True
    fake.store.standing_changed(Standing.REMOVED, 9)
    fake.replica.standing = Standing.REMOVED
    await look()

    assert conditions == ["uninitialized", "sealed", "active", "standby", "removed"]
    await fake.stop()


# -- unsealing --


@on_loop
async def test_shares_count_once_each_until_there_are_enough() -> None:
    fake = FakeVault()
    made = await fake.initialize(5, 3)
    shares = made.shares_hex

    progress = []
    for share in (shares[4], shares[4], shares[1], shares[2]):
        status = data_of(await fake.write("sys/unseal", {"key": share}, token=""))
        progress.append((status["progress"], status["sealed"], bool(status["nonce"])))

    assert progress == [(1, True, True), (1, True, True), (2, True, True), (0, False, False)]
    await fake.stop()


@on_loop
async def test_shares_may_be_given_in_base64() -> None:
    fake = FakeVault()
    made = await fake.initialize(3, 2)

    for share in made.shares_base64[1:]:
        await fake.lifecycle.unseal(share)

    assert not fake.vault.is_sealed
    await fake.stop()


@on_loop
async def test_reset_forgets_what_was_given() -> None:
    fake = FakeVault()
    made = await fake.initialize(3, 2)
    await fake.lifecycle.unseal(made.shares_hex[0])

    status = data_of(await fake.write("sys/unseal", {"reset": True}, token=""))

    assert (status["progress"], status["nonce"]) == (0, "")
    await fake.stop()


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("zzz", "'key' must be a valid hex or base64 string"),
        ("abcd", "invalid key: key is shorter than minimum 16 bytes"),
        ("", "'key' must be specified in request body as JSON, or 'reset' set to true"),
    ],
)
@on_loop
async def test_what_is_no_share_is_refused(key: str, problem: str) -> None:
    fake = FakeVault()
    await fake.initialize()

    assert message_of(await fake.write("sys/unseal", {"key": key}, token="")) == problem
    await fake.stop()


@on_loop
async def test_shares_of_another_key_are_told_at_the_last_one_and_forgotten() -> None:
    fake = FakeVault()
    await fake.initialize(3, 2)
    await fake.lifecycle.unseal("11" * 32 + "01")

    outcome = await fake.write("sys/unseal", {"key": "22" * 32 + "02"}, token="")

    assert message_of(outcome) == WRONG_KEY
    assert fake.lifecycle.seal_status()["progress"] == 0
    assert fake.vault.is_sealed
    await fake.stop()


@on_loop
async def test_shares_that_cannot_belong_together_are_refused() -> None:
    fake = FakeVault()
    made = await fake.initialize(3, 2)
    await fake.lifecycle.unseal(made.shares_hex[0])

    outcome = await fake.write("sys/unseal", {"key": made.shares_hex[0][2:]}, token="")

    assert message_of(outcome).startswith("unable to retrieve stored keys: invalid key: ")
    await fake.stop()


@on_loop
async def test_a_node_of_no_cluster_cannot_be_unsealed() -> None:
    fake = FakeVault()

    assert message_of(await fake.write("sys/unseal", {"key": "ab" * 32}, token="")) == "Vault is not initialized"
    await fake.stop()


@on_loop
async def test_unsealing_an_unsealed_node_changes_nothing() -> None:
    async with started_vault() as fake:
        assert data_of(await fake.write("sys/unseal", {"key": "ab" * 32}, token=""))["sealed"] is False


@on_loop
async def test_a_sealed_node_comes_back_with_its_shares() -> None:
    async with started_vault() as fake:
        await fake.write("secret/data/a", {"data": {"v": 1}})
        fake.vault.seal()

        await fake.unseal()

        assert data_of(await fake.read("secret/data/a"))["data"] == {"v": 1}


@on_loop
async def test_peers_hear_of_every_change() -> None:
    async with started_vault() as fake:
        assert fake.replica.announced["is_sealed"] is False

        fake.vault.seal()

        assert fake.replica.announced["is_sealed"] is True


# -- the keyring --


@on_loop
async def test_a_rotation_reaches_this_node_by_the_log() -> None:
    async with started_vault() as fake:
        await fake.write("secret/data/a", {"data": {"v": 1}})

        await fake.write("sys/rotate")

        status = data_of(await fake.read("sys/key-status"))
        assert status["term"] == 2
        assert data_of(await fake.read("secret/data/a"))["data"] == {"v": 1}
        fake.vault.seal()
        await fake.unseal()
        assert data_of(await fake.read("sys/key-status"))["term"] == 2


@on_loop
async def test_two_rotations_in_flight_are_two_terms() -> None:
    async with started_vault() as fake:
        await asyncio.gather(fake.write("sys/rotate"), fake.write("sys/rotate/keyring"))

        assert data_of(await fake.read("sys/key-status"))["term"] == 3


@on_loop
async def test_when_the_keyring_is_rotated_can_be_set_within_bounds() -> None:
    async with started_vault() as fake:
        assert data_of(await fake.read("sys/rotate/config")) == {
            "enabled": True,
            "interval": 0,
            "max_operations": 3_865_470_566,
        }

        assert isinstance(await fake.write("sys/rotate/keyring/config", {"interval": "1h"}), InvalidRequest)
        assert isinstance(await fake.write("sys/rotate/config", {"max_operations": 5}), InvalidRequest)
        assert isinstance(await fake.write("sys/rotate/config", {"enabled": False, "interval": "48h"}), Response)

        data = data_of(await fake.read("sys/rotate/keyring/config"))
        assert (data["enabled"], data["interval"]) == (False, 172_800)


@on_loop
async def test_new_shares_replace_the_old_ones() -> None:
    async with started_vault(3, 2) as fake:
        assert fake.made is not None
        old = fake.made.shares_hex
        started = data_of(await fake.write("sys/rotate/root/init", {"secret_shares": 1, "secret_threshold": 1}))
        for share in old[:2]:
            assert data_of(await fake.read("sys/rotate/root/init"))["nonce"] == started["nonce"]
            made = data_of(await fake.write("sys/rotate/root/update", {"key": share, "nonce": started["nonce"]}))
        fake.vault.seal()

        with pytest.raises(InvalidRequest, match="invalid key"):
            await fake.lifecycle.unseal(old[0])
        await fake.lifecycle.unseal(made["keys"][0])

        assert not fake.vault.is_sealed


# -- joining --


class FakeLeader:
    """The cluster that is asked, in place of its API."""

    def __init__(self, unseal_key: bytes) -> None:
        self.unseal_key = unseal_key
        self.is_reachable = True
        self.is_down: Callable[[JoinTarget], bool] = lambda _: False
        self.proofs: list[bytes] = []

    async def ask_challenge(self, target: JoinTarget, node_id: str) -> Challenge:
        if not self.is_reachable or self.is_down(target):
            raise JoinFailed("cannot reach it")
        assert target == TARGET
        key = unsealing.join_key(self.unseal_key)
        sealed = unsealing.make_challenge(key, node_id, now_seconds=0, random=bytes)
        return Challenge(sealed, SealConfig(1, 1))

    async def hand_in(self, target: JoinTarget, request: JoinRequest, proof: bytes, *, is_voter: bool) -> JoinTicket:
        assert target == TARGET
        assert is_voter
        assert request.node_id
        self.proofs.append(proof)
        return JoinTicket("cluster", 7, b"certificate", b"authority", b"membership")


@pytest.fixture
def leader(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLeader]:
    fake = FakeLeader(b"k" * 32)
    monkeypatch.setattr(joining, "ask_challenge", fake.ask_challenge)
    monkeypatch.setattr(joining, "hand_in", fake.hand_in)
    return fake  # type: ignore[return-value]  # pytest hands it on


@on_loop
async def test_a_node_that_will_join_is_initialized_and_knows_the_threshold(leader: FakeLeader) -> None:
    fake = FakeVault("n2")
    assert leader.is_reachable

    outcome = await fake.write("sys/storage/raft/join", {"leader_api_addr": TARGET.leader_api_address}, token="")

    assert data_of(outcome) == {"joined": True}
    status = fake.lifecycle.seal_status()
    assert (status["initialized"], status["sealed"], status["t"], status["n"]) == (True, True, 1, 1)
    assert isinstance(
        await fake.write("sys/init", {"secret_shares": 1, "secret_threshold": 1}, token=""), InvalidRequest
    )
    await fake.stop()


@on_loop
async def test_a_cluster_that_does_not_answer_cannot_be_joined(leader: FakeLeader) -> None:
    fake = FakeVault("n2")
    leader.is_reachable = False

    outcome = await fake.write("sys/storage/raft/join", {"leader_api_addr": TARGET.leader_api_address}, token="")

    assert isinstance(outcome, InternalError)
    assert outcome.messages == (NO_CHALLENGE,)
    assert not fake.lifecycle.is_initialized
    await fake.stop()


@on_loop
async def test_retry_goes_on_in_the_background(leader: FakeLeader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conclave.core.joiner.RETRY_SECONDS", 0.0)
    fake = FakeVault("n2")
    leader.is_reachable = False
    await fake.lifecycle.begin_join(TARGET, keep_trying=True)
    assert not fake.lifecycle.is_initialized

    leader.is_reachable = True

    await until(lambda: fake.lifecycle.is_initialized)
    await fake.stop()


@asynccontextmanager
async def waiting_for_its_state(
    leader: FakeLeader, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[FakeVault, FakeVault]]:
    """Yield a vault, and a new member of it that has got the unseal key and lacks the state."""
    monkeypatch.setattr("conclave.core.lifecycle.JOINED_SECONDS_MAX", 0.0)
    async with started_vault() as first:
        assert first.made is not None
        leader.unseal_key = first.made.shares[0]
        fake = FakeVault("n2")
        await fake.lifecycle.begin_join(TARGET)
        await fake.lifecycle.unseal(first.made.shares_hex[0])
        try:
            yield first, fake
        finally:
            await fake.stop()


async def bring_state(first: FakeVault, fake: FakeVault) -> None:
    """Let the state of one vault arrive at another."""
    await first.store.flush()
    fake.overlay._state = first.overlay._state
    fake.store.state_replaced()


@on_loop
async def test_the_right_key_makes_a_member_that_opens_its_state_when_it_comes(
    leader: FakeLeader, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with waiting_for_its_state(leader, monkeypatch) as (first, fake):
        assert len(leader.proofs) == 1
        assert fake.replica.standing is Standing.FOLLOWER
        assert fake.vault.is_sealed

        await bring_state(first, fake)

        await until(lambda: not fake.vault.is_sealed)


@on_loop
async def test_a_key_that_waits_for_the_state_is_forgotten_by_a_reset(
    leader: FakeLeader, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with waiting_for_its_state(leader, monkeypatch) as (first, fake):
        await fake.write("sys/unseal", {"reset": True}, token="")

        await bring_state(first, fake)
        for _ in range(100):
            await asyncio.sleep(0)
        was_sealed = fake.vault.is_sealed
        assert first.made is not None
        await fake.lifecycle.unseal(first.made.shares_hex[0])
        assert (was_sealed, fake.vault.is_sealed) == (True, False)


@on_loop
async def test_another_node_of_the_cluster_is_asked_if_the_first_is_down(leader: FakeLeader) -> None:
    fake = FakeVault("n2")
    down = JoinTarget("http://127.0.0.1:1")
    leader.is_down = lambda target: target == down
    fake.lifecycle.retry_join([down, TARGET])
    await until(lambda: fake.lifecycle.is_initialized)

    await fake.lifecycle._joiner.prove(leader.unseal_key)

    assert fake.replica.standing is Standing.FOLLOWER
    await fake.stop()


@on_loop
async def test_the_wrong_key_joins_nothing(leader: FakeLeader) -> None:
    fake = FakeVault("n2")
    await fake.lifecycle.begin_join(TARGET)

    outcome = await fake.write("sys/unseal", {"key": "ab" * 32}, token="")

    assert message_of(outcome) == WRONG_KEY
    assert leader.proofs == []
    assert fake.replica.standing is Standing.DETACHED
    await fake.stop()


@on_loop
async def test_a_leader_admits_whoever_has_opened_its_challenge() -> None:
    async with started_vault() as fake:
        assert fake.made is not None
        asked = data_of(await fake.write("sys/storage/raft/bootstrap/challenge", {"server_id": "n2"}, token=""))
        sealed = base64.b64decode(asked["challenge"])
        answer = unsealing.open_challenge(unsealing.join_key(fake.made.shares[0]), "n2", sealed)
        assert answer is not None
        proof = unsealing.prove(answer, unsealing.Petition("127.0.0.1:8211", b"", b"", is_voter=True))
        fields = {"server_id": "n2", "cluster_addr": "127.0.0.1:8211", "answer": base64.b64encode(proof).decode()}

        ticket = data_of(await fake.write("sys/storage/raft/bootstrap/answer", fields, token=""))

        assert ticket["cluster_id"] == "cluster"
        assert fake.replica.admitted == ["n2"]


@pytest.mark.parametrize("node_id", ["", "x" * 256])
@on_loop
async def test_no_challenge_is_made_for_what_can_be_no_node(node_id: str) -> None:
    async with started_vault() as fake:
        outcome = await fake.write("sys/storage/raft/bootstrap/challenge", {"server_id": node_id}, token="")

        assert isinstance(outcome, InvalidRequest)


@on_loop
async def test_a_leader_admits_nobody_else() -> None:
    async with started_vault() as fake:
        fields = {"server_id": "n2", "cluster_addr": "127.0.0.1:8211", "answer": base64.b64encode(bytes(32)).decode()}

        outcome = await fake.write("sys/storage/raft/bootstrap/answer", fields, token="")

        assert isinstance(outcome, InvalidRequest)
        assert fake.replica.admitted == []


@on_loop
async def test_the_proof_after_new_shares_is_by_the_new_key() -> None:
    async with started_vault() as fake:
        assert fake.made is not None
        started = data_of(await fake.write("sys/rotate/root/init", {"secret_shares": 1, "secret_threshold": 1}))
        made = data_of(
            await fake.write("sys/rotate/root/update", {"key": fake.made.shares_hex[0], "nonce": started["nonce"]})
        )
        asked = data_of(await fake.write("sys/storage/raft/bootstrap/challenge", {"server_id": "n2"}, token=""))
        sealed = base64.b64decode(asked["challenge"])

        assert unsealing.open_challenge(unsealing.join_key(fake.made.shares[0]), "n2", sealed) is None
        assert unsealing.open_challenge(unsealing.join_key(bytes.fromhex(made["keys"][0])), "n2", sealed) is not None
