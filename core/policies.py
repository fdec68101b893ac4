"""Policies: documents that say which paths a token may use, their language, and where they are kept.

    path "secret/data/app/*" {
        capabilities = ["read", "update"]
        allowed_parameters = { "*" = [] }
    }

A document is HCL or JSON, possibly in base64. Parsing is pure and strict: an unknown key or capability is an error in
Vault's words. What several rules mean together is decided in `core/acl.py`.

`root` and `default` always exist: `root` has no text and cannot be changed, `default` can be changed but not deleted.
Names are lower case. Source: Vault's page "Policies"; features measured on a real server.
"""

import base64
import binascii
from collections.abc import Iterable, Sequence
from typing import Final, NoReturn, TypeAlias
from urllib.parse import quote, unquote

from msgspec import Struct

from conclave.core import hcl
from conclave.core.contract import Storage
from conclave.core.durations import parse_seconds
from conclave.core.errors import InvalidRequest
from conclave.core.templates import check_template

ROOT: Final = "root"
DEFAULT: Final = "default"
RESERVED: Final = frozenset({ROOT, "response-wrapping"})
"""Names of policies that are not stored and that nobody can write or delete."""
NAME_CHARACTERS_MAX: Final = 512
"""The longest name of a policy."""

CAPABILITIES: Final = frozenset({"create", "read", "update", "patch", "delete", "list", "scan", "sudo", "deny"})
_LEGACY: Final = {
    "deny": frozenset({"deny"}),
    "read": frozenset({"read", "list"}),
    "write": frozenset({"create", "read", "update", "delete", "list"}),
    "sudo": frozenset({"create", "read", "update", "delete", "list", "sudo"}),
}
"""The form of before capabilities: `policy = "read"`."""

DEFAULT_POLICY: Final = """\
# A token may see what it is, and prolong or end itself.
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self"  { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }

# It may ask what it is allowed to do.
path "sys/capabilities-self"        { capabilities = ["update"] }
path "sys/internal/ui/resultant-acl" { capabilities = ["read"] }

# It may look at the entity that it stands for.
path "identity/entity/id/{{identity.entity.id}}"     { capabilities = ["read"] }
path "identity/entity/name/{{identity.entity.name}}" { capabilities = ["read"] }

# Whoever knows a lease's id may look at it and renew it.
path "sys/leases/renew"  { capabilities = ["update"] }
path "sys/leases/lookup" { capabilities = ["update"] }

# Its own cubbyhole belongs to it.
path "cubbyhole/*" { capabilities = ["create", "read", "update", "delete", "list"] }

# Response wrapping.
path "sys/wrapping/wrap"   { capabilities = ["update"] }
path "sys/wrapping/lookup" { capabilities = ["update"] }
path "sys/wrapping/unwrap" { capabilities = ["update"] }

# Tools that touch no secret.
path "sys/tools/hash"   { capabilities = ["update"] }
path "sys/tools/hash/*" { capabilities = ["update"] }

# Sign-in with this cluster as identity provider.
path "identity/oidc/provider/+/authorize" { capabilities = ["read", "update"] }
"""


Scalar: TypeAlias = str | int | float | bool
"""A value that a rule compares a parameter with."""


class Rule(Struct, frozen=True):
    """What one `path` block says."""

    path: str  # as written, without a slash in front: "secret/data/+/x*"
    capabilities: frozenset[str]
    allowed_parameters: dict[str, list[Scalar]] | None = None  # an empty list allows any value
    denied_parameters: dict[str, list[Scalar]] | None = None
    required_parameters: tuple[str, ...] = ()
    min_wrapping_ttl_seconds: int = 0
    max_wrapping_ttl_seconds: int = 0

    @property
    def is_templated(self) -> bool:
        """Whether the path stands for another one in each token's hands."""
        return "{{" in self.path


class Policy(Struct, frozen=True):
    """A parsed document."""

    name: str
    rules: tuple[Rule, ...]


class StoredPolicy(Struct, frozen=True, array_like=True):
    """A document as it is kept. New fields come last, with defaults."""

    name: str
    text: str
    version: int
    modified_ns: int
    cas_required: bool = False


ROOT_POLICY: Final = Policy(ROOT, ())


# -- the language --


def parse_policy(name: str, text: str) -> Policy:
    """Read a policy document.

    Args:
        name: what the policy will be called.
        text: HCL or JSON.

    Raises:
        InvalidRequest: what is wrong with it, in Vault's words.
    """
    try:
        document = hcl.parse(text)
        _check_keys(document.body)
        blocks = document.body.blocks("path")
    except hcl.HclError as error:
        raise InvalidRequest(f"failed to parse policy: {error}") from None
    return Policy(name.lower(), tuple(_parse_rule(block) for block in blocks))


def decode_text(text: str) -> str:
    """Return a document that may have been sent in base64 as plain text."""
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):  # every policy has characters that base64 does not
        return text


def _check_keys(body: hcl.Object) -> None:
    wrong = [item for item in body.items if item.key not in ("path", "name")]
    if wrong:
        raise InvalidRequest(f"failed to parse policy: {_invalid_keys(wrong)}")


def _invalid_keys(items: Sequence[hcl.Item]) -> str:
    """Say which keys are wrong; Vault counts no line for a block's."""
    lines = [
        f'\t* invalid key "{item.key}" on line {0 if isinstance(item.value, hcl.Object) else item.line}\n'
        for item in items
    ]
    noun = "1 error" if len(items) == 1 else f"{len(items)} errors"
    return f"{noun} occurred:\n{''.join(lines)}\n"


def _parse_rule(block: hcl.Item) -> Rule:
    path = block.labels[0]
    assert isinstance(block.value, hcl.Object), "blocks() returns nothing else"
    try:
        check_template(path)
    except ValueError as error:
        _refuse(path, f"failed to validate policy templating: {error}")
    if "+*" in path:
        _refuse(path, f"path \"{path}\": invalid use of wildcards ('+*' is forbidden)")
    capabilities: frozenset[str] = frozenset()
    allowed: dict[str, list[Scalar]] | None = None
    denied: dict[str, list[Scalar]] | None = None
    required: tuple[str, ...] = ()
    wrapping = {"min_wrapping_ttl": 0, "max_wrapping_ttl": 0}
    for item in block.value.items:
        match item.key:
            case "comment":
                pass
            case "policy":
                capabilities |= _legacy(path, item)
            case "capabilities":
                capabilities |= _capabilities(path, item)
            case "allowed_parameters":
                allowed = _parameters(path, item)
            case "denied_parameters":
                denied = _parameters(path, item)
            case "required_parameters":
                required = tuple(_strings(path, item))
            case "min_wrapping_ttl" | "max_wrapping_ttl":
                wrapping[item.key] = _seconds(path, item)
            case _:
                _refuse(path, _invalid_keys([item]))
    if wrapping["max_wrapping_ttl"] and wrapping["max_wrapping_ttl"] < wrapping["min_wrapping_ttl"]:
        _refuse(path, "max_wrapping_ttl cannot be less than min_wrapping_ttl")
    if "deny" in capabilities:
        capabilities = frozenset({"deny"})
    return Rule(
        path.removeprefix("/"),
        capabilities,
        allowed,
        denied,
        required,
        wrapping["min_wrapping_ttl"],
        wrapping["max_wrapping_ttl"],
    )


def _refuse(path: str, what: str) -> NoReturn:
    raise InvalidRequest(f'failed to parse policy: path "{path}": {what}')


def _strings(path: str, item: hcl.Item) -> list[str]:
    return [_text(value) for value in _scalars(path, item)]


def _scalars(path: str, item: hcl.Item) -> list[Scalar]:
    values = item.value
    if not isinstance(values, list) or not all(isinstance(value, str | int | float) for value in values):
        _refuse(path, f'path "{path}": "{item.key}" must be a list of strings, on line {item.line}')
    return values


def _text(value: hcl.Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _legacy(path: str, item: hcl.Item) -> frozenset[str]:
    if item.value not in _LEGACY:
        _refuse(path, f'path "{path}": invalid policy "{_text(item.value)}"')
    return _LEGACY[str(item.value)]


def _capabilities(path: str, item: hcl.Item) -> frozenset[str]:
    found = _strings(path, item)
    for capability in found:
        if capability not in CAPABILITIES:
            _refuse(path, f'path "{path}": invalid capability "{capability}"')
    return frozenset(found)


def _parameters(path: str, item: hcl.Item) -> dict[str, list[Scalar]]:
    """Read `{ "name" = ["value", …] }`; names are compared in lower case.

    Where two names are the same but for their case, both lists count, and the stricter one if only one is empty: an empty
    list denies, or allows, every value.
    """
    objects = item.value if isinstance(item.value, list) else [item.value]
    found: dict[str, list[Scalar]] = {}
    for each in objects:
        if not isinstance(each, hcl.Object):
            _refuse(path, f'path "{path}": "{item.key}" must be a map of lists, on line {item.line}')
        for inner in each.items:
            name, values = inner.key.lower(), _scalars(path, inner)
            before = found.get(name, values)
            is_everything = item.key == "denied_parameters" and not (before and values)
            found[name] = [] if is_everything else values if before is values else [*before, *values]
    return found


def _seconds(path: str, item: hcl.Item) -> int:
    value = item.value
    if not isinstance(value, (str, int, float)):
        _refuse(path, f'"{item.key}" must be a duration, on line {item.line}')
    try:
        seconds = parse_seconds(value)
    except ValueError as error:
        _refuse(path, f"error parsing {item.key}: {error}")
    if seconds < 0:
        _refuse(path, f"{item.key} must not be negative")
    return seconds


# -- the store --


class PolicyStore:
    """Policies by name, in one directory.

    Args:
        storage: the directory.
    """

    __slots__ = ("_storage",)

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def create_defaults(self, now_ns: int) -> None:
        """Write the default policy of a new vault."""
        self._storage.put(DEFAULT, StoredPolicy(DEFAULT, DEFAULT_POLICY, 1, now_ns))

    def read(self, name: str) -> StoredPolicy | None:
        """Return a policy's document; None if there is none."""
        name = _clean(name)
        if name == ROOT:
            return StoredPolicy(ROOT, "", 0, 0)
        return self._storage.recall(_record_name(name), StoredPolicy) if name else None

    def exists(self, name: str) -> bool:
        """Whether there is such a policy."""
        return self.read(name) is not None

    def load(self, name: str) -> Policy | None:
        """Return a policy parsed; None if there is none."""
        stored = self.read(name)
        return (
            None if stored is None else ROOT_POLICY if stored.name == ROOT else parse_policy(stored.name, stored.text)
        )

    def load_all(self, names: Iterable[str]) -> list[Policy]:
        """Return those of these policies that exist, parsed."""
        return [policy for policy in map(self.load, names) if policy is not None]

    def write(
        self, name: str, text: str, now_ns: int, *, cas: int | None = None, cas_required: bool | None = None
    ) -> None:
        """Create or replace a policy.

        Args:
            name: in any case; kept in lower case.
            text: HCL or JSON, possibly in base64.
            now_ns: when.
            cas: the version that this one replaces, below 0 if there must be none; None if it does not matter.
            cas_required: whether later writes must say `cas`; None leaves it as it is.

        Raises:
            InvalidRequest: the name is not to be had, the document is wrong, or another version is there.
        """
        name = _clean(name)
        if name in RESERVED:
            raise InvalidRequest(f'cannot update "{name}" policy')
        if not text:
            raise InvalidRequest("'policy' parameter not supplied or empty")
        if not 0 < len(name) <= NAME_CHARACTERS_MAX:
            raise InvalidRequest(f"a policy's name has 1 to {NAME_CHARACTERS_MAX} characters")
        text = decode_text(text)
        parse_policy(name, text)
        before = self.read(name) or StoredPolicy(name, "", 0, 0)
        is_required = before.cas_required if cas_required is None else cas_required
        if cas is None and is_required:
            raise InvalidRequest("check-and-set parameter required for this call")
        if cas is not None and max(cas, 0) != before.version:
            raise InvalidRequest(f"check-and-set parameter {cas} did not match the current version {before.version}")
        self._storage.put(_record_name(name), StoredPolicy(name, text, before.version + 1, now_ns, is_required))

    def delete(self, name: str) -> None:
        """Remove a policy, if it is there.

        Raises:
            InvalidRequest: it is one of the two that must exist.
        """
        name = _clean(name)
        if name in RESERVED:
            raise InvalidRequest(f'cannot delete "{name}" policy')
        if name == DEFAULT:
            raise InvalidRequest("cannot delete default policy")
        if name:
            self._storage.delete(_record_name(name))

    def names(self) -> list[str]:
        """Return all names, sorted, and `root` behind them."""
        return [*sorted(map(unquote, self._storage.list())), ROOT]


def _clean(name: str) -> str:
    return name.lower().strip("/")


def _record_name(name: str) -> str:
    """Return a policy's record name: flat, whatever the policy's own name."""
    return quote(name, safe="")
