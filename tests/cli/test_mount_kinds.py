"""cli/mount_kinds.py: `secrets` and `auth` enable, disable, tune and list alike, each in its own words."""

import json
from typing import Any, Final

import pytest

from tests.cli.conftest import Shell

KINDS: Final = {"secrets": "sys/mounts", "auth": "sys/auth"}
BOTH = pytest.mark.parametrize("kind", KINDS)
MOUNT: Final[dict[str, Any]] = {
    "type": "some",
    "accessor": "acc",
    "description": "words",
    "config": {"default_lease_ttl": 60, "max_lease_ttl": 0, "force_no_cache": True, "token_type": "batch"},
    "options": {"version": "2"},
    "uuid": "u",
    "plugin_version": "v1",
    "running_plugin_version": "v2",
}


@BOTH
@pytest.mark.parametrize(("flags", "path"), [((), "some"), (("-path=/team/x/",), "team/x")])
def test_a_mount_is_named_by_its_type_unless_a_path_is_given(
    shell: Shell, kind: str, flags: tuple[str, ...], path: str
) -> None:
    shell.server.answer(f"POST /v1/{KINDS[kind]}/{path}", 204)

    run = shell(kind, "enable", *flags, "-description=words", "some")

    told = {"secrets": "Enabled the some secrets engine", "auth": "Enabled some auth method"}[kind]
    assert (run.code, run.out) == (0, f"Success! {told} at: {path}/\n")
    assert shell.server.seen[0].body["type"] == "some"
    assert shell.server.seen[0].body["description"] == "words"


@BOTH
def test_a_refused_enabling_says_what_was_tried(shell: Shell, kind: str) -> None:
    shell.server.answer(f"POST /v1/{KINDS[kind]}/some", 400, {"errors": ["no"]})

    run = shell(kind, "enable", "some")

    assert run.code == 2
    assert run.err.startswith({"secrets": "Error enabling: ", "auth": "Error enabling some auth: "}[kind])


@BOTH
def test_disabling_does_not_ask_whether_it_was_there(shell: Shell, kind: str) -> None:
    shell.server.answer(f"DELETE /v1/{KINDS[kind]}/x", 204)

    run = shell(kind, "disable", "x/")

    noun = {"secrets": "secrets engine", "auth": "auth method"}[kind]
    assert (run.code, run.out) == (0, f"Success! Disabled the {noun} (if it existed) at: x/\n")


@BOTH
@pytest.mark.parametrize("command", ["disable", "tune"])
def test_a_refusal_names_the_mount(shell: Shell, kind: str, command: str) -> None:
    shell.server.answer(f"DELETE /v1/{KINDS[kind]}/x", 400, {"errors": ["no"]})
    shell.server.answer(f"POST /v1/sys/mounts/{'auth/' * (kind == 'auth')}x/tune", 400, {"errors": ["no"]})

    run = shell(kind, command, "x/")

    noun = {"secrets": "secrets engine", "auth": "auth method"}[kind]
    assert run.code == 2
    assert run.err.startswith(
        {"disable": f"Error disabling {noun} at x/: ", "tune": f"Error tuning {noun} x/: "}[command]
    )


@pytest.mark.parametrize(
    ("kind", "path", "noun"), [("secrets", "x", "secrets engine"), ("auth", "auth/x", "auth method")]
)
def test_tuning_sends_only_what_is_given(shell: Shell, kind: str, path: str, noun: str) -> None:
    shell.server.answer(f"POST /v1/sys/mounts/{path}/tune", 204)

    run = shell(kind, "tune", "-default-lease-ttl=1h", "x/")

    assert (run.code, run.out) == (0, f"Success! Tuned the {noun} at: x/\n")
    assert shell.server.seen[0].body == {"default_lease_ttl": "1h0m0s"}


@pytest.mark.parametrize(
    ("kind", "titles", "cells"),
    [
        ("secrets", ["Path", "Type", "Accessor", "Description"], ["x/", "some", "acc", "words"]),
        ("auth", ["Path", "Type", "Accessor", "Description", "Version"], ["x/", "some", "acc", "words", "v1"]),
    ],
)
def test_mounts_are_listed(shell: Shell, kind: str, titles: list[str], cells: list[str]) -> None:
    shell.server.answer(f"GET /v1/{KINDS[kind]}", body={"data": {"x/": MOUNT}})

    lines = shell(kind, "list").out.splitlines()

    assert [lines[0].split(), lines[2].split()] == [titles, cells]


@pytest.mark.parametrize(
    ("kind", "title", "cell"), [("secrets", "Force No Cache", "true"), ("auth", "Token Type", "batch")]
)
def test_a_detailed_list_has_a_column_of_the_kind(shell: Shell, kind: str, title: str, cell: str) -> None:
    shell.server.answer(f"GET /v1/{KINDS[kind]}", body={"data": {"x/": MOUNT}})

    titles, _, cells = shell(kind, "list", "-detailed").out.splitlines()

    assert titles.split("    ")[0] == "Path"
    assert titles.index(title) == cells.index(cell)
    assert cells.split() == [
        *("x/", "some", "acc", "1m", "system", cell, "replicated", "false", "false"),
        *("map[version:2]", "words", "u", "v1", "v2", "n/a", "n/a"),
    ]


@BOTH
def test_a_list_is_the_answer_itself_in_json(shell: Shell, kind: str) -> None:
    shell.server.answer(f"GET /v1/{KINDS[kind]}", body={"data": {"x/": {"type": "some"}}})

    assert json.loads(shell(kind, "list", "-format=json").out) == {"x/": {"type": "some"}}


@BOTH
def test_a_refused_listing_says_so(shell: Shell, kind: str) -> None:
    shell.server.answer(f"GET /v1/{KINDS[kind]}", 403, {"errors": ["no"]})

    listed = {"secrets": "secrets engines", "auth": "enabled authentications"}[kind]
    assert shell(kind, "list").err.startswith(f"Error listing {listed}: ")
