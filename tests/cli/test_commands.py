"""Whole commands against a server that answers what a real one has answered; the printed text is the recorded one."""

import contextlib
import io
import json
import tarfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from conclave.cli.commands import snapshot as snapshot_command
from conclave.cli.commands.generate_root import decode_token
from conclave.cli.errors import CommandError
from tests.cli.conftest import Shell

MOUNT_V2 = {"data": {"path": "secret/", "type": "kv", "options": {"version": "2"}}}
METADATA = {
    "created_time": "2026-11-24T00:10:52.769041942Z",
    "custom_metadata": None,
    "deletion_time": "",
    "destroyed": False,
    "version": 1,
}
METADATA_TABLE = """\
======= Metadata =======
Key                Value
---                -----
created_time       2026-11-24T00:10:52.769041942Z
custom_metadata    <nil>
deletion_time      n/a
destroyed          false
version            1
"""


def envelope(**fields: Any) -> dict[str, Any]:
    return {"request_id": "r", "lease_id": "", "lease_duration": 0, "renewable": False, "warnings": None, **fields}


@pytest.fixture
def kv(shell: Shell) -> Shell:
    for key in ("app", "none"):
        shell.server.answer(f"GET /v1/sys/internal/ui/mounts/secret/{key}", body=MOUNT_V2)
    shell.server.answer("GET /v1/sys/internal/ui/mounts/secret", body=MOUNT_V2)
    return shell


def test_kv_put_shows_the_version(kv: Shell) -> None:
    kv.server.answer("PUT /v1/secret/data/app", body=envelope(data=METADATA))

    run = kv("kv", "put", "-cas=0", "secret/app", "user=bob")

    assert run == (0, f"= Secret Path =\nsecret/data/app\n\n{METADATA_TABLE}", "")
    assert kv.server.seen[-1].body == {"data": {"user": "bob"}, "options": {"cas": 0}}


def test_kv_get_shows_metadata_and_data(kv: Shell) -> None:
    kv.server.answer(
        "GET /v1/secret/data/app", body=envelope(data={"data": {"pass": "s3cr3t", "user": "bob"}, "metadata": METADATA})
    )

    run = kv("kv", "get", "secret/app")

    data = "==== Data ====\nKey     Value\n---     -----\npass    s3cr3t\nuser    bob\n"
    assert run == (0, f"= Secret Path =\nsecret/data/app\n\n{METADATA_TABLE}\n{data}", "")


def test_kv_get_shows_one_field_without_a_newline(kv: Shell) -> None:
    kv.server.answer("GET /v1/secret/data/app", body=envelope(data={"data": {"user": "bob"}, "metadata": METADATA}))

    assert kv("kv", "get", "-mount=secret", "-field=user", "app").out == "bob"
    assert kv("kv", "get", "-field=zz", "secret/app") == (1, "", 'Field "zz" not present in map\n')


def test_kv_get_of_a_deleted_version_shows_what_is_left(kv: Shell) -> None:
    kv.server.answer("GET /v1/secret/data/app", 404, envelope(data={"data": None, "metadata": METADATA}))

    assert kv("kv", "get", "secret/app").code == 0
    assert kv("kv", "get", "-field=a", "secret/app") == (2, "", "No data found at secret/data/app\n")


def test_kv_get_of_nothing_is_2(kv: Shell) -> None:
    assert kv("kv", "get", "secret/none") == (2, "", "No value found at secret/data/none\n")
    assert kv("kv", "list", "secret") == (2, "", "No value found at secret/metadata\n")


def test_kv_patch_falls_back_to_read_and_write_where_merging_is_not_allowed(kv: Shell) -> None:
    kv.server.answer("PATCH /v1/secret/data/app", 403, {"errors": ["permission denied"]})
    kv.server.answer(
        "GET /v1/secret/data/app", body=envelope(data={"data": {"a": "1", "b": "2"}, "metadata": METADATA})
    )
    kv.server.answer("PUT /v1/secret/data/app", body=envelope(data=METADATA))

    run = kv("kv", "patch", "-remove-data=a", "secret/app", "c=3")

    assert run.code == 0
    assert kv.server.seen[-1].body == {"data": {"b": "2", "c": "3"}, "options": {"cas": 1}}


def test_a_preflight_is_sent_although_the_request_is_only_shown(kv: Shell) -> None:
    run = kv("kv", "get", "-output-policy", "secret/app")

    assert run == (0, 'path "secret/data/app" {\n  capabilities = ["read"]\n}\n', "")
    assert [seen.path for seen in kv.server.seen] == ["/v1/sys/internal/ui/mounts/secret/app"]


def test_a_list_is_a_bare_array_in_json(shell: Shell) -> None:
    shell.server.answer("GET /v1/secret/metadata?list=true", body=envelope(data={"keys": ["a", "b/"]}))

    assert shell("list", "secret/metadata") == (0, "Keys\n----\na\nb/\n", "")
    assert shell("list", "-format=json", "secret/metadata/").out == '[\n  "a",\n  "b/"\n]\n'
    assert shell("list", "-format=json", "secret/none") == (2, "{}\n", "")


def test_warnings_go_to_stderr_beside_a_table(shell: Shell) -> None:
    shell.server.answer("GET /v1/a", body=envelope(data={"x": 1}, warnings=["careful"]))

    run = shell("read", "a")

    assert run.out == "Key    Value\n---    -----\nx      1\n"
    assert run.err == "WARNING! The following warnings were returned from Conclave:\n\n  * careful\n\n"
    assert shell("read", "-format=json", "a").err == ""


def test_a_lease_is_shown_before_its_data(shell: Shell) -> None:
    lease = {"lease_id": "db/creds/x/1", "lease_duration": 3600, "renewable": True}
    shell.server.answer("GET /v1/db/creds/x", body=envelope(data={"username": "u"}) | lease)

    run = shell("read", "db/creds/x")

    assert [line.split() for line in run.out.splitlines()[2:]] == [
        ["lease_id", "db/creds/x/1"],
        ["lease_duration", "1h"],
        ["lease_renewable", "true"],
        ["username", "u"],
    ]


def test_a_raw_answer_is_what_was_sent(shell: Shell) -> None:
    shell.server.answer("GET /v1/a", body=b'{"b":1,  "a":2}\n')

    assert shell("read", "-format=raw", "a").out == '{"b":1,  "a":2}\n\n'


LOOKUP = envelope(data={"accessor": "acc", "policies": ["root"], "ttl": 0, "renewable": False, "meta": None})
TOKEN_TABLE = """\
Key                  Value
---                  -----
token                hvs.new
token_accessor       acc
token_duration       ∞
token_renewable      false
token_policies       ["root"]
identity_policies    []
policies             ["root"]
"""


def test_login_keeps_the_token_for_its_owner_alone(shell: Shell) -> None:
    shell.set(BAO_TOKEN="")
    shell.server.answer("GET /v1/auth/token/lookup-self", body=LOOKUP)

    run = shell("login", "-", stdin="hvs.new\n")

    file = shell.home / ".vault-token"
    assert run.out.endswith("\n\n" + TOKEN_TABLE)
    assert file.read_text() == "hvs.new"
    assert file.stat().st_mode & 0o777 == 0o600
    assert shell.server.seen[0].headers["X-Vault-Token"] == "hvs.new"


def test_login_can_leave_the_token_file_alone(shell: Shell) -> None:
    shell.server.answer("GET /v1/auth/token/lookup-self", body=LOOKUP)

    run = shell("login", "-token-only", "-no-store", "hvs.new")

    assert run == (0, "hvs.new", "")
    assert not (shell.home / ".vault-token").exists()


def test_login_with_a_password_names_the_user_in_the_path(shell: Shell) -> None:
    auth = {"client_token": "hvs.al", "accessor": "acc", "lease_duration": 2764800, "metadata": {"username": "al"}}
    shell.server.answer("PUT /v1/auth/staff/login/a%20l", body=envelope(auth=auth))

    run = shell("login", "-no-store", "-method=userpass", "-path=staff", "username=a l", "password=pw")

    assert "token_duration         768h\n" in run.out
    assert "token_meta_username    al\n" in run.out
    assert shell.server.seen[0].body == {"password": "pw"}
    assert "X-Vault-Token" not in shell.server.seen[0].headers


def test_a_failed_login_changes_nothing(shell: Shell) -> None:
    (shell.home / ".vault-token").write_text("hvs.old")
    shell.server.answer("GET /v1/auth/token/lookup-self", 403, {"errors": ["permission denied"]})

    run = shell("login", "hvs.wrong")

    assert run.code == 2
    assert run.err.startswith("Error authenticating: error looking up token: Error making API request.")
    assert (shell.home / ".vault-token").read_text() == "hvs.old"


SEALED = {
    "type": "shamir",
    "initialized": True,
    "sealed": True,
    "t": 3,
    "n": 5,
    "progress": 1,
    "nonce": "",
    "version": "1.2",
    "storage_type": "raft",
}


def test_the_status_of_a_sealed_node_is_2(shell: Shell) -> None:
    shell.server.answer("GET /v1/sys/seal-status", body=SEALED)
    shell.server.answer("GET /v1/sys/leader", 503, {"errors": ["Vault is sealed"]})

    run = shell("status")

    assert run.code == 2
    assert run.out == (
        "Key                Value\n---                -----\nSeal Type          shamir\nInitialized        true\n"
        "Sealed             true\nTotal Shares       5\nThreshold          3\nUnseal Progress    1/3\n"
        "Unseal Nonce       n/a\nVersion            1.2\nStorage Type       raft\nHA Enabled         true\n"
    )


def test_the_status_of_a_standby_names_the_leader(shell: Shell) -> None:
    leader = {
        "ha_enabled": True,
        "is_self": False,
        "leader_address": "http://l:8200",
        "leader_cluster_address": "https://l:8201",
        "raft_committed_index": 9,
        "raft_applied_index": 8,
    }
    shell.server.answer(
        "GET /v1/sys/seal-status", body=SEALED | {"sealed": False, "cluster_name": "c", "cluster_id": "i"}
    )
    shell.server.answer("GET /v1/sys/leader", body=leader)

    run = shell("status")

    assert run.code == 0
    cells = [line.split("  ")[-1].strip() for line in run.out.splitlines()]
    assert cells[-6:] == ["true", "https://l:8201", "standby", "http://l:8200", "9", "8"]


def test_the_status_of_nobody_is_1(shell: Shell) -> None:
    run = shell("status", "-address=http://127.0.0.1:1")

    assert run.code == 1
    assert run.err.startswith('Error checking seal status: Get "http://127.0.0.1:1/v1/sys/seal-status": dial tcp')


def test_init_prints_what_is_shown_only_once(shell: Shell) -> None:
    shell.server.answer("GET /v1/sys/seal-status", body=SEALED)
    shell.server.answer("PUT /v1/sys/init", body={"keys": ["00"], "keys_base64": ["AA=="], "root_token": "hvs.root"})

    run = shell("operator", "init", "-key-shares=1", "-key-threshold=1")

    assert run.code == 0
    assert run.out.startswith("Unseal Key 1: AA==\n\nInitial Root Token: hvs.root\n\n")
    assert shell.server.seen[-1].body == {"secret_shares": 1, "secret_threshold": 1}


def test_list_peers_shows_state_and_vote(shell: Shell) -> None:
    servers = [
        {"node_id": "b1", "address": "127.0.0.1:1", "leader": True, "voter": True},
        {"node_id": "b2", "address": "127.0.0.1:2", "leader": False, "voter": False},
    ]
    shell.server.answer("GET /v1/sys/storage/raft/configuration", body=envelope(data={"config": {"servers": servers}}))

    assert shell("operator", "raft", "list-peers").out == (
        "Node    Address        State       Voter\n----    -------        -----       -----\n"
        "b1      127.0.0.1:1    leader      true\nb2      127.0.0.1:2    follower    false\n"
    )


def test_a_move_waits_until_the_server_is_done(shell: Shell) -> None:
    shell.server.answer("POST /v1/sys/remount", body=envelope(data={"migration_id": "m"}))
    shell.server.answer("GET /v1/sys/remount/status/m", body=envelope(data={"migration_info": {"status": "success"}}))

    run = shell("secrets", "move", "a/", "b/")

    assert run.out.splitlines()[-1] == "Success! Finished moving secrets engine a/ to b/, with migration ID m"


def test_a_share_without_a_nonce_is_not_sent(shell: Shell) -> None:
    shell.server.answer("GET /v1/sys/rotate/root/init", body=envelope(data={"started": True, "nonce": "n"}))

    run = shell("operator", "rotate-keys", "c2hhcmU=")

    assert run.code == 2
    assert "needs -nonce" in run.err
    assert [seen.method for seen in shell.server.seen] == ["GET"]


def test_a_root_token_is_decoded_with_its_password() -> None:
    assert decode_token("H3ZXOQo4ICxpMWEvfz1qCAhAQDsoCh42HHs", "lXnXRTKu9PQy2U2kmxuaBrTUm1").startswith("s.")


def _snapshot(*, is_damaged: bool = False) -> bytes:
    manifest, state = json.dumps({"ID": "1", "Index": 7}).encode(), b"state"
    sums = f"{sha256(manifest).hexdigest()}  meta.json\n{sha256(state).hexdigest()}  state.bin\n".encode()
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        parts = {"meta.json": manifest, "state.bin": b"stale" if is_damaged else state, "SHA256SUMS": sums}
        for name, content in parts.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return target.getvalue()


def test_a_snapshot_is_saved_and_inspected(shell: Shell) -> None:
    shell.server.answer("GET /v1/sys/storage/raft/snapshot", body=_snapshot())
    file = shell.home / "s.snap"

    assert shell("operator", "raft", "snapshot", "save", str(file)) == (0, "", "")
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(shell("operator", "raft", "snapshot", "inspect", "-format=json", str(file)).out)["Index"] == 7


@pytest.mark.parametrize(
    "content",
    [
        b"junk",
        _snapshot()[:60],
        _snapshot()[:-1],
        _snapshot()[:-6] + b"sum" + _snapshot()[-3:],
        _snapshot(is_damaged=True),
    ],
    ids=["no archive", "cut off", "without its end", "with another sum", "damaged"],
)
def test_a_snapshot_that_did_not_come_whole_gets_no_name(shell: Shell, content: bytes) -> None:
    shell.server.answer("GET /v1/sys/storage/raft/snapshot", body=content)

    run = shell("operator", "raft", "snapshot", "save", str(shell.home / "s.snap"))

    assert run.code == 1
    assert list(shell.home.iterdir()) == []


def test_a_snapshot_with_any_byte_changed_is_damaged_or_says_the_same(tmp_path: Path) -> None:
    file, content = tmp_path / "s.snap", _snapshot()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        file.write_bytes(damaged)

        with contextlib.suppress(CommandError):
            assert snapshot_command._check(file) == {"ID": "1", "Index": 7}


def test_a_policy_is_written_from_a_file_and_read_without_blanks_around_it(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "p.hcl"
    file.write_text('path "a" {}\n')
    shell.server.answer("PUT /v1/sys/policies/acl/p1", 204)
    shell.server.answer("GET /v1/sys/policies/acl/p1", body=envelope(data={"policy": 'path "a" {}\n'}))

    assert shell("policy", "write", "P1", str(file)) == (0, "Success! Uploaded policy: p1\n", "")
    assert shell.server.seen[0].body == {"policy": 'path "a" {}\n'}
    assert shell("policy", "read", "p1").out == 'path "a" {}\n'
    assert shell("policy", "read", "none") == (2, "", "No policy named: none\n")


def test_no_audit_devices_is_2(shell: Shell) -> None:
    shell.server.answer("GET /v1/sys/audit", body=envelope(data={}))

    assert shell("audit", "list") == (2, "No audit devices are enabled.\n", "")
