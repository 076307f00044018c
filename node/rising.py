"""A number that only grows and that tasks can wait for: the size that is durable, the size that is signed."""

import asyncio
import heapq
from itertools import count


class RisingCount:
    """Belongs to one event loop; only that loop's thread may touch it."""

    def __init__(self, value: int = 0) -> None:
        self._value = value
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = count()

    @property
    def value(self) -> int:
        """The number now."""
        return self._value

    def raise_to(self, value: int) -> None:
        """Let the number grow and wake whoever waited for it; a smaller value changes nothing."""
        self._value = max(self._value, value)
        while self._waiting and self._waiting[0][0] <= self._value:
            _, _, future = heapq.heappop(self._waiting)
            if not future.done():
                future.set_result(None)

    async def wait_for(self, value: int, timeout_s: float) -> bool:
        """Wait until the number is `value` at least; False if that does not happen in time."""
        if self._value >= value:
            return True
        future = asyncio.get_running_loop().create_future()
        waiting = (value, next(self._order), future)
        heapq.heappush(self._waiting, waiting)
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError:
            return False
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
                heapq.heapify(self._waiting)
        return True
