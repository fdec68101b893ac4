"""What a registry or `__all__` names is there, and every engine says what it is."""

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import pytest

import conclave
from conclave.core.contract import Engine
from conclave.core.system import System
from conclave.engines import REGISTRY as ENGINES
from conclave.methods import REGISTRY as METHODS

EVERY_ENGINE: dict[str, type[Engine]] = {
    "sys": System,
    **ENGINES,
    **{f"auth/{name}": method for name, method in METHODS.items()},
}


def modules() -> Iterator[ModuleType]:
    for module in pkgutil.walk_packages(conclave.__path__, "conclave."):
        if not module.name.endswith("__main__"):
            yield importlib.import_module(module.name)


def test_every_exported_name_exists() -> None:
    missing = [
        f"{module.__name__}.{name}"
        for module in modules()
        for name in getattr(module, "__all__", ())
        if not hasattr(module, name)
    ]

    assert missing == []


def test_every_module_has_a_docstring() -> None:
    assert [module.__name__ for module in modules() if not (module.__doc__ or "").strip()] == []


@pytest.mark.parametrize("name", sorted(EVERY_ENGINE))
def test_every_engine_and_operation_says_what_it_does(name: str) -> None:
    engine = EVERY_ENGINE[name]

    assert (engine.__doc__ or "").strip()
    assert [each.pattern for each in engine.declarations() if not each.summary] == []


@pytest.mark.parametrize("name", sorted(EVERY_ENGINE))
def test_no_operation_is_declared_twice(name: str) -> None:
    declared = [(each.pattern, each.operation) for each in EVERY_ENGINE[name].declarations()]

    assert len(declared) == len(set(declared))
