"""Points in time as Vault's API spells them: RFC 3339 in UTC, nanoseconds without zeros at their end."""

import time
from functools import lru_cache

from conclave.core.durations import NANOSECONDS


@lru_cache(maxsize=4096)
def rfc3339(time_ns: int) -> str:
    """Return nanoseconds since 1970 as "2026-11-24T00:06:01.34493101Z"."""
    seconds, nanoseconds = divmod(time_ns, NANOSECONDS)
    fraction = f".{nanoseconds:09d}".rstrip("0") if nanoseconds else ""
    return f"{_to_the_second(seconds)}{fraction}Z"


@lru_cache(maxsize=64)  # what is written is of this second, and what is read is remembered as a whole
def _to_the_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
