"""Raft's log on one node: nothing is acknowledged before it is durable, nothing acknowledged is ever removed.

Rules, from Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", figure 2:

* term and vote are durable before an answer that depends on them leaves (set_vote syncs);
* a follower removes entries only if one of them conflicts with the leader's: "same index but different terms".

PySyncObj breaks the second rule: it truncates its log on every append_entries that starts before the log's end, also
if the message is an old one that holds less than the follower has acknowledged since. Here a truncation is lazy: the
entries are only hidden. Adding an equal entry shows it again without a write, adding another one is the conflict
that removes the rest, and what is still hidden when the message is done comes back (settle).

Adding only buffers; sync() writes everything buffered as one group with one fdatasync. Memory is bounded by the cache
of the newest entries; older ones are read from the file.
"""

from pathlib import Path

from node.raft.journal_file import JournalFile
from node.raft.journal_format import BODY_BYTES_MAX, Entry, HardState, JournalError
from node.raft.types import SLICE_ENTRIES_MAX

SLICE_BYTES_MAX = 1024 * 1024  # commands handed out at once; a longer single entry is still handed out
COMMAND_BYTES_MAX = BODY_BYTES_MAX - 64


class DurableJournal:
    """The entries 1..last_index, the hard state, and the barrier sync().

    One thread uses it. A write that fails ends the process (journal_file.py).
    """

    def __init__(self, path: Path, *, cache_bytes_max: int) -> None:
        """Open the journal at path, or make it.

        Args:
            path: the file; its directory exists.
            cache_bytes_max: newest commands kept in memory; at least the last entry always is.

        Raises:
            JournalError: the file cannot be used; see journal_file.py.
        """
        self._file = JournalFile.open(path)
        self._term, self._voted_for, self._commit_index = self._file.hard_state
        self._last_index = self._file.last_index  # what is visible
        self._stored_last = self._last_index  # with the hidden entries
        self._cache: list[Entry] = []  # the entries that end at _stored_last, without gaps
        self._cache_bytes = 0
        self._cache_bytes_max = cache_bytes_max
        self._pending: list[Entry] = []  # added since the last sync, not in the file
        self._truncate_from: int | None = None  # lowest index removed since the last sync
        self._is_closed = False
        self._load_last()

    @property
    def last_index(self) -> int:
        """Index of the last entry, 0 for none; while a message is handled, without what it hides."""
        return self._last_index

    @property
    def stored_last_index(self) -> int:
        """Index of the last entry, hidden ones included."""
        return self._stored_last

    @property
    def commit_index(self) -> int:
        """Highest index known to be committed, in [0, last_index]."""
        return min(self._commit_index, self._stored_last)

    @property
    def term(self) -> int:
        """Raft's current term."""
        return self._term

    @property
    def voted_for(self) -> str | None:
        """Name of the node that got this node's vote in this term."""
        return self._voted_for

    def entry(self, index: int) -> Entry:
        """Return one entry, hidden or not.

        Raises:
            IndexError: there is no such entry.
            JournalCorruptError: it cannot be read back.
        """
        if not 1 <= index <= self._stored_last:
            raise IndexError(index)
        cached_from = self._stored_last - len(self._cache) + 1
        if index >= cached_from:
            return self._cache[index - cached_from]
        return self._file.read(index)

    def entries(self, first: int, last: int, *, bytes_max: int = SLICE_BYTES_MAX) -> list[Entry]:
        """Return entries from first on, to last at the most.

        Stops early at SLICE_ENTRIES_MAX entries, or with the entry that reaches bytes_max, so that a node that is
        far behind costs bounded memory. At least one entry is returned if first <= min(last, last_index).
        """
        last = min(last, self._last_index, first + SLICE_ENTRIES_MAX - 1)
        found: list[Entry] = []
        room_bytes = bytes_max
        for index in range(first, last + 1):
            found.append(self.entry(index))
            room_bytes -= len(found[-1][0])
            if room_bytes <= 0:
                break
        return found

    def add(self, entry: Entry) -> None:
        """Add an entry behind the last one; buffered until sync().

        Raises:
            JournalError: a gap, a command too long for a record, or two commands of one index and term. All are
                checked before by who may send such things; here they are faults of this program.
        """
        command, index, term = entry
        if index != self._last_index + 1:
            raise JournalError(f"entry {index} after {self._last_index}")
        if len(command) > COMMAND_BYTES_MAX:
            raise JournalError(f"entry {index} has {len(command)} bytes")
        if index <= self._stored_last:
            hidden = self.entry(index)
            if hidden == entry:
                self._last_index = index
                return
            if hidden[2] == term:
                raise JournalError(f"two commands at index {index} of term {term}")
            self._remove_from(index)
        self._cache.append(entry)
        self._cache_bytes += len(command)
        self._pending.append(entry)
        self._last_index = self._stored_last = index

    def hide_from(self, index: int) -> None:
        """Hide the entries from index on, until equal ones are added, another one removes them, or settle()."""
        self.settle()
        self._last_index = max(0, min(self._last_index, index - 1))

    def settle(self) -> None:
        """Show again what is hidden: the message that hid it did not conflict with it."""
        self._last_index = self._stored_last

    def set_commit_index(self, index: int) -> None:
        """Note that all entries up to index are committed; never goes back.

        Entries are synced before: a leader counts itself into the majority, so nothing that it may commit can be
        only in memory. The index itself is written with the next group.
        """
        self.settle()
        if index > self._commit_index:
            self._commit_index = index
            self.sync()

    def set_vote(self, term: int, voted_for: str | None) -> None:
        """Make the current term and the vote in it durable."""
        if (term, voted_for) != (self._term, self._voted_for):
            self._term, self._voted_for = term, voted_for
            self._write()

    def sync(self) -> None:
        """Make every added entry durable; one fdatasync, none if nothing is buffered."""
        if self._pending or self._truncate_from is not None:
            self._write()

    def sync_commit_index(self) -> None:
        """Write the commit index if it has moved; called once a second, so that a restart replays at once."""
        if self._commit_index != self._file.hard_state.commit_index:
            self._write()

    def close(self) -> None:
        """Write what is buffered and release the file; may be called twice."""
        if self._is_closed:
            return
        self._is_closed = True
        self.settle()
        self._write()
        self._file.close()

    def _write(self) -> None:
        hard_state = HardState(term=self._term, voted_for=self._voted_for, commit_index=self._commit_index)
        self._file.write(truncate_from=self._truncate_from, entries=self._pending, hard_state=hard_state)
        self._pending = []
        self._truncate_from = None
        if self._cache_bytes > 2 * self._cache_bytes_max:  # twice: trimming a list costs its length
            self._trim_cache()

    def _remove_from(self, index: int) -> None:
        keep = max(0, len(self._cache) - (self._stored_last - index + 1))
        self._cache_bytes -= sum(len(command) for command, _, _ in self._cache[keep:])
        del self._cache[keep:]
        self._pending = [entry for entry in self._pending if entry[1] < index]
        if self._truncate_from is None or index < self._truncate_from:
            self._truncate_from = index
        self._stored_last = index - 1

    def _trim_cache(self) -> None:
        kept_bytes = 0
        keep = 0
        while keep < len(self._cache) and (keep == 0 or kept_bytes < self._cache_bytes_max):
            keep += 1
            kept_bytes += len(self._cache[-keep][0])
        del self._cache[: len(self._cache) - keep]
        self._cache_bytes = kept_bytes

    def _load_last(self) -> None:
        if self._stored_last:
            self._cache = [self._file.read(self._stored_last)]
            self._cache_bytes = len(self._cache[0][0])
