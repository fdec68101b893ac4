"""`python -m bench`: measure layers and operations, alone or beside a real OpenBao, and write down what came of it.

python -m bench                       all layers, all operations on three of our own nodes
python -m bench --peer                the operations in turns with a real three-node OpenBao
python -m bench --layers barrier,log  some layers, no operations
python -m bench --operations read     operations whose name contains a word
"""

import argparse
import sys
import tempfile
from pathlib import Path

from bench import report
from bench.layers import LAYERS, Figure
from bench.nodes import CONCLAVE, OPENBAO, Cluster
from bench.operations import OPERATIONS, Measured, measure, prepare

BASE_PORT = 23000
PEER_BASE_PORT = 23050


def main() -> int:
    """Measure what the command line asks for."""
    arguments = _arguments()
    machine = report.machine()
    layers = _measure_layers(arguments.layers)
    operations = [] if arguments.layers and not arguments.operations else _measure_operations(arguments)
    if layers:
        print(report.layer_table(layers), end="\n\n")
    if operations:
        print(report.operation_table(operations), end="\n\n")
    name = arguments.name or ("peer" if arguments.peer else "local-latest")
    print(f"written to {report.save(name, machine, layers, operations)}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Conclave.")
    parser.add_argument("--peer", action="store_true", help="beside a real OpenBao, in alternating rounds")
    parser.add_argument("--layers", default="", help=f"some of {','.join(LAYERS)}, and no operations")
    parser.add_argument("--operations", default="", help="only operations whose name contains this")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each operation (5)")
    parser.add_argument("--seconds", type=int, default=2, help="seconds of a round (2)")
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


def _measure_operations(arguments: argparse.Namespace) -> list[Measured]:
    chosen = [operation for operation in OPERATIONS if arguments.operations in operation.name]
    measured: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="conclave-bench-") as folder:
        clusters = [Cluster(CONCLAVE, Path(folder) / "ours", base_port=BASE_PORT)]
        if arguments.peer:
            clusters.append(Cluster(OPENBAO, Path(folder) / "peer", base_port=PEER_BASE_PORT))
        try:
            for cluster in clusters:
                cluster.start()
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
    return measured


if __name__ == "__main__":
    sys.exit(main())
