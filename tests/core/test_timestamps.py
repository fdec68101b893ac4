"""Points in time as the API spells them."""

import pytest

from conclave.core.timestamps import rfc3339


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_795_480_561_344_931_010, "2026-11-24T00:36:01.34493101Z"),
        (1_709_251_199_999_999_999, "2024-02-29T23:59:59.999999999Z"),
        (1_709_251_200_000_000_000, "2024-03-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
    ],
)
def test_a_point_in_time_is_spelled_in_utc_without_zeros_at_its_end(time_ns: int, text: str) -> None:
    assert rfc3339(time_ns) == text
