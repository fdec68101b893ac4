"""Questions from node to node: asked of the leader of one term, answered at most once.

What exactly-once forwarding depends on: a question names the term that its sender believes in, and a node that does not
lead *that* term answers NOT_LEADER without handing the body to anybody. Once a question has left, only an answer tells
what became of it; a connection that breaks, a time that runs out, or a new leader in the meantime leaves the outcome
unknown (`Unreachable`). Nothing is asked a second time here.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from conclave.cluster.errors import ClusterError, NotLeader, Unreachable
from conclave.cluster.frames import Answer, Forward, Frame, Outcome, Service
from conclave.cluster.transport import Reply

log = logging.getLogger(__name__)

SERVED_MAX: Final = 4096
"""Questions answered at the same time; one more is told to ask again."""


class Asks:
    """The questions of one node, and those it is answering.

    Args:
        send: sends a frame to a peer on its bulk connection; False if it was dropped.
        first_id: the first question's number; random, so that a late answer to an earlier life fits nothing.
    """

    def __init__(self, send: Callable[[int, Frame], bool], first_id: int) -> None:
        self._send = send
        self._next_id = first_id
        self._waiting: dict[int, tuple[int, asyncio.Future[bytes]]] = {}
        self._serving: set[asyncio.Task[None]] = set()

    # -- asking --

    async def ask(self, to: int, term: int, service: Service, body: bytes, *, timeout_seconds: float) -> bytes:
        """Ask the leader of `term`.

        Raises:
            NotLeader: it was not asked, or did not look at the question.
            Unreachable: the outcome is unknown.
        """
        self._next_id += 1
        request_id = self._next_id
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = (to, future)
        try:
            if not self._send(to, Forward(request_id, term, service, body)):
                raise NotLeader("the leader is not connected")
            async with asyncio.timeout(timeout_seconds):
                return await future
        except TimeoutError:
            raise Unreachable("the leader did not answer in time") from None
        finally:
            del self._waiting[request_id]

    def answered(self, peer: int, answer: Answer) -> None:
        """Take in an answer; one that nobody waits for any more is dropped."""
        to, future = self._waiting.get(answer.request_id, (0, None))
        if future is None or future.done() or to != peer:
            return
        if answer.outcome is Outcome.ANSWERED:
            future.set_result(answer.body)
        elif answer.outcome is Outcome.NOT_LEADER:
            future.set_exception(NotLeader("the node that was asked does not lead this term"))
        else:
            future.set_exception(Unreachable("the leader could not answer"))

    def broken(self, peer: int) -> None:
        """Give up what was asked of a peer whose connection broke."""
        self._give_up(lambda to: to == peer, "the connection to the leader broke")

    def superseded(self, leader: int) -> None:
        """Give up what was asked of anybody but a new leader: no earlier one can get anything committed any more."""
        self._give_up(lambda to: to != leader, "another node leads now")

    def give_up(self, text: str) -> None:
        """Give up everything that was asked: what became of it stays unknown."""
        self._give_up(lambda _: True, text)

    def _give_up(self, concerns: Callable[[int], bool], text: str) -> None:
        for to, future in list(self._waiting.values()):
            if concerns(to) and not future.done():
                future.set_exception(Unreachable(text))

    # -- answering --

    def serve(self, question: Forward, reply: Reply, answer: Callable[[bytes], Awaitable[bytes]] | None) -> None:
        """Answer a question by `answer`; None refuses it unseen, because this node does not lead that term."""
        if answer is None or len(self._serving) >= SERVED_MAX:
            reply(Answer(question.request_id, Outcome.NOT_LEADER))
            return
        task = asyncio.get_running_loop().create_task(_serve(question, reply, answer), name="answer")
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def close(self) -> None:
        """End everything: what was asked stays unknown, what is being answered is left."""
        self.give_up("this node is stopping")
        serving = list(self._serving)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


async def _serve(question: Forward, reply: Reply, answer: Callable[[bytes], Awaitable[bytes]]) -> None:
    try:
        body = await answer(question.body)
    except ClusterError as error:
        log.info("could not do what another node asked for", extra={"reason": str(error)})
        reply(Answer(question.request_id, Outcome.FAILED))
    except Exception:  # the edge of a question: its sender has to hear something, whatever went wrong
        log.exception("a question of another node failed")
        reply(Answer(question.request_id, Outcome.FAILED))
    else:
        reply(Answer(question.request_id, Outcome.ANSWERED, body))
