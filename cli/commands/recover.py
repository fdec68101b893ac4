"""`operator raft recover`: works on a stopped node's data instead of talking to a server."""

from conclave.cli.command import Call, command
from conclave.cli.errors import UsageError
from conclave.cli.flags import Flag, Kind


@command(
    "operator raft recover [options]",
    Flag("path", "The data folder: `path` of the storage block in the node's configuration."),
    Flag("apply", "Make this node the only member, instead of only showing what it holds.", Kind.BOOLEAN),
    is_http=False,
)
def recover(call: Call) -> int:
    """Get a cluster back that has lost its quorum for good.

    Without -apply it changes nothing and shows what this survivor holds, whom it would remove, what would be taken as
    committed and what would be lost: run it on every survivor, and recover the one with the highest last term and, among
    those, the highest last index. With -apply that node becomes the only member; all others are refused from then on, so
    their data folders have to be wiped before they join again. The nodes must be stopped.

        $ conclave operator raft recover -path=/var/lib/conclave

        $ conclave operator raft recover -path=/var/lib/conclave -apply
    """
    from pathlib import Path

    from conclave.server import recover_folder

    path = call.flags.text("path")
    if not path:
        raise UsageError("Name the data folder with -path")
    return recover_folder(Path(path), is_dry=not call.flags.boolean("apply"))
