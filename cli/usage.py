"""Help texts, made from the declarations: of a command, of a group of commands, of the program."""

from typing import Final

from conclave.cli import COMMON, GROUPS, REGISTRY
from conclave.cli.command import HTTP_FLAGS, Command
from conclave.cli.flags import Flag, Kind
from conclave.cli.main import load
from conclave.cli.table import wrapped

PROGRAM: Final = "conclave"


def command_help(declared: Command) -> str:
    """Return the help of one command: usage, description, its flags, the client's flags."""
    parts = [f"Usage: {PROGRAM} {declared.usage}", _indented(declared.help)]
    if declared.flags:
        parts.append("Command options:\n\n" + "\n\n".join(map(_flag_help, declared.flags)))
    if declared.is_http:
        parts.append("Client options:\n\n" + "\n\n".join(map(_flag_help, HTTP_FLAGS)))
    return "\n\n".join(parts) + "\n"


def group_help(group: str) -> str:
    """Return what a group holds; "" is the program itself."""
    if not group:
        common = _listing([(name, synopsis(name)) for name in COMMON])
        others = _listing([(name, synopsis(name)) for name in members("") if name not in COMMON])
        return f"Usage: {PROGRAM} <command> [args]\n\nCommon commands:\n{common}\n\nOther commands:\n{others}\n"
    listed = _listing([(name.rpartition(" ")[2], synopsis(name)) for name in members(group)])
    return f"Usage: {PROGRAM} {group} <subcommand> [options] [args]\n\n  {GROUPS[group]}.\n\nSubcommands:\n{listed}\n"


def members(group: str) -> list[str]:
    """Return the full names of the commands and groups right below a group, sorted."""
    depth = len(group.split())
    start = group + " " if group else ""
    names = {" ".join(name.split()[: depth + 1]) for name in (*REGISTRY, *GROUPS) if name.startswith(start)}
    return sorted(names - {group})


def synopsis(name: str) -> str:
    """Return one line about a command or group."""
    return GROUPS[name] if name in GROUPS else load(name).synopsis


def _listing(entries: list[tuple[str, str]]) -> str:
    width = max((len(name) for name, _ in entries), default=0)
    return "\n".join(f"    {name:{width}}    {text}" for name, text in entries)


def _indented(text: str) -> str:
    return "\n".join("  " + line if line else "" for line in text.split("\n"))


def _flag_help(flag: Flag) -> str:
    sample = "" if flag.kind is Kind.BOOLEAN else f"=<{_value_name(flag.kind)}>"
    names = ", ".join(f"-{name}{sample}" for name in (flag.name, *flag.aliases))
    default = f" The default is {flag.default}." if flag.default not in (None, "", False) else ""
    variable = f" Also set by BAO_{flag.variable} or VAULT_{flag.variable}." if flag.variable else ""
    return f"  {names}\n" + wrapped(flag.help + default + variable, "      ")


def _value_name(kind: Kind) -> str:
    return "string" if kind is Kind.TEXTS else kind.value
