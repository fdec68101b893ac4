"""What the measurements with much data rest on: bounds, and files that are damaged without a copy."""

import io

import pytest

from bench.stress_cluster import _Damaged
from bench.stress_report import held_to, told

CONTENT = bytes(range(100))


@pytest.mark.parametrize(("value", "is_held"), [(1.9, True), (2.0, True), (2.1, False)])
def test_a_bound_is_the_most_that_a_figure_may_be(value: float, is_held: bool) -> None:
    check = held_to("open", "open", value, 2.0, "s")

    assert check.is_held is is_held
    assert ("MISSED" in str(check)) is not is_held


def test_a_figure_without_a_bound_is_only_told() -> None:
    assert told("open", "size", 1e9, "MB").is_held


@pytest.mark.parametrize("count", [1, 7, 100, 1000])
@pytest.mark.parametrize("position", [0, 50, 99])
def test_one_byte_is_changed_and_no_other(position: int, count: int) -> None:
    damaged = _Damaged(io.BytesIO(CONTENT), position, flip=4)

    content = b"".join(iter(lambda: damaged.read(count), b""))

    assert [place for place in range(100) if content[place] != CONTENT[place]] == [position]
    assert content[position] == CONTENT[position] ^ 4


@pytest.mark.parametrize("count", [1, 7, 100, 1000])
def test_a_file_is_cut_at_its_position(count: int) -> None:
    damaged = _Damaged(io.BytesIO(CONTENT), 60, flip=0)

    assert b"".join(iter(lambda: damaged.read(count), b"")) == CONTENT[:60]
