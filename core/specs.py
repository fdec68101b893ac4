"""What the declarations of engines say about their paths, for tools and for people: OpenAPI 3.0, and help on one path.

Pure. The declarations are also what routes and validates, so what is said here cannot differ from what is done.
Source: the OpenAPI Specification 3.0.2; Vault's page "/sys/internal/specs/openapi".
"""

import re
import textwrap
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final, get_args, get_origin

import msgspec
from msgspec import Meta, Struct, structs

from conclave.core.contract import Declaration, Engine, Operation
from conclave.core.durations import SECONDS_KIND

OPENAPI_VERSION: Final = "3.0.2"
LINE_CHARACTERS_MAX: Final = 79
_METHODS: Final = {
    Operation.READ: "get",
    Operation.CREATE: "post",
    Operation.UPDATE: "post",
    Operation.PATCH: "patch",
    Operation.DELETE: "delete",
    Operation.LIST: "get",
}
_PLACEHOLDER: Final = re.compile(r"\{(\w+)(?:\.\.\.)?\}")


# -- OpenAPI --


def openapi(mounts: Iterable[tuple[str, type[Engine]]], version: str) -> dict[str, Any]:
    """Return the document of all paths below these mounts.

    Args:
        mounts: where each engine is mounted ("secret/"), and its class.
        version: of the server.
    """
    paths: dict[str, Any] = {}
    for prefix, engine in mounts:
        paths |= engine_paths(prefix, engine)
    return {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": "Conclave API",
            "description": "HTTP API that gives you full access to Conclave. All API routes are prefixed with `/v1/`.",
            "version": version,
            "license": {"name": "Apache License 2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "paths": paths,
        "components": {"schemas": {}},
    }


def engine_paths(prefix: str, engine: type[Engine]) -> dict[str, Any]:
    """Return the path items of one engine mounted at `prefix`."""
    by_path: dict[str, list[Declaration]] = {}
    for declared in engine.declarations():
        by_path.setdefault("/" + prefix + _plain(declared.pattern), []).append(declared)
    return {path: _path_item(declarations) for path, declarations in sorted(by_path.items())}


def _plain(pattern: str) -> str:
    return _PLACEHOLDER.sub(r"{\1}", pattern)


def _path_item(declarations: list[Declaration]) -> dict[str, Any]:
    first = declarations[0]
    item: dict[str, Any] = {"description": first.summary}
    if any(declared.sudo for declared in declarations):
        item["x-vault-sudo"] = True
    if not first.authenticated:
        item["x-vault-unauthenticated"] = True
    names = _PLACEHOLDER.findall(first.pattern)
    if names:
        item["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    for declared in declarations:
        method = _METHODS[declared.operation]
        operation = item.get(method)
        if operation is None:
            operation = item[method] = {
                "summary": declared.summary,
                "operationId": _operation_id(declared),
                "responses": {"200": {"description": "OK"}},
            }
        if declared.operation is Operation.LIST:
            operation.setdefault("parameters", []).append(
                {"name": "list", "in": "query", "schema": {"type": "string", "enum": ["true"]}}
            )
        _add_fields(operation, declared)
    return item


def _operation_id(declared: Declaration) -> str:
    words = re.findall(r"[A-Za-z0-9]+", declared.pattern)
    return "-".join([declared.operation.value, *words])


def _add_fields(operation: dict[str, Any], declared: Declaration) -> None:
    if declared.fields is None:
        return
    properties = {field.name: _schema(field) for field in fields_of(declared.fields)}
    if _METHODS[declared.operation] in ("post", "patch"):
        required = [field.name for field in fields_of(declared.fields) if field.is_required]
        schema = {"type": "object", "properties": properties} | ({"required": required} if required else {})
        operation["requestBody"] = {"content": {"application/json": {"schema": schema}}}
        return
    operation.setdefault("parameters", []).extend(
        {"name": name, "in": "query", "description": schema.pop("description", ""), "schema": schema}
        for name, schema in properties.items()
    )


class Field(Struct, frozen=True):
    """One field of an operation.

    Attributes:
        kind: its type in JSON's words: "string", "integer", "boolean", "number", "array", "object".
        item_kind: what an array holds.
    """

    name: str
    kind: str
    item_kind: str
    description: str
    is_required: bool
    is_seconds: bool
    default: Any


def fields_of(described: type[Struct]) -> Iterator[Field]:
    """Yield the fields of a declared Struct."""
    for field in structs.fields(described):
        metadata = list(_metadata(field.type))
        kind, item_kind = _kinds(msgspec.inspect.type_info(field.type))
        yield Field(
            name=field.encode_name,
            kind=kind,
            item_kind=item_kind,
            description=next((each.description for each in metadata if each.description), ""),
            is_required=field.required,
            is_seconds=any((each.extra or {}).get("kind") == SECONDS_KIND for each in metadata),
            default=None if field.default is msgspec.NODEFAULT else field.default,
        )


def _metadata(annotation: Any) -> Iterator[Meta]:
    if get_origin(annotation) is Annotated:
        yield from (each for each in get_args(annotation)[1:] if isinstance(each, Meta))
    for argument in get_args(annotation):
        yield from _metadata(argument)


_KINDS: Final[dict[type[msgspec.inspect.Type], str]] = {
    msgspec.inspect.StrType: "string",
    msgspec.inspect.IntType: "integer",
    msgspec.inspect.FloatType: "number",
    msgspec.inspect.BoolType: "boolean",
    msgspec.inspect.ListType: "array",
    msgspec.inspect.DictType: "object",
    msgspec.inspect.RawType: "object",
}


def _kinds(info: msgspec.inspect.Type) -> tuple[str, str]:
    while isinstance(info, msgspec.inspect.Metadata):
        info = info.type
    if isinstance(info, msgspec.inspect.UnionType):
        rest = [each for each in info.types if not isinstance(each, msgspec.inspect.NoneType)]
        return _kinds(rest[0])
    if isinstance(info, msgspec.inspect.ListType):
        return "array", _kinds(info.item_type)[0]
    return _KINDS.get(type(info), "object"), ""


def _schema(field: Field) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": field.kind}
    if field.description:
        schema["description"] = field.description
    if field.kind == "array":
        schema["items"] = {"type": field.item_kind or "string"}
    if field.is_seconds:
        schema["format"] = "seconds"
    if isinstance(field.default, (str, int, bool)) and field.default not in ("", "\0") and field.default is not False:
        schema["default"] = field.default
    return schema


# -- help --


def help_text(engine: type[Engine], relative_path: str) -> str | None:
    """Return help on a path of an engine; None if it has no such path. On the mount itself: what paths there are."""
    if not relative_path:
        return _help_on_engine(engine)
    declarations = engine.declarations_of(relative_path)
    if not declarations:
        return None
    first = declarations[0]
    lines = [f"Request:        {relative_path}", f"Matching Route: {first.pattern}", "", first.summary, ""]
    parameters = {field.name: field for each in declarations if each.fields for field in fields_of(each.fields)}
    names = _PLACEHOLDER.findall(first.pattern)
    if parameters or names:
        lines += ["## PARAMETERS", ""]
        lines += [line for name in sorted({*parameters, *names}) for line in _help_on_field(name, parameters.get(name))]
    lines += ["## OPERATIONS", ""]
    lines += [f"    {each.operation.value}{_conditions(each)}: {each.summary}" for each in declarations]
    return "\n".join(lines) + "\n"


def _help_on_engine(engine: type[Engine]) -> str:
    lines = [
        "## DESCRIPTION",
        "",
        *textwrap.wrap((engine.__doc__ or "").strip(), LINE_CHARACTERS_MAX),
        "",
        "## PATHS",
        "",
    ]
    summaries: dict[str, str] = {}
    for declared in engine.declarations():
        summaries.setdefault(declared.pattern, declared.summary)
    for pattern, summary in sorted(summaries.items()):
        lines += [f"    {_plain(pattern) or '(the mount itself)'}", f"        {summary}", ""]
    return "\n".join(lines)


def _help_on_field(name: str, field: Field | None) -> list[str]:
    if field is None:
        return [f"    {name} (string)", "", "        A part of the path.", ""]
    kind = "duration" if field.is_seconds else field.kind
    description = textwrap.wrap(field.description, LINE_CHARACTERS_MAX - 8)
    return [f"    {name} ({kind})", "", *(f"        {line}" for line in description), ""]


def _conditions(declared: Declaration) -> str:
    conditions = [text for text, holds in (("no token", not declared.authenticated), ("sudo", declared.sudo)) if holds]
    return f" ({', '.join(conditions)})" if conditions else ""
