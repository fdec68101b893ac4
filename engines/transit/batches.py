"""Batches: one request with many items, each answered on its own, in order.

A batch whose shape is wrong is refused as a whole; an item that fails has an `error` in its place. Items that look like
one another in every other respect share the code of a single request, so a single request is a batch of one.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw, Struct

from conclave.core.contract import Response
from conclave.core.errors import InvalidRequest
from conclave.engines.transit import primitives

ITEMS_MAX: Final = 10_000
"""The most items of one batch: a handler has little time, and clients can send another."""

Item = TypeVar("Item", bound=Struct)
_GO_TYPES: Final = {
    bool: "bool",
    int: "json.Number",
    float: "json.Number",
    list: "[]interface {}",
    dict: "map[string]interface {}",
}


def parse_items(raw: Raw, kind: type[Item], required: Sequence[tuple[str, str]] = ()) -> list[Item] | None:
    """Return the items of `batch_input`; None if the request has none.

    Args:
        raw: the field as it was sent.
        kind: what an item is: a Struct of optional strings and numbers.
        required: fields that each item must have, with what they are for.

    Raises:
        InvalidRequest: the batch is empty, too long, or has a wrong shape.
    """
    if not bytes(raw):
        return None
    given = msgspec.json.decode(raw)
    if given is None:
        return None
    if not isinstance(given, list):
        raise _refused(f"source data must be an array or slice, got {_GO_TYPES.get(type(given), 'string')}")
    if not given:
        raise InvalidRequest("missing batch input to process")
    if len(given) > ITEMS_MAX:
        raise InvalidRequest(f"a batch has at most {ITEMS_MAX} items")
    return [_parse_item(position, item, kind, required) for position, item in enumerate(given)]


def _parse_item(position: int, item: Any, kind: type[Item], required: Sequence[tuple[str, str]]) -> Item:
    if not isinstance(item, dict):
        raise _refused(f"[{position}] expected a map, got '{_GO_TYPES.get(type(item), 'string')}'")
    for name, purpose in required:
        if name not in item:
            raise _refused(f"'[{position}].{name}' missing {name} to {purpose}")
    try:
        return msgspec.convert({name: value for name, value in item.items() if value is not None}, kind, strict=False)
    except msgspec.ValidationError:
        wrong = next(
            (name for name in kind.__struct_fields__ if name in item and not isinstance(item[name], str)),
            kind.__struct_fields__[0],
        )
        raise _refused(
            f"'[{position}].{wrong}' expected type 'string', got unconvertible type "
            f"'{_GO_TYPES.get(type(item.get(wrong)), 'string')}'"
        ) from None


def _refused(problem: str) -> InvalidRequest:
    return InvalidRequest(f"1 error occurred:\n\t* failed to parse batch input: {problem}\n\n")


def run(
    items: Sequence[Item], perform: Callable[[Item], dict[str, Any]], *, failure_code: int, on_error: dict[str, Any]
) -> Response:
    """Answer a batch: what `perform` returns for each item, or its error.

    Args:
        items: each has a `reference`, which comes back with its result.
        perform: raises InvalidRequest where an item cannot be done.
        failure_code: HTTP's code for an answer in which an item has failed; 0 for that of success.
        on_error: what besides the error stands in the place of a result.
    """
    results: list[dict[str, Any]] = []
    has_failed = False
    for item in items:
        try:
            result = perform(item)
        except InvalidRequest as error:
            has_failed = True
            result = {**on_error, "error": error.messages[0] if error.messages else "invalid request"}
        results.append(result | {"reference": getattr(item, "reference", "")})
    return Response({"batch_results": results}, batch_failure_code=failure_code if has_failed else 0)


def decoded(text: str, prefix: str = "") -> bytes:
    """Return the bytes of a base64 field.

    Raises:
        InvalidRequest: it is no base64; `prefix` stands before what is wrong.
    """
    try:
        return primitives.decode_base64(text)
    except ValueError as error:
        raise InvalidRequest(f"{prefix}{error}") from None
