"""The entry point: finds the command, runs it, prints what went wrong, answers with an exit code.

Exit codes are Vault's: 0 done; 1 wrong usage or a local fault; 2 the server refused or is not there; 127 no such command.
Modules are imported only when their command runs, because `conclave version` has to start in a tenth of a second.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from conclave.cli import GROUPS, REGISTRY
from conclave.cli.errors import (
    EXIT_INTERRUPTED,
    EXIT_LOCAL,
    EXIT_OK,
    EXIT_UNKNOWN_COMMAND,
    CommandError,
    OutputOnly,
)

if TYPE_CHECKING:
    from conclave.cli.command import Command

_HELP = frozenset({"-h", "-help", "--help"})
_VERSION = frozenset({"-v", "-version", "--version"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (without the program's name) and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _dispatch(words)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (`conclave ... | head`); nothing can be told to it, not even by the interpreter at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_LOCAL
    return code


def _dispatch(words: list[str]) -> int:
    if words and words[0] in _VERSION:
        words = ["version", *words[1:]]
    name, rest = find(words)
    if name in REGISTRY:
        declared = load(name)
        if any(word in _HELP for word in _flags_in_front(rest)):
            from conclave.cli.usage import command_help

            sys.stdout.write(command_help(declared))
            return EXIT_OK
        return _run(declared, rest)
    from conclave.cli.usage import group_help

    wants_help = bool(rest) and rest[0] in _HELP
    (sys.stdout if wants_help else sys.stderr).write(group_help(name))
    if wants_help:
        return EXIT_OK
    return EXIT_LOCAL if name else EXIT_UNKNOWN_COMMAND


def find(words: Sequence[str]) -> tuple[str, list[str]]:
    """Split a command line into the longest name of a command or group, and the rest; ("", words) when there is none."""
    name = ""
    for end in range(1, len(words) + 1):
        longer = " ".join(words[:end])
        if longer not in REGISTRY and longer not in GROUPS:
            break
        name = longer
    return name, list(words[len(name.split()) :])


def load(name: str) -> "Command":
    """Import a command of the registry."""
    module, _, attribute = REGISTRY[name].partition(":")
    declared: Command = getattr(importlib.import_module(module), attribute)
    return declared


def _flags_in_front(words: Sequence[str]) -> list[str]:
    """Help is asked for by a flag, never by data: `kv put a x=1 -h` writes."""
    end = next((i for i, word in enumerate(words) if not word.startswith("-") or word in ("-", "--")), len(words))
    return list(words[:end])


def _run(declared: "Command", words: list[str]) -> int:
    from conclave.cli.command import run

    try:
        return run(declared, words)
    except OutputOnly as shown:
        sys.stdout.write(f"{shown}\n")
        return shown.exit_code
    except CommandError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
