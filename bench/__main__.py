"""`python -m bench`: measure layers, operations and events, alone or beside a real OpenBao, and write down what came of it.

python -m bench                         all layers, all operations and events on three of our own nodes
python -m bench --peer                  operations and events in turns with a real three-node OpenBao
python -m bench --layers barrier,log    some layers, no operations
python -m bench --operations read       operations whose name contains a word
python -m bench --flame 'kv-v2 read'    a flame graph of the leader during an operation (py-spy)
python -m bench --floors                where a request's time goes: less and less of a server under the same load
python -m bench --stress                what much data does, held to bounds: fails if one is missed
python -m bench --growth secrets=1000,100000 connections=1,1024 nodes=1,3,5 values=100,65536 leases=100,10000
"""

import argparse
import contextlib
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import Struct

from bench import noise, report
from bench.events import Happening, fail_over, restart_elsewhere, unseal
from bench.figures import Figure
from bench.flame import BESIDE_SECONDS, record
from bench.floors import floors
from bench.growth import DIMENSIONS, Plan, Point, grow
from bench.layers import LAYERS
from bench.nodes import BESIDE_PORTS_LATER, CONCLAVE, OPENBAO, Cluster, Program, end_children
from bench.operations import (
    OPERATIONS,
    Idle,
    Measured,
    Pauses,
    measure,
    measure_idle,
    measure_pauses,
    until_steady,
)
from bench.preparing import Setting, prepare
from bench.stress import ITEMS, stress

BASE_PORT = 23000
MOVED_PORTS_LATER = 100
IDLE_SECONDS = 5
LEASES = (1_000, 100_000)


def main() -> int:
    """Measure what the command line asks for."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # and end the nodes on the way
    try:
        if not arguments.noisy:
            noise.demand_quiet()
        return _flame(arguments) if arguments.flame else _measure(arguments)
    except noise.TooNoisy as error:
        _say(str(error))
        return 1
    finally:
        end_children()


def _measure(arguments: argparse.Namespace) -> int:
    machine = report.machine()
    if arguments.stress is not None:
        return _measure_stress(arguments, machine)
    watch = noise.Watch()
    if arguments.floors:
        return _measure_floors(arguments, machine, watch)
    layers = [] if arguments.growth else _measure_layers(arguments.layers)
    wants_operations = arguments.operations or not (arguments.layers or arguments.growth)
    taken = _measure_operations(arguments) if wants_operations else _Taken()
    growth = _measure_growth(arguments) if arguments.growth else []
    if not _was_quiet(arguments, machine, watch):
        return 1
    for text in (
        layers and report.of_layers(layers).as_text(),
        taken.operations and report.of_operations(taken.operations).as_text(),
    ):
        if text:
            print(text, end="\n\n")
    is_whole = arguments.peer and not arguments.operations  # a part must not take the place of the whole
    name = arguments.name or ("peer" if is_whole else "local-latest")
    file = report.save(
        name,
        machine,
        layers=layers,
        operations=taken.operations,
        idle=taken.idle,
        pauses=taken.pauses,
        events=taken.events,
        growth=growth,
    )
    print(f"written to {file}")
    return 0


def _measure_floors(arguments: argparse.Namespace, machine: dict[str, Any], watch: noise.Watch) -> int:
    found = floors(arguments.base_port, rounds=arguments.rounds, seconds=arguments.seconds, report=_say)
    if not _was_quiet(arguments, machine, watch):
        return 1
    print(report.of_floors(found).as_text(), end="\n\n")
    print(f"written to {report.save(arguments.name or 'floors', machine, floors=found)}")
    return 0


def _was_quiet(arguments: argparse.Namespace, machine: dict[str, Any], watch: noise.Watch) -> bool:
    """Note how much of the time went to other machines; False if too much, so that nothing is to be written down."""
    stolen_share = watch.stolen_share
    machine["stolen_share"] = round(stolen_share, 3)
    if stolen_share <= noise.STOLEN_SHARE_MAX or arguments.noisy:
        return True
    _say(f"{stolen_share:.0%} of the time went to other machines: nothing is written down")
    return False


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Conclave.")
    parser.add_argument("--peer", action="store_true", help="beside a real OpenBao, in alternating rounds")
    parser.add_argument("--layers", default="", help=f"some of {','.join(LAYERS)}, and no operations")
    parser.add_argument("--operations", default="", help="only operations whose name contains this, and no events")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each operation and event (5)")
    parser.add_argument("--seconds", type=int, default=2, help="seconds of a round (2)")
    parser.add_argument(
        "--growth",
        nargs="+",
        type=_dimension,
        default=[],
        metavar="DIMENSION=SIZE,…",
        help=f"only: what size does, in some of {', '.join(DIMENSIONS)}",
    )
    parser.add_argument("--flame", default="", metavar="OPERATION", help="only: a flame graph of the leader meanwhile")
    parser.add_argument("--floors", action="store_true", help="only: where a request's time goes")
    parser.add_argument("--noisy", action="store_true", help="measure although other programs use the machine")
    parser.add_argument(
        "--base-port", type=int, default=BASE_PORT, help=f"the first of 200 loopback ports ({BASE_PORT})"
    )
    parser.add_argument(
        "--stress", nargs="?", const="", help=f"only: hold some of {','.join(ITEMS)} to their bounds, or all"
    )
    parser.add_argument("--name", default="", help="name of the result file")
    return parser.parse_args()


def _dimension(text: str) -> tuple[str, list[int]]:
    name, _, sizes = text.partition("=")
    if name not in DIMENSIONS:
        raise argparse.ArgumentTypeError(f"no such dimension: {name}")
    return name, [int(size) for size in sizes.split(",")]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _measure_layers(wanted: str) -> list[Figure]:
    names = [name for name in wanted.split(",") if name] or list(LAYERS)
    unknown = [name for name in names if name not in LAYERS]
    if unknown:
        raise SystemExit(f"no such layer: {', '.join(unknown)}; there are {', '.join(LAYERS)}")
    figures = []
    for name in names:
        for figure in LAYERS[name]():
            _say(f"{figure.layer}: {figure.name}: {figure.microseconds:.2f} µs")
            figures.append(figure)
    return figures


def _measure_growth(arguments: argparse.Namespace) -> list[Point]:
    with tempfile.TemporaryDirectory(prefix="conclave-bench-") as folder:
        return grow(Plan(Path(folder), arguments.base_port, arguments.seconds, _say), dict(arguments.growth))


def _measure_stress(arguments: argparse.Namespace, machine: dict[str, Any]) -> int:
    names = [name for name in arguments.stress.split(",") if name]
    unknown = [name for name in names if name not in ITEMS]
    if unknown:
        raise SystemExit(f"no such item: {', '.join(unknown)}; there are {', '.join(ITEMS)}")
    checks = stress(names, arguments.base_port, _say)
    print(report.of_stress(checks).as_text(), end="\n\n")
    name = arguments.name or "stress"
    kept = [check for check in report.saved_stress(name) if check.item not in {check.item for check in checks}]
    everything = sorted([*kept, *checks], key=lambda check: list(ITEMS).index(check.item))
    print(f"written to {report.save(name, machine, stress=everything)}")
    return 0 if all(check.is_held for check in checks) else 1


class _Taken(Struct):
    """What whole clusters were measured to do."""

    idle: list[Idle] = []
    operations: list[Measured] = []
    pauses: list[Pauses] = []
    events: list[Happening] = []


def _measure_operations(arguments: argparse.Namespace) -> _Taken:
    chosen = [operation for operation in OPERATIONS if arguments.operations in operation.name]
    programs = [CONCLAVE, OPENBAO] if arguments.peer else [CONCLAVE]
    taken = _Taken()
    measured: dict[str, list[Measured]] = {}
    for setting in Setting:
        here = [operation for operation in chosen if operation.setting is setting]
        if not here:
            continue
        with _clusters(programs, setting, arguments.base_port) as clusters:
            if setting is Setting.PLAIN:
                taken.idle = [measure_idle(cluster, IDLE_SECONDS) for cluster in clusters]
            prepared = [(cluster, prepare(cluster, setting)) for cluster in clusters]
            for operation in here:
                play = partial(
                    measure, operation, prepared, rounds=arguments.rounds, seconds=arguments.seconds, report=_say
                )
                measured[operation.name] = play() if arguments.noisy else until_steady(operation.name, play, _say)
            if setting is Setting.PLAIN:
                taken.pauses = [measure_pauses(clusters[0])]
            if setting is Setting.PLAIN and not arguments.operations:
                taken.events = fail_over(clusters, arguments.rounds, _say)
                ports = [arguments.base_port + MOVED_PORTS_LATER + 10 * number for number in range(arguments.rounds)]
                taken.events.append(restart_elsewhere(clusters[0], ports, _say))
    if not arguments.operations:
        with _clusters(programs, Setting.PLAIN, arguments.base_port, size=1) as clusters:
            for leases in LEASES:
                taken.events += unseal(clusters, leases, arguments.rounds, _say)
    taken.operations = [each for operation in chosen for each in measured[operation.name]]
    return taken


@contextlib.contextmanager
def _clusters(
    programs: Sequence[Program], setting: Setting, base_port: int, *, size: int = 3
) -> Iterator[list[Cluster]]:
    """Yield a running cluster of each program."""
    with tempfile.TemporaryDirectory(prefix="conclave-bench-") as folder, contextlib.ExitStack() as running:
        ports = (base_port, base_port + BESIDE_PORTS_LATER)
        yield [
            running.enter_context(
                Cluster(program, Path(folder) / program.name, base_port=port, size=size, has_tls=setting is Setting.TLS)
            )
            for program, port in zip(programs, ports, strict=False)
        ]


def _flame(arguments: argparse.Namespace) -> int:
    operation = next((each for each in OPERATIONS if arguments.flame in each.name), None)
    if operation is None:
        raise SystemExit(f"no such operation: {arguments.flame}")
    with _clusters([CONCLAVE], operation.setting, arguments.base_port) as clusters:
        prepared = [(cluster, prepare(cluster, operation.setting)) for cluster in clusters]
        play: Callable[[], object] = lambda: measure(  # noqa: E731  # named where it is used
            operation, prepared, rounds=1, seconds=arguments.seconds + BESIDE_SECONDS, report=_say
        )
        file = record(operation, clusters[0], play, arguments.seconds)
    print(f"written to {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
