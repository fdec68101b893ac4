"""engines/identity/ through a whole vault: entities, their aliases, and groups, by id and by name."""

from collections.abc import Iterator

import pytest

from conclave.core.contract import Response
from tests.clients import Client, client, is_done, refusal
from tests.fakes import data_of

BOTH = pytest.mark.parametrize("kind", ["entity", "group"])
"""What is the same for entities and for groups."""


@pytest.fixture
def vault() -> Iterator[Client]:
    with client() as fresh:
        yield fresh


def made(vault: Client, kind: str, name: str, **fields: object) -> str:
    """Make a record and return its id."""
    identifier = data_of(vault.write(f"identity/{kind}", {"name": name, **fields}))["id"]
    assert isinstance(identifier, str)
    return identifier


def accessor_of_tokens(vault: Client) -> str:
    accessor = vault.data("sys/auth")["token/"]["accessor"]
    assert isinstance(accessor, str)
    return accessor


@BOTH
def test_a_record_is_read_by_its_id_and_by_its_name_in_any_case(vault: Client, kind: str) -> None:
    identifier = made(vault, kind, "Ann", policies=[" B ", "a", ""], metadata={"team": "blue"})

    by_id = vault.data(f"identity/{kind}/id/{identifier}")

    assert (by_id["name"], by_id["policies"], by_id["metadata"]) == ("Ann", ["a", "b"], {"team": "blue"})
    assert vault.data(f"identity/{kind}/name/ann") == by_id


@BOTH
def test_a_record_without_a_name_gets_one(vault: Client, kind: str) -> None:
    assert data_of(vault.write(f"identity/{kind}"))["name"].startswith(f"{kind}_")


@BOTH
def test_what_a_change_does_not_name_stays(vault: Client, kind: str) -> None:
    identifier = made(vault, kind, "a", policies=["p"], metadata={"k": "v"})

    vault.write(f"identity/{kind}/id/{identifier}", {"name": "b"})
    vault.write(f"identity/{kind}", {"id": identifier, "policies": ["q"]})
    vault.write(f"identity/{kind}", {"name": "b", "metadata": {}})

    after = vault.data(f"identity/{kind}/name/b")
    assert (after["id"], after["policies"], after["metadata"]) == (identifier, ["q"], {})
    assert refusal(vault.read(f"identity/{kind}/name/a")) == "NotFound"


@BOTH
def test_a_name_in_the_path_goes_before_one_in_the_body(vault: Client, kind: str) -> None:
    vault.write(f"identity/{kind}/name/a", {"name": "b"})

    assert vault.keys(f"identity/{kind}/name") == ["a"]


@BOTH
@pytest.mark.parametrize("path", ["", "/id/none"])
def test_an_id_of_nothing_cannot_be_changed(vault: Client, kind: str, path: str) -> None:
    answer = vault.write(f"identity/{kind}{path}", {"id": "none"})

    assert refusal(answer) == f"InvalidRequest: {kind} not found from id"


@BOTH
def test_nobody_gets_the_policy_root(vault: Client, kind: str) -> None:
    answer = vault.write(f"identity/{kind}", {"policies": ["Root"]})

    assert refusal(answer) == "InvalidRequest: policies cannot contain root"


@BOTH
def test_names_are_listed_in_order_and_ids_with_what_is_known(vault: Client, kind: str) -> None:
    ids = {made(vault, kind, name): name for name in ("b", "a")}

    assert vault.keys(f"identity/{kind}/name/") == ["a", "b"]
    listed = data_of(vault.list(f"identity/{kind}/id"))
    assert listed["keys"] == sorted(ids)
    assert {each: info["name"] for each, info in listed["key_info"].items()} == ids


@BOTH
@pytest.mark.parametrize("path", ["id", "name"])
def test_nothing_is_listed_as_not_found(vault: Client, kind: str, path: str) -> None:
    assert refusal(vault.list(f"identity/{kind}/{path}")) == "NotFound"


@BOTH
@pytest.mark.parametrize("by", ["id", "name"])
def test_a_record_is_deleted_for_good_and_once_more_without_complaint(vault: Client, kind: str, by: str) -> None:
    called = {"id": made(vault, kind, "a"), "name": "a"}
    path = f"identity/{kind}/{by}/{called[by]}"

    assert is_done(vault.delete(path))
    assert is_done(vault.delete(path))

    assert refusal(vault.read(path)) == "NotFound"


@BOTH
def test_a_lookup_finds_by_id_and_by_name_and_nothing_is_no_error(vault: Client, kind: str) -> None:
    identifier = made(vault, kind, "a")
    shown = vault.data(f"identity/{kind}/id/{identifier}")

    assert data_of(vault.write(f"identity/lookup/{kind}", {"id": identifier})) == shown
    assert data_of(vault.write(f"identity/lookup/{kind}", {"name": "a"})) == shown
    assert is_done(vault.write(f"identity/lookup/{kind}", {"name": "b"}))
    assert refusal(vault.write(f"identity/lookup/{kind}", {})) == "InvalidRequest: query parameter not supplied"


def test_a_change_of_an_entity_is_answered_with_nothing_and_one_of_a_group_with_its_id(vault: Client) -> None:
    entity, group = made(vault, "entity", "a"), made(vault, "group", "a")

    assert is_done(vault.write(f"identity/entity/id/{entity}", {"disabled": True}))
    assert data_of(vault.write(f"identity/group/id/{group}", {})) == {"id": group, "name": "a"}


def test_an_entity_is_found_by_its_alias(vault: Client) -> None:
    entity, accessor = made(vault, "entity", "a"), accessor_of_tokens(vault)
    alias = {"name": "al", "canonical_id": entity, "mount_accessor": accessor}
    alias_id = data_of(vault.write("identity/entity-alias", alias))["id"]

    by_name = vault.write("identity/lookup/entity", {"alias_name": "al", "alias_mount_accessor": accessor})

    assert data_of(by_name)["id"] == entity
    assert data_of(vault.write("identity/lookup/entity", {"alias_id": alias_id}))["id"] == entity
    assert refusal(vault.write("identity/lookup/entity", {"alias_name": "al"})) == (
        "InvalidRequest: 'alias_mount_accessor' must be supplied with 'alias_name'"
    )


def test_an_alias_is_shown_renamed_and_removed(vault: Client) -> None:
    accessor = accessor_of_tokens(vault)
    made_alias = data_of(vault.write("identity/entity-alias", {"name": "al", "mount_accessor": accessor}))
    entity = f"identity/entity/id/{made_alias['canonical_id']}"
    place = {"mount_accessor": accessor, "mount_path": "auth/token/", "mount_type": "token"}
    assert vault.data(f"identity/entity-alias/id/{made_alias['id']}").items() >= place.items()

    renamed = data_of(vault.write(f"identity/entity-alias/id/{made_alias['id']}", {"name": "bo"}))

    path = f"identity/entity-alias/id/{renamed['id']}"
    assert [each["name"] for each in vault.data(entity)["aliases"]] == ["bo"]
    assert vault.keys("identity/entity-alias/id") == [renamed["id"]]
    assert is_done(vault.delete(path))
    assert vault.data(entity)["aliases"] == []
    assert refusal(vault.read(path)) == "NotFound"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"name": "al"}, "'id' or 'mount_accessor' and 'name' must be provided"),
        ({"name": "al", "mount_accessor": "none"}, 'invalid mount accessor "none"'),
        ({"id": "none"}, "invalid alias ID provided"),
    ],
)
def test_an_alias_that_cannot_be_is_refused(vault: Client, fields: dict[str, str], reason: str) -> None:
    assert refusal(vault.write("identity/entity-alias", fields)) == f"InvalidRequest: {reason}"


def test_a_merged_entity_leaves_its_aliases_policies_and_groups_to_the_other(vault: Client) -> None:
    gone, kept = made(vault, "entity", "gone", policies=["p"]), made(vault, "entity", "kept", policies=["q"])
    alias = {"name": "al", "canonical_id": gone, "mount_accessor": accessor_of_tokens(vault)}
    vault.write("identity/entity-alias", alias)
    group = made(vault, "group", "g", member_entity_ids=[gone])

    assert is_done(vault.write("identity/entity/merge", {"from_entity_ids": [gone], "to_entity_id": kept}))

    after = vault.data(f"identity/entity/id/{kept}")
    assert [each["name"] for each in after["aliases"]] == ["al"]
    assert (after["policies"], after["direct_group_ids"], after["merged_entity_ids"]) == (["p", "q"], [group], [gone])
    assert refusal(vault.read(f"identity/entity/id/{gone}")) == "NotFound"


def test_entities_with_aliases_at_one_mount_are_merged_by_force_only(vault: Client) -> None:
    accessor = accessor_of_tokens(vault)
    gone, kept = made(vault, "entity", "gone"), made(vault, "entity", "kept")
    for name, entity in (("al", gone), ("bo", kept)):
        vault.write("identity/entity-alias", {"name": name, "canonical_id": entity, "mount_accessor": accessor})
    both = {"from_entity_ids": [gone], "to_entity_id": kept}

    assert refusal(vault.write("identity/entity/merge", both)).startswith("InvalidRequest: both entities have an alias")
    assert is_done(vault.write("identity/entity/merge", {**both, "force": True}))

    assert [each["name"] for each in vault.data(f"identity/entity/id/{kept}")["aliases"]] == ["bo"]


def test_several_entities_are_deleted_at_once(vault: Client) -> None:
    ids = [made(vault, "entity", name) for name in ("a", "b")]

    assert is_done(vault.write("identity/entity/batch-delete", {"entity_ids": [*ids, "none"]}))

    assert refusal(vault.list("identity/entity/id")) == "NotFound"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"type": "other"}, 'invalid group type "other"'),
        ({"type": "external", "member_entity_ids": ["e"]}, "member entities can't be set manually for external groups"),
    ],
)
def test_a_group_that_cannot_be_is_refused(vault: Client, fields: dict[str, object], reason: str) -> None:
    assert refusal(vault.write("identity/group", fields)) == f"InvalidRequest: {reason}"


def test_the_type_of_a_group_stays(vault: Client) -> None:
    group = made(vault, "group", "g")

    assert refusal(vault.write(f"identity/group/id/{group}", {"type": "external"})) == (
        "InvalidRequest: group type cannot be changed"
    )


def test_a_group_in_a_group_counts_for_its_members(vault: Client) -> None:
    entity = made(vault, "entity", "e")
    inner = made(vault, "group", "inner", member_entity_ids=[entity])
    outer = made(vault, "group", "outer", member_group_ids=[inner])

    shown = vault.data(f"identity/entity/id/{entity}")

    assert (shown["direct_group_ids"], shown["inherited_group_ids"]) == ([inner], [outer])
    assert vault.data("identity/group/name/inner")["parent_group_ids"] == [outer]
    assert data_of(vault.list("identity/group/id"))["key_info"][inner] == {
        "name": "inner",
        "num_member_entities": 1,
        "num_parent_groups": 1,
    }
    assert isinstance(vault.delete(f"identity/group/id/{outer}"), Response)
    assert vault.data("identity/group/name/inner")["parent_group_ids"] is None
