"""The audit log on a request's way: two records for what is served, one for what is refused, none without devices."""

from pathlib import Path
from typing import Any

import msgspec

from conclave.core.contract import Response
from conclave.core.errors import InternalError, InvalidRequest, RequestError
from conclave.core.lifecycle import Allowances
from tests.fakes import FakeVault, on_loop, started_vault


class Log:
    """One audit log in a file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "audit.log"
        self.seen = 0

    async def enable(self, fake: FakeVault, name: str = "file") -> None:
        fields = {"type": "file", "options": {"file_path": str(self.path)}}
        assert isinstance(await fake.write(f"sys/audit/{name}", fields), Response)
        self.news()

    def news(self) -> list[dict[str, Any]]:
        """Return the records that have come since the last call."""
        records = [msgspec.json.decode(line) for line in self.path.read_bytes().splitlines()]
        news, self.seen = records[self.seen :], len(records)
        return news


@on_loop
async def test_a_request_is_recorded_and_so_is_its_answer(tmp_path: Path) -> None:
    async with started_vault() as fake:
        log = Log(tmp_path)
        await log.enable(fake)

        await fake.write("secret/data/canary", {"data": {"a": "canary-value"}})

        request, response = log.news()
        assert (request["type"], response["type"]) == ("request", "response")
        assert request["request"]["path"] == "secret/data/canary"
        assert request["request"]["operation"] == "create"
        assert "canary-value" not in log.path.read_text()
        assert fake.root not in log.path.read_text()


@on_loop
async def test_a_read_is_recorded_too(tmp_path: Path) -> None:
    async with started_vault() as fake:
        log = Log(tmp_path)
        await log.enable(fake)

        await fake.read("secret/data/none")

        request, response = log.news()
        assert "error" not in request
        assert response["type"] == "response"


@on_loop
async def test_what_was_not_admitted_has_one_record_with_the_reason(tmp_path: Path) -> None:
    async with started_vault() as fake:
        log = Log(tmp_path)
        await log.enable(fake)

        await fake.read("secret/data/a", token="hvs.nobody")
        await fake.write("secret/data/a", {"data": {}}, token="")

        records = log.news()
        assert [record["error"] for record in records] == ["permission denied"] * 2


@on_loop
async def test_what_no_device_records_does_not_happen(tmp_path: Path) -> None:
    async with started_vault() as fake:
        log = Log(tmp_path)
        await log.enable(fake)
        opened = fake.vault.auditor._open["file/"]
        assert opened.device is not None
        opened.device.close()
        fake.vault.auditor._open["file/"] = msgspec.structs.replace(opened, device=None)

        written = await fake.write("secret/data/a", {"data": {}})
        read = await fake.read("sys/mounts")

        assert isinstance(written, InternalError)
        assert isinstance(read, InternalError)
        fake.vault.auditor.close()
        assert isinstance(await fake.read("secret/data/a"), RequestError)


@on_loop
async def test_requests_make_no_device_unless_the_configuration_says_so(tmp_path: Path) -> None:
    async with started_vault() as fake:
        fake.lifecycle.allowances = Allowances()

        refused = await fake.write("sys/audit/file", {"type": "file", "options": {"file_path": str(tmp_path / "log")}})

        assert isinstance(refused, InvalidRequest)
        assert refused.messages[0].startswith("cannot enable audit device via API")
        assert not (tmp_path / "log").exists()


@on_loop
async def test_devices_follow_the_log_and_end_with_sealing(tmp_path: Path) -> None:
    async with started_vault() as fake:
        auditor = fake.vault.auditor
        await Log(tmp_path).enable(fake)
        idle = [auditor.is_idle]
        fake.vault.seal()
        idle.append(auditor.is_idle)
        await fake.unseal()
        idle.append(auditor.is_idle)

        await fake.delete("sys/audit/file")
        idle.append(auditor.is_idle)

        assert idle == [False, True, False, True]
