"""The judge's transcripts are collected only where they are; where they are not, `scripts/test` says so in one line."""

from tests.transcripts.datadriven import folder

collect_ignore = [] if folder("quorum") else ["test_confchange.py", "test_interaction.py", "test_quorum.py"]
