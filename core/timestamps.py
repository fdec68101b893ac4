"""Points in time as Vault's API spells them: RFC 3339 in UTC, nanoseconds without zeros at their end."""

import time
from functools import lru_cache
from typing import Final

from conclave.core.durations import NANOSECONDS

SECONDS_OF_A_DAY: Final = 86_400


@lru_cache(maxsize=4096)
def rfc3339(time_ns: int) -> str:
    """Return nanoseconds since 1970 as "2026-11-24T00:06:01.34493101Z"."""
    seconds, nanoseconds = divmod(time_ns, NANOSECONDS)
    days, seconds = divmod(seconds, SECONDS_OF_A_DAY)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{nanoseconds:09d}".rstrip("0") if nanoseconds else ""
    return f"{_date(days)}T{hours:02d}:{minutes:02d}:{seconds:02d}{fraction}Z"


@lru_cache(maxsize=4096)  # eleven years: among many secrets, one that is read was written on any day, in any second
def _date(days: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(days * SECONDS_OF_A_DAY))
