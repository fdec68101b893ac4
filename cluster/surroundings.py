"""What a node takes from the machine it runs on: time, date, randomness. The simulator hands each node its own."""

import datetime as dt
import os
from collections.abc import Callable

from msgspec import Struct

from conclave.cluster.timing import boot_seconds


def utc_now() -> dt.datetime:
    """Return the date and time."""
    return dt.datetime.now(dt.UTC)


class Surroundings(Struct, frozen=True):
    """Where time and randomness come from.

    Attributes:
        clock: seconds, monotone; counts while the machine sleeps.
        utc_now: the date; may be wrong, and may jump.
        random_bytes: so many of them, unpredictable.
    """

    clock: Callable[[], float] = boot_seconds
    utc_now: Callable[[], dt.datetime] = utc_now
    random_bytes: Callable[[int], bytes] = os.urandom


REAL = Surroundings()
