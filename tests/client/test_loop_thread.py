"""Promises: a call ends whatever happens: also when the loop is closed under it, or while it comes."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from client.sdk.loop_thread import LoopThread

CLOSED = "the client was closed while it was used"


@pytest.fixture
def calling() -> Callable[[LoopThread, Coroutine[Any, Any, None], list[str]], threading.Thread]:
    """A thread that makes a call and notes how it ends; a daemon, so that one that never ends fails its test only."""

    def start(loop: LoopThread, coroutine: Coroutine[Any, Any, None], ends: list[str]) -> threading.Thread:
        def call() -> None:
            try:
                loop.run(coroutine)
            except RuntimeError as error:
                ends.append(str(error))

        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        return thread

    return start


def test_a_call_returns_what_its_coroutine_does():
    async def answer() -> int:
        return 42

    loop = LoopThread()
    try:
        assert loop.run(answer()) == 42
    finally:
        loop.close()


def test_a_call_that_runs_while_the_loop_is_closed_ends_with_an_error(calling):
    begun, ends = threading.Event(), list[str]()

    async def forever() -> None:
        begun.set()
        await asyncio.Event().wait()

    loop = LoopThread()
    thread = calling(loop, forever(), ends)
    assert begun.wait(10)
    loop.close()
    thread.join(10)

    assert ends == [CLOSED]


def test_a_call_that_comes_while_the_loop_is_closed_is_refused(calling):
    begun, came, ends, late_ends = threading.Event(), threading.Event(), list[str](), list[str]()
    late: list[threading.Thread] = []

    async def forever() -> None:
        came.set()
        await asyncio.Event().wait()

    async def call_late() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:  # the loop is being closed
            late.append(await asyncio.to_thread(calling, loop, forever(), late_ends))
            while late[0].is_alive() and not came.is_set():
                await asyncio.sleep(0)

    loop = LoopThread()
    thread = calling(loop, call_late(), ends)
    assert begun.wait(10)
    loop.close()
    for one in (thread, *late):
        one.join(10)

    assert (ends, late_ends) == ([CLOSED], [CLOSED])
    assert not came.is_set()


def test_a_call_after_the_end_is_refused():
    async def answer() -> int:
        return 42

    loop = LoopThread()
    loop.close()

    with pytest.raises(RuntimeError, match=CLOSED):
        loop.run(answer())
