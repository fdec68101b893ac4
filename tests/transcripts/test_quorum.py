"""Majorities and joint majorities against the judge's transcripts, verbatim."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from conclave.cluster.raft import quorum
from tests.transcripts.datadriven import Case, files, read

FILES = files("quorum")


def _members(case: Case) -> tuple[list[int], list[int], list[int]]:
    incoming = [int(v) for v in case.values("cfg")]
    outgoing = [] if case.values("cfgj") == ["zero"] else [int(v) for v in case.values("cfgj")]
    return incoming, outgoing, list(dict.fromkeys(incoming + outgoing))


def _describe(members: list[int], held: Mapping[int, int]) -> str:
    if not members:
        return "<empty majority quorum>"
    count = len(members)
    rows = [" " * count + "    idx"]
    for voter in sorted(members):
        if voter not in held:
            bar = "?" + " " * count
        else:
            rank = sum(1 for other in members if held.get(other, 0) < held[voter])
            bar = "x" * rank + ">" + " " * (count - rank)
        rows.append(f"{bar} {held.get(voter, 0):5d}    (id={voter:x})")
    return "\n".join(rows) + "\n"


def _committed(case: Case) -> str:
    incoming, outgoing, order = _members(case)
    held = {voter: int(index) for voter, index in zip(order, case.values("idx"), strict=True) if index != "_"}
    result = quorum.joint_committed_index(incoming, outgoing, held)
    assert quorum.joint_committed_index(outgoing, incoming, held) == result, "the halves are not symmetric"
    return _describe(order, held) + ("∞" if result == quorum.UNLIMITED_INDEX else str(result))


def _vote(case: Case) -> str:
    incoming, outgoing, order = _members(case)
    votes = {voter: vote == "y" for voter, vote in zip(order, case.values("votes"), strict=True) if vote != "_"}
    result = quorum.joint_vote_result(incoming, outgoing, votes)
    assert quorum.joint_vote_result(outgoing, incoming, votes) is result, "the halves are not symmetric"
    return f"Vote{result.value.capitalize()}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_quorums_agree_with_the_judge(path: Path) -> None:
    for case in read(path):
        printed = _vote(case) if case.command == "vote" else _committed(case)

        assert printed == case.expected, case.place
