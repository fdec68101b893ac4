"""Nodes that die, freeze and are cut off under load: nothing acknowledged is lost, nothing happens twice, no read goes back.

Short runs of what `python -m tests.processes` makes long ones of (docs/reliability.md). Times are not judged here: other$
tests want the same cores.
"""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.processes.chaos import NAMES, Run, running
from tests.processes.chaos_plans import failover, kills
from tests.processes.nodes import WAIT_SECONDS_MAX, wait_until

ROOT = Path(__file__).parents[2]

HARM_SECONDS = 0.6


def test_any_node_may_be_killed_at_any_moment(tmp_path: Path) -> None:
    with running(tmp_path, seed=1, has_wires=False) as run:
        run.harm_seconds = HARM_SECONDS
        kills(run, 5)
        verdict = run.finish()

    assert verdict.complaints == []
    assert [event.failed for event in verdict.events if event.fault == "kill"] == [[]] * 4


def test_a_leader_may_be_lost_in_any_way_while_clients_ask_a_standby(tmp_path: Path) -> None:
    with running(tmp_path, seed=2, has_wires=False) as run:
        run.harm_seconds = HARM_SECONDS
        failover(run, 1)
        verdict = run.finish()

    assert verdict.complaints == []
    assert [event.failed for event in verdict.events] == [[]] * 6


def test_members_wires_and_logs_may_fail_at_the_same_time_as_clients_write(tmp_path: Path) -> None:
    with running(tmp_path, seed=3) as run:
        run.harm_seconds = HARM_SECONDS
        for fault in (
            Run.cut_off,
            Run.cut_one_way,
            Run.replace_member,
            Run.demote_and_promote,
            Run.grow_and_shrink,
            Run.rot_log,
            Run.rot_state,
            Run.kill_all,
        ):
            fault(run)
        verdict = run.finish()

    assert verdict.complaints == []


def test_a_node_whose_disk_was_full_comes_back_by_itself(tmp_path: Path) -> None:
    """Needs the right to mount a file system, and fails without it."""
    with running(tmp_path, seed=4, has_small_disks=True) as run:
        run.harm_seconds = HARM_SECONDS
        run.fill_disk()
        verdict = run.finish()

    assert verdict.complaints == []


def test_a_run_that_is_told_to_end_ends_its_nodes(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.processes", "--kills", "1000"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as run:
        nodes: list[int] = []
        try:
            nodes = wait_until(lambda: _all_nodes(run.pid), "all nodes run")

            run.terminate()

            assert run.wait(WAIT_SECONDS_MAX) == 128 + signal.SIGTERM
            assert [node for node in nodes if Path(f"/proc/{node}").exists()] == []
        finally:
            run.kill()
            for node in nodes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(node, signal.SIGKILL)


def _all_nodes(run: int) -> list[int]:
    """Return the processes of a run's nodes; none as long as not all of them are there."""
    children = Path(f"/proc/{run}/task/{run}/children").read_text().split()
    nodes = [int(child) for child in children if b"server" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")]
    return nodes if len(nodes) == len(NAMES) else []
