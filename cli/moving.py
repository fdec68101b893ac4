"""Moving a mount: start it, then wait until the server has finished."""

import time
from collections.abc import Callable
from typing import Final

from conclave.cli.command import Call, doing
from conclave.cli.errors import EXIT_OK, ServerError

POLL_SECONDS: Final = 0.5
"""How long to wait between two questions whether the move is done."""


def move_mount(call: Call, kind: str, source: str, target: str, *, pause: Callable[[float], None] = time.sleep) -> int:
    """Move the mount at `source`; `kind` is "secrets engine" or "auth method".

    Raises:
        ServerError: the server refused, or the move failed.
    """
    with doing(f"Error moving {kind} {source}/ to {target}/"):
        answer = call.client.fetch("POST", "sys/remount", {"from": source, "to": target})
    migration = str((answer.get("data") or answer).get("migration_id", ""))
    about = f"{kind} {source}/ to {target}/, with migration ID {migration}"
    call.out(f"Started moving {about}")
    call.out(f"Waiting for terminal status in migration of {about}")
    while True:
        with doing(f"Error checking the move of {kind} {source}/"):
            state = call.client.fetch("GET", f"sys/remount/status/{migration}")
        status = ((state.get("data") or state).get("migration_info") or {}).get("status")
        if status == "success":
            call.out(f"Success! Finished moving {about}")
            return EXIT_OK
        if status == "failure":
            raise ServerError(f"Failure! Error encountered moving {about}")
        pause(POLL_SECONDS)
