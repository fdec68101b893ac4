"""The judge of histories, on histories whose verdict is known."""

from random import Random

import pytest

from tests.simulator.linearizability import UNKNOWN, Kind, NotLinearizable, Operation, SearchTooLong, check


def read(value: str | None, begin: float, end: float) -> Operation:
    return Operation("k", Kind.READ, begin, end, value)


def write(value: str | None, begin: float, end: float) -> Operation:
    return Operation("k", Kind.WRITE, begin, end, value)


def cas(expected: str | None, value: str, begin: float, end: float, *, ok: bool = True) -> Operation:
    return Operation("k", Kind.CAS, begin, end, value, expected, ok)


def listing(begin: float, end: float, *, shows: bool) -> Operation:
    return Operation("k", Kind.LIST, begin, end, succeeded=shows)


LINEARIZABLE = {
    "nothing happened": [],
    "a read of nothing": [read(None, 0, 1)],
    "one after the other": [write("a", 0, 1), read("a", 2, 3), write("b", 4, 5), read("b", 6, 7)],
    "a read beside a write sees the old value": [write("a", 0, 1), write("b", 2, 5), read("a", 3, 4)],
    "a read beside a write sees the new value": [write("a", 0, 1), write("b", 2, 5), read("b", 3, 4)],
    "reads beside a write see old, then new": [write("a", 0, 9), read(None, 1, 2), read("a", 3, 4)],
    "two writes at once, in either order": [write("a", 0, 5), write("b", 0, 5), read("b", 6, 7), read("b", 8, 9)],
    "a write of unknown outcome happened": [write("a", 0, 1), write("b", 2, UNKNOWN), read("b", 3, 4)],
    "a write of unknown outcome never happened": [write("a", 0, 1), write("b", 2, UNKNOWN), read("a", 3, 99)],
    "a write of unknown outcome happened late": [
        write("a", 0, 1),
        write("b", 2, UNKNOWN),
        read("a", 50, 51),
        read("b", 60, 61),
    ],
    "an exchange that fits": [write("a", 0, 1), cas("a", "b", 2, 3), read("b", 4, 5)],
    "an exchange that does not fit": [write("a", 0, 1), cas("x", "b", 2, 3, ok=False), read("a", 4, 5)],
    "one of two exchanges wins": [
        write("a", 0, 1),
        cas("a", "b", 2, 9),
        cas("a", "c", 2, 9, ok=False),
        read("b", 10, 11),
    ],
    "an exchange of unknown outcome did not fit": [
        write("a", 0, 1),
        cas("x", "b", 2, UNKNOWN),
        read("a", 3, 4),
    ],
    "a listing shows what is there": [listing(0, 1, shows=False), write("a", 2, 3), listing(4, 5, shows=True)],
    "a deleted key is listed no more": [write("a", 0, 1), write(None, 2, 3), listing(4, 5, shows=False)],
    "a read of unknown outcome says nothing": [write("a", 0, 1), read("never written", 2, UNKNOWN)],
}
NOT_LINEARIZABLE = {
    "a read of what nobody wrote": [write("a", 0, 1), read("b", 2, 3)],
    "a stale read": [write("a", 0, 1), write("b", 2, 3), read("a", 4, 5)],
    "a lost write": [write("a", 0, 1), read(None, 2, 3)],
    "reads beside a write see new, then old": [write("a", 0, 9), read("a", 1, 2), read(None, 3, 4)],
    "two readers disagree about the order": [
        write("a", 0, 9),
        write("b", 0, 9),
        read("a", 10, 11),
        read("b", 12, 13),
    ],
    "a value comes back": [write("a", 0, 1), write("b", 2, UNKNOWN), read("b", 3, 4), read("a", 5, 6)],
    "two exchanges of the same value": [write("a", 0, 1), cas("a", "b", 2, 9), cas("a", "c", 2, 9)],
    "an exchange fails that fits": [write("a", 0, 1), cas("a", "b", 2, 3, ok=False)],
    "an operation of unknown outcome happens before it begins": [read("a", 0, 1), write("a", 2, UNKNOWN)],
    "a listing lacks what was written": [write("a", 0, 1), listing(2, 3, shows=False)],
}


@pytest.mark.parametrize("history", LINEARIZABLE.values(), ids=LINEARIZABLE.keys())
def test_a_history_with_an_explanation_is_accepted(history: list[Operation]) -> None:
    check(history)


@pytest.mark.parametrize("history", NOT_LINEARIZABLE.values(), ids=NOT_LINEARIZABLE.keys())
def test_a_history_without_an_explanation_is_refused(history: list[Operation]) -> None:
    with pytest.raises(NotLinearizable, match="key 'k'"):
        check(history)


def test_every_key_is_judged_for_itself() -> None:
    operations = [Operation(key, Kind.WRITE, 0, 1, value=key) for key in ("x", "y")]
    operations += [Operation("x", Kind.READ, 2, 3, "x"), Operation("y", Kind.READ, 2, 3, "x")]

    with pytest.raises(NotLinearizable, match="key 'y'"):
        check(operations)


def history_of_a_real_register(random: Random, operations: int, clients: int) -> list[Operation]:
    """Play a register that is linearizable, each operation happening at some moment between its begin and its end."""
    moments = []
    for client in range(clients):
        now = random.random()
        for number in range(operations // clients):
            begin, happens, end = sorted(now + random.random() for _ in range(3))
            moments.append((happens, begin, end, f"{client}.{number}"))
            now = end
    history, value = [], None
    for _, begin, end, name in sorted(moments):
        if random.random() < 0.5:
            history.append(read(value, begin, end))
        else:
            value = name
            history.append(write(value, begin, UNKNOWN if random.random() < 0.02 else end))
    return history


@pytest.mark.parametrize("seed", range(5))
def test_a_register_played_by_eight_clients_is_accepted_and_one_wrong_answer_is_not(seed: int) -> None:
    history = history_of_a_real_register(Random(seed), operations=120, clients=8)
    assert check(history) == 120

    written = [operation.value for operation in history if operation.kind is Kind.WRITE]
    last = max(operation.end for operation in history if operation.end != UNKNOWN)
    with pytest.raises(NotLinearizable):
        check([*history, read(written[0], last + 1, last + 2), read(written[-1], last + 3, last + 4)])


def test_a_history_that_is_too_long_is_not_judged() -> None:
    with pytest.raises(SearchTooLong):
        check([write(str(i), i, i + 0.5) for i in range(401)])


def test_four_hundred_operations_of_eight_clients_are_within_the_bound() -> None:
    history = history_of_a_real_register(Random(1), operations=400, clients=8)

    assert check(history) == 400
