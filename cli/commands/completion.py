"""`completion`: a script that lets a shell complete commands and flags. It is made from the registry."""

from typing import Final

from conclave.cli import REGISTRY
from conclave.cli.command import Call, command
from conclave.cli.errors import EXIT_OK, UsageError
from conclave.cli.main import load
from conclave.cli.usage import PROGRAM, members, synopsis

_BASH: Final = """\
# bash completion for {program}; load it with: source <({program} completion bash)
_{program}() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" path="" word
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        [[ "$word" == -* ]] || path="${{path:+$path }}$word"
    done
    local choices=""
    while true; do
        case "$path" in
{cases}
        esac
        # Arguments follow the name of a command: its flags are those of the longest name that fits.
        if [[ -n "$choices" || "$path" != *" "* ]]; then break; fi
        path="${{path% *}}"
    done
    COMPREPLY=($(compgen -W "$choices" -- "$current"))
    [[ ${{#COMPREPLY[@]}} -gt 0 ]] || COMPREPLY=($(compgen -f -- "$current"))
}}
complete -o filenames -F _{program} {program}"""

_ZSH: Final = """\
#compdef {program}
# zsh completion for {program}; load it with: source <({program} completion zsh)
autoload -U +X bashcompinit && bashcompinit
{bash}"""


@command("completion bash|zsh|fish", arguments=(1, 1), is_http=False)
def completion(call: Call) -> int:
    """Print a script that completes commands and flags in a shell.

    $ source <(conclave completion bash)
    """
    shell = call.argument(0)
    if shell not in _SCRIPTS:
        raise UsageError(f"there is no completion for {shell}: it is bash, zsh or fish")
    call.out(_SCRIPTS[shell]())
    return EXIT_OK


def _bash() -> str:
    lines = []
    for name in ["", *_groups()]:
        words = " ".join(member.rpartition(" ")[2] for member in members(name))
        lines.append(f'            "{name}") choices="{words}" ;;')
    for name in REGISTRY:
        words = " ".join(f"-{flag.name}" for flag in load(name).all_flags)
        lines.append(f'            "{name}") choices="{words or "-h"}" ;;')
    return _BASH.format(program=PROGRAM, cases="\n".join(lines))


def _groups() -> list[str]:
    return sorted({" ".join(name.split()[:end]) for name in REGISTRY for end in range(1, len(name.split()))})


def _zsh() -> str:
    return _ZSH.format(program=PROGRAM, bash=_bash())


def _fish() -> str:
    lines = [
        f"# fish completion for {PROGRAM}; load it with: {PROGRAM} completion fish | source",
        f"complete -c {PROGRAM} -f",
    ]
    for group in ["", *_groups()]:
        seen = "".join(f"; and __fish_seen_subcommand_from {word}" for word in group.split())
        for member in members(group):
            word, text = member.rpartition(" ")[2], synopsis(member).replace("'", "")
            siblings = " ".join(other.rpartition(" ")[2] for other in members(group))
            condition = f"not __fish_seen_subcommand_from {siblings}{seen}"
            lines.append(f"complete -c {PROGRAM} -n '{condition}' -a {word} -d '{text}'")
    for name in REGISTRY:
        condition = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in name.split())
        for flag in load(name).all_flags:
            text = flag.help.replace("'", "")
            lines.append(f"complete -c {PROGRAM} -n '{condition}' -o {flag.name} -d '{text}'")
    return "\n".join(lines)


_SCRIPTS: Final = {"bash": _bash, "zsh": _zsh, "fish": _fish}
