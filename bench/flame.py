"""A flame graph of a node during an operation, by py-spy: which functions its processor is in, native ones included."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.nodes import Cluster
from bench.operations import WARM_UP_SECONDS, Operation
from bench.report import RESULTS

SAMPLES_A_SECOND: Final = 500
BESIDE_SECONDS: Final = 3
"""The load lasts so much longer than the recording, which begins and ends within it."""


def record(operation: Operation, cluster: Cluster, play: Callable[[], object], seconds: int) -> Path:
    """Play an operation, and return the flame graph of the node that is asked.

    Args:
        operation: what is played.
        cluster: on which it is.
        play: plays it once, after its warm-up, for `BESIDE_SECONDS` more than `seconds`.
        seconds: how long is recorded.
    """
    spy = Path(sys.executable).with_name("py-spy")
    command = str(spy) if spy.exists() else shutil.which("py-spy")
    if command is None:
        raise SystemExit("py-spy is not installed: scripts/bench installs it")
    node = cluster.standbys[0] if operation.on_standby else cluster.leader
    assert node.process is not None, "the cluster runs"
    file = RESULTS / f"local-{operation.name.replace(' ', '-').replace(',', '')}.svg"
    # Only who holds the interpreter: the others wait for the disk, for requests, or for it.
    options = ["--rate", str(SAMPLES_A_SECOND), "--duration", str(seconds), "--native", "--gil", "--output", str(file)]
    recorder = subprocess.Popen(
        [
            "sh",
            "-c",
            f'sleep {WARM_UP_SECONDS + 1}; exec "$@"',
            "sh",
            command,
            "record",
            "--pid",
            str(node.process.pid),
            *options,
        ]
    )
    play()
    if recorder.wait(timeout=10 * seconds + 30) != 0:
        raise SystemExit("py-spy could not record: it needs the right to trace processes (root, or CAP_SYS_PTRACE)")
    # It is headed by the command, which holds paths of this machine.
    file.write_text(re.sub(r'(<text id="title"[^>]*>)[^<]*', rf"\g<1>{operation.name}", file.read_text()))
    return file
