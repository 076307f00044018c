"""Linearizable reads without a log entry: the read index.

A leader that was cut off goes on believing; answering from its state would be a stale read. So a read waits until
a majority has answered a message that was sent after the read began, and until everything that was committed when it
began is applied here. Source: Ongaro, "Consensus: Bridging Theory and Practice", 6.4.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from node.raft.core import Core
from node.raft.replication import Replication

OnRead = Callable[[bool], None]  # called in the raft thread; must not block or raise


@dataclass(frozen=True, slots=True, kw_only=True)
class _Round:
    sequence: int
    index: int
    callbacks: list[OnRead]


class ReadQueue:
    """Reads that wait. add() may be called from any thread, the rest only from the raft thread."""

    def __init__(self) -> None:
        self._new: deque[OnRead] = deque()
        self._rounds: deque[_Round] = deque()

    @property
    def has_new(self) -> bool:
        """Whether reads wait for a round."""
        return bool(self._new)

    @property
    def has_rounds(self) -> bool:
        """Whether reads wait for their proof."""
        return bool(self._rounds)

    def add(self, callback: OnRead) -> None:
        """Ask for a read."""
        self._new.append(callback)

    def begin_round(self, *, sequence: int, index: int) -> None:
        """Let one heartbeat serve every read that waits.

        Args:
            sequence: number of the first message that is sent after this call.
            index: commit index at this moment.
        """
        callbacks = [self._new.popleft() for _ in range(len(self._new))]
        self._rounds.append(_Round(sequence=sequence, index=index, callbacks=callbacks))

    def settle(self, *, proven_sequence: int, applied_index: int) -> None:
        """Answer the reads whose proof and state have arrived."""
        while self._rounds:
            first = self._rounds[0]
            if first.sequence > proven_sequence or first.index > applied_index:
                return
            self._rounds.popleft()
            for callback in first.callbacks:
                callback(True)  # noqa: FBT003 -- the answer itself

    def refuse_all(self) -> None:
        """Answer every read with False: this node is not, or is no longer, the leader."""
        refused = [self._new.popleft() for _ in range(len(self._new))]
        while self._rounds:
            refused += self._rounds.popleft().callbacks
        for callback in refused:
            callback(False)  # noqa: FBT003 -- the answer itself


class Reads:
    """The reads of one node. add() may be called from any thread, the rest only from the raft thread."""

    def __init__(self, core: Core, replication: Replication) -> None:
        self._core = core
        self._replication = replication
        self._queue = ReadQueue()

    def add(self, callback: OnRead) -> None:
        """Ask for a read."""
        self._queue.add(callback)
        self._core.wake()

    def begin(self) -> None:
        """Start a round for the reads that wait, or refuse them if this node is not the leader."""
        if not self._queue.has_new:
            return
        noop_index = self._core.fields.noop_index
        if not self._core.is_leader or noop_index is None:
            self._queue.refuse_all()
            return
        # Until its first own entry is committed, a leader does not know what is (Raft, section 8).
        index = max(self._core.fields.commit_index, noop_index)
        self._queue.begin_round(sequence=self._replication.next_sequence, index=index)
        self._replication.send_to_all()
        self.settle()

    def settle(self) -> None:
        """Answer what can be answered by now."""
        if self._core.is_leader and self._queue.has_rounds:
            applied_index = self._core.fields.last_applied
            self._queue.settle(proven_sequence=self._replication.proven_sequence, applied_index=applied_index)

    def refuse_all(self) -> None:
        """Answer every read with False."""
        self._queue.refuse_all()
