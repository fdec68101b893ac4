"""Nodes that die, freeze and are cut off under load: nothing acknowledged is lost, nothing happens twice, no read goes back.

Short runs of what `python -m tests.processes` makes long ones of (docs/reliability.md). Times are not judged here: other$
tests want the same cores.
"""

from pathlib import Path

from tests.processes.chaos import Run, running
from tests.processes.chaos_plans import failover, kills

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
