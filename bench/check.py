"""`python -m bench.check`: has a layer become slower beside the others? The guard of `make bench-check`.

Absolute times depend on the machine and on who else uses it; what one layer costs beside another does so much less. So what
each layer takes of the processor is measured in one run, in turns with a yardstick (the work of the standard library that
does not change with our code), and its multiple of that is compared with `results/baseline.json`. Of layers that wait for a
disk or for each other the kernel's share counts, too, which varies more.

    python -m bench.check            compare; exit code 1 if a layer has become slower by more than its tolerance
    python -m bench.check --accept   take this run's multiples as the new baseline: with the change that explains them
"""

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Final

from bench.layers import LAYERS
from bench.report import RESULTS

TOLERANCE: Final = 1.35
"""How much slower is too slow: above the noise of a shared machine, below any change that somebody would regret."""
TOLERANCE_OF_WAITING: Final = 2.0
WAITING_LAYERS: Final = frozenset({"log", "overlay", "commit"})
ROUNDS: Final = 3
"""Each layer's best round counts: noise only ever makes slower."""
BASELINE: Final = RESULTS / "baseline.json"
_YARDSTICK_SECONDS: Final = 0.2


def yardstick_microseconds() -> float:
    """Return the processor's time for hashing and reformatting a small JSON text, here and now, at best."""
    text = json.dumps({"data": {"password": "x" * 100, "username": "bench"}})
    best = float("inf")
    deadline = time.perf_counter() + _YARDSTICK_SECONDS
    while time.perf_counter() < deadline:
        started = time.thread_time()
        for _ in range(1000):
            hashlib.sha256(json.dumps(json.loads(text)).encode()).digest()
        best = min(best, (time.thread_time() - started) / 1000 * 1e6)
    return best


def measure() -> dict[str, float]:
    """Return each figure as a multiple of the yardstick."""
    multiples: dict[str, float] = {}
    for _ in range(ROUNDS):
        for layer, figures in LAYERS.items():
            yardstick = yardstick_microseconds()
            for figure in figures():
                name = f"{layer}: {figure.name}"
                multiple = figure.cpu_microseconds / yardstick
                multiples[name] = min(multiple, multiples.get(name, multiple))
    return multiples


def slower(measured: dict[str, float], baseline: dict[str, float]) -> dict[str, float]:
    """Return what has become slower by more than its layer's tolerance, with how many times."""
    factors = {name: multiple / baseline[name] for name, multiple in measured.items() if name in baseline}
    return {name: factor for name, factor in factors.items() if factor > _tolerance(name)}


def _tolerance(name: str) -> float:
    return TOLERANCE_OF_WAITING if name.partition(":")[0] in WAITING_LAYERS else TOLERANCE


def main() -> int:
    """Measure, and compare or accept."""
    parser = argparse.ArgumentParser(prog="python -m bench.check", description="Guard against slower layers.")
    parser.add_argument("--accept", action="store_true", help="make this run the baseline")
    accepts = parser.parse_args().accept
    measured = measure()
    if accepts:
        rounded = {name: round(multiple, 3) for name, multiple in measured.items()}
        BASELINE.write_text(json.dumps(rounded, indent=2) + "\n")
        return 0
    return _compare(measured, BASELINE)


def _compare(measured: dict[str, float], file: Path) -> int:
    baseline = json.loads(file.read_text())
    for name, multiple in measured.items():
        known = baseline.get(name)
        print(f"{name}: {multiple:.3f}" + (f", {multiple / known:.2f} of the baseline" if known else ", new"))
    too_slow = slower(measured, baseline)
    for name, factor in too_slow.items():
        print(f"{name} is {factor:.1f} times as slow as it was", file=sys.stderr)
    return 1 if too_slow else 0


if __name__ == "__main__":
    sys.exit(main())
