"""The histories that were played by hand keep every promise."""

from collections.abc import Callable

import pytest

from tests.simulator.histories import HISTORIES


@pytest.mark.parametrize("history", HISTORIES, ids=lambda history: history.__name__)
def test_a_history_played_by_hand_breaks_no_promise(history: Callable[[], None]) -> None:
    history()
