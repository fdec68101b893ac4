"""`python -m bench.pages`: write docs/performance.md, and the plots on it, from the last results that were committed.

The page says nothing that is not in `results/peer.json` (and `growth.json`, `floors.json`, `stress.json`): it cannot promise
what nobody measured.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from bench import report
from bench.figures import Figure
from bench.floors import SIZES, Floor
from bench.goals import FIGURES, RATE, Judged, hold, judge
from bench.plots import RATIOS, by_dimension, draw, plot_name
from bench.report import PAGE_BYTES, RESULTS, Table, said
from bench.stress_report import Check

PAGE: Final = Path(__file__).parent.parent / "docs" / "performance.md"
GROWTH: Final = RESULTS / "growth.json"
STRESS: Final = RESULTS / "stress.json"
FLOORS: Final = RESULTS / "floors.json"
_HEAD: Final = """\
# Performance

Written by `python -m bench.pages` from what lies in `bench/results/`; not edited by hand. How it is measured:
`bench/README.md`. To measure on your machine and write this page anew:

    make bench-peer
    make bench-growth
    make bench-floors
    make stress

Three nodes of each program ran on **one** machine, together with the load generator, and took turns. Read the ratios: with a
machine for each node both would be faster. The cores matter: OpenBao uses all that it gets, a node of Conclave one and a
little. With many cores for each node the ratios of requests a second shrink, and those of CPU a request stay. Nothing was
switched off: every write is on the disks of two nodes before it is answered, and reads are linearizable on every node, while
OpenBao's standbys answer from what they have, which may be old. Reads, lookups and the mixed load ask with a token that a
policy limits; writes, lists, new tokens and transit with the root token.
"""

_MEMORY_COUNTS: Final = """\
Memory is what the kernel counts as resident: also the pages of the state's file that it keeps in memory, and takes back
when it needs them (LMDB maps the file).
"""


def page(
    results: dict[str, Any],
    growth: dict[str, Any] | None,
    stress: dict[str, Any] | None = None,
    floors: dict[str, Any] | None = None,
) -> str:
    """Return the whole page."""
    parts = [_HEAD, _machine(results["machine"])]
    ours = {each["name"]: each for each in results["operations"] if each["program"] == "conclave"}
    peers = {each["name"]: each for each in results["operations"] if each["program"] != "conclave"}
    if peers:
        judged = list(judge(ours, peers))
        secrets = by_dimension(growth["growth"]).get("secrets", []) if growth is not None else []
        held = hold(results.get("idle", ()), {each["size"]: each["figures"] for each in secrets})
        parts += [_goals(judged, list(held)), _operations(ours, peers), _costs(ours, peers)]
        if floors is not None:
            parts.append(_floors(floors, judged))
    if results.get("events"):
        parts.append(_events(results["events"]))
    if results.get("idle"):
        parts.append(_idle(results["idle"]))
    if results.get("pauses"):
        parts.append(_pauses(results["pauses"]))
    if growth is not None:
        parts.append(_growth(growth))
    if stress is not None:
        parts.append(_stress(stress))
    parts.append(_layers(results["layers"]))
    return "\n".join(parts)


def _machine(machine: dict[str, Any]) -> str:
    return (
        f"Measured {machine['time'][:10]} on {machine['cores']} cores ({machine['cpu']}), {machine['system']}, Python "
        f"{machine['python']}{_build(machine)}, Conclave {machine['conclave']}{_commit(machine)}, "
        f"{machine['openbao'] or 'no peer'}; load average before it began: {machine['load_before']:.1f}.\n"
    )


def _build(machine: dict[str, Any]) -> str:
    return f" ({machine['python_build']}), {machine['file_system']}" if "python_build" in machine else ""


def _commit(machine: dict[str, Any]) -> str:
    return f" at {machine['commit']}" if machine.get("commit") else ""


def _goals(judged: Sequence[Judged], held: Sequence[Check]) -> str:
    rows = [
        (
            each.goal.operation,
            FIGURES[each.goal.figure],
            f"{each.goal.factor:g} times better",
            f"{each.factor:.1f} times",
            said(is_met=each.is_met),
        )
        for each in judged
    ]
    rows += [
        (
            each.item,
            each.what,
            f"at most {each.bound:g} {each.unit}",
            f"{each.value:.3g} {each.unit}",
            said(is_met=each.is_held),
        )
        for each in held
    ]
    heads = ("operation", "figure", "wanted", "measured", "met")
    return "## What was wanted\n\n" + _table(heads, rows)


def _floors(floors: dict[str, Any], judged: Sequence[Judged]) -> str:
    found = msgspec.convert(floors["floors"], list[Floor])
    return (
        "## Where a request's time goes\n\nThe same load on less and less of a server. A node's event loop is one thread, so "
        "the node that is asked has\n1,000,000 µs a second; and all nodes and the load generator share the cores.\n\n"
        f"{_machine(floors['machine'])}\n{report.of_floors(found).as_markdown()}\n{_budgets(found, judged)}"
    )


def _budgets(floors: Sequence[Floor], judged: Sequence[Judged]) -> str:
    """Say what a request might take if what was missed were to be reached, beside what it takes."""
    of = {(floor.operation, floor.what): floor for floor in floors}
    rows = []
    for each in judged:
        budget = _BUDGETS.get(each.goal.figure)
        stages = [of.get((each.goal.operation, what)) for what in SIZES.values()]
        if each.is_met or budget is None or not any(stages):
            continue
        takes = ("-" if stage is None else f"{budget.taken(stage):,.0f}" for stage in stages)
        rows.append((each.goal.operation, budget.what, f"{budget.left(each):,.0f}", *takes))
    if not rows:
        return ""
    return (
        "What is missed, as what a request may take: for a rate, of the event loop of the node asked; for CPU, of all\n"
        "nodes; for a latency, of the time that one client waits. What was tried, and why there is one event loop, is in\n"
        "[ADR 0013](adr/0013-one-event-loop-a-node.md):\n\n"
        + _table(("missed", "of", "at most, µs", "one node takes, µs", "three nodes, µs"), rows)
    )


class _Budget(Struct, frozen=True):
    """How a figure that was missed is told in microseconds of a request.

    Attributes:
        what: of which time these are.
        left: so many there may be at most.
        taken: so many there were at one stage.
    """

    what: str
    left: Callable[[Judged], float]
    taken: Callable[[Floor], float]


def _all_cpu(floor: Floor) -> float:
    return floor.asked_cpu_microseconds + floor.other_cpu_microseconds


_BUDGETS: Final = {
    RATE: _Budget(
        "the node asked",
        lambda each: 1e6 / (each.goal.factor * each.theirs),
        lambda floor: floor.asked_cpu_microseconds,
    ),
    "cpu_microseconds": _Budget("all nodes", lambda each: each.theirs / each.goal.factor, _all_cpu),
    # Of one connection only: its rate is one after the other.
    "p50_ms": _Budget("the wait", lambda each: each.theirs * 1e3 / each.goal.factor, lambda floor: 1e6 / floor.rate),
}


def _operations(ours: dict[str, Any], peers: dict[str, Any]) -> str:
    rows = [
        (
            name,
            f"{own['rate']:,.0f}",
            f"{peers[name]['rate']:,.0f}",
            f"**{own['rate'] / peers[name]['rate']:.1f} times**",
            f"{_spread(own)} / {_spread(peers[name])}",
        )
        for name, own in ours.items()
    ]
    heads = ("operation", "requests/s", "OpenBao", "ratio", "spread, ours / theirs")
    percentiles = ("p50_ms", "p90_ms", "p99_ms", "p999_ms")
    waits = [
        (name, *(f"{own[each]:.1f} / {peers[name][each]:.1f}" for each in percentiles)) for name, own in ours.items()
    ]
    wait_heads = ("milliseconds, ours / theirs", "p50", "p90", "p99", "p99.9")
    better = [name for name, own in ours.items() if own["rate"] < peers[name]["rate"]]
    sooner = [name for name, own in ours.items() if own["p50_ms"] > peers[name]["p50_ms"]]
    return (
        f"## What a client sees\n\n![ratios](plots/{RATIOS})\n\nMedians of the rounds; the spread is what lies between the "
        f"least and the greatest of\nthem, beside the median.\n\n{_table(heads, rows)}\n{_table(wait_heads, waits)}\n"
        f"OpenBao answers more requests a second of: {', '.join(better) or 'none of these'}. Its median answer comes sooner "
        f"for: {', '.join(sooner) or 'none of these'}.\n"
    )


def _spread(each: dict[str, Any]) -> str:
    return f"{each['rate_spread'] / each['rate']:.0%}"


def _costs(ours: dict[str, Any], peers: dict[str, Any]) -> str:
    def written(each: dict[str, Any]) -> str:
        return f"{each['written_bytes'] / 1024:.1f}" if each["written_bytes"] >= PAGE_BYTES else "-"

    rows = [
        (
            name,
            f"{own['cpu_microseconds']:,.0f}",
            f"{peers[name]['cpu_microseconds']:,.0f}",
            f"**1/{peers[name]['cpu_microseconds'] / own['cpu_microseconds']:.1f}**",
            written(own),
            written(peers[name]),
        )
        for name, own in ours.items()
        if own["cpu_microseconds"] is not None
    ]
    heads = ("operation", "CPU µs a request", "OpenBao", "ratio", "KiB written a request", "OpenBao")
    return (
        "## What it costs all three nodes together\n\n"
        + _table(heads, rows)
        + "\nWritten is what the disk was given, the file system's journal included; where the kernel tells of no disk, "
        "what it counts for\nthe nodes.\n"
    )


def _events(events: Sequence[dict[str, Any]]) -> str:
    ours = [each for each in events if each["program"] == "conclave"]
    theirs = {each["name"]: each for each in events if each["program"] != "conclave"}
    rows = [(own["name"], *(_seconds(each) for each in (own, theirs.get(own["name"])))) for own in ours]
    return (
        "## When a node dies, or is started\n\n"
        + _table(("event", "Conclave, median / worst", "OpenBao"), rows)
        + "\nMoving all nodes to other ports is not tried with OpenBao, whose nodes look for each other where they were.\n"
    )


def _seconds(event: dict[str, Any] | None) -> str:
    return "-" if event is None else f"{event['median_seconds']:.2f} s / {event['worst_seconds']:.2f} s"


def _idle(idle: Sequence[dict[str, Any]]) -> str:
    rows = [(each["program"], f"{each['resident_bytes'] / 1e6:.0f}", f"{each['cpu_percent']:.1f}") for each in idle]
    return "## A node that is asked nothing\n\n" + _table(("program", "memory, MB", "CPU, % of a core"), rows)


def _pauses(pauses: Sequence[dict[str, Any]]) -> str:
    """Say how long requests waited for the collector; a leader that was restarted in between has counted anew."""
    rows = [(f"{each['collections']:,}", f"{each['total_ms']:.0f}", f"{each['longest_ms']:.1f}") for each in pauses]
    return (
        "## The collector's pauses\n\nA leader collects memory seldom, and all requests wait meanwhile. Since it was "
        "started, over\nall operations above that have neither TLS, an audit log nor 100,000 secrets:\n\n"
        + _table(("collections", "all of them, ms", "longest of the latest, ms"), rows)
    )


def _growth(growth: dict[str, Any]) -> str:
    parts = ["## What size does\n", _machine(growth["machine"]), _MEMORY_COUNTS]
    for dimension, points in by_dimension(growth["growth"]).items():
        names = list(points[0]["figures"])
        rows = [(f"{each['size']:,}", *(_three_digits(each["figures"][name]) for name in names)) for each in points]
        parts.append(f"![{dimension}](plots/{plot_name(dimension)})\n")
        parts.append(_table((dimension, *names), rows))
    return "\n".join(parts)


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _stress(stress: dict[str, Any]) -> str:
    checks = msgspec.convert(stress["stress"], list[Check])
    return (
        "## Much data\n\n`make stress` fails if a bound is missed (`bench/stress.py` says what each item does). Latencies\n"
        "are told beside those of the minutes before and after: other programs may have used the machine.\n\n"
        f"{_machine(stress['machine'])}\n{report.of_stress(checks).as_markdown()}"
    )


def _layers(layers: Sequence[dict[str, Any]]) -> str:
    return "## Layers alone\n\n" + report.of_layers(msgspec.convert(layers, list[Figure])).as_markdown()


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    return Table(heads, rows).as_markdown()


def main() -> None:
    """Write the page and its plots."""
    PAGE.write_text(written())
    growth = _read(GROWTH)
    operations = json.loads((RESULTS / "peer.json").read_text())["operations"]
    draw(PAGE.parent / "plots", operations, growth["growth"] if growth else [])


def written() -> str:
    """Return the page that the committed results make."""
    return page(json.loads((RESULTS / "peer.json").read_text()), _read(GROWTH), _read(STRESS), _read(FLOORS))


def _read(file: Path) -> dict[str, Any] | None:
    return json.loads(file.read_text()) if file.exists() else None


if __name__ == "__main__":
    main()
