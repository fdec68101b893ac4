"""An event loop whose time is virtual, shared by processes that can be frozen or killed and have clocks of their own.

* Nothing ever blocks: when nothing is ready, time goes on to the next timer. When there is none, everybody would wait for
  ever, which is an error.
* Whatever is scheduled from within a process belongs to it (by its context). While the process is frozen, what becomes due
  waits, and follows in its order when it goes on; what belongs to a dead process waits for ever.
* Within a process `time()` is its own monotone clock, which may run faster or slower than the world's.

There are no sockets and no threads.
"""

import asyncio
import contextvars
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Stuck(Exception):
    """Everybody waits, and nothing will ever happen again."""


class _Selector(selectors.BaseSelector):
    """Waits for nothing: whoever would wait goes on in time instead."""

    def __init__(self) -> None:
        self.now = 0.0
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        self._keys[fileobj] = key = selectors.SelectorKey(fileobj, 0, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck("nothing is ready, and no timer is set")
        self.now += max(0.0, timeout)
        return []

    def get_map(self) -> dict[Any, selectors.SelectorKey]:
        return self._keys


class Process:
    """What runs, stops and ends together.

    Args:
        loop: runs it.
        rate: how fast its clock runs.
        offset_seconds: what its clock shows at the world's beginning.
    """

    def __init__(self, loop: "VirtualLoop", rate: float = 1.0, offset_seconds: float = 0.0) -> None:
        self.is_frozen = False
        self.is_dead = False
        self.held: list[Callable[[], None]] = []
        self.context = contextvars.copy_context()
        self.context.run(_process.set, self)
        self._loop = loop
        self._rate = rate
        self._offset_seconds = offset_seconds
        self._jumped_seconds = 0.0

    def monotonic(self) -> float:
        """Return what its loop's clock shows."""
        return self._offset_seconds + self._loop.world_time() * self._rate

    def boot_seconds(self) -> float:
        """Return what the clock shows that counts while the machine sleeps."""
        return self.monotonic() + self._jumped_seconds

    def world_time_at(self, monotonic: float) -> float:
        """Return when in the world its loop's clock shows so."""
        return (monotonic - self._offset_seconds) / self._rate

    def jump(self, seconds: float) -> None:
        """Let the clock go on that counts while the machine sleeps, and nothing else."""
        self._jumped_seconds += seconds

    def post(self, callback: Callable[[*Ts], object], *arguments: *Ts) -> None:
        """Have something run in this process, soon."""
        self._loop.call_soon(callback, *arguments, context=self.context)

    def start(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start a task of this process."""
        return self._loop.create_task(coroutine, name=name, context=self.context)

    def freeze(self) -> None:
        """Stop; what comes meanwhile waits."""
        self.is_frozen = True

    def thaw(self) -> None:
        """Go on, with what has waited first."""
        self.is_frozen = False
        if not self.is_dead:
            self._release()

    def kill(self) -> None:
        """End without a word."""
        self.is_dead = True

    def bury(self) -> None:
        """Let what was left of a dead process run to its end: all its tasks have been cancelled."""
        self.is_dead = self.is_frozen = False
        self._release()

    def _release(self) -> None:
        held, self.held = self.held, []
        for resume in held:
            resume()


_process: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


def current_process() -> Process | None:
    """Return the process that runs now; None for the world itself."""
    return _process.get()


class VirtualLoop(asyncio.SelectorEventLoop):
    """The event loop. Its time begins at 0."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)
        self._clock_resolution = 1e-9

    def world_time(self) -> float:
        """Return the world's time, in seconds."""
        return self._virtual.now

    def time(self) -> float:
        """Return the time as whoever asks sees it."""
        process = _process.get()
        return self._virtual.now if process is None else process.monotonic()

    def in_world(self, seconds: float, callback: Callable[[], object]) -> None:
        """Have something happen so much later that belongs to no process, whoever asks for it."""
        contextvars.Context().run(self.call_at, self._virtual.now + seconds, callback)

    def call_soon(  # type: ignore[override]  # as in asyncio, with the arguments' types left open
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """See `asyncio.loop`."""
        process = _process.get() if context is None else context.get(_process)
        if process is None:
            return super().call_soon(callback, *args, context=context)
        context = context or contextvars.copy_context()
        cell: list[asyncio.Handle] = []
        handle = super().call_soon(self._run_in, process, cell, callback, args, context, context=context)
        cell.append(handle)
        return handle

    def call_at(  # type: ignore[override]  # as in asyncio, with the arguments' types left open
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """See `asyncio.loop`."""
        asking, process = _process.get(), _process.get() if context is None else context.get(_process)
        moment = when if asking is None else asking.world_time_at(when)
        if process is None:
            return super().call_at(moment, callback, *args, context=context)
        context = context or contextvars.copy_context()
        cell: list[asyncio.Handle] = []
        handle = super().call_at(moment, self._run_in, process, cell, callback, args, context, context=context)
        cell.append(handle)
        return handle

    def _run_in(
        self,
        process: Process,
        cell: list[asyncio.Handle],
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context,
    ) -> None:
        if process.is_frozen or process.is_dead:
            process.held.append(lambda: self._resume(process, cell, callback, args, context))
        else:
            callback(*args)

    def _resume(
        self,
        process: Process,
        cell: list[asyncio.Handle],
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context,
    ) -> None:
        super().call_soon(self._run_unless_cancelled, process, cell, callback, args, context, context=context)

    def _run_unless_cancelled(
        self,
        process: Process,
        cell: list[asyncio.Handle],
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context,
    ) -> None:
        if not cell[0].cancelled():
            self._run_in(process, cell, callback, args, context)

    def end(self, processes: list[Process]) -> None:
        """End every task, those of dead processes too, so that nothing is left half done."""
        for process in processes:
            process.is_dead = process.is_frozen = False
        while tasks := asyncio.all_tasks(self):
            for task in tasks:
                task.cancel()
            for process in processes:
                process.bury()
            self.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self.close()
