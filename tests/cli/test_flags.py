from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis.strategies import booleans, dictionaries, integers, lists, sampled_from, text

from conclave.cli.errors import UsageError
from conclave.cli.flags import Flag, Kind, Parsed, parse_flags

FLAGS = (
    Flag("format", "", default="table", variable="FORMAT"),
    Flag("cas", "", Kind.INTEGER, -1),
    Flag("limit", "", Kind.COUNT),
    Flag("force", "", Kind.BOOLEAN, aliases=("f",)),
    Flag("ttl", "", Kind.DURATION),
    Flag("policy", "", Kind.TEXTS),
    Flag("metadata", "", Kind.PAIRS),
)


def parse(*words: str, **environment: str) -> Parsed:
    return parse_flags(FLAGS, words, environment)


@pytest.mark.parametrize("words", [["-cas=3"], ["--cas=3"], ["-cas", "3"], ["--cas", "3"]])
def test_a_flag_has_one_or_two_dashes_and_its_value_in_the_same_or_the_next_word(words: list[str]) -> None:
    assert parse(*words).values.integer("cas") == 3


def test_a_boolean_takes_no_next_word() -> None:
    parsed = parse("-force", "path")

    assert parsed.values.boolean("force")
    assert parsed.arguments == ["path"]


def test_a_boolean_can_be_switched_off() -> None:
    assert not parse("-force=false").values.boolean("force")


def test_an_alias_is_the_same_flag() -> None:
    assert parse("-f").values.boolean("force")


def test_the_first_argument_ends_the_flags() -> None:
    parsed = parse("path", "-cas=3")

    assert parsed.values.integer("cas") == -1
    assert parsed.arguments == ["path", "-cas=3"]
    assert parsed.overlooked == ["-cas=3"]


def test_the_format_is_understood_behind_the_arguments_too() -> None:
    parsed = parse("path", "a=b", "-format=json")

    assert parsed.values.text("format") == "json"
    assert parsed.arguments == ["path", "a=b"]


def test_two_dashes_alone_end_the_flags() -> None:
    assert parse("-force", "--", "-cas=3", "-format=json").arguments == ["-cas=3", "-format=json"]


def test_a_dash_alone_is_an_argument() -> None:
    parsed = parse("-force", "-")

    assert parsed.arguments == ["-"]
    assert parsed.overlooked == []


def test_a_flag_that_collects_keeps_all_in_order() -> None:
    parsed = parse("-policy=a", "-policy", "b", "-metadata=x=1", "-metadata=y=2=3")

    assert parsed.values.texts("policy") == ["a", "b"]
    assert parsed.values.pairs("metadata") == {"x": "1", "y": "2=3"}


def test_a_duration_is_kept_in_nanoseconds() -> None:
    assert parse("-ttl=1h30m").values.integer("ttl") == 5400 * 10**9


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("-nope", "flag provided but not defined: -nope"),
        ("--nope=1", "flag provided but not defined: -nope"),
        ("---x", "bad flag syntax: ---x"),
        ("-=x", "bad flag syntax: -=x"),
        ("-cas", "flag needs an argument: -cas"),
        ("-cas=x", 'invalid value "x" for flag -cas: strconv.ParseInt: parsing "x": invalid syntax'),
        ("-cas=٣", 'invalid value "٣" for flag -cas: strconv.ParseInt: parsing "٣": invalid syntax'),
        ("-limit=-1", 'invalid value "-1" for flag -limit: strconv.ParseUint: parsing "-1": invalid syntax'),
        ("-force=x", 'invalid boolean value "x" for -force: strconv.ParseBool: parsing "x": invalid syntax'),
        ("-ttl=abc", 'invalid value "abc" for flag -ttl: time: invalid duration "abc"'),
        ("-metadata=x", 'invalid value "x" for flag -metadata: missing = in KV pair: "x"'),
    ],
)
def test_what_is_wrong_is_said_in_the_words_of_go(word: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(word)

    assert str(raised.value) == message


def test_the_environment_stands_in_for_a_flag() -> None:
    assert parse(VAULT_FORMAT="yaml").values.text("format") == "yaml"
    assert parse(VAULT_FORMAT="yaml", BAO_FORMAT="json").values.text("format") == "json"
    assert parse("-format=raw", BAO_FORMAT="json").values.text("format") == "raw"


def test_an_empty_variable_counts_as_not_set() -> None:
    parsed = parse(BAO_FORMAT="", VAULT_FORMAT="yaml")

    assert parsed.values.text("format") == "yaml"
    assert not parse(BAO_FORMAT="").values.is_given("format")


words = text("abcxyz=-", min_size=1, max_size=6)


@given(
    numbers=dictionaries(sampled_from(["cas", "limit"]), integers(0, 2**40)),
    policies=lists(words, max_size=3),
    dashes=sampled_from(["-", "--"]),
    joined=booleans(),
    arguments=lists(text("abc=", min_size=1, max_size=5), max_size=3),
)
def test_what_was_written_is_what_is_read(
    numbers: dict[str, int], policies: list[str], dashes: str, joined: bool, arguments: list[str]
) -> None:
    given_flags = [*((name, str(value)) for name, value in numbers.items()), *(("policy", p) for p in policies)]
    line = [w for name, v in given_flags for w in ([f"{dashes}{name}={v}"] if joined else [dashes + name, v])]

    parsed = parse(*line, *arguments)

    assert parsed.arguments == arguments
    assert parsed.values.texts("policy") == policies
    assert {name: parsed.values.integer(name) for name in numbers} == numbers


@given(line=lists(text("-=abcf \u00e9", max_size=6), max_size=6))
def test_any_line_is_parsed_or_refused_in_words(line: list[str]) -> None:
    with suppress(UsageError):
        assert len(parse(*line).arguments) <= len(line)
