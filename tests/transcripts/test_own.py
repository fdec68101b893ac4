"""Our own transcripts still say what they said."""

from pathlib import Path

import pytest

from tests.transcripts.datadriven import read
from tests.transcripts.own import Play, files


@pytest.mark.parametrize("path", files(), ids=lambda path: path.stem)
def test_a_cluster_does_what_our_transcript_says(path: Path) -> None:
    play = Play()
    for case in read(path):
        printed = play.run(case)

        assert printed == case.expected, case.place
