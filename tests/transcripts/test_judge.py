"""All of the judge's files are there and read to their end: one that has vanished would not fail, it would not be run."""

import pytest

from tests.transcripts.datadriven import files, read


@pytest.mark.parametrize(
    ("kind", "file_count", "case_count"), [("interaction", 28, 558), ("confchange", 9, 58), ("quorum", 4, 127)]
)
def test_every_case_of_the_judge_is_found(kind: str, file_count: int, case_count: int) -> None:
    """The numbers are those of etcd-io/raft at commit cdfbeed (2026-08-20)."""
    found = files(kind)

    assert (len(found), sum(1 for path in found for _ in read(path))) == (file_count, case_count)
