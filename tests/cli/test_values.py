from io import StringIO
from pathlib import Path

import pytest

from conclave.cli.errors import UsageError
from conclave.cli.values import parse_data, parse_params

MALFORMED = "Failed to parse K=V data: invalid key/value pair"


def test_a_value_is_a_text() -> None:
    assert parse_data(["a=1", "b=x=y", "c="], StringIO()) == {"a": "1", "b": "x=y", "c": ""}


def test_a_key_that_comes_again_makes_a_list() -> None:
    assert parse_data(["a=1", "a=2", "a=3"], StringIO()) == {"a": ["1", "2", "3"]}


def test_a_value_can_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("s3cret\n")

    assert parse_data([f"a=@{file}", r"b=\@x"], StringIO()) == {"a": "s3cret\n", "b": "@x"}


def test_a_value_can_come_from_stdin() -> None:
    assert parse_data(["a=-"], StringIO("typed")) == {"a": "typed"}


def test_a_whole_object_can_come_from_stdin_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    file.write_text('{"n": 1.50, "t": true}')

    assert parse_data(["-", "c=2"], StringIO('{"j": {"k": 1}}')) == {"j": {"k": 1}, "c": "2"}
    assert parse_data([f"@{file}"], StringIO()) == {"n": 1.5, "t": True}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("plain", 'Failed to parse K=V data: invalid key/value pair "plain": format must be key=value'),
        ("a=@none.json", f'{MALFORMED} "a=@none.json": error reading file: open none.json: no such file or directory'),
        (
            "@none.json",
            'Failed to parse K=V data: invalid key/value pair "@none.json": open none.json: no such file or directory',
        ),
        ("-", 'Failed to parse K=V data: invalid key/value pair "-": it must be a JSON object'),
    ],
)
def test_what_cannot_be_read_is_refused(word: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_data([word], StringIO("[1]"))

    assert str(raised.value) == message


def test_a_query_has_texts_only() -> None:
    assert parse_params(["-", "a=1", "a=2"], StringIO('{"n": 1}')) == {"n": "1", "a": ["1", "2"]}
