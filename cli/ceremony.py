"""Ceremonies in which several people give one key share each: what `rotate-keys`, `rekey` and `generate-root` share."""

from typing import Any, NamedTuple

from conclave.cli.command import Call, doing
from conclave.cli.errors import ServerError


class Endpoints(NamedTuple):
    """Where a ceremony lives.

    Attributes:
        state: read to see it, written to start it, deleted to cancel it.
        update: takes one share.
    """

    state: str
    update: str


def fetch_data(call: Call, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Send a request and return the data of its answer, whether it comes in an envelope or bare."""
    answer = call.client.fetch(method, path, body)
    data = answer.get("data")
    return data if isinstance(data, dict) else answer


def give_share(call: Call, at: Endpoints, *, failure: str, nothing_runs: str) -> dict[str, Any]:
    """Send the share that the arguments, stdin or the terminal hold; return how far the ceremony is.

    A share given as an argument or on stdin needs -nonce: it must not end up in a ceremony that somebody else has started.

    Raises:
        ServerError: no ceremony runs, or the server refuses the share.
    """
    with doing(failure):
        state = fetch_data(call, "GET", at.state)
    if not state.get("started"):
        raise ServerError(nothing_runs)
    nonce, key = call.flags.text("nonce"), call.argument(0).strip()
    if key and not nonce:
        raise ServerError("A share on the command line or stdin needs -nonce, so that it goes to the right ceremony")
    if key == "-":
        key = call.stdin.readline().strip()
    if not key:
        nonce = nonce or str(state.get("nonce", ""))
        call.warn(f"Operation nonce: {nonce}")
        key = call.ask_hidden("Key share (will be hidden): ")
    with doing(failure):
        return fetch_data(call, "POST", at.update, {"key": key, "nonce": nonce})
