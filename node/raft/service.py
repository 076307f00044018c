"""The consensus service of a node: its own thread, and an interface for the rest of the process.

The raft thread is the only one that touches SyncObj, the journal and the state machine. Everything else goes through
queues, so that neither a slow caller nor a slow disk holds the other. Any unexpected exception in the raft thread ends
the process: a crash is what Raft tolerates, a half-handled message is not.

When the members change, the thread closes its node and opens another one on the same journal (membership.py); what was
proposed meanwhile is reported as "leader_changed" or "no_leader", as for any other change of leader.
"""

import asyncio
import contextlib
import functools
import logging
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

from node.raft.addresses import AddressBook, resolve
from node.raft.applier import Applier
from node.raft.compat import LEADER, monotonic_s
from node.raft.failstop import EXIT_SOFTWARE, fail_stop
from node.raft.journal import DurableJournal
from node.raft.membership import ChangesMembers, MembersChangedError, Roster
from node.raft.raft import STATE_NAMES, RaftNode
from node.raft.tls import TlsIdentity
from node.raft.transport import TlsTransport, TransportPlan
from node.raft.types import (
    LEADER_CHANGED,
    NO_LEADER,
    STOPPED,
    TOO_LARGE,
    OnFailed,
    RaftMembers,
    RaftPeer,
    RaftSettings,
    RaftStatus,
    StateMachine,
)

JOIN_TIMEOUT_S = 10.0
_NOT_RUNNING = RaftStatus(
    state="follower",
    leader=None,
    term=0,
    commit_index=0,
    applied_index=0,
    journal_entries=0,
    connected=(),
    rejected_connections=0,
    last_rejection="",
)

logger = logging.getLogger(__name__)


class RaftService:
    """One member of the cluster, as the node uses it.

    start() and stop() are for one thread; the rest may be called from any.
    """

    def __init__(  # noqa: PLR0913 -- the one place where everything comes together
        self,
        *,
        name: str,
        members: Callable[[], RaftMembers],
        changes_members: ChangesMembers,
        certificate_path: Path,
        private_key_path: Path,
        journal_path: Path,
        machine: StateMachine,
        settings: RaftSettings,
        on_applied: Callable[[], None],
    ) -> None:
        """Check the cluster's description; nothing is opened before start().

        Args:
            name: of this node.
            members: who takes part by what the machine has applied; called in the raft thread after each batch, and
                may be called by any. Until they are without this node, it takes part.
            changes_members: whether a command may change the members; see membership.py.
            certificate_path: PEM of this node's certificate, one of those that its peer entry lists.
            private_key_path: PEM of its private key.
            journal_path: made if it does not exist; its directory must.
            machine: applies the commands; called from the raft thread only.
            settings: times and limits.
            on_applied: called in the raft thread after each commit of the machine; must return at once.

        Raises:
            ValueError: two peers of one name, this node is not among them, or a certificate does not fit.
            OSError: a certificate or key cannot be read.
        """
        self._name, self._members, self._changes_members = name, members, changes_members
        self._certificate_path, self._private_key_path = certificate_path, private_key_path
        self._running = members()
        self._identity = self._identify(self._running)
        self._journal_path = journal_path
        self._applier = Applier(machine, on_applied=on_applied)
        self._settings = settings
        self._node: RaftNode | None = None
        self._thread: threading.Thread | None = None
        self._is_stopping = threading.Event()
        self._is_leaving, self._gave_over = threading.Event(), threading.Event()
        self._failures: queue.SimpleQueue[tuple[OnFailed, str] | None] = queue.SimpleQueue()

    def start(self) -> None:
        """Open the journal, listen, and begin to take part.

        Raises:
            JournalError: the journal is damaged, in use, or behind the state machine.
            OSError: the address cannot be resolved or bound.
            RuntimeError: it was started before.
        """
        if self._thread is not None:
            raise RuntimeError("a raft service starts once")
        self._node = self._open_node()
        self._thread = threading.Thread(target=self._run, args=(self._node,), name="raft", daemon=True)
        threading.Thread(target=self._report_failures, name="raft-failures", daemon=True).start()
        self._thread.start()

    def hand_over(self, timeout_s: float) -> bool:
        """Before stop(): give leadership to the peer that has everything; blocks.

        Returns:
            Whether this node does not lead any more, or never did; False if nobody took over in time.
        """
        self._is_leaving.set()
        node = self._node
        if node is not None:
            node.wake()
        return node is None or (not self._running_alone() and self._gave_over.wait(timeout_s))

    def stop(self) -> None:
        """Leave the cluster and flush the journal; may be called twice, or without start()."""
        self._is_stopping.set()
        node, thread = self._node, self._thread
        if node is not None and thread is not None and thread.is_alive():
            node.wake()
            thread.join(JOIN_TIMEOUT_S)
            if thread.is_alive():
                logger.error("the raft thread does not stop")

    def propose(self, command: bytes, on_failed: Callable[[str], None]) -> None:
        """Ask for a command to be appended; returns at once.

        Success is not reported: the state machine sees the command. A command whose failure is reported as
        "leader_changed" or "stopped" may be applied nevertheless, so proposing it again must be harmless.

        Args:
            command: not empty; at most command_bytes_max.
            on_failed: called from any thread, at most once, with "no_leader", "queue_full", "leader_changed",
                "too_large" or "stopped".

        Raises:
            ValueError: the command is empty.
        """
        if not command:
            raise ValueError("a command has at least one byte")
        if len(command) > self._settings.command_bytes_max:
            on_failed(TOO_LARGE)
            return
        node = self._node
        reason = self._unavailable() if node is None else node.propose(command, on_failed)
        if reason is not None:
            on_failed(reason)

    def _unavailable(self) -> str:
        return NO_LEADER if self._thread is None and not self._is_stopping.is_set() else STOPPED

    async def read_barrier(self, timeout_s: float) -> bool:
        """Wait until a read of the state machine is linearizable.

        Returns:
            True once the leader has proved its leadership after the call and this node has applied everything committed
            before it; False if there is no leader, this node stops, or that takes more than timeout_s.
        """
        node = self._node
        if node is None or self._is_stopping.is_set():
            return False
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bool] = loop.create_future()
        node.read(functools.partial(_answer_from_thread, loop, answer))
        try:
            return await asyncio.wait_for(answer, timeout_s)
        except TimeoutError:
            return False

    def status(self) -> RaftStatus:
        """Return what this node knows at this moment."""
        node = self._node
        if node is None:
            return _NOT_RUNNING
        fields, transport = node.fields, cast("TlsTransport", node.transport)
        leader = fields.leader
        return RaftStatus(
            state=STATE_NAMES[fields.state],
            leader=None if leader is None else str(leader.id),
            term=fields.term,
            commit_index=fields.commit_index,
            applied_index=fields.last_applied,
            journal_entries=node.journal_entries,
            connected=transport.connected,
            rejected_connections=transport.rejected_connections,
            last_rejection=transport.last_rejection,
        )

    def _identify(self, members: RaftMembers) -> TlsIdentity:
        names = [peer.name for peer in members.peers]
        if len(set(names)) != len(names) or self._name not in names:
            raise ValueError("every peer needs a name of its own, and this node must be one of them")
        return TlsIdentity(
            name=self._name,
            peers=members.peers,
            certificate_path=self._certificate_path,
            private_key_path=self._private_key_path,
        )

    def _open_node(self) -> RaftNode:
        members = self._running
        own = cast("RaftPeer", members.find(self._name))
        plan = TransportPlan(
            listen=resolve(self._settings.bind_host or own.host, own.port),
            contacts=tuple(peer.name for peer in members.contacts if peer.name != self._name),
            addresses=AddressBook([peer for peer in members.peers if peer.name != self._name]),
            identity=self._identity,
            settings=self._settings,
        )
        with contextlib.ExitStack() as undo:
            undo.callback(plan.addresses.close)
            journal = DurableJournal(self._journal_path, cache_bytes_max=self._settings.journal_cache_bytes_max)
            undo.callback(journal.close)
            node = RaftNode(
                roster=Roster(
                    name=self._name,
                    voters=tuple(peer.name for peer in members.voters),
                    changes_members=self._changes_members,
                    is_stale=self._is_stale,
                ),
                settings=self._settings,
                journal=journal,
                applier=self._applier,
                make_transport=functools.partial(TlsTransport, plan=plan),
                report=lambda on_failed, reason: self._failures.put((on_failed, reason)),
            )
            undo.pop_all()
        return node

    def _run(self, node: RaftNode) -> None:
        try:
            running: RaftNode | None = node
            while running is not None and not self._is_stopping.is_set():
                running = self._tick(running)
            if running is not None:
                running.close()
        except Exception:  # noqa: BLE001 -- whatever it is, nobody knows what state it left
            fail_stop("the raft thread failed", exit_code=EXIT_SOFTWARE)
        self._failures.put(None)

    def _tick(self, node: RaftNode) -> RaftNode | None:
        """One tick; returns the node to go on with, None when this one has left the members."""
        if self._is_leaving.is_set():
            node.leave_office()
            if node.fields.state != LEADER:
                self._gave_over.set()
        try:
            node.tick(self._settings.tick_period_s)
        except MembersChangedError:
            return self._change_members(node)
        return self._change_members(node) if self._is_stale() else node

    def _running_alone(self) -> bool:
        return len(self._running.voters) == 1

    def _is_stale(self) -> bool:
        return self._members() != self._running

    def _change_members(self, node: RaftNode) -> RaftNode | None:
        was_leader = node.fields.state == LEADER
        node.close(LEADER_CHANGED)
        members = self._members()
        voters = [peer.name for peer in members.voters]
        if members.find(self._name) is None:
            logger.warning("this node is no member any more", extra={"members": voters})
            self._node = None
            return None
        self._running, self._identity = members, self._identify(members)
        self._node = reopened = self._open_node()
        logger.info("members changed", extra={"members": voters})
        if was_leader and self._name in voters:  # it has all entries: its standing first saves the others' time-out
            reopened.fields.election_deadline_s = monotonic_s() + 2 * self._settings.connection_retry_s
        return reopened

    def _report_failures(self) -> None:
        while (failure := self._failures.get()) is not None:
            on_failed, reason = failure
            try:
                on_failed(reason)
            except Exception:
                logger.exception("a caller's on_failed raised")


def _answer_from_thread(loop: asyncio.AbstractEventLoop, answer: "asyncio.Future[bool]", is_proven: bool) -> None:  # noqa: FBT001
    def set_result() -> None:
        if not answer.done():
            answer.set_result(is_proven)

    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(set_result)
