"""What an audit log may show: nothing that a client could have meant to keep to itself."""

import pytest

from conclave.core.audit_records import PREFIX, Style, hasher, hidden

STYLE = Style(hasher(b"k" * 32), hasher(b"k" * 32))


def test_every_text_is_hashed_and_keys_are_not() -> None:
    shown = hidden({"a": "secret", "b": [1, True, None, "secret"], "c": {"d": "secret"}}, STYLE)

    assert list(shown) == ["a", "b", "c"]
    assert shown["b"][:3] == [1, True, None]
    assert all(text.startswith(PREFIX) for text in (shown["a"], shown["b"][3], shown["c"]["d"]))


def test_a_key_that_is_left_legible_is_so_at_the_top_alone() -> None:
    shown = hidden({"name": "x", "data": {"name": "secret"}, "more": [{"name": "secret"}]}, STYLE, ["name"])

    assert shown["name"] == "x"
    assert shown["data"]["name"].startswith(PREFIX)
    assert shown["more"][0]["name"].startswith(PREFIX)


def test_times_stay_legible() -> None:
    time = "2026-11-24T00:06:01.344931012Z"

    assert hidden({"created_time": time}, STYLE) == {"created_time": time}


@pytest.mark.parametrize("text", ["1234correct horse Z", "2026-11-24 00:06:01Z", "2026-11-24T00:06:01Z\n", "", "Z"])
def test_a_secret_under_the_name_of_a_time_is_hashed(text: str) -> None:
    assert hidden({"created_time": text}, STYLE)["created_time"].startswith(PREFIX)
