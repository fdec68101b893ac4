"""The histories that were played by hand keep every promise."""

from collections.abc import Callable

import pytest

from tests.simulator.disk_histories import DISK_HISTORIES
from tests.simulator.histories import HISTORIES
from tests.simulator.lease_histories import LEASE_HISTORIES


@pytest.mark.parametrize("history", HISTORIES + LEASE_HISTORIES + DISK_HISTORIES, ids=lambda history: history.__name__)
def test_a_history_played_by_hand_breaks_no_promise(history: Callable[[], None]) -> None:
    history()
