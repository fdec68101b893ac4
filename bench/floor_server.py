"""`python -m bench.floor_server answer|http PORT`: what is left of a server when there is no vault behind it.

    answer   a fixed answer to whatever arrives: what the event loop and the kernel's sockets cost, and Python calling back
    http     our own connections, which read a request and write an answer, with an echo behind them

It serves on a loopback port until it is told to end. Another process loads it, since it would take its time otherwise.
"""

import argparse
import asyncio
from typing import Final, cast

import uvloop

from bench.layers import Echo, protocols

_BODY: Final = b'{"data":{"data":{"password":"' + b"x" * 100 + b'","username":"bench"}}}\n'
_ANSWER: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    len(_BODY),
    _BODY,
)


class _Answering(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # the loop's own class, and no child of this one

    def data_received(self, data: bytes) -> None:
        del data
        self._transport.write(_ANSWER)


async def _serve(kind: str, port: int) -> None:
    make = _Answering if kind == "answer" else protocols(Echo())
    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("answer", "http"))
    parser.add_argument("port", type=int)
    options = parser.parse_args()
    uvloop.run(_serve(options.kind, options.port))
