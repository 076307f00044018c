"""A disk that is full is no fault: the node takes nothing new, goes on reading, and goes on writing when there is room.

Two lines of defence. Below RESERVE_BYTES the API refuses entries and uploads, so that what others send still has room.
Where a write fails for want of room all the same, it waits and is done again: the raft thread then stands still, as if
the process were stopped, which costs no promise, since nothing leaves before it is durable; the others elect another
leader, and this node catches up later. Only writes wait. A failed fsync still ends the process (raft/failstop.py).
"""

import errno
import logging
import os
import sqlite3
import time
from pathlib import Path

from node.errors import UnavailableError

RESERVE_BYTES = 64 * 2**20
START_BYTES_MIN = 2**20  # to open the databases at all: their write-ahead logs and shared memory
WAIT_S = 0.5
RETRY_AFTER_S = 30
DISK_FULL = "disk_full"
_FULL_ERRNO = frozenset({errno.ENOSPC, errno.EDQUOT})
_FULL_SQLITE = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})

logger = logging.getLogger(__name__)


class DiskSpace:
    """The room on the disk of the node's state.

    Args:
        directory: on that disk.
        reserve_bytes: below it nothing new is taken.
    """

    def __init__(self, directory: Path, *, reserve_bytes: int = RESERVE_BYTES) -> None:
        self._directory, self._reserve_bytes = directory, reserve_bytes

    @property
    def free_bytes(self) -> int:
        """What this process may still write."""
        found = os.statvfs(self._directory)
        return found.f_bavail * found.f_frsize

    @property
    def alarm(self) -> str | None:
        """What is wrong, or None."""
        free_bytes = self.free_bytes
        if free_bytes >= self._reserve_bytes:
            return None
        return f"{free_bytes >> 20} MiB free, {self._reserve_bytes >> 20} are kept in reserve: nothing new is taken"

    def check(self, wanted_bytes: int = 0) -> None:
        """Check that there is room for something new.

        Raises:
            UnavailableError: code disk_full.
        """
        if self.free_bytes - wanted_bytes < self._reserve_bytes:
            raise full_error()


def full_error() -> UnavailableError:
    """What a client is told."""
    return UnavailableError("the node's disk is full", code=DISK_FULL, retry_after_s=RETRY_AFTER_S)


def is_disk_full(error: BaseException) -> bool:
    """Whether an operation failed for want of room, and may succeed when there is some."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) in _FULL_SQLITE
    return isinstance(error, OSError) and error.errno in _FULL_ERRNO


def wait_for_space(path: Path, error: Exception, *, attempt: int) -> None:
    """Wait a moment before a write is tried again; says so at the first attempt.

    Args:
        path: what could not be written.
        error: why.
        attempt: how often it has failed before.
    """
    if attempt == 0:
        logger.critical("the disk is full: waiting for room", extra={"path": str(path), "why": repr(error)})
    time.sleep(WAIT_S)
