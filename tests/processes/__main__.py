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

from tests.processes.chaos import Run, can_have_small_disks, running
from tests.processes.chaos_plans import chaos, describe, failover, kills


def main() -> int:
    """Make one run and print its report."""
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="conclave-chaos-"))
    # A plan that only kills needs no wires, and what it measures is not to be theirs.
    has_wires = not options.kills
    has_small_disks = bool(options.minutes) and can_have_small_disks()
    _say(f"seed {options.seed}, nodes in {folder}")
    with running(folder, options.seed, has_wires=has_wires, has_small_disks=has_small_disks) as run:
        _play(run, options)
        verdict = run.finish()
    report = describe(verdict)
    _say(report)
    if options.report:
        options.report.with_suffix(".txt").write_text(report)
        options.report.with_suffix(".json").write_bytes(msgspec.json.format(msgspec.json.encode(verdict)) + b"\n")
    if verdict.complaints:
        return 1
    shutil.rmtree(folder)
    return 0


def _play(run: Run, options: argparse.Namespace) -> None:
    if options.kills:
        kills(run, options.kills)
    elif options.failover:
        failover(run, options.failover)
    else:
        chaos(run, options.minutes * 60)


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
