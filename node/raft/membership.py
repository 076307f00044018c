"""Changes of the members while the cluster works, one at a time, without a majority that another one cannot see.

The members are static for the life of one RaftNode. Which ones they are follows from what the node has applied: the
policy in force in its own ledger. At the entry that changes them the node throws the RaftNode away, before it does
anything else, and makes a new one on the same journal, so a restart of the process and a change lead to the same place.

Why two histories cannot come of it. Let e1, e2, … be the entries that change the members and C0, C1, … the members
after them; the rulebook sees to it that Ck and Ck+1 differ by one node at the most, so any majority of Ck and any of
Ck+1 share a node. A node *is at* k when it has applied ek and not ek+1, durably; it stands for election, and leads,
with the majorities of Ck. What it votes for and acknowledges does not depend on k.

1. Whoever has ek+1 in its log is at k or further. A leader appends a command that may change the members only when it
   has applied the no-op of its term and every such command before (`may_append`); a follower takes no second one
   into its log before it has applied the first (`cut`). So ek is committed before ek+1 is anywhere, and a node whose
   ledger was put back to an older copy knows from its journal how far to apply first (`proven_index`).
2. Claim: the leader of a later term has every entry that an earlier leader committed. Take the first later leader,
   at m, term U, that lacks an entry X which a leader at k had committed in term T < U.
   * |k - m| ≤ 1: the majorities share a node, and Raft's own argument holds.
   * m < k - 1: em+2 was committed before term T began, by a leader at m + 1, so by the first case the later leader has
     em+2 in its log and by (1) is at m + 1 or further. Contradiction.
   * m > k + 1: ek+2 was committed by a leader at k + 1 of a term S. If S < T, by the first case the leader of T has
     ek+2 in its log, and is not at k. If S > T, that leader has X by the first case. ek+2 then stands behind X: were it
     before X, the leader of T, whose log is the same up to X, would have had it and not been at k. So whoever applied
     ek+2 has X too.

The second case is why one policy may follow another at any time, without a count of who has taken up which.
Source: Ongaro, "Consensus: Bridging Theory and Practice", 4.1, which ties the members to the log instead; that they may
be tied to what is applied is from etcd's raft. Our own is (1): there a commit index made durable does the same.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from node.raft.compat import REGULAR, SyncObjFields
from node.raft.journal import DurableJournal
from node.raft.wire import Message

ChangesMembers = Callable[[bytes], bool]


class MembersChangedError(Exception):
    """The node has applied a change of the members: this RaftNode must not be used again, only closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """Who takes part, for the life of one RaftNode.

    Attributes:
        name: this node's.
        voters: names of the members; this node is not among them while it only follows.
        changes_members: whether a command, without its type byte, may change the members. It must be True for every
            one that does; for others it costs time only.
        is_stale: whether the members are others by now; called in the raft thread after each applied batch.
    """

    name: str
    voters: tuple[str, ...]
    changes_members: ChangesMembers
    is_stale: Callable[[], bool]

    @property
    def is_voter(self) -> bool:
        """Whether this node may stand for election."""
        return self.name in self.voters


class MemberChanges:
    """Keeps at most one command that may change the members between what is applied and the end of the log."""

    def __init__(self, journal: DurableJournal, fields: SyncObjFields, changes_members: ChangesMembers) -> None:
        self._journal, self._fields, self._changes_members = journal, fields, changes_members
        self._appended_index = 0

    def begin_office(self) -> None:
        """Forget what an earlier office appended: the no-op of this one comes behind it."""
        self._appended_index = 0

    def may_append(self, command: bytes) -> bool:
        """Whether the leader may append a command, without a type byte, now; if so, it does."""
        if not self._changes_members(command):
            return True
        noop_index, applied = self._fields.noop_index, self._fields.last_applied
        if noop_index is None or applied < max(noop_index, self._appended_index):
            return False
        self._appended_index = self._journal.last_index + 1
        return True

    def cut(self, message: Message) -> None:
        """Take the entries from a leader's message that must wait; the leader sends them again."""
        entries = message["entries"]
        new = [position for position, (command, _, _) in enumerate(entries) if self._is_change(command)]
        if new:
            may_one = not any(self._changes(self._fields.last_applied + 1, message["prevLogIdx"]))
            stop = new[:2][-1] if may_one and len(new) > 1 else None if may_one else new[0]
            message["entries"] = entries[:stop]

    def proven_index(self, applied_index: int) -> int:
        """Up to where the journal itself proves that entries are committed, behind what is applied; 0 for nowhere."""
        changes = list(self._changes(applied_index + 1, self._journal.last_index))
        return changes[-2] if len(changes) > 1 else 0

    def _changes(self, first: int, last: int) -> Iterator[int]:
        """Indexes of the entries in [first, last] that may change the members."""
        while first <= last:
            entries = self._journal.entries(first, last)
            if not entries:
                return
            yield from (index for command, index, _ in entries if self._is_change(command))
            first += len(entries)

    def _is_change(self, command: bytes) -> bool:
        return command[:1] == REGULAR and self._changes_members(command[1:])
