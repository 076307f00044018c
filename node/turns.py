"""Whose claim is verified next: that of the owner who used the node least of late.

Claims cost their owner nothing and a node minutes, so a hundred claims of one owner must not starve the one claim of
another. What each owner used is added up in seconds, of fetching and of verifying, and forgotten by half each hour; the
least goes first, and among equals who published first. Nobody is refused and no lane stands idle while there is work: a
budget that held an owner back although nobody else waits would only cost him his deadline.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

HALF_LIFE_S = 3600.0
TURN_S = 1.0  # what a turn costs at least, or claims that fail at once would all come before others
OWNERS_MAX = 10_000


class Turns:
    """What each owner used.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._used: OrderedDict[bytes, tuple[float, float]] = OrderedDict()  # seconds, as of when; last used last

    def used_s(self, owner: bytes) -> float:
        """What an owner used of late, in seconds; 0 for one who is not known."""
        seconds, as_of_s = self._used.get(owner, (0.0, 0.0))
        return seconds * math.exp2((as_of_s - self._clock()) / HALF_LIFE_S)

    @contextmanager
    def charged(self, owner: bytes) -> Iterator[None]:
        """Charge an owner for the time that the block takes."""
        begun_s = self._clock()
        try:
            yield
        finally:
            self._charge(owner, max(TURN_S, self._clock() - begun_s))

    def _charge(self, owner: bytes, seconds: float) -> None:
        self._used[owner] = (self.used_s(owner) + seconds, self._clock())
        self._used.move_to_end(owner)
        if len(self._used) > OWNERS_MAX:
            self._used.popitem(last=False)
