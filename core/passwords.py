"""Password policies: how long a generated password is, and which characters it is made of.

    length = 20
    rule "charset" { charset = "abcdefghijklmnopqrstuvwxyz" min-chars = 1 }
    rule "charset" { charset = "0123456789"                 min-chars = 2 }

A password first gets what each rule asks for, the rest from all characters together, and is then shuffled: so making one
always ends, however the rules are. Pure; randomness comes in. Source: Vault's page "Password policies"; texts recorded
from a real server.
"""

from collections.abc import Callable
from typing import Final

from msgspec import Struct

from conclave.core import hcl
from conclave.core.errors import InvalidRequest

LENGTH_MIN: Final = 4
LENGTH_MAX: Final = 100
CHARSET_CHARACTERS_MAX: Final = 10_000
"""The most characters that the rules of one policy can name together."""
_WORD_BYTES: Final = 8


class CharsetRule(Struct, frozen=True):
    """Some of these characters have to be in it."""

    charset: str  # sorted, each character once
    count_min: int = 0


class PasswordPolicy(Struct, frozen=True):
    """What a password has to be like."""

    length: int
    rules: tuple[CharsetRule, ...]


def parse_password_policy(text: str) -> PasswordPolicy:
    """Read a password policy, in HCL or JSON.

    Raises:
        InvalidRequest: what is wrong with it, in Vault's words.
    """
    try:
        body = hcl.parse(text).body
        policy = PasswordPolicy(
            _whole_number(body, "length"), tuple(_parse_rule(block) for block in body.blocks("rule"))
        )
    except hcl.HclError as error:
        raise InvalidRequest(_one_error(f"invalid password policy: unable to decode: {error}")) from None
    _check(policy)
    return policy


def generate_password(policy: PasswordPolicy, random: Callable[[int], bytes]) -> str:
    """Return a password of this policy.

    Args:
        policy: as `parse_password_policy` gave it.
        random: returns so many random bytes.
    """
    everything = "".join(sorted({character for rule in policy.rules for character in rule.charset}))
    asked_for = [rule.charset for rule in policy.rules for _ in range(rule.count_min)]
    charsets = asked_for + [everything] * (policy.length - len(asked_for))
    characters = [charset[_below(len(charset), random)] for charset in charsets]
    for last in range(len(characters) - 1, 0, -1):  # Fisher and Yates
        other = _below(last + 1, random)
        characters[last], characters[other] = characters[other], characters[last]
    return "".join(characters)


def _below(bound: int, random: Callable[[int], bytes]) -> int:
    """Return a whole number from 0 to `bound` - 1, each as likely as the others."""
    limit = 256**_WORD_BYTES // bound * bound
    while True:
        number = int.from_bytes(random(_WORD_BYTES), "big")
        if number < limit:  # what lies above would make small numbers likelier
            return number % bound


def _parse_rule(block: hcl.Item) -> CharsetRule:
    kind = block.labels[0]
    if kind != "charset":
        problem = f"unable to parse rules: unable to parse rule {kind}: unrecognized rule type {kind}"
        raise InvalidRequest(_one_error(f"invalid password policy: {problem}"))
    charset = block.value.get("charset")
    if charset is not None and not isinstance(charset.value, str):
        raise hcl.HclError("charset must be a string", charset.line)
    characters = "" if charset is None else charset.value
    if not characters.isprintable():
        raise hcl.HclError("a charset has printable characters only", block.line)
    return CharsetRule("".join(sorted(set(characters))), max(0, _whole_number(block.value, "min-chars")))


def _whole_number(body: hcl.Object, key: str) -> int:
    item = body.get(key)
    if item is None:
        return 0
    if isinstance(item.value, bool) or not isinstance(item.value, int):
        raise hcl.HclError(f"{key} must be a whole number", item.line)
    return item.value


def _check(policy: PasswordPolicy) -> None:
    if policy.length <= 0:
        _refuse("length must be > 0")
    if not any(rule.charset for rule in policy.rules):
        _refuse("no charset specified")
    if any(rule.count_min and not rule.charset for rule in policy.rules):
        _refuse("a rule that asks for characters names none")
    if sum(len(rule.charset) for rule in policy.rules) > CHARSET_CHARACTERS_MAX:
        _refuse(f"the rules name more than {CHARSET_CHARACTERS_MAX} characters")
    needed = sum(rule.count_min for rule in policy.rules)
    if needed > policy.length:
        _refuse(f"specified rules require at least {needed} characters but {policy.length} is specified")
    if not LENGTH_MIN <= policy.length <= LENGTH_MAX:
        raise InvalidRequest(_one_error(f"passwords must be between {LENGTH_MIN} and {LENGTH_MAX} characters"))


def _refuse(problem: str) -> None:
    raise InvalidRequest(_one_error(f"invalid password policy: {_one_error(problem)}"))


def _one_error(text: str) -> str:
    return f"1 error occurred:\n\t* {text}\n\n"
