"""A count that grows wakes exactly those who waited for no more than it reached."""

import asyncio

from node.rising import RisingCount


async def test_waiting_ends_when_the_count_reaches_the_value():
    rising = RisingCount(3)
    waiting = [asyncio.create_task(rising.wait_for(value, 10)) for value in (7, 5, 6)]
    await asyncio.sleep(0)
    rising.raise_to(6)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [task.done() for task in waiting] == [False, True, True]
    rising.raise_to(7)
    assert await asyncio.gather(*waiting) == [True, True, True]


async def test_a_value_that_was_reached_is_not_waited_for():
    assert await RisingCount(3).wait_for(3, 0)


async def test_waiting_ends_with_the_time_and_leaves_nothing_behind():
    rising = RisingCount(3)
    assert not await rising.wait_for(4, 0.01)
    assert rising._waiting == []


async def test_the_count_never_falls():
    rising = RisingCount(3)
    rising.raise_to(2)
    assert rising.value == 3


async def test_a_task_that_was_cancelled_does_not_disturb_the_others():
    rising = RisingCount()
    first, second = (asyncio.create_task(rising.wait_for(1, 10)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    rising.raise_to(1)
    assert await second
    assert first.cancelled() or await asyncio.gather(first, return_exceptions=True)
