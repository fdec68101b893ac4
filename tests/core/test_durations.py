"""core/durations.py: Go's spelling of durations, read and written."""

import pytest
from hypothesis import given
from hypothesis.strategies import integers, text

from conclave.core.durations import format_duration, format_short, parse_duration_ns, parse_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", 0),
        ("0", 0),
        ("90", 90),
        ("-5", -5),
        ("1h", 3600),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("2d", 172_800),
        ("-1m1s", -61),
        ("999ms", 0),
        (" 10s ", 10),
    ],
)
def test_text_is_read_as_whole_seconds(text: str, seconds: int) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("abc", 'time: invalid duration "abc"'),
        ("1x", 'time: unknown unit "x" in duration "1x"'),
        ("1.5", 'time: missing unit in duration "1.5"'),
        ("-", 'time: invalid duration "-"'),
        (".s", 'time: invalid duration ".s"'),
        ("9" * 30 + "h", f'time: invalid duration "{"9" * 30}h"'),
        ("300000000h", 'time: invalid duration "300000000h"'),
    ],
)
def test_what_is_no_duration_is_refused_in_gos_words(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^time: ") as refused:
        parse_duration_ns(text)

    assert str(refused.value) == message


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e30])
def test_a_number_beyond_every_duration_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match=r"^time: invalid duration"):
        parse_seconds(number)


@pytest.mark.parametrize(
    ("seconds", "long", "short"),
    [
        (0, "0s", "0s"),
        (5, "5s", "5s"),
        (60, "1m0s", "1m"),
        (90, "1m30s", "1m30s"),
        (3600, "1h0m0s", "1h"),
        (5400, "1h30m0s", "1h30m"),
        (2_764_800, "768h0m0s", "768h"),
        (1.5, "1.5s", "1.5s"),
        (0.3, "300ms", "300ms"),
        (-61, "-1m1s", "-1m1s"),
    ],
)
def test_durations_are_written_as_go_writes_them(seconds: float, long: str, short: str) -> None:
    assert (format_duration(seconds), format_short(seconds)) == (long, short)


@given(integers(-(2**33), 2**33))
def test_what_is_written_is_read_back(seconds: int) -> None:
    assert parse_seconds(format_duration(seconds)) == seconds
    assert parse_seconds(format_short(seconds)) == seconds


@given(text())
def test_no_text_raises_anything_but_a_value_error(anything: str) -> None:
    try:
        parse_duration_ns(anything)
    except ValueError:
        return
