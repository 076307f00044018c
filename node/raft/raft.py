"""Raft on PySyncObj, with the parts that it lacks or gets wrong.

PySyncObj keeps the clockwork: the election, the follower's side of append_entries, the leader's count of the majority.
Replaced, each for a measured or proven fault of the original:

* entries leave at once, batched, instead of every period, and old answers are ignored (replication.py);
* an acknowledgement leaves only after fdatasync, and nothing acknowledged is truncated (journal.py);
* pre-vote, voters counted by name, a notice to a leader whose term is over, leadership handed over (election.py);
* commands are bytes that are never unpickled; failures are told (commands.py), batches applied (applier.py);
* linearizable reads (reads.py);
* changes of the members, one at a time (membership.py);
* no snapshots, no compaction.

Source: Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm" (extended version), figure 2.
"""

# mypy: allow-untyped-calls

import logging
from collections.abc import Callable

from pysyncobj.node import Node
from pysyncobj.transport import Transport

from node.raft.applier import Applier
from node.raft.commands import Commands
from node.raft.compat import CANDIDATE, FOLLOWER, LEADER, HookedSyncObj, SyncObjFields, replaces, stock_settings
from node.raft.core import Core
from node.raft.election import Election
from node.raft.journal import DurableJournal
from node.raft.journal_format import JournalError
from node.raft.membership import MemberChanges, MembersChangedError, Roster
from node.raft.proposals import Report
from node.raft.reads import OnRead, Reads
from node.raft.replication import Replication
from node.raft.stock_journal import StockJournal
from node.raft.types import LEADER_CHANGED, STOPPED, OnFailed, RaftSettings, RaftState
from node.raft.waker import Waker
from node.raft.wire import Message

TERM_STEP_MAX = 2**32  # a peer may raise the term, but not to the end of its range in one message
STATE_NAMES: dict[int, RaftState] = {FOLLOWER: "follower", CANDIDATE: "candidate", LEADER: "leader"}

_ANSWERS = frozenset({"next_node_idx", "response_vote", "pre_vote_answer"})

MakeTransport = Callable[[HookedSyncObj, Node, set[Node]], Transport]

logger = logging.getLogger(__name__)


class RaftNode(HookedSyncObj):
    """One member of the cluster. The raft thread ticks it; propose() and read() may be called by any thread.

    Attributes:
        fields: SyncObj's state, to be read by any thread.
        transport: what make_transport made.
    """

    transport: Transport

    def __init__(
        self,
        *,
        roster: Roster,
        settings: RaftSettings,
        journal: DurableJournal,
        applier: Applier,
        make_transport: MakeTransport,
        report: Report,
    ) -> None:
        """Restore the state and begin to listen.

        Args:
            roster: the members, and this node's name.
            settings: times and limits.
            journal: of this node; closed by close().
            applier: of this node's state machine.
            make_transport: called once, with this object, its own node and the other voters.
            report: hands a failure on to whoever proposed; must not block.

        Raises:
            JournalError: the state machine has applied more than the journal holds.
            OSError: the address cannot be bound.
        """
        self.fields = SyncObjFields(self)
        self._journal = journal
        self._stock_journal = StockJournal(journal)
        self._applier = applier
        self._roster = roster
        self._changes = MemberChanges(journal, self.fields, roster.changes_members)
        self._make_transport = make_transport
        core = Core(
            name=roster.name,
            is_voter=roster.is_voter,
            majority=len(roster.voters) // 2 + 1,
            settings=settings,
            journal=journal,
            changes=self._changes,
            fields=self.fields,
            syncobj=self,
            send=self._send,
            wake=self.wake,
            adopt_term=self._adopt_term,
            lose_leader=self._change_leader,
        )
        self._election = Election(core)
        self._replication = Replication(core)
        self._reads = Reads(core, self._replication)
        self._commands = Commands(core, report)
        self._handlers = self._message_handlers()
        self._check_journal()
        others = [Node(name) for name in roster.voters if name != roster.name]
        super().__init__(Node(roster.name), others, stock_settings(settings), transportClass=self._keep_transport)
        self._waker = Waker(self._poller)
        self._restore_applied()

    # A data descriptor: the journal that SyncObj.__init__ makes and assigns goes nowhere, ours is what it gets back.
    @property
    def _SyncObj__raftLog(self) -> StockJournal:  # noqa: N802
        return self._stock_journal

    @_SyncObj__raftLog.setter
    def _SyncObj__raftLog(self, _stock: object) -> None:  # noqa: N802
        pass

    def propose(self, command: bytes, on_failed: OnFailed) -> str | None:
        """Take a command; any thread.

        Returns:
            None if it was taken and a failure will be reported, else why it was not.
        """
        return self._commands.propose(command, on_failed)

    def read(self, callback: OnRead) -> None:
        """Call back once the leader has proved its leadership and this node has applied what was committed; any thread.

        The callback gets False if there is no leader, or it changes before.
        """
        self._reads.add(callback)

    def wake(self) -> None:
        """Make the next tick, or the one in progress, not wait; any thread."""
        self._waker.wake()

    @property
    def journal_entries(self) -> int:
        """Length of the journal, committed or not; any thread."""
        return self._journal.stored_last_index

    def tick(self, wait_s: float) -> None:
        """Do what is due, then wait for messages for wait_s seconds at the most.

        Raises:
            MembersChangedError: an entry was applied that changes the members; the tick ended there.
        """
        self.doTick(wait_s)
        if self._election.is_leaving and self.fields.state == LEADER:
            self._replication.hand_over()

    def leave_office(self) -> None:
        """Hand leadership over, if this node has it, and stand for election no more; it goes on as a follower."""
        self._election.is_leaving = self._commands.is_leaving = True

    def close(self, reason: str = STOPPED) -> None:
        """Report what is under way, close the connections and the journal.

        Args:
            reason: what proposals are told, those that come later too.
        """
        self._commands.close(reason)
        self._reads.refuse_all()
        self.stock("_doDestroy")()
        self._waker.close()

    @replaces("_onTick")
    def _tick_with_pre_vote(self, timeToWait: float = 0.0) -> None:  # noqa: N803
        self._apply_committed()  # before it may stand: with the members of a past agreement it must not
        self._election.tick()
        self.stock("_onTick")(timeToWait)

    @replaces("_checkCommandsToApply")
    def _take_work(self) -> None:
        self._waker.rearm()
        if self._commands.work():
            self._replication.send_to_all()
            self._journal.sync()  # beside the followers' own
            if not self.fields.other_nodes:
                self.wake()  # nobody's answer will
        self._reads.begin()

    @replaces("__applyLogEntries")
    def _apply_committed(self) -> bool:
        """Apply what is committed; True asks SyncObj for an immediate message with the new commit index."""
        entries = self._journal.entries(self.fields.last_applied + 1, self.fields.commit_index)
        if entries:
            self._applier.apply(entries)
            self.fields.last_applied = entries[-1][1]
            for _, index, term in entries:
                self._commands.applied(index=index, term=term)
            if self.fields.commit_index > self.fields.last_applied:
                self.wake()
            self._check_members()
        self._reads.settle()
        return bool(entries)

    def _check_members(self) -> None:
        if not self._roster.is_stale():
            return
        if self.fields.state == LEADER:  # so that the followers hear what is committed, and change at once as well
            self._replication.send_to_all()
        raise MembersChangedError

    @replaces("__sendAppendEntries")
    def _send_append_entries(self) -> None:
        self._replication.send_to_all()

    @replaces("__sendNextNodeIdx")
    def _answer_append_entries(
        self,
        node: Node,
        reset: bool = False,  # noqa: FBT001, FBT002 -- PySyncObj's signature
        nextNodeIdx: int | None = None,  # noqa: N803
        success: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        self._replication.answer(node, next_index=nextNodeIdx, is_reset=reset, is_success=success)

    @replaces("__onMessageReceived")
    def _dispatch(self, node: Node, message: Message) -> None:
        if message.get("term", 0) > self.fields.term + TERM_STEP_MAX:
            logger.critical("a peer leaps over terms and is ignored", extra={"peer": node.id, "term": message["term"]})
            return
        if message["type"] in _ANSWERS and node not in self.fields.other_nodes:
            return  # it was asked for nothing, and nobody may count it
        self._handlers[message["type"]](node, message)

    @replaces("__onNodeDisconnected")
    def _lose_node(self, node: Node) -> None:
        self.stock("__onNodeDisconnected")(node)
        if node == self.fields.leader:
            self._reads.refuse_all()
            self._commands.fail_all(LEADER_CHANGED)  # what was forwarded over this connection is never answered

    @replaces("__onLeaderChanged")
    def _change_leader(self) -> None:
        self._reads.refuse_all()
        self._commands.fail_all(LEADER_CHANGED)

    @replaces("__onBecomeLeader")
    def _become_leader(self) -> None:
        self._replication.begin_office()
        self.stock("__onBecomeLeader")()

    @replaces("__setState")
    def _change_state(self, new_state: int) -> None:
        old_state = self.fields.state
        self.stock("__setState")(new_state)
        if new_state == old_state:
            return
        logger.info("raft state changed", extra={"state": STATE_NAMES[new_state], "term": self.fields.term})
        if old_state == LEADER:
            self._reads.refuse_all()
            self._commands.fail_all(LEADER_CHANGED)

    @replaces("__tryLogCompaction")
    def _keep_log(self) -> None:
        """Do nothing: the log is the ledger, and a peer's snapshot could not be checked."""

    @replaces("_applyCommand", "__doApplyCommand", "__loadDumpFile")
    def _refuse(self, *_arguments: object) -> None:
        raise RuntimeError("this part of PySyncObj is out of use")

    def _message_handlers(self) -> dict[str, Callable[[Node, Message], object]]:
        return {
            "append_entries": self._on_append_entries,
            "next_node_idx": self._on_answer,
            "request_vote": self.stock("__onMessageReceived"),
            "response_vote": self._election.on_response_vote,
            "pre_vote": self._election.on_pre_vote,
            "pre_vote_answer": self._election.on_pre_vote_answer,
            "stale_term": self._election.on_stale_term,
            "timeout_now": self._election.on_timeout_now,
            "read": self._reads.on_read,
            "read_answer": self._reads.on_read_answer,
            "forward": self._commands.on_forward,
            "forward_accepted": self._commands.on_forward_accepted,
            "forward_refused": self._commands.on_forward_refused,
        }

    def _on_append_entries(self, node: Node, message: Message) -> None:
        if self._replication.on_append_entries(node, message):
            self._election.hear_leader()

    def _on_answer(self, node: Node, message: Message) -> None:
        self._replication.on_answer(node, message)
        self._reads.settle()

    def _adopt_term(self, term: int) -> None:
        self.stock("__setCurrentTerm")(term, None)
        self._change_state(FOLLOWER)
        self.fields.leader = None

    def _check_journal(self) -> None:
        applied_index = self._applier.applied_index
        if applied_index > self._journal.last_index:
            raise JournalError(
                f"the state machine has applied {applied_index} entries, the journal holds {self._journal.last_index}: "
                "a part of the journal is lost; restore both, but only from one copy taken after the node's last stop"
            )

    def _restore_applied(self) -> None:
        applied_index = self._applier.applied_index  # applied implies committed
        proven_index = self._changes.proven_index(applied_index)
        self.fields.commit_index = max(self.fields.commit_index, applied_index, proven_index)
        self._journal.set_commit_index(self.fields.commit_index)
        self.fields.last_applied = applied_index

    def _keep_transport(self, syncobj: HookedSyncObj, own_node: Node, other_nodes: set[Node]) -> Transport:
        self.transport = self._make_transport(syncobj, own_node, other_nodes)
        return self.transport

    def _send(self, node: Node, message: Message) -> bool:
        is_sent: bool = self.transport.send(node, message)
        return is_sent
