"""bench/report.py: which commit was measured."""

import subprocess
from pathlib import Path

from bench.report import WRITTEN, commit_of


def git(folder: Path, *arguments: str) -> None:
    user = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    subprocess.run(["git", *user, *arguments], check=True, cwd=folder, capture_output=True)


def test_a_commit_is_told_with_a_plus_if_the_program_differs_from_it(tmp_path: Path) -> None:
    git(tmp_path, "init")
    for name in ("program.py", *(f"{path}/x" if "." not in path else path for path in WRITTEN)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("before")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "all")
    commit = commit_of(tmp_path)
    assert len(commit) == 10

    (tmp_path / "bench/results/x").write_text("measured")
    (tmp_path / "docs/performance.md").write_text("written")
    assert commit_of(tmp_path) == commit

    (tmp_path / "program.py").write_text("after")
    assert commit_of(tmp_path) == f"{commit}+"


def test_outside_a_repository_there_is_none(tmp_path: Path) -> None:
    assert commit_of(tmp_path) == ""
