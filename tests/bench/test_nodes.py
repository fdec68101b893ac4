"""bench/nodes.py: what a cluster is said to have used, and that nothing of it stays."""

import os
import subprocess
import sys
from pathlib import Path

from bench.nodes import written_to_disk


def test_what_is_written_to_a_file_counts_as_given_to_its_disk(tmp_path: Path) -> None:
    before = written_to_disk(tmp_path)
    tmp_path.joinpath("file").write_bytes(os.urandom(1 << 20))

    after = written_to_disk(tmp_path)

    # A file system in memory, or one of several disks, has none of its own.
    assert (before is None) is (after is None)
    assert before is None or after is None or after - before >= 1 << 20


def test_a_file_system_without_a_disk_has_nothing_to_tell() -> None:
    assert written_to_disk(Path("/proc")) is None


def test_a_child_that_nobody_knows_of_any_more_is_ended() -> None:
    left = (
        "import subprocess; print(subprocess.Popen(['sleep', '600'], start_new_session=True, stdout=2).pid, flush=True)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", f"{left}; from bench.nodes import end_children; end_children()"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
        timeout=60,
    )

    assert not Path(f"/proc/{int(ended.stdout)}").exists()
