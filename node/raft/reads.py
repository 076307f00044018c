"""Linearizable reads without a log entry: the read index.

A leader that was cut off goes on believing; answering from its state would be a stale read. So a read waits until
a majority has answered a message that was sent after the read began, and until everything that was committed when it
began is applied here. Source: Ongaro, "Consensus: Bridging Theory and Practice", 6.4.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pysyncobj.node import Node

from node.raft.core import Core
from node.raft.replication import Replication
from node.raft.wire import Message

ASKED_MAX = 1024
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
        self._rounds.append(_Round(sequence=sequence, index=index, callbacks=self.take()))

    def take(self) -> list[OnRead]:
        """The reads that wait for a round; they are the caller's to answer."""
        return [self._new.popleft() for _ in range(len(self._new))]

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
        refused = self.take()
        while self._rounds:
            refused += self._rounds.popleft().callbacks
        for callback in refused:
            callback(False)  # noqa: FBT003 -- the answer itself


class Reads:
    """The reads of one node. add() may be called from any thread, the rest only from the raft thread.

    A follower asks the leader for the index that it must have applied, and answers when it has.
    """

    def __init__(self, core: Core, replication: Replication) -> None:
        self._core = core
        self._replication = replication
        self._queue = ReadQueue()
        self._request_id = 0
        self._asked: dict[int, list[OnRead]] = {}
        self._granted: list[tuple[int, list[OnRead]]] = []  # index to be applied, who waits

    def add(self, callback: OnRead) -> None:
        """Ask for a read."""
        self._queue.add(callback)
        self._core.wake()

    def begin(self) -> None:
        """Start a round for the reads that wait, ask the leader, or refuse them if there is none."""
        if not self._queue.has_new:
            return
        noop_index = self._core.fields.noop_index
        if not self._core.is_leader:
            self._ask_leader()
            return
        if noop_index is None:
            self._queue.refuse_all()
            return
        # Until its first own entry is committed, a leader does not know what is (Raft, section 8).
        index = max(self._core.fields.commit_index, noop_index)
        self._queue.begin_round(sequence=self._replication.next_sequence, index=index)
        self._replication.send_to_all()
        self.settle()

    def settle(self) -> None:
        """Answer what can be answered by now."""
        applied_index = self._core.fields.last_applied
        if self._core.is_leader and self._queue.has_rounds:
            self._queue.settle(proven_sequence=self._replication.proven_sequence, applied_index=applied_index)
        ready = [callbacks for index, callbacks in self._granted if index <= applied_index]
        self._granted = [(index, callbacks) for index, callbacks in self._granted if index > applied_index]
        _answer(ready, is_proven=True)

    def refuse_all(self) -> None:
        """Answer every read with False."""
        self._queue.refuse_all()
        waiting = [*self._asked.values(), *(callbacks for _, callbacks in self._granted)]
        self._asked.clear()
        self._granted.clear()
        _answer(waiting, is_proven=False)

    def on_read(self, node: Node, message: Message) -> None:
        """A follower asks: prove the leadership and tell what is applied here by then."""

        def answer(is_proven: bool) -> None:  # noqa: FBT001 -- an OnRead
            index = self._core.fields.last_applied if is_proven else 0
            told = {"type": "read_answer", "request_id": message["request_id"], "granted": is_proven, "index": index}
            self._core.send(node, told)

        if self._core.is_leader:
            self.add(answer)
        else:
            answer(False)  # noqa: FBT003 -- the answer itself

    def on_read_answer(self, node: Node, message: Message) -> None:
        """The leader's answer; whether it leads it has just proved to itself."""
        if node != self._core.fields.leader:
            return
        callbacks = self._asked.pop(message["request_id"], [])
        if message["granted"]:
            self._granted.append((message["index"], callbacks))
            self.settle()
        else:
            _answer([callbacks], is_proven=False)

    def _ask_leader(self) -> None:
        leader = self._core.fields.leader
        self._request_id += 1
        asked = {"type": "read", "request_id": self._request_id}
        if leader is None or not self._core.send(leader, asked):
            self._queue.refuse_all()
            return
        self._asked[self._request_id] = self._queue.take()
        if len(self._asked) > ASKED_MAX:  # an answer can be lost; who waited for it has given up
            _answer([self._asked.pop(min(self._asked))], is_proven=False)


def _answer(waiting: Iterable[list[OnRead]], *, is_proven: bool) -> None:
    for callbacks in waiting:
        for callback in callbacks:
            callback(is_proven)
