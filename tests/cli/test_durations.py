import pytest
from hypothesis import given
from hypothesis.strategies import integers

from conclave.cli.durations import go_duration, human_seconds, parse_duration

SECOND = 10**9


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("60", 60 * SECOND),
        ("-5", -5 * SECOND),
        ("1h30m", 5400 * SECOND),
        ("-1.5s", -3 * SECOND // 2),
        ("2d", 172800 * SECOND),
        ("100ms", SECOND // 10),
        (".5s", SECOND // 2),
        ("0", 0),
    ],
)
def test_a_duration_is_read(text: str, nanoseconds: int) -> None:
    assert parse_duration(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "-", "abc", "1x", "1.2.3s", ".s", "1h 2m", "٣", "1.5"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^time: "):
        parse_duration(text)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1500, "1.5µs"),
        (905_858_358, "905.858358ms"),
        (90 * SECOND, "1m30s"),
        (3600 * SECOND, "1h0m0s"),
        (-SECOND, "-1s"),
        (2 * SECOND + 1, "2.000000001s"),
    ],
)
def test_a_duration_is_written_as_go_does(nanoseconds: int, text: str) -> None:
    assert go_duration(nanoseconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (2764800, "768h"),
        (2764799, "767h59m59s"),
        (1800, "30m"),
        (0, "0s"),
        (90, "1m30s"),
        (3601, "1h0m1s"),
        (36000, "10h"),
    ],
)
def test_a_reader_sees_no_zeros_at_the_end(seconds: int, text: str) -> None:
    assert human_seconds(seconds) == text


@given(nanoseconds=integers(-(2**62), 2**62))
def test_what_is_written_is_read_again(nanoseconds: int) -> None:
    assert parse_duration(go_duration(nanoseconds)) == nanoseconds
