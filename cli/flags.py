"""Command-line flags with Go's grammar, which is what users of Vault's command line have in their fingers.

The rules: `-name` and `--name` are the same; a value follows as `-name=value` or `-name value`; a boolean takes a value
only after "="; the first word that is no flag ends the flags, and so does "--"; "-" alone is an argument (stdin).
A flag that may be given several times collects. An environment variable stands in for a flag that was not given.
Pure: the environment comes in as a mapping. Source: the documentation of Go's package flag.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final, NamedTuple, TypeAlias

from conclave.cli.durations import parse_duration
from conclave.cli.errors import UsageError

Value: TypeAlias = str | bool | int | list[str] | dict[str, str] | None


class Kind(Enum):
    """What a flag takes; the value is the word shown in help."""

    TEXT = "string"
    BOOLEAN = "bool"
    INTEGER = "int"
    COUNT = "uint"
    DURATION = "duration"
    TEXTS = "strings"
    PAIRS = "key=value"


class Flag(NamedTuple):
    """One flag of a command.

    Attributes:
        name: without dashes.
        help: full sentences, shown by `-h`.
        kind: what it takes; a DURATION is kept in nanoseconds.
        default: the value when it is not given; None means "not said", and the server decides.
        variable: the environment variable that stands in for it, without the prefix BAO_ or VAULT_.
        aliases: other names of the same flag.
    """

    name: str
    help: str
    kind: Kind = Kind.TEXT
    default: Value = None
    variable: str = ""
    aliases: tuple[str, ...] = ()


# Given after the arguments these are still understood: people append them to the line they have just run.
TRAILING: Final = frozenset({"format", "output-curl-string", "output-policy"})


class Values:
    """The parsed flags of one command line; asking for the wrong type is a bug of the command."""

    def __init__(self, values: dict[str, Value], given: frozenset[str]) -> None:
        self._values = values
        self._given = given

    def is_given(self, name: str) -> bool:
        """Tell whether the flag stood on the command line or in the environment."""
        return name in self._given

    def text(self, name: str) -> str:
        """Return a text, "" when it was not given."""
        value = self._values.get(name)
        return value if isinstance(value, str) else ""

    def boolean(self, name: str) -> bool:
        """Return a boolean, False when it was not given."""
        return bool(self._values.get(name))

    def integer(self, name: str) -> int:
        """Return a number (nanoseconds for a duration), 0 when it was not given."""
        value = self._values.get(name)
        return value if isinstance(value, int) else 0

    def texts(self, name: str) -> list[str]:
        """Return all texts that were given, in order."""
        value = self._values.get(name)
        return list(value) if isinstance(value, list) else []

    def pairs(self, name: str) -> dict[str, str]:
        """Return all pairs that were given; of one key, the last."""
        value = self._values.get(name)
        return dict(value) if isinstance(value, dict) else {}


class Parsed(NamedTuple):
    """A command line taken apart.

    Attributes:
        values: the flags.
        arguments: what is left, in order.
        overlooked: arguments that look like flags but came too late to be taken for some.
    """

    values: Values
    arguments: list[str]
    overlooked: list[str]


def parse_flags(flags: Sequence[Flag], words: Sequence[str], environment: Mapping[str, str]) -> Parsed:
    """Take a command line apart.

    Raises:
        UsageError: an unknown flag, a missing value, or a value of the wrong kind.
    """
    by_name = {name: flag for flag in flags for name in (flag.name, *flag.aliases)}
    values: dict[str, Value] = {flag.name: flag.default for flag in flags}
    given: set[str] = set()
    for flag in flags:
        text = setting(environment, flag.variable) if flag.variable else ""
        if text:
            _store(flag, flag.name, text, values, given)
    rest = list(words)
    while rest:
        word = rest[0]
        if word == "--":
            return Parsed(Values(values, frozenset(given)), rest[1:], [])
        if not word.startswith("-") or word == "-":
            break
        rest = _take(by_name, rest, values, given)
    arguments: list[str] = []
    while rest:
        name = rest[0].lstrip("-").partition("=")[0]
        if rest[0].startswith("-") and name in TRAILING and name in by_name:
            rest = _take(by_name, rest, values, given)
        else:
            arguments.append(rest.pop(0))
    overlooked = [word for word in arguments if word.startswith("-") and word != "-"]
    return Parsed(Values(values, frozenset(given)), arguments, overlooked)


def setting(environment: Mapping[str, str], name: str) -> str:
    """Return BAO_<name>, else VAULT_<name>, else ""; empty counts as not set."""
    return environment.get("BAO_" + name) or environment.get("VAULT_" + name) or ""


def _take(by_name: Mapping[str, Flag], words: list[str], values: dict[str, Value], given: set[str]) -> list[str]:
    """Read one flag at the front of `words`; return what follows it."""
    word, rest = words[0], words[1:]
    body = word[2:] if word.startswith("--") else word[1:]
    name, has_value, text = body.partition("=")
    if not name or name.startswith("-"):
        raise UsageError(f"bad flag syntax: {word}")
    flag = by_name.get(name)
    if flag is None:
        raise UsageError(f"flag provided but not defined: -{name}")
    if not has_value:
        if flag.kind is Kind.BOOLEAN:
            text = "true"
        elif rest:
            text, rest = rest[0], rest[1:]
        else:
            raise UsageError(f"flag needs an argument: -{name}")
    _store(flag, name, text, values, given)
    return rest


def _store(flag: Flag, name: str, text: str, values: dict[str, Value], given: set[str]) -> None:
    """Convert `text` and keep it; a collecting flag adds to what this command line gave before."""
    before = values[flag.name] if flag.name in given else None
    if flag.kind is Kind.TEXTS:
        values[flag.name] = [*(before if isinstance(before, list) else []), text]
    elif flag.kind is Kind.PAIRS:
        key, has_value, value = text.partition("=")
        if not has_value:
            raise UsageError(f'invalid value "{text}" for flag -{name}: missing = in KV pair: "{text}"')
        values[flag.name] = {**(before if isinstance(before, dict) else {}), key: value}
    else:
        values[flag.name] = _convert(flag.kind, name, text)
    given.add(flag.name)


_TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "false", "FALSE", "False"})


def _convert(kind: Kind, name: str, text: str) -> Value:
    if kind is Kind.TEXT:
        return text
    if kind is Kind.BOOLEAN:
        if text not in _TRUE | _FALSE:
            raise UsageError(
                f'invalid boolean value "{text}" for -{name}: strconv.ParseBool: parsing "{text}": invalid syntax'
            )
        return text in _TRUE
    if kind is Kind.DURATION:
        try:
            return parse_duration(text)
        except ValueError as error:
            raise UsageError(f'invalid value "{text}" for flag -{name}: {error}') from error
    function = "ParseUint" if kind is Kind.COUNT else "ParseInt"
    digits = text.removeprefix("-") if kind is Kind.INTEGER else text
    if not (digits.isascii() and digits.isdigit()):
        raise UsageError(
            f'invalid value "{text}" for flag -{name}: strconv.{function}: parsing "{text}": invalid syntax'
        )
    return int(text)
