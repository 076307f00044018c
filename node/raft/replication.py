"""Replication: the leader's messages and what it makes of the answers, and the follower's guard before its log.

PySyncObj's follower does the log matching. Its leader marks as sent what was never queued, rewinds at every success and
obeys old answers; all of that is done here instead. A leader that contradicts what is committed, or a second leader in
one term, is a fault or a lie that Raft does not allow for; it is not obeyed.
"""

import logging

from pysyncobj.node import Node

from node.raft.compat import monotonic_s
from node.raft.core import Core
from node.raft.progress import Progress
from node.raft.wire import Message

MESSAGES_PER_TURN_MAX = 16  # batches sent to one follower before the others get their turn

logger = logging.getLogger(__name__)


class Replication:
    """One node as leader and as follower."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._progress = Progress()
        self._next_hand_over_s = 0.0
        self._answered_sequence = 0  # of the append_entries that is being handled

    @property
    def next_sequence(self) -> int:
        """Number of the first message that will be sent from now on."""
        return self._progress.sequence + 1

    @property
    def proven_sequence(self) -> int:
        """Highest number for which a majority has confirmed this leader."""
        names = [node.id for node in self._core.fields.other_nodes]
        return self._progress.proven_sequence(names, majority=self._core.majority)

    def begin_office(self) -> None:
        """Start as the leader of a new term."""
        self._progress.begin_office()
        self._core.changes.begin_office()

    def send_to_all(self) -> None:
        """Send every follower what it lacks, or a heartbeat."""
        fields = self._core.fields
        fields.next_heartbeat_s = monotonic_s() + self._core.settings.heartbeat_period_s
        for node in fields.other_nodes:
            if node in fields.connected_nodes:
                self._send_to(node)

    def hand_over(self) -> None:
        """Let a follower that has everything stand for election; nothing while none has, or entries are not agreed."""
        fields, last_index = self._core.fields, self._core.journal.last_index
        if fields.commit_index < last_index or monotonic_s() < self._next_hand_over_s:
            return
        ready = [n for n in fields.other_nodes & fields.connected_nodes if fields.match_index[n] == last_index]
        if ready:
            newest = max(ready, key=lambda node: fields.last_response_s[node])
            self._next_hand_over_s = monotonic_s() + self._core.settings.election_timeout_min_s
            self._core.send(newest, {"type": "timeout_now", "term": fields.term})

    def on_answer(self, node: Node, message: Message) -> None:
        """Take a follower's answer to append_entries."""
        fields = self._core.fields
        if not self._core.is_leader or message["term"] != fields.term:
            return
        if not self._progress.answer(node.id, message["sequence"]):
            return
        fields.last_response_s[node] = monotonic_s()
        if message["success"]:
            self._advance(node, acknowledged=message["next_node_idx"] - 1)
        elif message["reset"] and self._progress.obey_reset(node.id, message["sequence"]):
            self._go_back(node, next_index=message["next_node_idx"], last_index=message["last_index"])

    def on_append_entries(self, node: Node, message: Message) -> bool:
        """Handle a leader's message; SyncObj answers it, once, through answer().

        Returns:
            Whether the sender is the leader of this term.
        """
        fields = self._core.fields
        if message["term"] < fields.term:
            self._core.send(node, {"type": "stale_term", "term": fields.term})
            return False
        if self._is_second_leader(node, message) or self._contradicts_log(message):
            logger.critical("a leader breaks Raft and is not obeyed", extra={"peer": node.id, "term": message["term"]})
            return False
        self._core.changes.cut(message)
        self._answered_sequence = message["sequence"]
        committed = fields.commit_index
        self._core.syncobj.stock("__onMessageReceived")(node, message)
        # SyncObj lowers it to the last entry of the message; what is committed stays committed.
        fields.commit_index = max(fields.commit_index, committed)
        return True

    def answer(self, node: Node, *, next_index: int | None, is_reset: bool, is_success: bool) -> None:
        """Answer append_entries; an acknowledgement leaves only when everything before is durable.

        Args:
            node: the leader.
            next_index: entry wanted next; None for the one behind the log's end.
            is_reset: the leader must go back to next_index.
            is_success: everything before next_index equals the leader's log.
        """
        journal = self._core.journal
        if is_success:
            journal.sync()
        if next_index is None:
            next_index = journal.last_index + 1
        elif is_reset:  # a conflict: the first index that can differ, instead of one step back for every message
            next_index = max(2, min(next_index, self._core.fields.commit_index + 1))
        message = {
            "type": "next_node_idx",
            "term": self._core.fields.term,
            "next_node_idx": next_index,
            "last_index": journal.stored_last_index,
            "reset": is_reset,
            "success": is_success,
            "sequence": self._answered_sequence,
        }
        self._core.send(node, message)

    def _send_to(self, node: Node) -> None:
        for _ in range(MESSAGES_PER_TURN_MAX):
            if not self._send_batch(node) or self._core.fields.next_index[node] > self._core.journal.last_index:
                return
        self._core.wake()

    def _send_batch(self, node: Node) -> bool:
        fields, journal = self._core.fields, self._core.journal
        next_index = fields.next_index[node]
        _, previous_index, previous_term = journal.entry(next_index - 1)
        entries = journal.entries(next_index, journal.last_index, bytes_max=self._core.settings.batch_bytes)
        message = {
            "type": "append_entries",
            "term": fields.term,
            "commit_index": fields.commit_index,
            "prevLogIdx": previous_index,
            "prevLogTerm": previous_term,
            "entries": entries,
            "sequence": self._progress.next_sequence(),
        }
        is_sent = self._core.send(node, message)
        if is_sent:
            fields.next_index[node] = next_index + len(entries)
        return is_sent

    def _advance(self, node: Node, *, acknowledged: int) -> None:
        fields, last_index = self._core.fields, self._core.journal.last_index
        if acknowledged > last_index:
            logger.critical("a peer acknowledges entries that do not exist", extra={"peer": node.id})
            return
        fields.match_index[node] = max(fields.match_index[node], acknowledged)
        fields.next_index[node] = max(fields.next_index[node], acknowledged + 1)
        if fields.next_index[node] <= last_index:
            self._send_to(node)

    def _go_back(self, node: Node, *, next_index: int, last_index: int) -> None:
        fields = self._core.fields
        if last_index < fields.match_index[node]:
            logger.critical("a peer has lost entries that it had acknowledged", extra={"peer": node.id})
            fields.match_index[node] = last_index
        lowest = max(2, fields.match_index[node] + 1)
        fields.next_index[node] = max(lowest, min(next_index, self._core.journal.last_index + 1))
        self._send_to(node)

    def _is_second_leader(self, node: Node, message: Message) -> bool:
        fields = self._core.fields
        if message["term"] != fields.term:
            return False
        return self._core.is_leader or (fields.leader is not None and fields.leader != node)

    def _contradicts_log(self, message: Message) -> bool:
        """Whether it changes a committed entry, or gives one index and term another command than it had."""
        journal, committed = self._core.journal, self._core.fields.commit_index
        index, term = message["prevLogIdx"], message["prevLogTerm"]
        if index <= committed and journal.entry(index)[2] != term:
            return True
        for entry in message["entries"]:
            if entry[1] > journal.last_index:
                return False
            stored = journal.entry(entry[1])
            if stored != entry and (entry[1] <= committed or stored[2] == entry[2]):
                return True
        return False
