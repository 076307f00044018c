"""Waking the raft thread out of its poll, from any thread."""

import os
import threading

from pysyncobj.poller import POLL_EVENT_TYPE

from node.raft.connection import Poller

DRAIN_BYTES = 4096


class Waker:
    """A pipe on the poller. One byte is enough for any number of wake-ups between two rounds."""

    def __init__(self, poller: Poller) -> None:
        self._read_end, self._write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._is_set = False
        self._is_closed = False
        self._lock = threading.Lock()  # a descriptor must not be closed, and reused, under a writer
        self._poller = poller
        poller.subscribe(self._read_end, self._drain, POLL_EVENT_TYPE.READ)

    def wake(self) -> None:
        """Make the next poll, or the one in progress, return at once; any thread."""
        if self._is_set:
            return
        with self._lock:
            if not self._is_set and not self._is_closed:
                self._is_set = True
                os.write(self._write_end, b"!")

    def rearm(self) -> None:
        """Let wake() write again: called before the raft thread looks at what it may have been woken for."""
        self._is_set = False

    def close(self) -> None:
        """Give the pipe back; wake() then does nothing."""
        self._poller.unsubscribe(self._read_end)
        with self._lock:
            self._is_closed = True
            os.close(self._read_end)
            os.close(self._write_end)

    def _drain(self, _descriptor: int, _events: int) -> None:
        os.read(self._read_end, DRAIN_BYTES)
