"""What measuring a layer gives."""

from typing import Final

from msgspec import Struct

REPETITIONS: Final = 7


class Figure(Struct, frozen=True):
    """What one operation of a layer costs."""

    layer: str
    name: str
    microseconds: float
    spread_microseconds: float  # between the first and the third quartile
    cpu_microseconds: float = 0.0
    """Of the thread that did it, or this process if there are several, in the best repetition: others count less."""
