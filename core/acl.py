"""A token's policies compiled: which request is allowed, and which capabilities a path has. Pure.

Rules of the same path in several policies become one: capabilities are united, `deny` beats all, parameter lists are
merged. For a request one rule decides, the most specific that matches; the others do not count:

    exact path  >  pattern whose first wildcard comes later  >  one that does not end in `*`  >  one with fewer `+`
                >  the longer  >  the one that sorts last

`*` stands at the end only and matches any rest; `+` as a whole segment matches one segment. Elsewhere both are ordinary
characters. The order does not depend on the path asked for, so patterns are sorted once and the first match wins.

A listing is asked for with a slash at its end: "secret/metadata/" is covered by `secret/metadata/*`, and also by an exact
rule without the slash, or if nothing else matches, by a pattern without it.

Source: Vault's page "Policies"; precedence measured on a real server, with which `tests/compat/policies.py` compares it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from conclave.core.contract import Operation
from conclave.core.doorkeeper import RepeatCache
from conclave.core.policies import ROOT, Policy, Rule, Scalar

CACHED_PATHS_MAX: Final = 1024
"""How many paths an Acl remembers the deciding rule of."""
CACHED_PATH_CHARACTERS_MAX: Final = 256
"""A longer path is remembered nowhere: clients choose paths, and so many of the longest would fill the memory."""

_CAPABILITY: Final = {
    Operation.READ: "read",
    Operation.CREATE: "create",
    Operation.UPDATE: "update",
    Operation.PATCH: "patch",
    Operation.DELETE: "delete",
    Operation.LIST: "list",
}
_WRITES: Final = frozenset({Operation.CREATE, Operation.UPDATE, Operation.PATCH})


class Permissions(Struct, frozen=True):
    """What all rules of one path allow together."""

    capabilities: frozenset[str]
    allowed: dict[str, list[Scalar]]
    denied: dict[str, list[Scalar]]
    required: frozenset[str]
    min_wrapping_ttl_seconds: int
    max_wrapping_ttl_seconds: int
    is_plain: bool  # no condition besides the capabilities

    @property
    def is_denied(self) -> bool:
        """Whether the path is closed whatever else is said."""
        return "deny" in self.capabilities


class _Pattern(Struct, frozen=True):
    path: str
    permissions: Permissions
    matches: Callable[[str], object]


class Acl:
    """What a token may do. Immutable but for a cache; shared by all tokens with the same policies."""

    __slots__ = ("_cache", "_exact", "_patterns", "is_root")

    def __init__(self, exact: dict[str, Permissions], patterns: list[_Pattern], *, is_root: bool) -> None:
        """Use `compile`."""
        self._exact = exact
        self._patterns = patterns
        self._cache: RepeatCache[str, Permissions | None] = RepeatCache(CACHED_PATHS_MAX)
        self.is_root = is_root

    @staticmethod
    def compile(policies: Sequence[Policy], fill: Callable[[str], str | None] | None = None) -> "Acl":
        """Compile policies.

        Args:
            policies: those that count for a token.
            fill: turns the path of a rule that has templates into one for whoever the token stands for; where it returns
                None, or is None itself, the rule is left out.
        """
        merged: dict[str, Permissions] = {}
        for policy in policies:
            for rule in policy.rules:
                path = rule.path if not rule.is_templated else fill(rule.path) if fill is not None else None
                if path is not None:
                    merged[path] = _merge(merged.get(path), rule)
        exact = {path: permissions for path, permissions in merged.items() if not is_pattern(path)}
        patterns = [
            _Pattern(path, merged[path], _matcher(path))
            for path in sorted(merged, key=_precedence, reverse=True)
            if is_pattern(path)
        ]
        return Acl(exact, patterns, is_root=any(policy.name == ROOT for policy in policies))

    def check(
        self,
        path: str,
        operation: Operation,
        *,
        parameters: Callable[[], Mapping[str, Any]] | None = None,
        sudo_needed: bool = False,
        exists: Callable[[], bool | None] | None = None,
        wrap_ttl_seconds: int | None = None,
    ) -> bool:
        """Whether a request is allowed.

        Args:
            path: without the version in front and, for a listing, with or without a slash at its end.
            operation: what is wanted; UPDATE becomes CREATE where `exists` returns False.
            parameters: gives the request's fields, asked only if a rule restricts them.
            sudo_needed: the path also takes the `sudo` capability.
            exists: tells whether a write would update, None where that makes no difference; asked only if the deciding rule
                tells one from the other.
            wrap_ttl_seconds: the lifetime asked for the wrapped answer; None if it is not to be wrapped.
        """
        if self.is_root:
            return True
        if operation is Operation.LIST and not path.endswith("/"):
            path += "/"
        found = self._find(path)
        if found is None or found.is_denied:
            return False
        granted = found.capabilities
        if operation is Operation.UPDATE and exists is not None and ("create" in granted) != ("update" in granted):
            operation = Operation.CREATE if exists() is False else operation
        if _CAPABILITY[operation] not in granted or (sudo_needed and "sudo" not in granted):
            return False
        if found.is_plain:
            return True
        if not _wrapping_fits(found, wrap_ttl_seconds):
            return False
        return operation not in _WRITES or _parameters_fit(found, parameters() if parameters is not None else {})

    def capabilities(self, path: str) -> list[str]:
        """Return what is allowed at a path, sorted; ["deny"] for nothing, ["root"] for everything."""
        if self.is_root:
            return ["root"]
        found = self._find(path)
        return ["deny"] if found is None else _shown(found)

    def described(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """Return the sorted capabilities of exact paths, and of prefixes (without their `*`); rules with `+` are left out."""
        exact = {path: _shown(permissions) for path, permissions in self._exact.items()}
        prefixes = {
            pattern.path[:-1]: _shown(pattern.permissions)
            for pattern in self._patterns
            if "+" not in pattern.path.split("/")
        }
        return exact, prefixes

    def reaches(self, prefix: str) -> bool:
        """Whether anything at all is allowed at or below `prefix` ("secret/")."""
        if self.is_root:
            return True
        rules = [*self._exact.items(), *((pattern.path, pattern.permissions) for pattern in self._patterns)]
        return any(
            permissions.capabilities and not permissions.is_denied and _overlaps(path, prefix)
            for path, permissions in rules
        )

    def _find(self, path: str) -> Permissions | None:
        cached = self._cache.get(path, _MISSING)
        if not isinstance(cached, _Missing):
            return cached
        found = self._decide(path)
        if len(path) <= CACHED_PATH_CHARACTERS_MAX:
            self._cache.offer(path, found)
        return found

    def _decide(self, path: str) -> Permissions | None:
        without_slash = path.removesuffix("/")
        exact = self._exact.get(path) or self._exact.get(without_slash)
        return exact or self._match(path) or (self._match(without_slash) if without_slash != path else None)

    def _match(self, path: str) -> Permissions | None:
        return next((pattern.permissions for pattern in self._patterns if pattern.matches(path)), None)


def _shown(permissions: Permissions) -> list[str]:
    return ["deny"] if permissions.is_denied or not permissions.capabilities else sorted(permissions.capabilities)


class _Missing:
    """Says that a path has not been asked for; None says that no rule covers it."""


_MISSING: Final = _Missing()


# -- patterns --


def is_pattern(path: str) -> bool:
    """Whether a rule's path has a wildcard."""
    return path.endswith("*") or _has_segment_wildcard(path)


def _has_segment_wildcard(path: str) -> bool:
    return "+" in path.split("/")


def _precedence(path: str) -> tuple[int, bool, int, int, str]:
    """Return what patterns are ordered by; the greatest wins.

    In a pattern that has a `+` as a segment, the first `+` counts as the first wildcard even if it stands for itself.
    """
    segments = path.split("/").count("+")
    first = path.index("+") if segments else len(path) - 1
    return first, not path.endswith("*"), -segments, len(path), path


def _matcher(path: str) -> Callable[[str], object]:
    if not _has_segment_wildcard(path):
        prefix = path[:-1]
        return lambda asked: asked.startswith(prefix)
    is_open = path.endswith("*")
    segments = (path[:-1] if is_open else path).split("/")
    expression = "/".join("[^/]*" if segment == "+" else re.escape(segment) for segment in segments)
    return re.compile(expression + (".*" if is_open else ""), re.DOTALL).fullmatch


def _overlaps(rule_path: str, prefix: str) -> bool:
    """Whether a rule can cover some path that starts with `prefix`."""
    is_open = rule_path.endswith("*")
    rule_segments = (rule_path[:-1] if is_open else rule_path).split("/")
    wanted = prefix.rstrip("/").split("/")
    for number, (have, want) in enumerate(zip(rule_segments, wanted, strict=False)):
        if is_open and number == len(rule_segments) - 1:
            return want.startswith(have)
        if have not in ("+", want):
            return False
    return len(rule_segments) >= len(wanted)


# -- merging --


def _merge(before: Permissions | None, rule: Rule) -> Permissions:
    if before is None:
        before = Permissions(frozenset(), {}, {}, frozenset(), 0, 0, is_plain=True)
    capabilities = before.capabilities | rule.capabilities
    allowed = _merge_parameters(before.allowed, rule.allowed_parameters or {})
    denied = _merge_parameters(before.denied, rule.denied_parameters or {})
    required = before.required | {name.lower() for name in rule.required_parameters}
    shortest = _least(before.min_wrapping_ttl_seconds, rule.min_wrapping_ttl_seconds)
    longest = _least(before.max_wrapping_ttl_seconds, rule.max_wrapping_ttl_seconds)
    is_plain = not (allowed or denied or required or shortest or longest)
    return Permissions(capabilities, allowed, denied, frozenset(required), shortest, longest, is_plain)


def _least(one: int, other: int) -> int:
    return min(one, other) if one and other else one or other


def _merge_parameters(one: dict[str, list[Scalar]], other: dict[str, list[Scalar]]) -> dict[str, list[Scalar]]:
    merged = dict(one)
    for name, values in other.items():
        before = merged.get(name)
        if before is None:
            merged[name] = values
        else:
            merged[name] = [*before, *values] if before and values else []
    return merged


# -- conditions --


def _wrapping_fits(permissions: Permissions, wrap_ttl_seconds: int | None) -> bool:
    shortest, longest = permissions.min_wrapping_ttl_seconds, permissions.max_wrapping_ttl_seconds
    if not shortest and not longest:
        return True
    if wrap_ttl_seconds is None:
        return False
    return wrap_ttl_seconds >= shortest and (not longest or wrap_ttl_seconds <= longest)


def _parameters_fit(permissions: Permissions, parameters: Mapping[str, Any]) -> bool:
    if not permissions.required <= parameters.keys():
        return False
    given = [(name.lower(), value) for name, value in parameters.items()]  # names that differ in case are all looked at
    if given and "*" in permissions.denied:
        return False
    if any(_is_refused(permissions.denied.get(name), value) for name, value in given):
        return False
    if not permissions.allowed:
        return True
    if "*" not in permissions.allowed and not permissions.allowed.keys() >= {name for name, _ in given}:
        return False
    return all(_is_listed(permissions.allowed.get(name, []), value) for name, value in given)


def _is_refused(values: list[Scalar] | None, value: object) -> bool:
    """Whether a value is in a list of denied ones; it is compared as text, so that no spelling of it slips through."""
    if values is None:
        return False
    if isinstance(value, list):
        return not values or any(_is_refused(values, each) for each in value)
    return not values or any(_glob(_text(denied), _text(value)) for denied in values)


def _is_listed(values: list[Scalar], value: object) -> bool:
    """Whether a value is in a list of allowed ones: text by globs, numbers and booleans as what they are.

    A `*` alone allows nothing, as in Vault, where an empty list is what allows everything.
    """
    if not values:
        return True
    if isinstance(value, str):
        return any(isinstance(allowed, str) and allowed != "*" and _glob(allowed, value) for allowed in values)
    if isinstance(value, bool):
        return any(allowed is value for allowed in values)
    if isinstance(value, int | float):
        return any(not isinstance(allowed, str | bool) and allowed == value for allowed in values)
    return False


def _text(value: object) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _glob(pattern: str, text: str) -> bool:
    """Compare with a value that may have a `*` in front, at its end, or both."""
    starts, ends = pattern.startswith("*"), pattern.endswith("*")
    if pattern == "*":
        return True
    if starts and ends:
        return pattern[1:-1] in text
    if starts:
        return text.endswith(pattern[1:])
    return text.startswith(pattern[:-1]) if ends else text == pattern
