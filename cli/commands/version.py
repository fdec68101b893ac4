"""`conclave version`."""

from conclave import __version__
from conclave.cli.command import Call, command
from conclave.cli.errors import EXIT_OK


@command("version", is_http=False)
def version(call: Call) -> int:
    """Print the version of this program."""
    call.out(f"Conclave v{__version__}")
    return EXIT_OK
