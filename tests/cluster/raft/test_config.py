"""Settings that cannot work are refused."""

from typing import Any

import pytest

from conclave.cluster.raft import RaftConfig, ReadOnly


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"id": 0}, "id"),
        ({"heartbeat_ticks": 0}, "heartbeat_ticks"),
        ({"election_ticks": 2, "heartbeat_ticks": 2}, "election_ticks"),
        ({"lease_ticks": 0}, "lease_ticks"),
        ({"lease_ticks": 11}, "lease_ticks"),
        ({"max_inflight_messages": 0}, "max_inflight_messages"),
        ({"max_inflight_bytes": 1}, "max_inflight_bytes"),
        ({"read_only": ReadOnly.LEASE, "check_quorum": False}, "check_quorum"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        RaftConfig(**{"id": 1, "election_ticks": 10, "heartbeat_ticks": 1, **settings})
