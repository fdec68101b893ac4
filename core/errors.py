"""What a request can be refused for. Types only: `api/envelope.py` alone knows their status codes.

The message is what the client sees: it says what was wrong and what to do, and never holds a secret, key or token.
"""


class RequestError(Exception):
    """A request that cannot be answered as asked.

    Args:
        messages: what the client is told, one text an error; none at all is allowed (Vault's empty 404).
    """

    def __init__(self, *messages: str) -> None:
        super().__init__(*messages)
        self.messages: tuple[str, ...] = messages


class InvalidRequest(RequestError):
    """The request itself is wrong: its body, a parameter, or what it asks for in this state."""


class InvalidCredentials(InvalidRequest):
    """A login that is wrong. It counts towards the lockout of whoever it named."""


class PermissionDenied(RequestError):
    """No valid token, or its policies do not allow this."""


class NotFound(RequestError):
    """Nothing is there, no engine is mounted there, or it has no such path."""


class UnsupportedOperation(RequestError):
    """The path exists and does not do this."""


class UnsupportedContent(RequestError):
    """The body's content type is not the one that this operation takes."""


class TooLarge(RequestError):
    """The body or the resulting value exceeds its bound."""


class Sealed(RequestError):
    """This node holds no keys; unseal it with `conclave operator unseal`."""


class Unavailable(RequestError):
    """The cluster cannot answer now: no leader, no quorum, or too much in flight. Trying again is right.

    Args:
        messages: as for every request error.
        retry_after_seconds: when to come back.
    """

    def __init__(self, *messages: str, retry_after_seconds: int = 1) -> None:
        super().__init__(*messages)
        self.retry_after_seconds = retry_after_seconds


class Redirected(RequestError):
    """Only the leader can answer this, and the client asked not to have it forwarded.

    Args:
        location: the leader's API address and the path, for the Location header.
    """

    def __init__(self, location: str) -> None:
        super().__init__()
        self.location = location


class TooManyRequests(RequestError):
    """A quota or a bound on concurrent work is used up; trying again later is right."""


class InternalError(RequestError):
    """Something that the documented API answers with 500 (a failed join, an unreachable leader)."""


def permission_denied() -> PermissionDenied:
    """Return the refusal of a policy, in the words that clients match."""
    return PermissionDenied("1 error occurred:\n\t* permission denied\n\n")


def unsupported_path() -> NotFound:
    """Return the refusal of a path that the engine does not have."""
    return NotFound("1 error occurred:\n\t* unsupported path\n\n")


def unsupported_operation() -> UnsupportedOperation:
    """Return the refusal of an operation that the path does not have."""
    return UnsupportedOperation("1 error occurred:\n\t* unsupported operation\n\n")
