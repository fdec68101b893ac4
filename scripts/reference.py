"""Write the reference pages of docs/ from the declarations they describe, or check that they are up to date.

    python scripts/reference.py            writes docs/configuration.md, api.md, cli.md and metrics.md
    python scripts/reference.py --check    says which of them are not what it would write; exit code 1 if any is

A page's introduction is written by hand and ends with a marker; what follows the marker is made here: configuration keys
from `conclave/config.py`, paths from the engines' declarations, commands from the registry of the command line, metrics from
the table in `core/metrics.py`. So nothing is described twice, and nothing is left out.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin

from msgspec import NODEFAULT, Meta, Struct, structs

from conclave import cli, config
from conclave.api.exposition import kind_of
from conclave.cli.command import HTTP_FLAGS
from conclave.cli.flags import Flag, Kind
from conclave.cli.main import load
from conclave.core.contract import Declaration, Engine, Operation
from conclave.core.durations import format_duration
from conclave.core.metrics import Metrics, Summary, prometheus_name
from conclave.core.system import System
from conclave.engines import REGISTRY as ENGINES
from conclave.methods import REGISTRY as METHODS

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
MARKER: Final = "<!-- What follows is written by scripts/docs. Change the source it describes, and run that. -->\n"
METHODS_OF_OPERATIONS: Final = {
    Operation.READ: "GET",
    Operation.CREATE: "POST",
    Operation.UPDATE: "POST",
    Operation.PATCH: "PATCH",
    Operation.DELETE: "DELETE",
    Operation.LIST: "LIST",
}


def main() -> int:
    """Write or check every page; return the exit code."""
    is_check = sys.argv[1:] == ["--check"]
    pages = {"configuration": configuration(), "api": api(), "cli": commands(), "metrics": metrics()}
    stale = []
    for name, lines in pages.items():
        file = DOCS / f"{name}.md"
        introduction, marker, written = file.read_text(encoding="utf-8").partition(MARKER)
        wanted = "\n" + "\n".join(lines).rstrip() + "\n"
        if not marker:
            raise SystemExit(f"{file.name} has no line {MARKER!r}")
        if written != wanted:
            stale.append(file.name)
            if not is_check:
                file.write_text(introduction + MARKER + wanted, encoding="utf-8")
    if stale and is_check:
        print(f"not up to date: {', '.join(stale)}; run scripts/docs and look at the difference")
        return 1
    return 0


# -- configuration --


def configuration() -> Iterator[str]:
    """Yield the sections on configuration keys."""
    yield from _keys("Top level", config.ServerConfig, "")
    yield from _keys('storage "raft"', config.RaftStorage, "storage.")
    yield from _keys("retry_join, in storage", config.RetryJoin, "storage.retry_join.")
    yield from _keys('listener "tcp"', config.Listener, "listener.")
    yield from _keys("telemetry, in listener", config.ListenerTelemetry, "listener.telemetry.")
    yield from _keys("telemetry, at the top level", config.Telemetry, "telemetry.")
    yield from _keys("snapshots", config.Snapshots, "snapshots.")
    yield from ["## Environment", "", "| variable (`BAO_…` goes over `VAULT_…`) | key |", "|---|---|"]
    yield from (f"| `BAO_{name}`, `VAULT_{name}` | `{key}` |" for name, key in config.ENVIRONMENT.items())
    yield from [
        "",
        "## Keys without effect",
        "",
        "Taken silently: nothing is lost by it.",
        "",
        "| key | why |",
        "|---|---|",
    ]
    yield from (f"| `{key}` | {why} |" for key, why in sorted(config.NO_EFFECT.items()))
    yield from [
        "",
        "## Keys that are not supported",
        "",
        "Each is a warning at start.",
        "",
        "| key | instead |",
        "|---|---|",
    ]
    yield from (f"| `{key}` | {why} |" for key, why in sorted(config.UNSUPPORTED.items()))


def _keys(title: str, kind: type[Struct], prefix: str) -> Iterator[str]:
    yield from [f"## {title}", "", (kind.__doc__ or "").strip().splitlines()[0], ""]
    for field in structs.fields(kind):
        yield from [f"### `{prefix}{field.encode_name}`", "", _describe(field), ""]


def _describe(field: structs.FieldInfo) -> str:
    default = _default(field)
    return f"{_description(field)} *{_kind(field)}*{'; default ' + default if default else ''}."


def _description(field: structs.FieldInfo) -> str:
    return next((meta.description or "" for meta in _metadata(field.type)), "")


def _metadata(kind: Any) -> list[Meta]:
    return [meta for meta in getattr(kind, "__metadata__", ()) if isinstance(meta, Meta)]


def _kind(field: structs.FieldInfo) -> str:
    kind = get_args(field.type)[0] if get_origin(field.type) is Annotated else field.type
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(f"`{each}`" for each in get_args(kind))
    if field.name.endswith("_seconds"):
        return "duration"
    if field.name.endswith("_bytes"):
        return "bytes"
    return {bool: "true or false", int: "whole number", str: "text", float: "number"}.get(kind, "block")


def _default(field: structs.FieldInfo) -> str:
    default = field.default
    if default is NODEFAULT or default == () or isinstance(default, Struct):
        return ""
    if field.name.endswith("_seconds"):
        return f"`{format_duration(default)}`" if default else "`0`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`" if default != "" else ""


# -- API --


def api() -> Iterator[str]:
    """Yield the sections on paths, one for each engine and method."""
    yield from _paths("sys/", System)
    for name, engine in sorted(ENGINES.items()):
        yield from _paths(name, engine)
    for name, method in sorted(METHODS.items()):
        yield from _paths(f"auth/{name}", method)


def _paths(title: str, engine: type[Engine]) -> Iterator[str]:
    yield from [f"## {title}", "", (engine.__doc__ or "").strip().splitlines()[0], ""]
    by_pattern: dict[str, list[Declaration]] = {}
    for declared in engine.declarations():
        by_pattern.setdefault(declared.pattern, []).append(declared)
    for pattern, declarations in sorted(by_pattern.items()):
        yield from [f"### `{title.removesuffix('/')}/{pattern}`", ""]
        for declared in declarations:
            yield f"* **{METHODS_OF_OPERATIONS[declared.operation]}**{_notes(declared)}: {declared.summary}"
            yield from (f"    * {line}" for line in _fields(declared))
        yield ""


def _notes(declared: Declaration) -> str:
    notes = [
        note
        for note, holds in (
            ("no token", not declared.authenticated),
            ("sudo", declared.sudo),
            ("while sealed, too", declared.while_sealed),
            ("this node", declared.is_local),
        )
        if holds
    ]
    return f" ({', '.join(notes)})" if notes else ""


def _fields(declared: Declaration) -> Iterator[str]:
    if declared.fields is None:
        return
    for field in structs.fields(declared.fields):
        description = next((meta.description for meta in _metadata(field.type) if meta.description), "")
        yield f"`{field.encode_name}`" + (f": {description}" if description else "")


# -- command line --


def commands() -> Iterator[str]:
    """Yield a section for each command: what its help says, but for the flags that all of them have."""
    yield from ["## Flags of every command that talks to a server", ""]
    yield from _flags(HTTP_FLAGS)
    for name in sorted(cli.REGISTRY):
        declared = load(name)
        yield from [f"## conclave {name}", "", f"`conclave {declared.usage}`", ""]
        yield from [*_prose(declared.help), ""]
        yield from _flags(declared.flags)


def _prose(help_text: str) -> Iterator[str]:
    """Yield a help text with its examples, which are indented or begin with a prompt, as code blocks."""
    is_code = False
    for line in help_text.strip().splitlines():
        if line.startswith(("    ", "$ ")) != is_code and line:
            yield "```" if is_code else "```text"
            is_code = not is_code
        yield line.removeprefix("    ") if is_code else line
    if is_code:
        yield "```"


def _flags(flags: Sequence[Flag]) -> Iterator[str]:
    for flag in flags:
        value = "" if flag.kind is Kind.BOOLEAN else f"=<{flag.kind.value}>"
        names = ", ".join(f"`-{name}{value}`" for name in (flag.name, *flag.aliases))
        variable = f" (`BAO_{flag.variable}`, `VAULT_{flag.variable}`)" if flag.variable else ""
        yield f"* {names}: {flag.help}{variable}"
    if flags:
        yield ""


# -- metrics --


def metrics() -> Iterator[str]:
    """Yield a section for each metric."""
    for metric in Metrics():
        kind = kind_of(metric)
        unit = f" in {metric.unit}" if isinstance(metric, Summary) else ""
        yield from [f"## `{prometheus_name(metric.name)}`", "", f"{metric.help} *{kind.capitalize()}{unit}*.", ""]


if __name__ == "__main__":
    sys.exit(main())
