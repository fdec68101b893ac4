"""What ends a command early: each kind carries the exit code that a shell sees.

The codes are Vault's, and scripts rely on them: 1 for what is wrong on this side (arguments, flags, files, output
formats), 2 for what the server refused or for a server that cannot be reached.
"""

from typing import Final

EXIT_OK: Final = 0
EXIT_LOCAL: Final = 1
EXIT_SERVER: Final = 2
EXIT_UNKNOWN_COMMAND: Final = 127
EXIT_INTERRUPTED: Final = 130


class CommandError(Exception):
    """The command ends here; its text is for stderr."""

    exit_code = EXIT_LOCAL


class UsageError(CommandError):
    """The arguments or flags are not what the command takes."""


class ServerError(CommandError):
    """The server refused, answered with what is not an answer, or could not be reached."""

    exit_code = EXIT_SERVER


class Refused(ServerError):
    """The server answered with an error status.

    Attributes:
        status: the HTTP status.
        messages: the server's own error texts, without decoration.
    """

    def __init__(self, text: str, *, status: int, messages: list[str]) -> None:
        super().__init__(text)
        self.status = status
        self.messages = messages


class Unreachable(ServerError):
    """No answer came: nobody listens, the name is unknown, TLS failed, time ran out."""


class OutputOnly(CommandError):
    """The request was to be shown instead of sent (`-output-curl-string`, `-output-policy`): the text is for stdout."""

    exit_code = EXIT_OK
