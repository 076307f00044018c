"""Elections: pre-vote before, distinct voters during, and the notice that an office is over.

PySyncObj holds the election itself. Around it: a node stands only after a majority has said that it could win
(prevote.py); a vote counts once per voter, where PySyncObj counts messages; a leader that sends with an old term is
told the new one, which PySyncObj's answers never do, so that a leader that was cut off learns it at once.
"""

import logging

from pysyncobj.node import Node

from node.raft.compat import monotonic_s
from node.raft.core import Core
from node.raft.prevote import PreVote
from node.raft.wire import Message

logger = logging.getLogger(__name__)


class Election:
    """One node as voter and as candidate."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._pre_vote = PreVote(name=core.name, majority=core.majority)
        self._leader_heard_s = float("-inf")
        self._counted_term = 0
        self._counted_voters: set[str] = set()
        self._called_term = -1
        self.is_leaving = False  # this node stops: it stands no more

    def tick(self) -> None:
        """Ask for pre-votes when no leader was heard for long enough; let SyncObj stand once they are won."""
        fields = self._core.fields
        if self.is_leaving or not self._core.is_voter or fields.last_applied < fields.commit_index:
            fields.election_deadline_s = self._follow(fields.election_deadline_s)
            return
        if self._called_term == fields.term and not self._core.is_leader:
            self._called_term = -1
            fields.election_deadline_s = 0.0  # without a pre-vote: the others still hear the leader that asked for it
            return
        if self._core.is_leader or fields.election_deadline_s >= monotonic_s() or self._pre_vote.take_win():
            return
        fields.election_deadline_s = monotonic_s() + self._core.syncobj.stock("__generateRaftTimeout")()
        self._forget_leader()
        self._ask(self._pre_vote.begin())
        if self._pre_vote.take_win():  # a cluster of one
            fields.election_deadline_s = 0.0

    def _follow(self, deadline_s: float) -> float:
        """A node that must not stand: move the deadline, and notice when the leader is silent."""
        if self._core.is_leader or deadline_s >= monotonic_s():
            return deadline_s
        self._forget_leader()
        return monotonic_s() + float(self._core.syncobj.stock("__generateRaftTimeout")())

    def _forget_leader(self) -> None:
        """The leader is silent: without this a node that is alone would name it, and forward to it, for ever."""
        if self._core.fields.leader is not None:
            logger.info("the leader is silent", extra={"peer": self._core.fields.leader.id})
            self._core.fields.leader = None
            self._core.lose_leader()

    def hear_leader(self) -> None:
        """Note a sign of life of the leader."""
        self._leader_heard_s = monotonic_s()
        self._pre_vote.cancel()

    def on_pre_vote(self, node: Node, message: Message) -> None:
        """Answer whether this node would vote for the other one: no leader is alive and the log is not behind."""
        term = self._core.fields.term
        _, last_index, last_term = self._core.journal.entry(self._core.journal.last_index)
        is_granted = (
            message["term"] > term
            and not self._is_leader_alive()
            and (message["last_log_term"], message["last_log_index"]) >= (last_term, last_index)
        )
        answer = {"type": "pre_vote_answer", "round": message["round"], "term": term, "granted": is_granted}
        self._core.send(node, answer)

    def on_pre_vote_answer(self, node: Node, message: Message) -> None:
        """Count a pre-vote. A refusal may tell a higher term: without it two nodes can refuse each other for ever."""
        if self._core.is_leader:
            return
        if message["granted"]:
            if self._pre_vote.count(node.id, answered_round=message["round"]):
                self._core.fields.election_deadline_s = 0.0
        elif message["term"] > self._core.fields.term:
            self._core.adopt_term(message["term"])

    def on_response_vote(self, node: Node, message: Message) -> None:
        """Pass a vote on, once for each voter and term."""
        if message["term"] != self._core.fields.term:
            return
        if message["term"] != self._counted_term:
            self._counted_term = message["term"]
            self._counted_voters = set()
        if node.id not in self._counted_voters:
            self._counted_voters.add(node.id)
            self._core.syncobj.stock("__onMessageReceived")(node, message)

    def on_stale_term(self, node: Node, message: Message) -> None:
        """Step down: the cluster has moved on."""
        if message["term"] > self._core.fields.term:
            logger.info("told of a newer term", extra={"peer": node.id, "term": message["term"]})
            self._core.adopt_term(message["term"])

    def on_timeout_now(self, node: Node, message: Message) -> None:
        """Stand at once, if it is the leader of this term who asks for it."""
        if node == self._core.fields.leader and message["term"] == self._core.fields.term:
            logger.info("the leader hands over", extra={"peer": node.id, "term": message["term"]})
            self._called_term = message["term"]
            self._core.wake()

    def _ask(self, number: int) -> None:
        _, last_index, last_term = self._core.journal.entry(self._core.journal.last_index)
        for node in self._core.fields.other_nodes:
            message = {
                "type": "pre_vote",
                "round": number,
                "term": self._core.fields.term + 1,
                "last_log_index": last_index,
                "last_log_term": last_term,
            }
            self._core.send(node, message)

    def _is_leader_alive(self) -> bool:
        heard_after_s = monotonic_s() - self._core.settings.election_timeout_min_s
        if not self._core.is_leader:
            return self._leader_heard_s > heard_after_s
        alive = sum(answered_s > heard_after_s for answered_s in self._core.fields.last_response_s.values())
        return alive + 1 >= self._core.majority
