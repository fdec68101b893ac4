"""One HTTP connection: a fast lane in front of uvicorn's httptools protocol.

    IDLE ── plain request ──▶ ANSWERING ── answered ──▶ IDLE        fast: bytes → Request → Answer → bytes, in one pass
    IDLE ── anything else ──▶ SLOW ── answered, read to its end ──▶ IDLE      httptools → ASGI → Starlette (`app.py`)

What is asked and what is answered is decided by the same pure functions in both lanes (`fastlane.py`, `envelope.py`); a
test compares their bytes. Here is only what belongs to the connection:

* One request after another: bytes behind the one being answered wait, bounded by not reading further.
* A message that does not arrive, an answer that does not come and an idle connection end by `sweep`, called each second,
  so that no request costs a timer.
* A client that has closed its sending half still gets the answer to what it sent.
* An answer that comes after its time limit, or after the client has gone, is dropped.
* Answers leave at the end of the turn (`outgoing.py`), but before anything else that is done to their connection.
"""

import asyncio
import time
from enum import Enum
from typing import Final, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from conclave.api import envelope, wire
from conclave.api.envelope import Answer
from conclave.api.fastlane import PREFIX, REQUEST_BYTES_MAX, Terms, is_special, request_of, take_body, terms_of
from conclave.api.handler import Handler, new_request_id
from conclave.api.outgoing import Outgoing
from conclave.core.contract import Request
from conclave.core.errors import RequestError, Unavailable
from conclave.core.metrics import Metrics
from conclave.core.outcomes import Outcome

REQUEST_SECONDS_MAX: Final = 90
"""The default limit on the time that an answer may take, Vault's."""
MESSAGE_SECONDS_MAX: Final = 30
"""A small request must have arrived after so long; a large one must not pause for longer."""
IDLE_SECONDS_MAX: Final = 300
"""A connection that asks nothing for so long is closed."""
PIPELINED_BYTES_MAX: Final = 256 * 1024
"""Bytes that may wait behind a request that is being answered, before reading stops."""
CONNECTIONS_MAX: Final = 8192
"""Open connections of one listener; more are refused."""

_CLOSE: Final = b"connection: close\r\n"
_HEAD_TOO_LARGE: Final = Answer(431, b'{"errors":["request header fields too large"]}\n')
_TOO_SLOW: Final = Answer(408, b'{"errors":["the request did not arrive in time"]}\n')
_TOO_MANY: Final = Answer(503, b'{"errors":["too many open connections"]}\n')


def too_late(seconds: int) -> Unavailable:
    """Return the refusal of a request whose answer took too long; what it did, if anything, stays done."""
    return Unavailable(f"no answer within {seconds} seconds; read before you repeat a write")


class Shared(ServerState):
    """What all connections of one listener have in common.

    Args:
        handler: who answers.
        metrics: where requests are counted.
        request_bytes_max: the bound on a body.
        request_seconds_max: the bound on the time until an answer.
        has_open_metrics: sys/metrics is answered without a token.
        has_prometheus: sys/metrics is also answered in Prometheus' format.
    """

    def __init__(
        self,
        handler: Handler,
        metrics: Metrics,
        *,
        request_bytes_max: int = REQUEST_BYTES_MAX,
        request_seconds_max: int = REQUEST_SECONDS_MAX,
        has_open_metrics: bool = False,
        has_prometheus: bool = True,
    ) -> None:
        super().__init__()
        self.handler = handler
        self.metrics = metrics
        self.request_bytes_max = request_bytes_max
        self.request_seconds_max = request_seconds_max
        self.has_open_metrics = has_open_metrics
        self.has_prometheus = has_prometheus
        self.date_line = b""
        self.outgoing = Outgoing()

    def set_date(self, date: bytes) -> None:
        """Take the text of the Date header that answers carry from now on."""
        self.default_headers = [(b"date", date)]
        self.date_line = b"date: %b\r\n" % date


class Lane(Enum):
    """What a connection is doing."""

    IDLE = "idle"
    ANSWERING = "answering"
    SLOW = "slow"


class FastLaneProtocol(HttpToolsProtocol):
    """One connection. `config.app` is the slow lane."""

    def __init__(self, config: Config, shared: Shared) -> None:
        super().__init__(config, shared, {})
        self._shared = shared
        self._lane = Lane.IDLE
        self._received = b""  # what neither lane has taken yet
        self._known: wire.Headers | None = None
        self._terms = Terms()  # of `_known`
        self._remote = ("", 0)
        self._request: Request | None = None  # the one being answered
        self._began_seconds = 0.0
        self._is_head = False
        self._is_last = False
        self._is_advancing = False
        self._is_half_closed = False
        self._is_in_message = False  # httptools has begun to read a message and not seen its end
        self._quiet_seconds = 0

    # -- asyncio's side --

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Begin; refuse a connection too many."""
        super().connection_made(transport)
        self._remote = self.client or ("", 0)
        if len(self._shared.connections) > CONNECTIONS_MAX:
            self._end_with(_TOO_MANY)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the request being answered: whoever asked is gone."""
        super().connection_lost(exc)
        if self._request is not None:
            self._shared.metrics.in_flight.add(-1)
            self._request = None

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client."""
        if self._lane is Lane.SLOW:
            self._quiet_seconds = 0
            super().data_received(data)
            self._leave_slow_lane()
            return
        if self._received:
            self._received += data
        else:
            self._received = data
            if self._lane is Lane.IDLE:
                self._quiet_seconds = 0
        if self._lane is Lane.IDLE:
            self._advance()
        elif len(self._received) > PIPELINED_BYTES_MAX:
            self.flow.pause_reading()

    def eof_received(self) -> bool | None:  # type: ignore[override]  # uvicorn declares that it never keeps open
        """Keep the connection open for an answer that is due, where the transport can be half open."""
        self._shared.outgoing.flush()  # the transport may be closed for what is returned
        is_answer_due = self._lane is not Lane.IDLE and not self._is_in_message
        if not is_answer_due or self.scheme == "https":
            return None
        self._is_half_closed = True
        if self._lane is Lane.SLOW:
            self.cycle.keep_alive = False
        return True

    def resume_writing(self) -> None:
        """Go on when the client has taken what was sent."""
        super().resume_writing()
        self._advance()

    def shutdown(self) -> None:
        """Close at once if idle, else after the answer that is due."""
        if self._lane is Lane.SLOW:
            super().shutdown()
        elif self._lane is Lane.ANSWERING:
            self._is_last = True
        else:
            self._close()

    def sweep(self) -> None:
        """End what takes too long; called each second."""
        self._quiet_seconds += 1
        if self._lane is Lane.ANSWERING:
            if self._quiet_seconds > self._shared.request_seconds_max and self._request is not None:
                self._answered(self._request, too_late(self._shared.request_seconds_max))
        elif self._lane is Lane.SLOW:
            if self._is_in_message and self._quiet_seconds > MESSAGE_SECONDS_MAX:
                self.transport.close()
        elif self._received and not self.flow.write_paused:
            if self._quiet_seconds > MESSAGE_SECONDS_MAX:
                self._end_with(_TOO_SLOW)
        elif self._quiet_seconds > IDLE_SECONDS_MAX:
            self.transport.close()

    # -- the fast lane --

    def _advance(self) -> None:
        """Take one request after another out of what was received, until one has to be waited for."""
        if self._is_advancing:
            return
        self._is_advancing = True
        while (
            self._lane is Lane.IDLE
            and self._received
            and not self.flow.write_paused
            and not self.transport.is_closing()
            and self._take_message()
        ):
            pass
        self._is_advancing = False
        if self._lane is Lane.IDLE:
            self.flow.resume_reading()
            if self._is_half_closed and not (self._received and self.flow.write_paused):
                self._close()

    def _take_message(self) -> bool:
        """Serve the first message received; False if it is not complete yet."""
        message = wire.recognise(self._received, self._known)
        if isinstance(message, wire.Message):
            self._take_plain(message)
            return True
        if message is wire.Verdict.INCOMPLETE:
            return False
        if message is wire.Verdict.TOO_LARGE:
            self._end_with(_HEAD_TOO_LARGE)
        else:
            self._enter_slow_lane()
        return True

    def _take_plain(self, message: wire.Message) -> None:
        if message.headers is not self._known:
            self._known = message.headers
            self._terms = terms_of(message.headers.values)
        if not message.path.startswith(PREFIX) or len(message.body) > self._shared.request_bytes_max:
            self._enter_slow_lane()
            return
        self._is_head = message.method == b"HEAD"
        self._is_last = message.headers.is_last
        try:
            request = request_of(
                message.method,
                message.path,
                message.query,
                self._terms,
                request_id=new_request_id(),
                remote=self._remote,
            )
            if is_special(request):
                self._enter_slow_lane()
                return
            take_body(request, message.body)
        except RequestError as error:
            self._consume(message)
            self._send(envelope.refusal(error))
            return
        self._consume(message)
        self._serve(request)

    def _consume(self, message: wire.Message) -> None:
        self._received = self._received[message.length :]
        self._quiet_seconds = 0

    def _serve(self, request: Request) -> None:
        self._lane = Lane.ANSWERING
        self._request = request
        self._began_seconds = time.perf_counter()
        self._shared.metrics.in_flight.add(1)
        self._shared.handler.handle(request, lambda outcome: self._answered(request, outcome))

    def _answered(self, request: Request, outcome: Outcome) -> None:
        if self._request is not request:
            return
        self._request = None
        metrics = self._shared.metrics
        metrics.in_flight.add(-1)
        metrics.handle_request.observe((time.perf_counter() - self._began_seconds) * 1e3)
        self._lane = Lane.IDLE
        self._quiet_seconds = 0
        if not self.transport.is_closing():
            self._send(envelope.answer(request, outcome))
            self._advance()

    def _send(self, answer: Answer) -> None:
        head = envelope.head_bytes(answer, self._shared.date_line)
        connection = _CLOSE if self._is_last else b""
        body = b"" if self._is_head else answer.body
        self._shared.outgoing.write(self.transport, b"%b%b\r\n%b" % (head, connection, body), self.loop)
        self._shared.total_requests += 1
        if self._is_last:
            self._close()

    def _close(self) -> None:
        """Close, after what was answered."""
        self._shared.outgoing.flush()
        self.transport.close()

    def _end_with(self, answer: Answer) -> None:
        """Say why, and close."""
        self._received = b""
        self._is_head = False
        self._is_last = True
        self._send(answer)

    # -- the slow lane --

    def _enter_slow_lane(self) -> None:
        self._lane = Lane.SLOW
        self._quiet_seconds = 0
        received, self._received = self._received, b""
        self._shared.outgoing.flush()  # what comes now is written at once
        super().data_received(received)
        self._leave_slow_lane()

    def _leave_slow_lane(self) -> None:
        """Return once nothing is left of the message that was slow, nor of any that came with it."""
        is_answered = self.cycle is None or self.cycle.response_complete
        if self._lane is Lane.SLOW and is_answered and not self._is_in_message and not self.pipeline:
            self._lane = Lane.IDLE
            self._quiet_seconds = 0
            self._advance()

    def on_message_begin(self) -> None:
        """Note that httptools is within a message."""
        self._is_in_message = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """Note that httptools is between messages."""
        self._is_in_message = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with what waits; `sweep` ends idle connections, so uvicorn's timer is not wanted."""
        super().on_response_complete()
        self._unset_keepalive_if_required()
        if not self.transport.is_closing():
            self._leave_slow_lane()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, but never in place of the answer to an earlier request on this connection."""
        if self.cycle is None or self.cycle.response_complete:
            super().send_400_response(msg)
        else:
            self.cycle.keep_alive = False
            self.flow.pause_reading()

    def _unsupported_upgrade_warning(self) -> None:
        """Answer a request for another protocol in this one, and read no further: the parser has stopped."""
        self.cycle.keep_alive = False


def protocol_of(connection: object) -> FastLaneProtocol:
    """Return a member of `ServerState.connections` as what it is."""
    return cast("FastLaneProtocol", connection)
