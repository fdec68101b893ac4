"""Membership changes against the judge's transcripts, verbatim, error texts included."""

from pathlib import Path

import pytest

from conclave.cluster.raft import ConfChange, ConfChangeError
from conclave.cluster.raft.confchange import Changer, Members
from conclave.cluster.raft.progress import Inflights, Progress
from conclave.cluster.raft.tracker import Configuration
from tests.transcripts.datadriven import Case, files, read
from tests.transcripts.printing import CHANGE_KINDS, configuration_line, progress_line

FILES = files("confchange")


def _changes(text: str) -> list[ConfChange]:
    return [ConfChange(CHANGE_KINDS[word[0]], int(word[1:])) for word in text.split()]


def _run(case: Case, changer: Changer) -> Members:
    if case.command == "simple":
        return changer.simple(_changes(case.input))
    if case.command == "enter-joint":
        return changer.enter_joint(_changes(case.input), auto_leave=case.flag("autoleave", "false") == "true")
    assert case.command == "leave-joint", case.place
    return changer.leave_joint()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_membership_changes_agree_with_the_judge(path: Path) -> None:
    members: Members = (Configuration(), {})
    for last_index, case in enumerate(read(path)):

        def new_progress(next_index: int = max(last_index, 1)) -> Progress:
            return Progress(next_index, Inflights(10, 2**63), recently_active=True)

        try:
            members = _run(case, Changer(*members, new_progress))
        except ConfChangeError as error:
            printed = str(error)
        else:
            configuration, progress = members
            lines = [configuration_line(configuration)]
            lines += [progress_line(node, progress[node], configuration) for node in sorted(progress)]
            printed = "\n".join(lines)

        assert printed == case.expected, case.place
