"""The engine of `sys/` is mixed from many classes: nothing in one of them may hide anything in another."""

from collections import Counter

from conclave.core.contract import Engine
from conclave.core.system import System

PARTS = [base for base in System.__bases__ if issubclass(base, Engine)]


def test_no_two_parts_have_a_name_in_common() -> None:
    own = [
        name for part in PARTS for name in vars(part) if not name.startswith("__") and name not in ("type", "_routes")
    ]

    assert [name for name, count in Counter(own).items() if count > 1] == []


def test_no_two_parts_answer_the_same_path() -> None:
    declared = [(each.pattern, each.operation) for part in PARTS for each in part.declarations()]

    assert [path for path, count in Counter(declared).items() if count > 1] == []


def test_every_declared_handler_is_the_one_that_was_declared() -> None:
    for part in PARTS:
        for each in part.declarations():
            assert getattr(System, each.handler_name) is vars(part)[each.handler_name], each


def test_every_operation_says_what_it_does() -> None:
    assert [each.pattern for each in System.declarations() if not each.summary] == []
