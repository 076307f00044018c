"""An event loop in a thread of its own, for calls that wait for it.

Rejected: `asyncio.run` in the caller's thread, which no notebook could use, since a loop runs there already.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_CLOSED = "the client was closed while it was used"


class LoopThread:
    """The loop runs from the making of this object until `close`."""

    def __init__(self) -> None:
        runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop, self._closing = runner.get_loop(), asyncio.Event()
        self._lock, self._is_closed = threading.Lock(), False
        # A daemon, so that a program that forgets to close it can still end.
        self._thread = threading.Thread(target=self._serve, args=(runner,), name="wmreg", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end; called from any thread but the loop's own.

        What interrupts the waiting, such as KeyboardInterrupt, cancels the coroutine and is raised when that has ended.

        Raises:
            RuntimeError: this is the loop's own thread, which would wait for itself; or the loop is closed meanwhile.
        """
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError("a callback of a client must not call the client")
        call, is_arranged = _Call(self._loop, coroutine), False
        try:
            is_arranged = self._arrange(call.begin)
            if is_arranged:
                call.ended.wait()
        except BaseException:
            if self._arrange(call.abandon):  # else closing cancels it
                call.ended.wait()
            raise
        if not is_arranged:
            coroutine.close()
            raise RuntimeError(_CLOSED)
        return call.result()

    def close(self) -> None:
        """Cancel whatever still runs, and end the loop and its thread; for one call."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()

    def _serve(self, runner: asyncio.Runner) -> None:
        with runner:  # its end cancels what is left, and closes the loop
            runner.run(self._wait())

    async def _wait(self) -> None:
        await self._closing.wait()
        with self._lock:
            self._is_closed = True
        await asyncio.sleep(0)  # what was arranged before begins now, so that the end of the runner cancels it as well

    def _arrange(self, step: Callable[[], None]) -> bool:
        """Let the loop do something; False when it is closed, and would never come to it."""
        with self._lock:
            if not self._is_closed:
                self._loop.call_soon_threadsafe(step)
            return not self._is_closed


class _Call(Generic[T]):
    """One coroutine on its way; begin and abandon run in the loop's thread, begin first."""

    def __init__(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> None:
        self.ended = threading.Event()
        self._loop, self._coroutine = loop, coroutine
        self._task: asyncio.Task[T] | None = None

    def begin(self) -> None:
        self._task = self._loop.create_task(self._coroutine)
        self._task.add_done_callback(self._end)

    def abandon(self) -> None:
        if self._task is None:  # the interruption came before the beginning was arranged
            self._coroutine.close()
            self.ended.set()
        else:
            self._task.cancel()

    def result(self) -> T:
        """What the coroutine returned or raised, after its end."""
        if self._task is None:
            raise RuntimeError("the call was abandoned")
        if self._task.cancelled():  # not by `abandon`, whose caller does not ask for the result
            raise RuntimeError(_CLOSED)
        return self._task.result()

    def _end(self, task: asyncio.Task[T]) -> None:
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not report that of an abandoned call as forgotten
        self.ended.set()
