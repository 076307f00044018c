"""A wall clock that can be stepped while the process runs: Python imports this file at start if it is on PYTHONPATH.

`CLOCK_OFFSET_FILE` names a file with the seconds by which the clock is off, which is read again whenever it was
replaced; replace it by a rename. Only what tells the time of day is moved. Monotonic clocks, by which a program waits,
go on, as they do when an operator or NTP sets the time of a machine. Unlike libfaketime it leaves the C library alone,
whose waits for a condition stand still under that.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

NANOSECONDS = 10**9


class Offset:
    """How far the clock is off, by a file.

    Args:
        path: holds a whole number of seconds, such as `-3600`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._s = 0

    def s(self) -> int:
        """Seconds to add to the right time."""
        stat = self._path.stat()
        seen = (stat.st_ino, stat.st_mtime_ns)
        if seen != self._seen:
            self._s, self._seen = int(self._path.read_text(encoding="ascii")), seen
        return self._s


def step_by(offset: Offset, time_s: Callable[[], float], time_ns: Callable[[], int]) -> None:
    """Put clocks that are off in the place of time.time and time.time_ns."""
    time.time = lambda: time_s() + offset.s()
    time.time_ns = lambda: time_ns() + offset.s() * NANOSECONDS


if "CLOCK_OFFSET_FILE" in os.environ:
    step_by(Offset(Path(os.environ["CLOCK_OFFSET_FILE"])), time.time, time.time_ns)
