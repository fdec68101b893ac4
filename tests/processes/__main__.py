"""Long runs against real nodes: `python -m tests.processes --minutes 10`, `--kills 50`, `--failover 10`, `--steady 30`.

The exit code is 1 if anything was wrong, or took longer than it may. The nodes' data and logs are kept then, and removed
otherwise. A run that is told to end (SIGTERM, SIGINT) ends its nodes first.
"""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from bench.nodes import end_children
from tests.processes.chaos import Verdict, can_have_small_disks, running
from tests.processes.chaos_plans import chaos, describe, failover, kills, report, steady
from tests.processes.faults import libfaketime


def main() -> int:
    """Make the runs that are asked for, and print their report."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        return _play(options)
    finally:
        end_children()


def _play(options: argparse.Namespace) -> int:
    plan = next(name for name in ("kills", "failover", "steady", "chaos") if getattr(options, name))
    if options.has_clocks:
        try:
            libfaketime()
        except OSError as error:
            sys.exit(f"{error}; scripts/chaos installs it, and --without-clock-jumps goes without")
    # What is measured is not to be the relays', so they are there only where wires are cut.
    wires = {"kills": [False], "failover": [False, True], "steady": [False], "chaos": [True]}[plan]
    folders = [Path(tempfile.mkdtemp(prefix="conclave-chaos-")) for _ in wires]
    verdicts = [_run(options, folder, has_wires=has) for folder, has in zip(folders, wires, strict=True)]
    told = report(plan, options.seed, verdicts)
    text = describe(told)
    _say(text)
    path: Path = options.report or Path("build") / f"{plan}-{options.seed}"
    path.parent.mkdir(exist_ok=True)
    path.with_suffix(".txt").write_text(text)
    path.with_suffix(".json").write_bytes(msgspec.json.format(msgspec.json.encode(told)) + b"\n")
    _say(f"{path.with_suffix('.txt')} and .json have this, too")
    if told.wrong:
        return 1
    for folder in folders:
        shutil.rmtree(folder)
    return 0


def _run(options: argparse.Namespace, folder: Path, *, has_wires: bool) -> Verdict:
    has_small_disks = bool(options.chaos) and can_have_small_disks()
    _say(f"seed {options.seed}, nodes in {folder}")
    with running(
        folder, options.seed, has_wires=has_wires, has_small_disks=has_small_disks, has_clocks=options.has_clocks
    ) as run:
        if options.kills:
            kills(run, options.kills)
        elif options.failover:
            failover(run, options.failover)
        elif options.steady:
            steady(run, options.steady * 60, options.burners)
        else:
            chaos(run, options.chaos * 60)
        return run.finish()


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  (a program's output)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.processes", description=__doc__)
    plan = parser.add_mutually_exclusive_group(required=True)
    plan.add_argument("--minutes", dest="chaos", type=float, default=0, help="faults of every kind, for so long")
    plan.add_argument("--kills", type=int, default=0, help="kill any node, so many times")
    plan.add_argument("--failover", type=int, default=0, help="lose the leader in each of seven ways, so many times")
    plan.add_argument("--steady", type=float, default=0, help="no faults, for so many minutes; nobody else may lead")
    parser.add_argument("--burners", type=int, default=6, help="with --steady: processes that use the cores besides")
    parser.add_argument(
        "--without-clock-jumps", action="store_true", help="with --minutes: where there is no libfaketime"
    )
    parser.add_argument("--seed", type=int, default=int(time.time()), help="for what is drawn at random")
    parser.add_argument("--report", type=Path, help="where the report is written, as text and as JSON; default: build/")
    options = parser.parse_args()
    options.has_clocks = bool(options.chaos) and not options.without_clock_jumps
    return options


sys.exit(main())
