import json
import subprocess
import sys

import pytest

from conclave import __version__
from conclave.cli import COMMON, GROUPS, REGISTRY
from conclave.cli.main import find, load
from conclave.cli.usage import command_help, group_help, members
from tests.cli.conftest import Shell

# What takes long to import and `version` has no need of.
TOO_HEAVY = {"argparse", "asyncio", "cryptography", "http.client", "inspect", "json", "msgspec", "ssl", "urllib.parse"}


def test_version_imports_nothing_heavy() -> None:
    code = (
        "import sys; before = set(sys.modules); from conclave.cli.main import main; "
        "main(['version']); print(*(set(sys.modules) - before))"
    )

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split("\n")

    assert shown[0] == f"Conclave v{__version__}"
    imported = set(shown[1].split())
    assert not TOO_HEAVY & imported
    assert {name.split(".")[1] for name in imported if name.startswith("conclave.")} == {"cli"}


def test_no_command_of_the_client_imports_another_room() -> None:
    names = [name for name in REGISTRY if name != "server"]
    code = f"import sys; from conclave.cli.main import load; [load(n) for n in {names!r}]; print(*sys.modules)"

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    rooms = {name.split(".")[1] for name in shown.split() if name.startswith("conclave.")}
    assert rooms == {"cli"}


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_command_has_help_and_its_own_name(name: str) -> None:
    declared = load(name)

    shown = command_help(declared)

    assert declared.usage.startswith(name)
    assert shown.startswith(f"Usage: conclave {name}")
    assert declared.synopsis
    assert all(flag.help.endswith((".", '"')) for flag in declared.all_flags)
    spelled = [other for flag in declared.all_flags for other in (flag.name, *flag.aliases)]
    assert len(spelled) == len(set(spelled))


@pytest.mark.parametrize("group", ["", *sorted(GROUPS)])
def test_a_group_lists_its_members(group: str) -> None:
    shown = group_help(group)

    assert members(group)
    assert all(f"    {member.rpartition(' ')[2]} " in shown for member in members(group))


def test_every_group_of_the_registry_has_a_line() -> None:
    groups = {" ".join(name.split()[:end]) for name in REGISTRY for end in range(1, len(name.split()))}

    assert groups - set(REGISTRY) == set(GROUPS)
    assert set(COMMON) <= set(REGISTRY)


def test_the_longest_name_is_the_command() -> None:
    assert find(["kv", "metadata", "get", "-x", "a"]) == ("kv metadata get", ["-x", "a"])
    assert find(["kv", "nope"]) == ("kv", ["nope"])
    assert find(["nope"]) == ("", ["nope"])


def test_an_unknown_command_is_127(shell: Shell) -> None:
    run = shell("frobnicate")

    assert run.code == 127
    assert run.err.startswith("Usage: conclave <command> [args]")


def test_a_group_alone_prints_its_usage(shell: Shell) -> None:
    run = shell("kv")

    assert (run.code, run.out) == (1, "")
    assert run.err.startswith("Usage: conclave kv <subcommand>")


@pytest.mark.parametrize("words", [["-h"], ["kv", "-h"], ["kv", "get", "-h"], ["kv", "get", "--help"]])
def test_help_goes_to_stdout(shell: Shell, words: list[str]) -> None:
    run = shell(*words)

    assert (run.code, run.err) == (0, "")
    assert run.out.startswith("Usage: conclave")


@pytest.mark.parametrize("word", ["version", "-v", "-version", "--version"])
def test_the_version_is_shown(shell: Shell, word: str) -> None:
    assert shell(word).out == f"Conclave v{__version__}\n"


def test_help_is_no_flag_of_data(shell: Shell) -> None:
    shell.server.answer("PUT /v1/cubbyhole/x", 204)

    run = shell("write", "cubbyhole/x", "a=-h")

    assert run.out == "Success! Data written to: cubbyhole/x\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["kv", "get"], "Not enough arguments (expected 1, got 0)"),
        (["kv", "get", "a", "b"], "Too many arguments (expected 1, got 2)"),
        (["read", "-nope", "x"], "flag provided but not defined: -nope"),
        (["kv", "put", "secret/x"], "Must supply data"),
        (["kv", "get", "-format=zz", "secret/x"], "Invalid output format: zz"),
        (["write", "sys/x"], "Must supply data or use -force"),
        (["read", "-header=X-Vault-Token=x", "a"], "-header must not set X-Vault-Token"),
        (["kv", "undelete", "secret/x"], "No versions provided: use -versions"),
        (["lease", "revoke", "-force", "x"], "-force needs -prefix"),
        (["token", "revoke"], "Not enough arguments (expected 1 without -self, got 0)"),
        (["operator", "unseal"], "stdin is no terminal"),
        (["operator", "generate-root", "-decode=YWE", "-otp=b"], "Error decoding root token: it has 2 bytes"),
    ],
)
def test_wrong_usage_is_1_and_asks_no_server(shell: Shell, words: list[str], message: str) -> None:
    run = shell(*words)

    assert (run.code, run.out) == (1, "")
    assert run.err.startswith(message)
    assert shell.server.seen == []


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_a_completion_names_commands_and_flags(shell: Shell, name: str) -> None:
    run = shell("completion", name)

    assert run.code == 0
    assert "enable-versioning" in run.out
    assert "output-curl-string" in run.out


def test_the_completion_of_bash_is_accepted_by_it(shell: Shell) -> None:
    script = shell("completion", "bash").out
    typed = 'COMP_WORDS=(conclave kv g); COMP_CWORD=2; _conclave; echo "${COMPREPLY[@]}"'
    flags = 'COMP_WORDS=(conclave kv get secret/x -outp); COMP_CWORD=4; _conclave; echo "${COMPREPLY[@]}"'

    shown = subprocess.run(["bash", "-c", f"{script}\n{typed}\n{flags}"], capture_output=True, text=True, check=True)

    assert shown.stdout == "get\n-output-curl-string -output-policy\n"
    assert shown.stderr == ""


def test_the_token_of_the_environment_comes_before_the_file(shell: Shell) -> None:
    (shell.home / ".vault-token").write_text("hvs.file\n")

    assert shell("print", "token").out == "hvs.test\n"
    shell.set(BAO_TOKEN="")
    assert shell("print", "token").out == "hvs.file\n"


def test_the_format_of_the_environment_counts(shell: Shell) -> None:
    shell.server.answer("GET /v1/cubbyhole/x", body={"request_id": "r", "data": {"a": "1"}})
    shell.set(VAULT_FORMAT="json")

    assert json.loads(shell("read", "cubbyhole/x").out)["data"] == {"a": "1"}
