"""What the parts of one Raft node share."""

from collections.abc import Callable
from dataclasses import dataclass

from pysyncobj.node import Node

from node.raft.compat import LEADER, HookedSyncObj, SyncObjFields
from node.raft.journal import DurableJournal
from node.raft.membership import MemberChanges
from node.raft.types import RaftSettings
from node.raft.wire import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """One node as its parts see it; used by the raft thread only.

    Attributes:
        name: of this node.
        is_voter: whether it may stand for election.
        majority: of all members.
        settings: times and limits.
        journal: the log.
        changes: keeps changes of the members apart.
        fields: SyncObj's state.
        syncobj: SyncObj itself, for its own methods.
        send: queues a message to a peer; False if that was not possible.
        wake: makes the next poll return at once.
        adopt_term: follows a higher term that a peer told of.
        lose_leader: reports what was asked of a leader that is no more.
    """

    name: str
    is_voter: bool
    majority: int
    settings: RaftSettings
    journal: DurableJournal
    changes: MemberChanges
    fields: SyncObjFields
    syncobj: HookedSyncObj
    send: Callable[[Node, Message], bool]
    wake: Callable[[], None]
    adopt_term: Callable[[int], None]
    lose_leader: Callable[[], None]

    @property
    def is_leader(self) -> bool:
        """Whether this node believes to be the leader."""
        return self.fields.state == LEADER
