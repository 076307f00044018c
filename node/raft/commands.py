"""Commands from the node, or from a peer that is not the leader, into the log."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pysyncobj.node import Node

from node.raft.compat import REGULAR
from node.raft.core import Core
from node.raft.proposals import FailureTable, Proposal, ProposalQueue, Report
from node.raft.types import LEADER_CHANGED, NO_LEADER, SLICE_ENTRIES_MAX, STOPPED, OnFailed
from node.raft.wire import Message

TAKE_BYTES_MAX = 4 * 1024 * 1024  # appended, or forwarded, in one tick


@dataclass(frozen=True, slots=True, kw_only=True)
class _Accepted:
    """Where a peer's command was put."""

    node: Node
    request_id: int
    index: int
    term: int

    def is_followed_by(self, other: "_Accepted") -> bool:
        """Whether the other came right after it in its peer's counting, and stands right behind it."""
        follower = (self.node, self.request_id + 1, self.index + 1, self.term)
        return (other.node, other.request_id, other.index, other.term) == follower


class Commands:
    """The way of a command to the leader's log, and of its failure back. propose() may be called by any thread."""

    def __init__(self, core: Core, report: Report) -> None:
        self._core = core
        self._report = report
        self._failures = FailureTable(report)
        self.is_leaving = False  # this node gives up its office: it appends no more
        # Of one tick: a message for each command costs more than the command.
        self._leaving_for: dict[Node, list[Proposal]] = {}
        self._accepted: list[_Accepted] = []
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
        self._send_forwarded()
        self._send_accepted()
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
        """Queue a peer's commands."""
        for request_id, command in enumerate(message["commands"], start=message["request_id"]):
            proposal = Proposal(command=command, asked_by=(node, request_id))
            reason = self._queue.put(proposal)
            if reason is not None:
                self._refuse(proposal, reason)

    def on_forward_accepted(self, node: Node, message: Message) -> None:
        """Note where the leader put forwarded commands."""
        if node != self._core.fields.leader:
            return
        for number in range(message["count"]):
            self._failures.accept(
                message["request_id"] + number,
                index=message["index"] + number,
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
            self._leaving_for.setdefault(self._core.fields.leader, []).append(proposal)
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
            self._accepted.append(_Accepted(node=node, request_id=request_id, index=index, term=term))

    def _send_accepted(self) -> None:
        """Tell the peers where their commands were put."""
        accepted, self._accepted = self._accepted, []
        for run in _runs(accepted):
            first = run[0]
            message = {"request_id": first.request_id, "count": len(run), "index": first.index, "term": first.term}
            self._core.send(first.node, {"type": "forward_accepted", **message})

    def _send_forwarded(self) -> None:
        """Send the leader what was proposed here."""
        leaving_for, self._leaving_for = self._leaving_for, {}
        for leader, proposals in leaving_for.items():
            for some in _frames(proposals, bytes_max=self._core.settings.batch_bytes):
                self._forward(some, leader)

    def _forward(self, proposals: Sequence[Proposal], leader: Node) -> None:
        request_ids = [self._failures.forward(proposal.on_failed) for proposal in proposals if proposal.on_failed]
        commands = [proposal.command for proposal in proposals if proposal.on_failed]
        if commands and not self._core.send(
            leader, {"type": "forward", "request_id": request_ids[0], "commands": commands}
        ):
            # Not queued, or cut while it was written: in the second case it may have arrived.
            for request_id in request_ids:
                self._failures.refuse(request_id, LEADER_CHANGED)

    def _refuse(self, proposal: Proposal, reason: str) -> None:
        if proposal.on_failed is not None:
            self._report(proposal.on_failed, reason)
        if proposal.asked_by is not None:
            node, request_id = proposal.asked_by
            self._core.send(node, {"type": "forward_refused", "request_id": request_id, "reason": reason})


def _frames(proposals: Sequence[Proposal], *, bytes_max: int) -> Iterator[list[Proposal]]:
    """Part proposals into messages; the last command of one may pass bytes_max."""
    some: list[Proposal] = []
    room_bytes = bytes_max
    for proposal in proposals:
        some.append(proposal)
        room_bytes -= len(proposal.command)
        if room_bytes <= 0 or len(some) == SLICE_ENTRIES_MAX:
            yield some
            some, room_bytes = [], bytes_max
    if some:
        yield some


def _runs(accepted: Sequence[_Accepted]) -> Iterator[list[_Accepted]]:
    """Part what was accepted, in the order of the log, into what one peer asked for in one go."""
    run: list[_Accepted] = []
    for one in accepted:
        if run and not run[-1].is_followed_by(one):
            yield run
            run = []
        run.append(one)
    if run:
        yield run
