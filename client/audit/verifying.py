"""Worker processes that verify signatures in batches; see `client.audit.replaying`, which says when their word counts.

The workers import this module, so it imports little.
"""

import signal
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from types import TracebackType

from registry import signing

_BATCH = 512  # signatures, about 200 KB
_IN_FLIGHT_PER_WORKER = 16  # batches: far enough ahead that no worker waits for the rules


class Verifiers:
    """Worker processes that verify signatures in batches, a bounded number at a time.

    Attributes:
        has_failed: a signature does not hold, or a worker died; what was asked before counts for nothing.
    """

    def __init__(self, workers: int) -> None:
        self.has_failed = False
        self._in_flight_max = _IN_FLIGHT_PER_WORKER * workers
        self._batch: list[tuple[bytes, bytes, bytes]] = []
        self._asked: deque[Future[bool]] = deque()
        self._pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_ignore_interrupts)

    def __enter__(self) -> "Verifiers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the workers, also with batches left."""
        self._pool.shutdown(cancel_futures=True)

    def is_signed(self, signed: bytes, *, signer: bytes, signature: bytes) -> bool:
        """Take a signature to be verified later; True for the moment."""
        self._batch.append((signed, signer, signature))
        if len(self._batch) == _BATCH:
            self._send()
        return True

    def send_all(self) -> None:
        """Have the workers begin with all that was asked for."""
        if self._batch and not self.has_failed:
            self._send()

    def all_hold(self) -> bool:
        """Wait for all answers; whether every signature that was asked for holds."""
        self.send_all()
        while self._asked and not self.has_failed:
            self._take_answer()
        return not self.has_failed

    def _send(self) -> None:
        batch, self._batch = self._batch, []
        try:
            self._asked.append(self._pool.submit(are_signed, batch))
        except BrokenProcessPool:
            self.has_failed = True
        while len(self._asked) > self._in_flight_max and not self.has_failed:
            self._take_answer()

    def _take_answer(self) -> None:
        try:
            self.has_failed = self._asked.popleft().result() is not True
        except BrokenProcessPool:
            self.has_failed = True


def are_signed(batch: list[tuple[bytes, bytes, bytes]]) -> bool:
    """Whether every signature of a batch holds: statement, key and signature of each."""
    return all(signing.is_signed(signed, signer=signer, signature=signature) for signed, signer, signature in batch)


def _ignore_interrupts() -> None:
    """Leave Ctrl-C to the main process, which stops the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
