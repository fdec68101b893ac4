"""Templates in the paths of policies: `secret/data/{{identity.entity.name}}/*` means something else for everybody. Pure.

    identity.entity.id | name | metadata.<key>
    identity.entity.aliases.<mount accessor>.id | name | metadata.<key> | custom_metadata.<key>
    identity.groups.ids.<id>.id | name | metadata.<key>          of a group that the entity is in
    identity.groups.names.<name>.id | name | metadata.<key>

A rule whose template has no value for somebody is no rule for them. What is filled in comes from whoever made the entity,
who may not be who writes policies, so a value that could widen the path (a slash, a `*`, a lone `+`) is refused, and
with it whatever its bearer wants: leaving out one rule could leave out a `deny`.

Source: Vault's page "ACL policy path templating"; refusals measured on a real server, which also refuses a `+` within a
value, where it stands for itself.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from conclave.core.identity import Alias, Entity, Group

_TEMPLATE: Final = re.compile(r"\{\{([^{}]*(?:(?:\{(?!\{)|\}(?!\}))[^{}]*)*)\}\}")
"""Reads each character twice at most, whatever a policy holds: braces without their counterpart, or a thousand spaces. No
possessive quantifier: up to Python 3.11.4 one of a group that can go back does not match what it must (gh-106052)."""
_WIDENING: Final = ("/", "*")


class Person(Struct, frozen=True):
    """Whom a token stands for."""

    entity: Entity
    aliases: Sequence[Alias]
    groups: Sequence[Group]  # those that the entity is in, and those above them


class ForbiddenValue(ValueError):
    """A value that would widen a rule's path."""


def check_template(path: str) -> None:
    """Check that every `{{` of a rule's path has its `}}`.

    Raises:
        ValueError: it has not.
    """
    left = _TEMPLATE.sub("", path)
    if "{{" in left or "}}" in left:
        raise ValueError("unbalanced templating characters")


def fill(path: str, person: Person | None) -> str | None:
    """Return a rule's path as it is for somebody; None if it has no meaning for them.

    Args:
        path: with templates.
        person: None for a token that stands for nobody.

    Raises:
        ForbiddenValue: what is to be filled in would widen the path.
    """
    if person is None:
        return None
    parts: list[str] = []
    end = 0
    for template in _TEMPLATE.finditer(path):
        value = _value(template.group(1).strip(), person)
        if not value:
            return None
        forbidden = next((mark for mark in _WIDENING if mark in value), "+" if value == "+" else "")
        if forbidden:
            raise ForbiddenValue(f'path "{path}": template substitution contains forbidden value: "{forbidden}"')
        parts += (path[end : template.start()], value)
        end = template.end()
    return "".join([*parts, path[end:]])


def _value(name: str, person: Person) -> str | None:
    match name.split(".", 3):
        case ["identity", "entity", "aliases", rest]:
            return _of_alias(person, rest)
        case ["identity", "entity", *rest]:
            return _attribute(person.entity.id, person.entity.name, {"metadata": person.entity.metadata}, rest)
        case ["identity", "groups", "ids", rest]:
            return _of_group({group.id: group for group in person.groups}, rest)
        case ["identity", "groups", "names", rest]:
            return _of_group({group.name: group for group in person.groups}, rest)
    return None


def _of_alias(person: Person, rest: str) -> str | None:
    accessor, _, attribute = rest.partition(".")
    alias = next((alias for alias in person.aliases if alias.mount_accessor == accessor), None)
    if alias is None:
        return None
    maps = {"metadata": alias.metadata, "custom_metadata": alias.custom_metadata}
    return _attribute(alias.id, alias.name, maps, attribute.split(".", 1))


def _of_group(groups: Mapping[str, Group], rest: str) -> str | None:
    """Return a group's attribute; the group's own name may have dots."""
    for key, group in groups.items():
        attribute = rest.removeprefix(f"{key}.")
        if attribute != rest:
            return _attribute(group.id, group.name, {"metadata": group.metadata}, attribute.split(".", 1))
    return None


def _attribute(
    own_id: str, own_name: str, maps: Mapping[str, Mapping[str, str] | None], attribute: Sequence[str]
) -> str | None:
    match attribute:
        case ["id"]:
            return own_id
        case ["name"]:
            return own_name
        case [kind, *key] if kind in maps:
            return (maps[kind] or {}).get(".".join(key))
    return None
