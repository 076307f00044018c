"""PySyncObj's journal interface on top of the durable journal.

PySyncObj addresses entries by position; there is no compaction, so position p holds index p + 1.
"""

from pysyncobj.journal import Journal

from node.raft.journal import DurableJournal
from node.raft.journal_format import Entry, JournalError

# The method names are PySyncObj's.
# ruff: noqa: N802


class StockJournal(Journal):
    """What SyncObj sees in the place of its own journal."""

    def __init__(self, journal: DurableJournal) -> None:
        self._journal = journal

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Add an entry; buffered until the journal is synced."""
        self._journal.add((command, idx, term))

    def clear(self) -> None:
        """Refuse: only a snapshot asks for it."""
        raise JournalError("the journal is never cleared")

    def deleteEntriesFrom(self, entryFrom: int) -> None:  # noqa: N803
        """Hide the entries from this position on; they go only if what follows conflicts with them."""
        self._journal.hide_from(entryFrom + 1)

    def deleteEntriesTo(self, entryTo: int) -> None:  # noqa: ARG002, N803
        """Refuse: only a compaction asks for it, and the log is the ledger."""
        raise JournalError("the journal is never compacted")

    def __getitem__(self, item: int | slice) -> Entry | list[Entry]:
        length = self._journal.last_index
        if isinstance(item, slice):
            first, stop, _ = item.indices(length)
            return self._journal.entries(first + 1, stop)
        position = item + length if item < 0 else item
        if not 0 <= position < length:
            raise IndexError(item)
        return self._journal.entry(position + 1)

    def __len__(self) -> int:
        return self._journal.last_index

    def _destroy(self) -> None:
        self._journal.close()

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:  # noqa: N803
        """Note the commit index; called when a message is done, before anything is applied."""
        self._journal.set_commit_index(raftCommitIndex)

    def getRaftCommitIndex(self) -> int:
        """Return the commit index, at least 1: PySyncObj puts a no-op at index 1 of every journal."""
        return max(1, self._journal.commit_index)

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:  # noqa: N803
        """Make term and vote durable."""
        self._journal.set_vote(term, votedForNodeId)

    def getCurrentTerm(self) -> int:
        """Return the current term."""
        return self._journal.term

    def getVotedForNodeId(self) -> str | None:
        """Return the name of the node that got the vote of this term."""
        return self._journal.voted_for

    def onOneSecondTimer(self) -> None:
        """Write the commit index if it has moved."""
        self._journal.sync_commit_index()
