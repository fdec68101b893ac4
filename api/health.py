"""The status code of `sys/health`: what load balancers go by. The body comes from `core/system/health.py`.

Each condition of a node has a code, and a query parameter that replaces it, so that a balancer can be told which nodes
count as well. Source: Vault's API documentation, "/sys/health"; the codes were measured on a real server.
"""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from conclave.core.errors import InvalidRequest

HEALTH_PATH: Final = "sys/health"
CODE_MIN: Final = 200
"""A 1xx code would leave the client waiting for the real answer."""
CODE_MAX: Final = 599

_TRUE: Final = frozenset({"", "1", "t", "T", "true", "TRUE", "True"})


class _Code(Struct, frozen=True):
    default: int
    parameter: str  # the query parameter that replaces it
    is_standby: bool = False  # standbyok and perfstandbyok make it a 200


_CODES: Final = {
    "active": _Code(200, "activecode"),
    "standby": _Code(429, "standbycode", is_standby=True),
    "sealed": _Code(503, "sealedcode"),
    "uninitialized": _Code(501, "uninitcode"),
    "removed": _Code(530, "removedcode"),
    "unhealthy": _Code(474, "haunhealthycode"),
}


def status_of(condition: str, query: Mapping[str, str]) -> int:
    """Return the HTTP status of a node in `condition` (`Response.condition`), as this query wants it.

    Raises:
        InvalidRequest: the query asks for something that is no final HTTP status.
    """
    code = _CODES[condition]
    if code.parameter in query:
        return _status(query[code.parameter])
    if code.is_standby and any(query.get(name, "false") in _TRUE for name in ("standbyok", "perfstandbyok")):
        return 200
    return code.default


def _status(text: str) -> int:
    status = int(text) if text.isascii() and text.isdigit() and len(text) == 3 else 0
    if not CODE_MIN <= status <= CODE_MAX:
        raise InvalidRequest(f"a health code must be a number from {CODE_MIN} to {CODE_MAX}")
    return status
