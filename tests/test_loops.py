"""Promises: a server's loop ends with nothing pending, whatever its clients have left behind."""

import asyncio

from loops import in_thread


def test_a_handler_that_nobody_waits_for_ends_with_its_loop():
    async def begin() -> asyncio.Task[bool]:
        task = asyncio.create_task(asyncio.Event().wait())
        await asyncio.sleep(0)
        return task

    with in_thread() as run:
        hanging = run(begin())
        assert not hanging.done()

    assert hanging.cancelled()
