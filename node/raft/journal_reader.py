"""A journal as others than its owner see it: read, never repaired, never written.

The owner may go on appending meanwhile, as a backup of a running node needs it: what it writes after the opening is not
seen, and a group that it had half written counts as a torn tail. Only the caller knows how far the entries are
committed; those behind may still be replaced.
"""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from node.raft.compat import REGULAR
from node.raft.journal_file import JournalFile, lock, read_entry
from node.raft.journal_format import FILE_HEADER_BYTES, Entry, HardState, JournalError, decode_file_header
from node.raft.journal_recovery import survey

_GROUP_ENTRIES = 512


class JournalReader:
    """The sound part of a journal.

    Args:
        path: the file.
        is_exclusive: keep its owner from starting while this reader is open.

    Attributes:
        hard_state: term, vote and commit index, as they were last written.
        torn_bytes: behind the last sound group; the owner cuts them off when it opens the file.

    Raises:
        JournalCorruptError: damage before the tail, or not a journal.
        JournalBusyError: its owner runs, and is_exclusive.
        OSError: the file cannot be read.
    """

    def __init__(self, path: Path, *, is_exclusive: bool) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if is_exclusive:
                lock(path, self._descriptor)
            self._seed = decode_file_header(path, os.pread(self._descriptor, FILE_HEADER_BYTES, 0))
            recovered, file_bytes = survey(path, self._descriptor, seed=self._seed)
        except BaseException:
            os.close(self._descriptor)
            raise
        self._offsets, self.hard_state = recovered.offsets, recovered.hard_state
        self.torn_bytes = file_bytes - recovered.end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file, and let its owner have it."""
        self.close()

    def close(self) -> None:
        """Close the file, and let its owner have it."""
        os.close(self._descriptor)

    @property
    def last_index(self) -> int:
        """Index of the last sound entry; 0 for none."""
        return len(self._offsets)

    def entries(self, first: int, last: int) -> Iterator[Entry]:
        """Read the entries of [first, last] that exist, one by one.

        Raises:
            JournalCorruptError: one is no longer what was written.
        """
        for index in range(first, min(last, self.last_index) + 1):
            yield read_entry(
                self._path, self._descriptor, index=index, offset=self._offsets[index - 1], seed=self._seed
            )

    def commands(self, first: int, last: int) -> Iterator[tuple[int, bytes | None]]:
        """Read the commands of [first, last] that exist, each with its index; None for a no-op of the protocol.

        Raises:
            JournalCorruptError: one is no longer what was written.
        """
        for command, index, _term in self.entries(first, last):
            yield index, command[1:] if command[:1] == REGULAR else None


def copy_committed(source: JournalReader, target: Path, *, last: int) -> None:
    """Write a new journal with the entries up to `last`, which must be committed, and no vote.

    Whoever owns the copy has promised nothing by it: it must not go under the name of the source's owner.

    Args:
        source: has these entries.
        target: must not exist.
        last: index of the last entry to copy.

    Raises:
        JournalError: the source has fewer entries.
        JournalCorruptError: one of them is damaged.
    """
    if last > source.last_index:
        raise JournalError(f"the journal has {source.last_index} entries, not {last}")
    journal = JournalFile.open(target)
    try:
        entries = source.entries(1, last)
        while group := list(islice(entries, _GROUP_ENTRIES)):
            term, index = group[-1][2], group[-1][1]
            state = HardState(term=term, voted_for=None, commit_index=index)
            journal.write(truncate_from=None, entries=group, hard_state=state)
    finally:
        journal.close()
