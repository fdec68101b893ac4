"""Judges histories of real processes: could one register a key, with each operation in one instant, have answered so?

The search of Wing and Gong ("Testing and verifying concurrent objects", 1993) with the memory of Lowe ("Testing for
linearizability", 2017), key by key, since a history is linearizable if its part of every key is. An operation whose outcome
nobody knows (the answer was lost) may have happened at any time after it began, or never.

The search is exponential at worst. Keep to `OPERATIONS_MAX` operations and about eight clients a key, and write a
different value each time: values that come again make histories ambiguous, and the search long.
"""

from collections.abc import Iterable, Sequence
from enum import Enum
from math import inf
from typing import Final

from msgspec import Struct

OPERATIONS_MAX: Final = 400
STEPS_MAX: Final = 2_000_000

UNKNOWN: Final = inf
"""The end of an operation whose outcome nobody knows."""


class Kind(Enum):
    """What an operation does with a key."""

    READ = "read"  # it returned `value`
    WRITE = "write"  # of `value`; None deletes
    CAS = "cas"  # `value` in place of `expected`; `succeeded` tells what came of it
    LIST = "list"  # a listing that showed the key, or did not: `succeeded`


class Operation(Struct, frozen=True):
    """One operation on one key. A value of None is "not there".

    Attributes:
        begin: before the request left, in seconds of a clock that all clients share.
        end: after the answer came; `UNKNOWN` if it never did.
    """

    key: str
    kind: Kind
    begin: float
    end: float
    value: str | None = None
    expected: str | None = None
    succeeded: bool = True


class NotLinearizable(Exception):
    """No order of the operations explains what the clients saw; the text names the key and where it got stuck."""


class SearchTooLong(Exception):
    """The history is too long or too concurrent to be judged; nothing is known about it."""


def check(history: Iterable[Operation], *, initially: str | None = None) -> int:
    """Return the number of operations that were judged.

    Raises:
        NotLinearizable: nothing explains this history.
        SearchTooLong: it cannot be judged.
    """
    keys: dict[str, list[Operation]] = {}
    for operation in history:
        if operation.end == UNKNOWN and operation.kind in (Kind.READ, Kind.LIST):
            continue  # it changed nothing and told nobody anything
        keys.setdefault(operation.key, []).append(operation)
    for key, operations in sorted(keys.items()):
        _check_key(key, sorted(operations, key=lambda operation: operation.begin), initially)
    return sum(len(operations) for operations in keys.values())


def _check_key(key: str, operations: Sequence[Operation], initially: str | None) -> None:
    if len(operations) > OPERATIONS_MAX:
        raise SearchTooLong(f"{len(operations)} operations on {key!r}; at most {OPERATIONS_MAX} can be judged")
    must_happen = sum(1 << i for i, operation in enumerate(operations) if operation.end != UNKNOWN)
    start = (0, initially)
    seen, stack, furthest, steps = {start}, [start], 0, 0
    while stack:
        happened, value = stack.pop()
        if happened & must_happen == must_happen:
            return
        if happened.bit_count() > furthest.bit_count():
            furthest = happened
        for position in _possible_next(operations, happened):
            steps += 1
            if steps > STEPS_MAX:
                raise SearchTooLong(f"more than {STEPS_MAX} steps for {len(operations)} operations on {key!r}")
            explains, after = _apply(operations[position], value)
            state = (happened | 1 << position, after)
            if explains and state not in seen:
                seen.add(state)
                stack.append(state)
    stuck = [operations[i] for i in _possible_next(operations, furthest)]
    raise NotLinearizable(f"key {key!r}: after {furthest.bit_count()} operations none of these can come next: {stuck}")


def _possible_next(operations: Sequence[Operation], happened: int) -> list[int]:
    """Return what may happen next: whatever began before anything else that has not happened was over."""
    possible = []
    first_end = inf
    for position, operation in enumerate(operations):
        if happened >> position & 1:
            continue
        if operation.begin > first_end:
            break
        possible.append(position)
        first_end = min(first_end, operation.end)
    return possible


def _apply(operation: Operation, value: str | None) -> tuple[bool, str | None]:
    """Return whether the operation may answer so while the register holds `value`, and what it holds afterwards."""
    match operation.kind:
        case Kind.READ:
            return operation.value == value, value
        case Kind.LIST:
            return operation.succeeded == (value is not None), value
        case Kind.WRITE:
            return True, operation.value
        case Kind.CAS:
            fits = operation.expected == value
            if operation.end == UNKNOWN:
                return True, operation.value if fits else value
            return operation.succeeded == fits, operation.value if fits else value
