"""Commands on their way into the log, and who must be told if they do not get there.

Success is not reported: whoever proposed a command sees it applied. So this table only answers failures, and none may
be forgotten: a follower asks the leader by number, and every way in which the answer can fail to come (refusal, lost
connection, new leader, an index that another command took) ends here.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from pysyncobj.node import Node

from node.raft.types import LEADER_CHANGED, QUEUE_FULL, OnFailed

Report = Callable[[OnFailed, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A command that waits for the raft thread.

    Attributes:
        command: without a type byte.
        on_failed: told of a failure, for a command of this node.
        asked_by: the peer and its number of the request, for a command that was forwarded.
    """

    command: bytes
    on_failed: OnFailed | None = None
    asked_by: tuple[Node, int] | None = None


class ProposalQueue:
    """First in, first out, limited in number and bytes; any thread puts, the raft thread takes."""

    def __init__(self, *, commands_max: int, bytes_max: int) -> None:
        self._commands_max = commands_max
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._waiting: deque[Proposal] = deque()
        self._waiting_bytes = 0
        self._closed: str | None = None

    def put(self, proposal: Proposal) -> str | None:
        """Add a proposal; returns why it was not added, else None."""
        with self._lock:
            waiting_bytes = self._waiting_bytes + len(proposal.command)
            if self._closed is not None:
                return self._closed
            if len(self._waiting) >= self._commands_max or waiting_bytes > self._bytes_max:
                return QUEUE_FULL
            self._waiting.append(proposal)
            self._waiting_bytes = waiting_bytes
            return None

    def take(self, *, commands_max: int, bytes_max: int) -> list[Proposal]:
        """Remove proposals until one of the limits is reached; the last one may pass bytes_max."""
        taken: list[Proposal] = []
        room_bytes = bytes_max
        with self._lock:
            while self._waiting and len(taken) < commands_max and room_bytes > 0:
                taken.append(self._waiting.popleft())
                room_bytes -= len(taken[-1].command)
            self._waiting_bytes -= bytes_max - room_bytes
        return taken

    def close(self, reason: str) -> list[Proposal]:
        """Take no more, for this reason; returns what still waits."""
        with self._lock:
            self._closed = reason
            left, self._waiting = list(self._waiting), deque()
        return left

    def __len__(self) -> int:
        return len(self._waiting)


class FailureTable:
    """Who waits for what. Only the raft thread uses it; the reports themselves are made by another thread."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._next_request_id = 0
        self._forwarded: dict[int, OnFailed] = {}
        self._appended: dict[int, list[tuple[int, OnFailed]]] = {}  # index -> (term, whom to tell)

    def forward(self, on_failed: OnFailed) -> int:
        """Note a command that goes to the leader; returns the number to send with it."""
        self._next_request_id += 1
        self._forwarded[self._next_request_id] = on_failed
        return self._next_request_id

    def refuse(self, request_id: int, reason: str) -> None:
        """Report a forwarded command that was not appended."""
        on_failed = self._forwarded.pop(request_id, None)
        if on_failed is not None:
            self._report(on_failed, reason)

    def accept(self, request_id: int, *, index: int, term: int, applied_index: int) -> None:
        """Note where the leader appended a forwarded command; too late if that index is applied already."""
        on_failed = self._forwarded.pop(request_id, None)
        if on_failed is None:
            return
        if index <= applied_index:
            self._report(on_failed, LEADER_CHANGED)
        else:
            self.append(on_failed, index=index, term=term)

    def append(self, on_failed: OnFailed, *, index: int, term: int) -> None:
        """Note a command that stands in the log but is not committed."""
        self._appended.setdefault(index, []).append((term, on_failed))

    def applied(self, *, index: int, term: int) -> None:
        """Forget the command that was applied; report those that lost their index to it."""
        for appended_term, on_failed in self._appended.pop(index, []):
            if appended_term != term:
                self._report(on_failed, LEADER_CHANGED)

    def fail_all(self, reason: str) -> None:
        """Report everything that waits."""
        waiting = list(self._forwarded.values())
        waiting += [on_failed for waiters in self._appended.values() for _, on_failed in waiters]
        self._forwarded.clear()
        self._appended.clear()
        for on_failed in waiting:
            self._report(on_failed, reason)
