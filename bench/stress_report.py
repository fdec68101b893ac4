"""What came of a stress measurement: a figure and the bound it is held to."""

from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct

Say: TypeAlias = Callable[[str], None]


class Check(Struct, frozen=True):
    """One figure.

    Attributes:
        bound: the most that it may be; None: it is told beside others that have one.
    """

    item: str
    what: str
    value: float
    unit: str
    bound: float | None = None

    @property
    def is_held(self) -> bool:
        """Whether the bound is kept."""
        return self.bound is None or self.value <= self.bound

    def __str__(self) -> str:
        bound = "" if self.bound is None else f" (at most {self.bound:g}{'' if self.is_held else ': MISSED'})"
        return f"{self.item}: {self.what}: {self.value:.2f} {self.unit}{bound}"


def held_to(item: str, what: str, value: float, bound: float, unit: str) -> Check:
    """Return a figure with a bound."""
    return Check(item, what, value, unit, bound)


def told(item: str, what: str, value: float, unit: str) -> Check:
    """Return a figure without a bound."""
    return Check(item, what, value, unit)
