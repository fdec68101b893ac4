"""Results as JSON, with the machine and versions that they were measured on, and as tables for a terminal."""

import json
import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

import conclave
from bench.events import Happening
from bench.figures import Figure
from bench.floors import Floor
from bench.growth import Point
from bench.nodes import OPENBAO
from bench.operations import Idle, Measured, Pauses
from bench.stress_report import Check

RESULTS: Final = Path(__file__).parent / "results"
WRITTEN: Final = ("bench/results", "docs/performance.md", "docs/plots")
"""What benchmarks write within the repository."""
PAGE_BYTES: Final = 4096
"""Fewer bytes a request were written by something else than the request."""


class Table(Struct, frozen=True):
    """Rows of as many cells as there are heads."""

    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def as_text(self) -> str:
        """Return it for a terminal, the first column to the left, the others to the right."""
        lined_up = (self.heads, *self.rows)
        widths = [max(len(row[column]) for row in lined_up) for column in range(len(self.heads))]
        lines = []
        for row in (self.heads, tuple("-" * width for width in widths), *self.rows):
            cells = [
                cell.ljust(width) if column == 0 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines)

    def as_markdown(self) -> str:
        """Return it for a page."""
        rule = ("---", *(["---:"] * (len(self.heads) - 1)))
        return "\n".join("| " + " | ".join(row) + " |" for row in (self.heads, rule, *self.rows)) + "\n"


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    model = next(
        (line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "python_build": _python_build(),
        "file_system": _file_system(Path(tempfile.gettempdir())),
        "conclave": conclave.__version__,
        "commit": commit_of(RESULTS.parent.parent),
        "openbao": _peer_version(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_before": round(os.getloadavg()[0], 1),
    }


def _python_build() -> str:
    """Return how this Python was built: one that is optimised for a profile needs an eighth less for a request."""
    if "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or ""):
        return "configured with --enable-optimizations"
    # Debian passes no such option, and optimises in a way of its own.
    return "the distribution's" if sys.base_prefix == "/usr" else "configured without --enable-optimizations"


def _file_system(folder: Path) -> str:
    """Return the kind of file system that a folder is on: of tmpfs, say, no sync costs anything."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    return max((place, kind) for place, kind in mounts if folder.is_relative_to(place))[1]


def commit_of(folder: Path) -> str:
    """Return the commit that a folder holds, with a plus if files differ from it; empty outside a repository.

    What benchmarks write may differ: two in a row measure the same program.
    """
    try:
        commit = _git(folder, "rev-parse", "--short=10", "HEAD")
        changed = _git(folder, "diff", "--name-only", "HEAD", "--", ".", *(f":!{path}" for path in WRITTEN))
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"{commit}+" if changed else commit


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, cwd=folder).stdout.strip()


def _peer_version() -> str:
    try:
        done = subprocess.run([OPENBAO.command[0], "version"], capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.split(",")[0].strip()


def save(
    name: str,
    machine_facts: dict[str, Any],
    *,
    layers: Sequence[Figure] = (),
    operations: Sequence[Measured] = (),
    idle: Sequence[Idle] = (),
    pauses: Sequence[Pauses] = (),
    events: Sequence[Happening] = (),
    growth: Sequence[Point] = (),
    stress: Sequence[Check] = (),
    floors: Sequence[Floor] = (),
) -> Path:
    """Write the results as JSON and return the file."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    document = {
        "machine": machine_facts,
        "layers": msgspec.to_builtins(list(layers)),
        "operations": msgspec.to_builtins(list(operations)),
        "idle": msgspec.to_builtins(list(idle)),
        "pauses": msgspec.to_builtins(list(pauses)),
        "events": msgspec.to_builtins(list(events)),
        "growth": msgspec.to_builtins(list(growth)),
        "stress": msgspec.to_builtins(list(stress)),
        "floors": msgspec.to_builtins(list(floors)),
    }
    file.write_text(json.dumps(document, indent=2) + "\n")
    return file


def saved_stress(name: str) -> list[Check]:
    """Return what an earlier run has written about much data."""
    file = RESULTS / f"{name}.json"
    if not file.exists():
        return []
    return msgspec.convert(json.loads(file.read_text())["stress"], list[Check])


def of_layers(figures: Sequence[Figure]) -> Table:
    """Return the layers."""
    rows = [
        (figure.layer, figure.name, f"{figure.microseconds:,.1f}", f"{figure.spread_microseconds:,.1f}")
        for figure in figures
    ]
    return Table(("layer", "operation", "µs", "spread"), rows)


def of_floors(floors: Sequence[Floor]) -> Table:
    """Return what requests cost on less and less of a server."""
    rows = [
        (
            f"{each.operation}: {each.what}",
            f"{each.rate:,.0f}",
            f"{each.asked_cpu_microseconds:,.0f}",
            f"{each.other_cpu_microseconds:,.0f}",
        )
        for each in floors
    ]
    return Table(("what a request meets", "requests/s", "CPU µs of the node asked", "of the others"), rows)


def of_stress(checks: Sequence[Check]) -> Table:
    """Return what came of much data."""
    rows = [
        (
            check.item,
            check.what,
            f"{check.value:,.2f}".rstrip("0").rstrip(".") + f" {check.unit}".rstrip(),
            "" if check.bound is None else f"{check.bound:g}",
            "" if check.bound is None else said(is_met=check.is_held),
        )
        for check in checks
    ]
    return Table(("item", "figure", "measured", "at most", "held"), rows)


def said(*, is_met: bool) -> str:
    """Return how a table says whether a figure is what it should be."""
    return "yes" if is_met else "**no**"


def of_operations(measured: Sequence[Measured]) -> Table:
    """Return the operations; with a peer, as pairs and their ratio."""
    rows = []
    has_peer = any(each.program != "conclave" for each in measured)
    for ours in (each for each in measured if each.program == "conclave"):
        peer = next((each for each in measured if each.program != "conclave" and each.name == ours.name), None)
        row = [ours.name, f"{ours.rate:,.0f}", *_latencies(ours), *_costs(ours)]
        if peer is not None:
            row += [f"{peer.rate:,.0f}", *_latencies(peer), *_costs(peer)]
            row += [f"{ours.rate / peer.rate:.1f}x", _ratio(ours.cpu_microseconds, peer.cpu_microseconds)]
        rows.append(tuple(row))
    heads = ["operation", "req/s", "spread", *_LATENCIES, "CPU µs", "bytes"]
    if has_peer:
        heads += ["peer req/s", "spread", *_LATENCIES, "CPU µs", "bytes", "rate ratio", "CPU ratio"]
    return Table(tuple(heads), rows)


_LATENCIES: Final = ("p50 ms", "p90", "p99", "p99.9")


def _latencies(each: Measured) -> list[str]:
    return [
        f"{each.rate_spread / each.rate:.0%}",
        *(f"{value:.2f}" for value in (each.p50_ms, each.p90_ms, each.p99_ms, each.p999_ms)),
    ]


def _costs(each: Measured) -> list[str]:
    if each.cpu_microseconds is None or each.written_bytes is None:
        return ["", ""]
    return [f"{each.cpu_microseconds:,.0f}", f"{each.written_bytes:,.0f}" if each.written_bytes >= PAGE_BYTES else ""]


def _ratio(ours: float | None, theirs: float | None) -> str:
    return f"{ours / theirs:.2f}" if ours and theirs else ""
