"""`python -m bench`: measure layers and operations, alone or beside a real OpenBao, and write down what came of it.

python -m bench                       all layers, all operations on three of our own nodes
python -m bench --peer                the operations in turns with a real three-node OpenBao
python -m bench --layers barrier,log  some layers, no operations
python -m bench --operations read     operations whose name contains a word
python -m bench --growth 1000,100000  what size does
python -m bench --stress              what much data does, held to bounds: fails if one is missed
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import report
from bench.growth import Step, grow
from bench.layers import LAYERS, Figure
from bench.nodes import CONCLAVE, OPENBAO, Cluster
from bench.operations import OPERATIONS, Idle, Measured, measure, measure_idle, prepare
from bench.stress import ITEMS, stress

BASE_PORT = 23000
PEER_BASE_PORT = 23050
IDLE_SECONDS = 5


def main() -> int:
    """Measure what the command line asks for."""
    arguments = _arguments()
    machine = report.machine()
    if arguments.stress is not None:
        return _measure_stress(arguments, machine)
    layers = [] if arguments.growth else _measure_layers(arguments.layers)
    wants_operations = arguments.operations or not (arguments.layers or arguments.growth)
    idle, operations = _measure_operations(arguments) if wants_operations else ([], [])
    growth = _measure_growth(arguments) if arguments.growth else []
    if layers:
        print(report.layer_table(layers), end="\n\n")
    if operations:
        print(report.operation_table(operations), end="\n\n")
    name = arguments.name or ("peer" if arguments.peer else "local-latest")
    file = report.save(name, machine, layers=layers, operations=operations, idle=idle, growth=growth)
    print(f"written to {file}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Conclave.")
    parser.add_argument("--peer", action="store_true", help="beside a real OpenBao, in alternating rounds")
    parser.add_argument("--layers", default="", help=f"some of {','.join(LAYERS)}, and no operations")
    parser.add_argument("--operations", default="", help="only operations whose name contains this")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each operation (5)")
    parser.add_argument("--seconds", type=int, default=2, help="seconds of a round (2)")
    parser.add_argument(
        "--growth", default="", help="only: fill a cluster to these numbers of secrets, and measure there"
    )
    parser.add_argument(
        "--stress", nargs="?", const="", help=f"only: hold some of {','.join(ITEMS)} to their bounds, or all"
    )
    parser.add_argument("--name", default="", help="name of the result file")
    return parser.parse_args()


def _measure_layers(wanted: str) -> list[Figure]:
    names = [name for name in wanted.split(",") if name] or list(LAYERS)
    unknown = [name for name in names if name not in LAYERS]
    if unknown:
        raise SystemExit(f"no such layer: {', '.join(unknown)}; there are {', '.join(LAYERS)}")
    figures = []
    for name in names:
        for figure in LAYERS[name]():
            print(f"{figure.layer}: {figure.name}: {figure.microseconds:.2f} µs", file=sys.stderr)
            figures.append(figure)
    return figures


def _measure_growth(arguments: argparse.Namespace) -> list[Step]:
    sizes = [int(size) for size in arguments.growth.split(",")]
    with tempfile.TemporaryDirectory(prefix="conclave-bench-") as folder:
        return grow(Path(folder), BASE_PORT, sizes, arguments.seconds, lambda text: print(text, file=sys.stderr))


def _measure_stress(arguments: argparse.Namespace, machine: dict[str, Any]) -> int:
    names = [name for name in arguments.stress.split(",") if name]
    unknown = [name for name in names if name not in ITEMS]
    if unknown:
        raise SystemExit(f"no such item: {', '.join(unknown)}; there are {', '.join(ITEMS)}")
    checks = stress(names, BASE_PORT, lambda text: print(text, file=sys.stderr))
    print(report.stress_table(checks), end="\n\n")
    name = arguments.name or ("local-stress" if names else "stress")
    print(f"written to {report.save(name, machine, stress=checks)}")
    return 0 if all(check.is_held for check in checks) else 1


def _measure_operations(arguments: argparse.Namespace) -> tuple[list[Idle], list[Measured]]:
    chosen = [operation for operation in OPERATIONS if arguments.operations in operation.name]
    idle: list[Idle] = []
    measured: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="conclave-bench-") as folder:
        clusters = [Cluster(CONCLAVE, Path(folder) / "ours", base_port=BASE_PORT)]
        if arguments.peer:
            clusters.append(Cluster(OPENBAO, Path(folder) / "peer", base_port=PEER_BASE_PORT))
        try:
            for cluster in clusters:
                cluster.start()
                idle.append(measure_idle(cluster, IDLE_SECONDS))
            prepared = [(cluster, prepare(cluster)) for cluster in clusters]
            for operation in chosen:
                measured += measure(
                    operation,
                    prepared,
                    rounds=arguments.rounds,
                    seconds=arguments.seconds,
                    report=lambda text: print(text, file=sys.stderr),
                )
        finally:
            for cluster in clusters:
                cluster.stop()
    return idle, measured


if __name__ == "__main__":
    sys.exit(main())
