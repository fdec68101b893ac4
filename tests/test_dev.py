"""conclave/dev.py: development mode goes an operator's way, and leaves a node that can be used."""

import stat
from pathlib import Path

import msgspec
import pytest

from conclave.api.handler import ask
from conclave.core.contract import Operation, Response
from conclave.dev import DevFailed, DevOptions, dev_config, notice, prepare, store_token
from tests.fakes import FakeVault, on_loop, request_for


@on_loop
async def test_a_new_node_ends_up_unsealed_with_the_wanted_root_token_and_a_kv_engine() -> None:
    fake = FakeVault()

    made = await prepare(fake.vault, DevOptions(root_token_id="root"))
    written = await ask(
        fake.vault,
        request_for(Operation.UPDATE, "secret/data/app", {"data": {"a": 1}}, token="root"),
    )

    assert made.root_token == "root"
    assert isinstance(written, Response)
    await fake.stop()


@on_loop
async def test_the_first_root_token_does_not_outlive_the_wanted_one() -> None:
    fake = FakeVault()
    await prepare(fake.vault, DevOptions(root_token_id="root"))

    listed = await ask(fake.vault, request_for(Operation.LIST, "auth/token/accessors", token="root"))

    assert isinstance(listed, Response)
    assert len(msgspec.to_builtins(listed.data)["keys"]) == 1
    await fake.stop()


@on_loop
async def test_a_node_that_is_initialized_already_is_refused() -> None:
    fake = FakeVault()
    await prepare(fake.vault, DevOptions())

    with pytest.raises(DevFailed, match=r"^sys/init: Vault is already initialized$"):
        await prepare(fake.vault, DevOptions())
    await fake.stop()


@pytest.mark.usefixtures("permissive_umask")
def test_the_token_is_stored_for_its_owner_alone(tmp_path: Path) -> None:
    store_token("hvs.example", tmp_path)

    file = tmp_path / ".vault-token"
    assert file.read_text() == "hvs.example"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@on_loop
async def test_the_notice_names_address_key_and_token() -> None:
    fake = FakeVault()
    made = await prepare(fake.vault, DevOptions())

    text = notice(made, "http://127.0.0.1:8200")

    assert all(part in text for part in ("'http://127.0.0.1:8200'", made.unseal_key, made.root_token))
    await fake.stop()


def test_development_mode_listens_where_it_is_told() -> None:
    assert dev_config(DevOptions(listen_address="127.0.0.1:9200")).listener[0].address == "127.0.0.1:9200"
