"""Commands from the node, or from a peer that is not the leader, into the log."""

from pysyncobj.node import Node

from node.raft.compat import REGULAR
from node.raft.core import Core
from node.raft.proposals import FailureTable, Proposal, ProposalQueue, Report
from node.raft.types import LEADER_CHANGED, NO_LEADER, STOPPED, OnFailed
from node.raft.wire import Message

TAKE_BYTES_MAX = 4 * 1024 * 1024  # appended, or forwarded, in one tick


class Commands:
    """The way of a command to the leader's log, and of its failure back. propose() may be called by any thread."""

    def __init__(self, core: Core, report: Report) -> None:
        self._core = core
        self._report = report
        self._failures = FailureTable(report)
        self.is_leaving = False  # this node gives up its office: it appends no more
        self._queue = ProposalQueue(
            commands_max=core.settings.queue_commands_max, bytes_max=core.settings.queue_bytes_max
        )

    def propose(self, command: bytes, on_failed: OnFailed) -> str | None:
        """Queue a command of this node; returns why it was not queued, else None."""
        reason = self._queue.put(Proposal(command=command, on_failed=on_failed))
        if reason is None:
            self._core.wake()
        return reason

    def work(self) -> bool:
        """Append, forward or refuse what waits.

        Returns:
            Whether the log has grown.
        """
        before = self._core.journal.last_index
        for proposal in self._queue.take(commands_max=self._room(), bytes_max=TAKE_BYTES_MAX):
            self._place(proposal)
        if len(self._queue) and self._room():
            self._core.wake()
        return self._core.journal.last_index != before

    def applied(self, *, index: int, term: int) -> None:
        """Note that an entry was applied: nobody waits for its failure any more."""
        self._failures.applied(index=index, term=term)

    def fail_all(self, reason: str) -> None:
        """Report every command of this node that is under way."""
        self._failures.fail_all(reason)

    def close(self, reason: str) -> None:
        """Take no more commands and report all that are under way, with this reason."""
        for proposal in self._queue.close(reason):
            self._refuse(proposal, STOPPED if reason == STOPPED else NO_LEADER)
        self._failures.fail_all(reason)

    def on_forward(self, node: Node, message: Message) -> None:
        """Queue a peer's command."""
        proposal = Proposal(command=message["command"], asked_by=(node, message["request_id"]))
        reason = self._queue.put(proposal)
        if reason is not None:
            self._refuse(proposal, reason)

    def on_forward_accepted(self, node: Node, message: Message) -> None:
        """Note where the leader put a forwarded command."""
        if node == self._core.fields.leader:
            self._failures.accept(
                message["request_id"],
                index=message["index"],
                term=message["term"],
                applied_index=self._core.fields.last_applied,
            )

    def on_forward_refused(self, node: Node, message: Message) -> None:
        """Report a command that the leader did not take."""
        if node == self._core.fields.leader:
            self._failures.refuse(message["request_id"], message["reason"])

    def _room(self) -> int:
        """How many commands may be placed now: a leader without a majority must not grow without end."""
        if not self._core.is_leader:
            return self._core.settings.queue_commands_max
        uncommitted = self._core.journal.last_index - self._core.fields.commit_index
        return max(0, self._core.settings.uncommitted_entries_max - uncommitted)

    def _place(self, proposal: Proposal) -> None:
        if self._core.is_leader and not self.is_leaving:
            self._append(proposal)
        elif proposal.asked_by is None and self._core.fields.leader is not None and not self._core.is_leader:
            self._forward(proposal, self._core.fields.leader)
        else:
            self._refuse(proposal, NO_LEADER)

    def _append(self, proposal: Proposal) -> None:
        if not self._core.changes.may_append(proposal.command):
            self._refuse(proposal, NO_LEADER)
            return
        index, term = self._core.journal.last_index + 1, self._core.fields.term
        self._core.journal.add((REGULAR + proposal.command, index, term))
        if proposal.on_failed is not None:
            self._failures.append(proposal.on_failed, index=index, term=term)
        if proposal.asked_by is not None:
            node, request_id = proposal.asked_by
            accepted = {"type": "forward_accepted", "request_id": request_id, "index": index, "term": term}
            self._core.send(node, accepted)

    def _forward(self, proposal: Proposal, leader: Node) -> None:
        if proposal.on_failed is None:
            return
        request_id = self._failures.forward(proposal.on_failed)
        message = {"type": "forward", "request_id": request_id, "command": proposal.command}
        if not self._core.send(leader, message):
            # Not queued, or cut while it was written: in the second case it may have arrived.
            self._failures.refuse(request_id, LEADER_CHANGED)

    def _refuse(self, proposal: Proposal, reason: str) -> None:
        if proposal.on_failed is not None:
            self._report(proposal.on_failed, reason)
        if proposal.asked_by is not None:
            node, request_id = proposal.asked_by
            self._core.send(node, {"type": "forward_refused", "request_id": request_id, "reason": reason})
