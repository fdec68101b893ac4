"""What a command is, and what it is given to work with.

A command is a function with the decorator `command`: the declaration holds its usage line, flags and number of arguments,
the docstring is its help. The function gets a `Call` and returns the exit code; what goes wrong it raises
(`conclave.cli.errors`). Nothing is imported that a command may not need: the client comes with its first use.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple, TextIO

from conclave.cli.errors import CommandError, ServerError, UsageError
from conclave.cli.flags import Flag, Kind, Values, parse_flags

if TYPE_CHECKING:
    from conclave.cli.client import Client

ANY_NUMBER: Final = 1 << 30
"""An upper bound for commands that take as many arguments as one likes."""

HTTP_FLAGS: Final = (
    Flag("address", "Address of the server; https://127.0.0.1:8200 if not set.", variable="ADDR"),
    Flag("agent-address", "Address of an agent that stands before the server.", variable="AGENT_ADDR"),
    Flag("ca-cert", "File with the certificates (PEM) that vouch for the server.", variable="CACERT"),
    Flag("ca-path", "Folder of such files; -ca-cert comes first.", variable="CAPATH"),
    Flag("client-cert", "File with the client's certificate (PEM).", variable="CLIENT_CERT"),
    Flag("client-key", "File with the private key of that certificate (PEM).", variable="CLIENT_KEY"),
    Flag(
        "disable-redirects",
        "Do not follow the one redirect that is followed otherwise.",
        Kind.BOOLEAN,
        variable="DISABLE_REDIRECTS",
    ),
    Flag("header", "Another header for every request, as name=value. Can be repeated.", Kind.PAIRS),
    Flag("mfa", "Credentials for multi-factor authentication. Can be repeated.", Kind.TEXTS, variable="MFA"),
    Flag("namespace", "The namespace of the request.", variable="NAMESPACE", aliases=("ns",)),
    Flag("non-interactive", "Never ask at the terminal.", Kind.BOOLEAN),
    Flag("output-curl-string", "Print the request as a curl command instead of sending it.", Kind.BOOLEAN),
    Flag("output-policy", "Print a policy that allows the request instead of sending it.", Kind.BOOLEAN),
    Flag("policy-override", "Sent for compatibility; has no effect.", Kind.BOOLEAN),
    Flag("tls-server-name", "Name that the server's certificate is checked for.", variable="TLS_SERVER_NAME"),
    Flag("tls-skip-verify", "Do not check the server's certificate.", Kind.BOOLEAN, variable="SKIP_VERIFY"),
    Flag("unlock-key", "Key of a namespace whose API is locked."),
    Flag("wrap-ttl", "Wrap the answer in a token of this lifetime.", Kind.DURATION, variable="WRAP_TTL"),
)
FORMAT: Final = Flag("format", "table, json or yaml; for `read` also raw.", default="table", variable="FORMAT")
FIELD: Final = Flag("field", "Print this field alone, without a newline when it goes into a pipe.")
OUTPUT_FLAGS: Final = (FIELD, FORMAT)


class Command(NamedTuple):
    """One command of the registry.

    Attributes:
        usage: what follows the program's name: "kv get [options] KEY".
        help: first line: what it does; then more, with examples.
        flags: its own; `is_http` adds those of the client.
        arguments: how many it takes, least and most.
    """

    usage: str
    help: str
    flags: tuple[Flag, ...]
    arguments: tuple[int, int]
    is_http: bool
    run: "Callable[[Call], int]"

    @property
    def synopsis(self) -> str:
        """What it does, in a line without a full stop."""
        return self.help.partition("\n")[0].rstrip(".")

    @property
    def all_flags(self) -> tuple[Flag, ...]:
        """Every flag it understands."""
        return (*self.flags, *HTTP_FLAGS) if self.is_http else self.flags


def command(
    usage: str, *flags: Flag, arguments: tuple[int, int] = (0, 0), is_http: bool = True
) -> "Callable[[Callable[[Call], int]], Command]":
    """Make a command of a function; its docstring becomes the help."""

    def declare(function: "Callable[[Call], int]") -> Command:
        lines = (function.__doc__ or "").strip().split("\n")
        text = "\n".join(line.removeprefix("    ") for line in lines)
        return Command(usage, text, flags, arguments, is_http, function)

    return declare


class Call:
    """One run of a command: its flags and arguments, and the world around it."""

    def __init__(
        self,
        values: Values,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        stdin: TextIO,
        stdout: TextIO,
        stderr: TextIO,
    ) -> None:
        self.flags = values
        self.arguments = list(arguments)
        self.environment = environment
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self._client: Client | None = None

    @property
    def client(self) -> "Client":
        """The client that flags, environment and token file describe."""
        if self._client is None:
            from conclave.cli.client import Client
            from conclave.cli.settings import client_settings

            self._client = Client(client_settings(self.flags, self.environment))
        return self._client

    @property
    def format(self) -> str:
        """The chosen format: table, json, yaml or raw.

        Raises:
            UsageError: it is none of these.
        """
        return format_named(self.flags.text("format") or "table")

    def out(self, text: str, end: str = "\n") -> None:
        """Print to stdout."""
        self.stdout.write(text + end)

    def warn(self, text: str) -> None:
        """Print to stderr."""
        self.stderr.write(text + "\n")

    def argument(self, position: int) -> str:
        """Return an argument, "" when there are fewer."""
        return self.arguments[position] if position < len(self.arguments) else ""

    def path_argument(self, position: int = 0) -> str:
        """Return an argument that is a path, without slashes and blanks around it."""
        return self.argument(position).strip().strip("/")

    def ask_hidden(self, question: str) -> str:
        """Ask at the terminal without showing what is typed.

        Raises:
            CommandError: there is no terminal, or -non-interactive forbids to ask.
        """
        if self.flags.boolean("non-interactive"):
            raise CommandError("asking at the terminal is switched off by -non-interactive")
        if not self.stdin.isatty():
            raise CommandError(
                'stdin is no terminal, so nothing can be asked; pass "-" as the argument to read the value from stdin'
            )
        import getpass

        return getpass.getpass(question, stream=self.stderr).strip()


def format_named(name: str) -> str:
    """Return the one name of a format.

    Raises:
        UsageError: there is no such format.
    """
    known = {"table": "table", "json": "json", "yaml": "yaml", "yml": "yaml", "raw": "raw", "pretty": "pretty"}
    if name.lower() not in known:
        raise UsageError(f"Invalid output format: {name}")
    return known[name.lower()]


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Put what was being done before the text of an error of the server: `doing("Error sealing")`."""
    try:
        yield
    except ServerError as error:
        error.args = (f"{what}: {error}",)
        raise


def run(declared: Command, words: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    """Parse a command line and run the command; errors are the caller's to print."""
    parsed = parse_flags(declared.all_flags, words, environment)
    call = Call(
        parsed.values,
        parsed.arguments,
        environment=environment,
        stdin=sys.stdin,
        stdout=sys.stdout,
        stderr=sys.stderr,
    )
    if any(flag.name == "format" for flag in declared.flags):
        _ = call.format
    if parsed.overlooked:
        late = " ".join(parsed.overlooked)
        call.warn(f"Flags have to stand before the arguments. These are taken as arguments: [{late}]")
    check_count(declared.arguments, len(parsed.arguments))
    return declared.run(call)


def check_count(bounds: tuple[int, int], count: int) -> None:
    """Check the number of arguments.

    Raises:
        UsageError: there are too few or too many.
    """
    least, most = bounds
    if count < least:
        expected = f"{least}" if least == most else f"at least {least}"
        raise UsageError(f"Not enough arguments (expected {expected}, got {count})")
    if count > most:
        expected = f"{most}" if least == most else f"at most {most}"
        raise UsageError(f"Too many arguments (expected {expected}, got {count})")
