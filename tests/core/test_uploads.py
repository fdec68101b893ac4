"""An upload on its way to the leader: pieces, early refusals, and contact lost at the wrong moment."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest

from conclave.cluster.errors import NotLeader, Unreachable
from conclave.core import uploads
from conclave.core.contract import Operation, Request, Response
from conclave.core.errors import InvalidRequest, PermissionDenied, Unavailable
from conclave.core.forwarding import NO_LEADER, UNKNOWN_OUTCOME, VERSION, Ask, Question, Reply
from conclave.core.outcomes import Outcome, decode
from conclave.core.uploads import ARRIVING_MAX, BROKEN_OFF, TOO_MANY, Uploads
from tests.fakes import FakeReplica, on_loop, request_for


class Leader(FakeReplica):
    """`Peers` of a node whose leader is another `Uploads` in the same process, until contact is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.content = b""
        self.outcome: Outcome = Response({"done": True})
        self.reads_to_the_end = True
        self.handled: list[Request] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.uploads = Uploads(self, self.handle)
        self.questions: list[Question] = []
        self.faults: dict[int, Exception] = {}  # by the number of the question

    def handle(self, request: Request, done: Callable[[Outcome], None]) -> None:
        self.handled.append(request)
        task = asyncio.get_running_loop().create_task(self._read(request, done))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _read(self, request: Request, done: Callable[[Outcome], None]) -> None:
        assert request.upload is not None
        try:
            async for piece in request.upload:
                self.content += piece
                if not self.reads_to_the_end:
                    break
        except InvalidRequest as error:
            done(error)
        else:
            done(self.outcome)

    async def ask_leader(self, body: bytes, *, timeout_seconds: float) -> bytes:
        del timeout_seconds
        number = len(self.questions)
        question = msgspec.msgpack.decode(body, type=Question)
        self.questions.append(question)
        if number in self.faults:
            raise self.faults[number]
        return msgspec.msgpack.encode(await self.uploads.serve(question, "asker"))


async def pieces(*sizes: int) -> AsyncIterator[bytes]:
    for number, size in enumerate(sizes):
        yield bytes([number]) * size


def request_with(upload: AsyncIterator[bytes]) -> Request:
    request = request_for(Operation.UPDATE, "sys/storage/raft/snapshot", token="hvs.x")
    request.upload = upload
    return request


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "PIECE_BYTES", 10)


@on_loop
async def test_an_upload_arrives_whole_in_pieces_of_one_size() -> None:
    leader = Leader()

    outcome = await leader.uploads.send(request_with(pieces(3, 25, 0, 4)))

    assert isinstance(outcome, Response)
    assert leader.content == bytes(3) + b"\x01" * 25 + b"\x03" * 4
    assert [len(question.piece) for question in leader.questions] == [10, 10, 10, 2, 0]


@on_loop
async def test_the_leader_is_given_the_request_and_who_passed_it_on() -> None:
    leader = Leader()

    await leader.uploads.send(request_with(pieces(25)))

    (request,) = leader.handled
    assert (request.path, request.token, request.forwarded_by) == ("sys/storage/raft/snapshot", "hvs.x", "asker")
    assert [question.request is not None for question in leader.questions] == [True, False, False, False]


@on_loop
async def test_an_empty_upload_is_a_request_all_the_same() -> None:
    leader = Leader()

    assert isinstance(await leader.uploads.send(request_with(pieces())), Response)


@on_loop
async def test_a_refusal_ends_the_upload_early() -> None:
    leader = Leader()
    leader.reads_to_the_end, leader.outcome = False, PermissionDenied("permission denied")

    outcome = await leader.uploads.send(request_with(pieces(1000)))

    assert isinstance(outcome, PermissionDenied)
    assert len(leader.questions) < 10


@on_loop
@pytest.mark.parametrize(
    ("number", "fault", "text"),
    [
        (0, NotLeader(), NO_LEADER),
        (1, NotLeader(), BROKEN_OFF),
        (1, Unreachable(), BROKEN_OFF),
        (3, NotLeader(), BROKEN_OFF),
        (3, Unreachable(), UNKNOWN_OUTCOME),
    ],
)
async def test_lost_contact_is_said_for_what_it_means(number: int, fault: Exception, text: str) -> None:
    leader = Leader()
    leader.faults = {number: fault}

    with pytest.raises(Unavailable) as raised:
        await leader.uploads.send(request_with(pieces(25)))

    assert raised.value.messages == (text,)


@on_loop
async def test_a_piece_of_an_upload_that_is_not_known_is_refused() -> None:
    answer = await Leader().uploads.serve(Question(VERSION, Ask.UPLOAD, bytes(16), piece=b"x"), "asker")

    assert answer.reply is Reply.ANSWER
    assert isinstance(decode(answer.outcome), InvalidRequest)


@on_loop
async def test_there_is_a_bound_on_uploads_that_arrive_at_once() -> None:
    leader = Leader()

    def first(number: int) -> Awaitable[object]:
        request = request_for(Operation.UPDATE, "sys/storage/raft/snapshot")
        return leader.uploads.serve(Question(VERSION, Ask.UPLOAD, bytes([number]) * 16, request, piece=b"x"), "asker")

    for number in range(ARRIVING_MAX):
        await first(number)
    answer = await leader.uploads.serve(
        Question(VERSION, Ask.UPLOAD, b"z" * 16, request_for(Operation.UPDATE, "a"), piece=b"x"), "asker"
    )

    refused = decode(answer.outcome)
    assert isinstance(refused, Unavailable)
    assert refused.messages == (TOO_MANY,)
    for task in leader.tasks:
        task.cancel()


@on_loop
async def test_an_upload_whose_sender_falls_silent_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "SILENCE_SECONDS_MAX", 0.01)
    leader = Leader()
    request = request_for(Operation.UPDATE, "sys/storage/raft/snapshot")

    await leader.uploads.serve(Question(VERSION, Ask.UPLOAD, bytes(16), request, piece=b"x"), "asker")
    await asyncio.gather(*leader.tasks)

    assert leader.content == b"x"
