"""Long runs against real nodes: `python -m tests.processes --minutes 10`, `--kills 50`, `--failover 10`.

The exit code is 1 if anything was wrong. The nodes' data and logs are kept then, and removed otherwise.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from tests.processes.chaos import Verdict, can_have_small_disks, running
from tests.processes.chaos_plans import chaos, describe, failover, kills


def main() -> int:
    """Make the runs that are asked for, and print their reports."""
    options = _options()
    # What is measured is not to be the relays', so they are there only where wires are cut.
    wires = [False] if options.kills else [False, True] if options.failover else [True]
    verdicts = [_run(options, has_wires=has_wires) for has_wires in wires]
    report = "\n".join(describe(verdict) for verdict in verdicts)
    _say(report)
    if options.report:
        options.report.with_suffix(".txt").write_text(report)
        options.report.with_suffix(".json").write_bytes(msgspec.json.format(msgspec.json.encode(verdicts)) + b"\n")
    return int(any(verdict.complaints for verdict in verdicts))


def _run(options: argparse.Namespace, *, has_wires: bool) -> Verdict:
    folder = Path(tempfile.mkdtemp(prefix="conclave-chaos-"))
    has_small_disks = bool(options.minutes) and can_have_small_disks()
    _say(f"seed {options.seed}, nodes in {folder}")
    with running(folder, options.seed, has_wires=has_wires, has_small_disks=has_small_disks) as run:
        if options.kills:
            kills(run, options.kills)
        elif options.failover:
            failover(run, options.failover)
        else:
            chaos(run, options.minutes * 60)
        verdict = run.finish()
    if not verdict.complaints:
        shutil.rmtree(folder)
    return verdict


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  (a program's output)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.processes", description=__doc__)
    plan = parser.add_mutually_exclusive_group(required=True)
    plan.add_argument("--minutes", type=float, default=0, help="faults of every kind, for so long")
    plan.add_argument("--kills", type=int, default=0, help="kill any node, so many times")
    plan.add_argument("--failover", type=int, default=0, help="lose the leader in each of five ways, so many times")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="for what is drawn at random")
    parser.add_argument("--report", type=Path, help="write the report there, as text and as JSON")
    return parser.parse_args()


sys.exit(main())
