"""The journal's file: opened and repaired, appended to in groups, read entry by entry.

A failed write ends the process: after a failed fdatasync nobody knows what the disk holds, and a second one may succeed
without having written anything (failstop.py). One that finds no room on the disk has done nothing, and waits for it.
"""

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from node.raft.failstop import EXIT_STORAGE, fail_stop
from node.raft.journal_format import (
    FILE_HEADER_BYTES,
    KIND_ENTRY,
    RECORD_HEADER_BYTES,
    SALT_BYTES,
    Change,
    Entry,
    HardState,
    JournalBusyError,
    JournalCorruptError,
    announced_bytes,
    decode_entry,
    decode_file_header,
    encode_file_header,
    encode_group,
    parse_record,
)
from node.raft.journal_recovery import Recovered, recover
from node.space import is_disk_full, wait_for_space


class JournalFile:
    """The open file: entries 1..last_index and the hard state, all of them durable."""

    def __init__(self, path: Path, descriptor: int, *, seed: int, recovered: Recovered) -> None:
        self._path = path
        self._descriptor = descriptor
        self._seed = seed
        self._offsets, self.hard_state, self._group, self._end = recovered

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the journal, make it first if it does not exist, and cut off a torn tail.

        Raises:
            JournalCorruptError: damage before the tail, or not a journal.
            JournalBusyError: another process holds it.
            OSError: the file cannot be read or made.
        """
        if not path.exists():
            _create(path)
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            lock(path, descriptor)
            seed = decode_file_header(path, os.pread(descriptor, FILE_HEADER_BYTES, 0))
            recovered = recover(path, descriptor, seed=seed)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, descriptor, seed=seed, recovered=recovered)

    @property
    def last_index(self) -> int:
        """Index of the last durable entry; 0 for none."""
        return len(self._offsets)

    def write(self, *, truncate_from: int | None, entries: Sequence[Entry], hard_state: HardState) -> None:
        """Append one group and make it durable. A failure ends the process.

        Args:
            truncate_from: first index to drop; None, or beyond the end, drops nothing.
            entries: contiguous, from last_index + 1 on once the truncation is done.
            hard_state: written if it differs from the last one.
        """
        change = Change(
            # A truncation of what never reached the file would be one of nothing when it is replayed.
            truncate_from=None if truncate_from is None or truncate_from > self.last_index else truncate_from,
            entries=entries,
            hard_state=None if hard_state == self.hard_state else hard_state,
        )
        data, offsets = encode_group(change, group=self._group + 1, seed=self._seed, offset=self._end)
        if not data:
            return
        self._append(data)
        if change.truncate_from is not None:
            del self._offsets[change.truncate_from - 1 :]
        self._offsets.extend(offsets)
        self.hard_state = hard_state
        self._end += len(data)
        self._group += 1

    def read(self, index: int) -> Entry:
        """Read one entry back and check it.

        Args:
            index: in [1, last_index].

        Raises:
            JournalCorruptError: the record is no longer what was written.
        """
        offset = self._offsets[index - 1]
        return read_entry(self._path, self._descriptor, index=index, offset=offset, seed=self._seed)

    def close(self) -> None:
        """Release the file and its lock."""
        os.close(self._descriptor)

    def _append(self, data: bytes) -> None:
        try:
            written = 0
            while written < len(data):
                written += self._write_some(data[written:], self._end + written)
            os.fdatasync(self._descriptor)
        except OSError:
            fail_stop(f"cannot write the journal {self._path}", exit_code=EXIT_STORAGE)

    def _write_some(self, data: bytes, offset: int) -> int:
        """Write at least a byte; on a full disk, when there is room."""
        attempt = 0
        while True:
            try:
                return os.pwrite(self._descriptor, data, offset)
            except OSError as error:
                if not is_disk_full(error):
                    raise
                wait_for_space(self._path, error, attempt=attempt)
                attempt += 1


def read_entry(path: Path, descriptor: int, *, index: int, offset: int, seed: int) -> Entry:
    """Read one entry's record at an offset and check it.

    Raises:
        JournalCorruptError: the record is no longer what was written.
    """
    header = os.pread(descriptor, RECORD_HEADER_BYTES, offset)
    data = os.pread(descriptor, announced_bytes(header), offset)
    record = parse_record(data, 0, seed=seed, offset=offset)
    if record is None or record.kind != KIND_ENTRY:
        raise JournalCorruptError(path, offset, f"unreadable entry {index}")
    entry = decode_entry(record.body)
    if entry[1] != index:
        raise JournalCorruptError(path, offset, f"entry {entry[1]} in place of {index}")
    return entry


def lock(path: Path, descriptor: int) -> None:
    """Take the journal's lock, which whoever uses the file holds.

    Raises:
        JournalBusyError: another process holds it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise JournalBusyError(path) from None


def _create(path: Path) -> None:
    """Make an empty journal under a temporary name first: a file with half a header never exists."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, encode_file_header(os.urandom(SALT_BYTES)))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
