"""What a journal holds after a crash.

Group n + 1 is written only after group n is durable. That makes the rule exact:

* a group without its last record, or with a bad one, was never acknowledged if no later group exists: it is a torn
  tail, in whatever order its pages reached the disk, and it is cut off whole;
* if a record of a later group exists, the damage is in data that was durable: the file is refused.

What this cannot see: a bad last group that had been durable. The state machine's applied index is compared with the
journal for that (raft.py), and the commit index is written within a second as a group of its own.
"""

import array
import mmap
import os
from pathlib import Path
from typing import NamedTuple

from node.raft.journal_format import (
    FILE_HEADER_BYTES,
    KIND_ENTRY,
    KIND_HARD_STATE,
    KIND_TRUNCATE,
    RECORD_HEADER_BYTES,
    RECORD_MAGIC,
    HardState,
    JournalCorruptError,
    Record,
    decode_hard_state,
    decode_index,
    parse_record,
)


class Recovered(NamedTuple):
    """The state that the sound groups add up to: where each entry stands, the hard state, the last group, the end."""

    offsets: "array.array[int]"
    hard_state: HardState
    group: int
    end: int


def recover(path: Path, descriptor: int, *, seed: int) -> Recovered:
    """Read the whole file and cut off a torn tail.

    Args:
        path: for messages.
        descriptor: of the file, open for writing, its header checked.
        seed: of its checksums.

    Raises:
        JournalCorruptError: damage before the tail.
    """
    recovered, file_bytes = survey(path, descriptor, seed=seed)
    if recovered.end < file_bytes:
        os.ftruncate(descriptor, recovered.end)
        os.fsync(descriptor)
    return recovered


def survey(path: Path, descriptor: int, *, seed: int) -> tuple[Recovered, int]:
    """Read the whole file and change nothing; also return how many bytes it has, a torn tail included.

    Raises:
        JournalCorruptError: damage before the tail.
    """
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as data:
        recovered = _replay(path, data, seed)
        file_bytes = len(data)
        later = _find_later_group(data, recovered, seed=seed) if recovered.end < file_bytes else None
    if later is not None:
        raise JournalCorruptError(path, recovered.end, f"damaged records, sound ones follow from byte {later},")
    return recovered, file_bytes


def _replay(path: Path, data: mmap.mmap, seed: int) -> Recovered:
    offsets: array.array[int] = array.array("Q")
    hard_state = HardState(term=0, voted_for=None, commit_index=0)
    group, end = 0, FILE_HEADER_BYTES
    while (records := _read_group(data, end, seed=seed, group=group + 1)) is not None:
        for record in records:
            if record.kind == KIND_HARD_STATE:
                hard_state = decode_hard_state(record.body)
            elif not _replay_change(offsets, record):
                raise JournalCorruptError(path, end, "records that do not follow from each other")
        group, end = group + 1, records[-1].end
    return Recovered(offsets=offsets, hard_state=hard_state, group=group, end=end)


def _replay_change(offsets: "array.array[int]", record: Record) -> bool:
    index = decode_index(record.body)
    if record.kind == KIND_ENTRY and index == len(offsets) + 1:
        offsets.append(record.end - len(record.body) - RECORD_HEADER_BYTES)
        return True
    if record.kind == KIND_TRUNCATE and 1 <= index <= len(offsets):
        del offsets[index - 1 :]
        return True
    return False


def _read_group(data: mmap.mmap, offset: int, *, seed: int, group: int) -> list[Record] | None:
    records: list[Record] = []
    while True:
        record = parse_record(data, offset, seed=seed, offset=offset)
        if record is None or record.group != group:
            return None
        records.append(record)
        if record.is_last:
            return records
        offset = record.end


def _find_later_group(data: mmap.mmap, recovered: Recovered, *, seed: int) -> int | None:
    """Find a sound record of a group after the damaged one, which is the one after the last sound group."""
    offset = data.find(RECORD_MAGIC, recovered.end + 1)
    while offset != -1:
        record = parse_record(data, offset, seed=seed, offset=offset)
        if record is not None and record.group > recovered.group + 1:
            return offset
        offset = data.find(RECORD_MAGIC, offset + 1)
    return None
