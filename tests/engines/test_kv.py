"""engines/kv.py through a whole vault: versions, check-and-set, metadata, and the texts that clients match."""

import itertools
from typing import Any

import msgspec
import pytest

from conclave.core.contract import Response
from conclave.core.mounts import MountTable
from conclave.core.outcomes import Outcome
from conclave.core.records import Records
from conclave.core.services import AREA_MOUNTS, Services
from conclave.engines.kv import BESIDE_BYTES_MAX, CUSTOM_KEYS_MAX, DETAILED_MAX, Secret
from tests.clients import Client, client, is_done, refusal
from tests.fakes import data_of


def absent(outcome: Outcome) -> Any:
    """Return what is told of something that is not there: 404 with an envelope."""
    assert isinstance(outcome, Response), outcome
    assert outcome.is_absent
    return None if outcome.data is None else data_of(outcome)


def put(vault: Client, path: str, data: Any, **options: Any) -> Outcome:
    return vault.write(f"secret/data/{path}", {"data": data} | ({"options": options} if options else {}))


def raw(vault: Client, path: str) -> bytes:
    answer = vault.read(path)
    assert isinstance(answer, Response)
    assert isinstance(answer.data, msgspec.Raw)
    return bytes(answer.data)


# -- versions --


def test_every_write_is_a_version_that_can_be_read() -> None:
    with client() as vault:
        for number in (1, 2, 3):
            assert data_of(put(vault, "app", {"n": number}))["version"] == number

        assert vault.data("secret/data/app")["data"] == {"n": 3}
        assert vault.data("secret/data/app", query={"version": "1"})["data"] == {"n": 1}
        assert vault.data("secret/data/app", query={"version": "0"})["data"] == {"n": 3}


def test_a_write_tells_what_is_known_of_the_version() -> None:
    with client() as vault:
        assert data_of(put(vault, "app", {})) == {
            "created_time": "2027-01-15T08:00:00Z",
            "custom_metadata": None,
            "deletion_time": "",
            "destroyed": False,
            "version": 1,
        }


def test_numbers_come_back_as_they_were_written() -> None:
    with client() as vault:
        body = b'{"data":{"big":123456789012345678901234567890,"x":1.50,"u":"\xc3\xa9<"}}'
        vault.write("secret/data/n", msgspec.Raw(body))

        assert raw(vault, "secret/data/n").startswith(
            b'{"data":{"big":123456789012345678901234567890,"u":"\xc3\xa9\\u003c","x":1.50},"metadata":'
        )


@pytest.mark.parametrize("path", ["none", "app/", ""])
def test_what_was_never_there_is_not_found(path: str) -> None:
    with client() as vault:
        put(vault, "app", {})

        assert refusal(vault.read(f"secret/data/{path}")) == "NotFound"


def test_a_version_that_was_never_there_is_not_found() -> None:
    with client() as vault:
        put(vault, "app", {})

        assert refusal(vault.read("secret/data/app", query={"version": "9"})) == "NotFound"


def test_only_so_many_versions_are_kept() -> None:
    with client() as vault:
        vault.write("secret/metadata/app", {"max_versions": 2})
        for number in range(5):
            put(vault, "app", {"n": number})

        known = vault.data("secret/metadata/app")
        assert (sorted(known["versions"]), known["oldest_version"], known["current_version"]) == (["4", "5"], 4, 5)
        assert refusal(vault.read("secret/data/app", query={"version": "3"})) == "NotFound"


def test_ten_versions_are_kept_where_nothing_is_said() -> None:
    with client() as vault:
        for number in range(12):
            put(vault, "app", {"n": number})

        assert len(vault.data("secret/metadata/app")["versions"]) == 10


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"a": 1}, "no data provided"),
        (None, "no data provided"),
        (
            {"data": "s"},
            (
                "error converting input for field \"data\": '' expected type 'map[string]interface {}', "
                "got unconvertible type 'string'"
            ),
        ),
    ],
)
def test_a_write_without_data_is_refused(fields: Any, message: str) -> None:
    with client() as vault:
        assert refusal(vault.write("secret/data/app", fields)) == f"InvalidRequest: {message}"


def test_null_is_data() -> None:
    with client() as vault:
        put(vault, "app", None)

        assert vault.data("secret/data/app")["data"] is None


# -- check and set --


@pytest.mark.parametrize("cas", [1, "1", True])
def test_a_write_that_names_the_version_it_replaces_is_made(cas: Any) -> None:
    with client() as vault:
        put(vault, "app", {})

        assert data_of(put(vault, "app", {}, cas=cas))["version"] == 2


@pytest.mark.parametrize("cas", [0, 2, -5])
def test_a_write_that_names_another_is_refused(cas: int) -> None:
    with client() as vault:
        put(vault, "app", {})

        refused = put(vault, "app", {}, cas=cas)

        assert refusal(refused) == "InvalidRequest: check-and-set parameter did not match the current version"


@pytest.mark.parametrize("cas", ["x", 1.5, [1]])
def test_a_version_that_is_no_number_is_refused(cas: Any) -> None:
    with client() as vault:
        assert refusal(put(vault, "app", {}, cas=cas)) == "InvalidRequest: error parsing check-and-set parameter"


@pytest.mark.parametrize("where", ["config", "metadata/app"])
def test_naming_the_version_can_be_required(where: str) -> None:
    with client() as vault:
        vault.write(f"secret/{where}", {"cas_required": True})

        refused = put(vault, "app", {})

        assert refusal(refused) == "InvalidRequest: check-and-set parameter required for this call"
        assert data_of(put(vault, "app", {}, cas=0))["version"] == 1


# -- patch --


def test_a_patch_changes_what_it_names() -> None:
    with client() as vault:
        put(vault, "app", {"a": 1, "b": {"c": 2, "d": 3}})

        patched = vault.patch("secret/data/app", {"data": {"a": None, "b": {"c": None}, "e": 4}})

        assert data_of(patched)["version"] == 2
        assert vault.data("secret/data/app")["data"] == {"b": {"d": 3}, "e": 4}


def test_nothing_there_is_nothing_to_patch() -> None:
    with client() as vault:
        outcome = vault.patch("secret/data/none", {"data": {}})

        assert isinstance(outcome, Response)
        assert (outcome.is_absent, outcome.raw) == (True, b"")


def test_a_deleted_version_is_not_patched() -> None:
    with client() as vault:
        put(vault, "app", {})
        vault.delete("secret/data/app")

        assert absent(vault.patch("secret/data/app", {"data": {}}))["version"] == 1


def test_a_patch_can_name_the_version_too() -> None:
    with client() as vault:
        put(vault, "app", {})

        assert refusal(vault.patch("secret/data/app", {"data": {}, "options": {"cas": 9}})).startswith("InvalidRequest")


# -- delete, undelete, destroy --


def test_a_deleted_version_comes_back_when_undeleted() -> None:
    with client() as vault:
        put(vault, "app", {"x": 1})
        assert is_done(vault.delete("secret/data/app"))

        told = absent(vault.read("secret/data/app"))
        assert (told["data"], told["metadata"]["deletion_time"]) == (None, "2027-01-15T08:00:00Z")

        assert is_done(vault.write("secret/undelete/app", {"versions": [1]}))
        assert vault.data("secret/data/app")["data"] == {"x": 1}


def test_a_destroyed_version_does_not() -> None:
    with client() as vault:
        put(vault, "app", {"x": 1})
        vault.write("secret/destroy/app", {"versions": "1"})
        vault.write("secret/undelete/app", {"versions": [1]})

        assert absent(vault.read("secret/data/app"))["metadata"]["destroyed"] is True


def test_several_versions_are_deleted_at_once() -> None:
    with client() as vault:
        for number in range(3):
            put(vault, "app", {"n": number})

        vault.write("secret/delete/app", {"versions": [1, 2, 99]})

        deleted = [version["deletion_time"] != "" for version in vault.data("secret/metadata/app")["versions"].values()]
        assert deleted == [True, True, False]


@pytest.mark.parametrize(("path", "first"), [("delete", "N"), ("undelete", "N"), ("destroy", "n")])
def test_versions_must_be_named(path: str, first: str) -> None:
    with client() as vault:
        assert refusal(vault.write(f"secret/{path}/app", {})) == f"InvalidRequest: {first}o version number provided"


@pytest.mark.parametrize("path", ["delete", "undelete", "destroy"])
def test_what_is_not_there_needs_no_deleting(path: str) -> None:
    with client() as vault:
        assert is_done(vault.write(f"secret/{path}/none", {"versions": [1]}))
        assert is_done(vault.delete("secret/data/none"))
        assert is_done(vault.delete("secret/metadata/none"))


def test_deleting_the_metadata_leaves_nothing() -> None:
    with client() as vault:
        put(vault, "app", {"x": 1})

        vault.delete("secret/metadata/app")

        assert refusal(vault.read("secret/metadata/app")) == "NotFound"
        assert data_of(put(vault, "app", {}))["version"] == 1


@pytest.mark.parametrize(
    ("mounts", "secrets", "seconds"), [("10m", None, 600), (None, "5m", 300), ("10m", "5m", 300), ("10m", "1h", 600)]
)
def test_a_version_can_be_deleted_by_time(mounts: str | None, secrets: str | None, seconds: int) -> None:
    with client() as vault:
        vault.write("secret/config", {"delete_version_after": mounts})
        vault.write("secret/metadata/app", {"delete_version_after": secrets})
        put(vault, "app", {"x": 1})

        vault.fake.clock.advance(seconds - 1)
        assert vault.data("secret/data/app")["data"] == {"x": 1}

        vault.fake.clock.advance(1)
        assert absent(vault.read("secret/data/app"))["data"] is None


# -- where the data lies --


def stored(vault: Client) -> tuple[dict[str, Secret], list[str]]:
    """Return what is kept of each secret at the top of the mount, and the names of versions in records of their own."""
    storage = storage_of(vault.fake.services())
    secrets = {name: storage.get(f"meta/{name}", Secret) for name in storage.list("meta/")}
    return {name: secret for name, secret in secrets.items() if secret is not None}, storage.list("version/")


def storage_of(services: Services) -> Records:
    mounts = MountTable(services.area(AREA_MOUNTS)).all()
    return services.mount_storage(next(mount.uuid for mount in mounts if mount.path == "secret/"))


def of_size(size_bytes: int, mark: str) -> dict[str, str]:
    """Return a secret that is kept in so many bytes."""
    return {"v": mark * (size_bytes - len('{"v":""}'))}


SMALL, LARGE = BESIDE_BYTES_MAX, BESIDE_BYTES_MAX + 1


@pytest.mark.parametrize("sizes", list(itertools.product([SMALL, LARGE], repeat=3)), ids=str)
def test_every_version_is_read_wherever_its_data_lies(sizes: tuple[int, ...]) -> None:
    with client() as vault:
        secrets = [of_size(size, str(number)) for number, size in enumerate(sizes, 1)]
        for secret in secrets:
            put(vault, "app", secret)

        for number, secret in enumerate(secrets, 1):
            assert vault.data("secret/data/app", query={"version": str(number)})["data"] == secret
        kept, own = stored(vault)
        assert bool(kept["app"].newest_data) == (sizes[-1] == SMALL)
        assert len(own) == len(sizes) - (SMALL in sizes)  # the newest small one is beside, and fills the room there


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_the_newest_version_s_data_can_be_destroyed_and_the_next_one_written(size: int) -> None:
    with client() as vault:
        put(vault, "app", of_size(size, "1"))
        vault.write("secret/destroy/app", {"versions": [1]})
        assert absent(vault.read("secret/data/app"))["data"] is None
        kept, own = stored(vault)
        assert (kept["app"].newest_data, own) == (b"", [])

        put(vault, "app", {"x": 2})

        assert vault.data("secret/data/app")["data"] == {"x": 2}
        assert absent(vault.read("secret/data/app", query={"version": "1"}))["data"] is None


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_deleted_version_comes_back_also_behind_a_newer_one(size: int) -> None:
    with client() as vault:
        put(vault, "app", of_size(size, "1"))
        vault.delete("secret/data/app")
        put(vault, "app", {"x": 2})

        vault.write("secret/undelete/app", {"versions": [1]})

        assert vault.data("secret/data/app", query={"version": "1"})["data"] == of_size(size, "1")


@pytest.mark.parametrize("sizes", list(itertools.product([SMALL, LARGE], repeat=2)), ids=str)
def test_a_secret_of_one_version_leaves_none_behind(sizes: tuple[int, ...]) -> None:
    with client() as vault:
        vault.write("secret/metadata/app", {"max_versions": 1})
        for size in sizes:
            put(vault, "app", of_size(size, "1"))

        assert vault.data("secret/data/app")["data"] == of_size(sizes[-1], "1")
        assert len(stored(vault)[1]) == (sizes[-1] == LARGE)

        vault.delete("secret/metadata/app")

        assert stored(vault) == ({}, [])


def test_an_older_version_is_destroyed_beside_the_newest() -> None:
    with client() as vault:
        for number in (1, 2):
            put(vault, "app", {"n": number})

        vault.write("secret/destroy/app", {"versions": [1]})

        assert absent(vault.read("secret/data/app", query={"version": "1"}))["data"] is None
        assert vault.data("secret/data/app")["data"] == {"n": 2}
        kept, own = stored(vault)
        assert (kept["app"].older_data, own) == ({}, [])


def test_the_oldest_data_moves_when_there_is_no_room_beside_the_newest() -> None:
    third = BESIDE_BYTES_MAX // 3
    with client() as vault:
        for number in range(1, 4):
            put(vault, "app", of_size(third, str(number)))
        assert stored(vault)[1] == []

        for number in range(4, 13):
            put(vault, "app", of_size(third, f"{number:x}"))

            kept, own = stored(vault)
            assert list(kept["app"].older_data) == [number - 2, number - 1]
            assert sorted(int(name.rpartition(".")[2]) for name in own) == list(range(max(1, number - 9), number - 2))

        for number in range(3, 13):
            data = vault.data("secret/data/app", query={"version": str(number)})["data"]
            assert data == of_size(third, f"{number:x}")


def test_a_version_that_is_pushed_out_leaves_nothing_beside_the_newest() -> None:
    with client() as vault:
        for number in range(1, 13):
            put(vault, "app", {"n": number})

        kept, own = stored(vault)
        assert (list(kept["app"].older_data), own) == (list(range(3, 12)), [])
        assert [vault.data("secret/data/app", query={"version": str(n)})["data"] for n in range(3, 13)] == [
            {"n": number} for number in range(3, 13)
        ]


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_fewer_versions_are_kept_from_the_next_write_on(size: int) -> None:
    with client() as vault:
        for number in range(1, 5):
            put(vault, "app", of_size(size, str(number)))
        vault.write("secret/metadata/app", {"max_versions": 2})

        put(vault, "app", of_size(size, "5"))

        kept, own = stored(vault)
        assert sorted(kept["app"].versions) == [4, 5]
        assert len(own) == (1 if size == SMALL else 2)
        for number in (4, 5):
            assert vault.data("secret/data/app", query={"version": str(number)})["data"] == of_size(size, str(number))


def test_what_holds_for_a_secret_changes_without_its_data() -> None:
    with client() as vault:
        put(vault, "app", {"x": 1})
        vault.write("secret/metadata/app", {"custom_metadata": {"owner": "a"}})
        vault.patch("secret/metadata/app", {"max_versions": 3})

        assert vault.data("secret/data/app")["data"] == {"x": 1}


def test_data_in_a_record_of_its_own_is_found_also_if_it_is_small() -> None:
    with client() as vault:
        put(vault, "app", of_size(LARGE, "1"))
        put(vault, "app", {"x": 2})
        services = vault.fake.services()
        storage = storage_of(services)
        secret = storage.get("meta/app", Secret)
        assert secret is not None
        (first,) = storage.list("version/")
        storage.put("version/" + first.replace(".1", ".2"), secret.newest_data)
        storage.put("meta/app", msgspec.structs.replace(secret, newest_data=b""))
        vault.commit(services)
        assert vault.data("secret/data/app")["data"] == {"x": 2}

        vault.patch("secret/data/app", {"data": {"y": 3}})

        assert vault.data("secret/data/app")["data"] == {"x": 2, "y": 3}
        assert vault.data("secret/data/app", query={"version": "2"})["data"] == {"x": 2}
        assert vault.data("secret/data/app", query={"version": "1"})["data"] == of_size(LARGE, "1")


# -- metadata --


def test_metadata_is_written_patched_and_read() -> None:
    with client() as vault:
        vault.write(
            "secret/metadata/app",
            {"max_versions": 3, "cas_required": True, "delete_version_after": "3h", "custom_metadata": {"o": "me"}},
        )
        vault.patch("secret/metadata/app", {"custom_metadata": {"o": None, "z": "1"}, "cas_required": None})

        assert vault.data("secret/metadata/app") == {
            "cas_required": False,
            "created_time": "2027-01-15T08:00:00Z",
            "current_metadata_version": 2,
            "current_version": 0,
            "custom_metadata": {"z": "1"},
            "delete_version_after": "3h0m0s",
            "max_versions": 3,
            "metadata_cas_required": False,
            "oldest_version": 0,
            "updated_time": "2027-01-15T08:00:00Z",
            "versions": {},
        }


def test_custom_metadata_is_shown_with_the_secret() -> None:
    with client() as vault:
        put(vault, "app", {})
        vault.write("secret/metadata/app", {"custom_metadata": {"team": "blue"}})

        assert vault.data("secret/data/app")["metadata"]["custom_metadata"] == {"team": "blue"}


@pytest.mark.parametrize(
    ("custom", "problem"),
    [
        ({"": "x"}, 'length of key "" is 0 but must be 0 < len(key) <= 128'),
        ({"a": ""}, 'length of value for key "a" is 0 but must be 0 < len(value) <= 512'),
        ({"a": "x" * 513}, 'length of value for key "a" is 513 but must be 0 < len(value) <= 512'),
        (
            {f"k{number}": "x" for number in range(CUSTOM_KEYS_MAX + 1)},
            "payload must contain at most 64 keys, provided 65",
        ),
    ],
)
def test_custom_metadata_has_bounds(custom: dict[str, str], problem: str) -> None:
    with client() as vault:
        refused = vault.write("secret/metadata/app", {"custom_metadata": custom})

        assert refusal(refused) == (
            f"InvalidRequest: 1 error occurred:\n\t* custom_metadata validation failed: {problem}\n\n"
        )


def test_metadata_has_versions_of_its_own() -> None:
    with client() as vault:
        vault.write("secret/metadata/app", {"metadata_cas_required": True, "metadata_cas": 0})

        blind = vault.write("secret/metadata/app", {"max_versions": 4})
        late = vault.write("secret/metadata/app", {"max_versions": 4, "metadata_cas": 0})

        assert refusal(blind) == "InvalidRequest: metadata check-and-set parameter required for this call"
        assert refusal(late) == "InvalidRequest: metadata check-and-set parameter does not match the current version"
        assert is_done(vault.write("secret/metadata/app", {"max_versions": 4, "metadata_cas": 1}))


def test_the_mount_has_settings() -> None:
    with client() as vault:
        vault.write("secret/config", {"max_versions": 5, "delete_version_after": "-5s"})

        assert vault.data("secret/config") == {
            "cas_required": False,
            "delete_version_after": "-1s",
            "max_versions": 5,
            "metadata_cas_required": False,
        }


# -- listing --


def test_names_are_listed_level_by_level() -> None:
    with client() as vault:
        for path in ("app", "dir/sub", "dir/deep/er"):
            put(vault, path, {})

        assert vault.keys("secret/metadata") == ["app", "dir/"]
        assert vault.keys("secret/metadata/dir/") == ["deep/", "sub"]
        assert vault.keys("secret/metadata", query={"after": "app", "limit": "1"}) == ["dir/"]
        assert refusal(vault.list("secret/metadata/none")) == "NotFound"


def test_a_listing_can_show_what_is_known() -> None:
    with client() as vault:
        put(vault, "dir/sub", {})
        put(vault, "dir/deep/er", {})

        listed = data_of(vault.list("secret/detailed-metadata/dir"))

        assert listed["keys"] == ["deep/", "sub"]
        assert listed["key_info"]["deep/"] == {}
        assert listed["key_info"]["sub"]["current_version"] == 1


def test_a_detailed_listing_is_bounded_and_says_so() -> None:
    with client() as vault:
        for number in range(DETAILED_MAX + 1):
            put(vault, f"s{number:04d}", {})

        answer = vault.list("secret/detailed-metadata")

        assert len(data_of(answer)["keys"]) == DETAILED_MAX
        assert isinstance(answer, Response)
        assert answer.warnings == [f"At most {DETAILED_MAX} entries are listed in detail at once; go on with `after`."]


@pytest.mark.parametrize(
    ("depth", "subkeys"),
    [
        ("", {"a": None, "e": None, "k": {"l": None, "m": {"n": None}}}),
        ("1", {"a": None, "e": None, "k": None}),
        ("2", {"a": None, "e": None, "k": {"l": None, "m": None}}),
    ],
)
def test_keys_are_shown_without_their_values(depth: str, subkeys: Any) -> None:
    with client() as vault:
        put(vault, "app", {"a": [1], "e": {}, "k": {"l": 1, "m": {"n": 2}}})

        assert vault.data("secret/subkeys/app", query={"depth": depth})["subkeys"] == subkeys


# -- other paths --


@pytest.mark.parametrize("path", ["app", "dir/sub", ""])
def test_a_path_of_version_1_is_told_apart(path: str) -> None:
    with client() as vault:
        answer = vault.read(f"secret/{path}")

        assert absent(answer) is None
        assert isinstance(answer, Response)
        assert answer.warnings[0].startswith("Invalid path for a versioned K/V secrets engine.")


@pytest.mark.parametrize("path", ["delete/x", "destroy/x", "undelete/x"])
def test_a_path_without_the_operation_is_told_apart(path: str) -> None:
    with client() as vault:
        assert refusal(vault.read(f"secret/{path}")).startswith("UnsupportedOperation")


def test_the_data_has_no_listing_of_its_own() -> None:
    with client() as vault:
        put(vault, "app", {})

        assert refusal(vault.list("secret/data")).startswith("UnsupportedOperation")


def test_create_and_update_are_told_apart() -> None:
    with client() as vault:
        vault.write("sys/policies/acl/p", {"policy": 'path "secret/*" { capabilities = ["create"] }'})
        token = vault.new_token(policies=["p"]).client_token

        assert data_of(vault.write("secret/data/app", {"data": {}}, token=token))["version"] == 1
        assert refusal(vault.write("secret/data/app", {"data": {}}, token=token)).startswith("PermissionDenied")


@pytest.mark.parametrize(("mounts", "secrets", "kept"), [(2, 0, 2), (0, 2, 2), (2, 4, 4), (4, 2, 4), (0, 0, 10)])
def test_the_larger_bound_says_how_many_versions_are_kept(mounts: int, secrets: int, kept: int) -> None:
    with client() as vault:
        vault.write("secret/config", {"max_versions": mounts})
        vault.write("secret/metadata/app", {"max_versions": secrets})

        for number in range(12):
            vault.write("secret/data/app", {"data": {"n": number}})

        assert len(vault.data("secret/metadata/app")["versions"]) == kept


def test_a_version_that_is_brought_back_is_deleted_again_after_the_time_that_is_set() -> None:
    with client() as vault:
        vault.write("secret/metadata/app", {"delete_version_after": "1h"})
        vault.write("secret/data/app", {"data": {"n": 1}})
        vault.fake.clock.advance(7200)
        assert data_of(vault.read("secret/data/app"))["data"] is None

        vault.write("secret/undelete/app", {"versions": [1]})

        assert vault.data("secret/data/app")["data"] == {"n": 1}
        vault.fake.clock.advance(3601)
        assert data_of(vault.read("secret/data/app"))["data"] is None


def test_a_null_removes_the_custom_metadata_and_nothing_at_all_changes_nothing() -> None:
    with client() as vault:
        vault.write("secret/metadata/app", {"custom_metadata": {"a": "b"}})

        vault.write("secret/metadata/app", {})
        before = vault.data("secret/metadata/app")
        vault.write("secret/metadata/app", {"custom_metadata": None})

        assert (before["custom_metadata"], before["current_metadata_version"]) == ({"a": "b"}, 1)
        assert vault.data("secret/metadata/app")["custom_metadata"] is None


def test_a_patch_of_what_is_deleted_must_say_the_version_too_where_all_writes_must() -> None:
    with client() as vault:
        vault.write("secret/data/app", {"data": {"n": 1}})
        vault.delete("secret/data/app")
        vault.write("secret/metadata/app", {"cas_required": True})

        assert "check-and-set parameter required" in refusal(vault.patch("secret/data/app", {"data": {"n": 2}}))


def test_an_empty_secret_has_no_subkeys() -> None:
    with client() as vault:
        vault.write("secret/data/app", {"data": {}})

        assert vault.data("secret/subkeys/app")["subkeys"] == {}
