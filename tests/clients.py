"""A client of a vault in memory for tests that tell a story in a few requests, without a line of asyncio.

with client() as vault:
    vault.write("sys/mounts/m", {"type": "kv"})
    assert vault.data("sys/mounts/m/tune")["max_lease_ttl"] == 2764800
"""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

from conclave.core.contract import Auth, Operation, Request, Response
from conclave.core.errors import RequestError
from conclave.core.outcomes import Outcome
from conclave.core.services import Services
from tests.fakes import FakeVault, data_of, started_vault


class Client:
    """Requests to one vault, each answered before the next; with the root token unless another is given."""

    def __init__(self, fake: FakeVault, loop: asyncio.AbstractEventLoop) -> None:
        self.fake = fake
        self._loop = loop

    def ask(self, operation: Operation, path: str, fields: Any = None, **more: Any) -> Outcome:
        return self._loop.run_until_complete(self.fake.ask(operation, path, fields, **more))

    def send(self, request: Request) -> Outcome:
        """Return the outcome of a request that is sent as it is."""
        return self._loop.run_until_complete(self._answered(request))

    async def _answered(self, request: Request) -> Outcome:
        return await self.fake.start(request)

    def read(self, path: str, **more: Any) -> Outcome:
        return self.ask(Operation.READ, path, **more)

    def write(self, path: str, fields: Any = None, **more: Any) -> Outcome:
        return self.ask(Operation.UPDATE, path, fields, **more)

    def patch(self, path: str, fields: Any = None, **more: Any) -> Outcome:
        return self.ask(Operation.PATCH, path, fields, content_type="application/merge-patch+json", **more)

    def delete(self, path: str, **more: Any) -> Outcome:
        return self.ask(Operation.DELETE, path, **more)

    def list(self, path: str, **more: Any) -> Outcome:
        return self.ask(Operation.LIST, path, **more)

    def data(self, path: str, **more: Any) -> Any:
        """Return the data of a read that must succeed."""
        return data_of(self.read(path, **more))

    def keys(self, path: str, **more: Any) -> Any:
        """Return the names of a listing that must succeed."""
        return data_of(self.list(path, **more))["keys"]

    def commit(self, services: Services) -> None:
        """Commit what was done in `fake.services()`."""
        self._loop.run_until_complete(self.fake.commit(services))

    def new_token(self, **fields: Any) -> Auth:
        """Make a token and return its `auth` block."""
        return auth_of(self.write("auth/token/create", fields))


def auth_of(outcome: Outcome) -> Auth:
    """Return the token that an answer hands out."""
    assert isinstance(outcome, Response), outcome
    assert outcome.auth is not None
    return outcome.auth


def refusal(outcome: Outcome) -> str:
    """Return the message of a refused request, "Type: text"."""
    assert isinstance(outcome, RequestError), outcome
    return ": ".join([type(outcome).__name__, *outcome.messages])


def is_done(outcome: Outcome) -> bool:
    """Whether a request succeeded and had nothing to say."""
    return isinstance(outcome, Response) and outcome.data is None and not outcome.warnings


@contextmanager
def client() -> Iterator[Client]:
    """Yield a client of a new vault with kv-v2 at secret/."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        fake = runner.run(stack.enter_async_context(started_vault()))
        try:
            yield Client(fake, runner.get_loop())
        finally:
            runner.run(stack.aclose())
