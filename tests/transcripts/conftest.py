"""The judge's transcripts are collected only where they are; where they are not, `scripts/test` says so in one line."""

from tests.transcripts.datadriven import folder

JUDGED = ["test_confchange.py", "test_interaction.py", "test_judge.py", "test_quorum.py"]
collect_ignore = [] if folder("quorum") else JUDGED
