"""The journal's format: checksummed records in numbered groups, one append-only file.

A group is what one fdatasync makes durable: a truncation, some entries and the hard state (term, vote, commit index),
in this order, each left out when unchanged. The last record of a group carries a flag.

    file    magic | salt, 16 bytes | CRC32 of both
    record  magic | body bytes, u32 | group, u64 | kind and flag, u8 | CRC32 | body      (little-endian)
    bodies  entry: index, u64 | term, u64 | command     truncation: first index dropped, u64
            hard state: term, u64 | commit index, u64 | vote, UTF-8, empty for none

The checksum covers the record's place in the file and the salt of this file, so that no entry can carry bytes that look
like a record of its journal, and no record counts anywhere but where it was written.
"""

import mmap
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

Entry = tuple[bytes, int, int]  # command with its type byte, index, term: PySyncObj's own order

FILE_MAGIC = b"wmreg raft journal 1\n"
SALT_BYTES = 16
FILE_HEADER_BYTES = len(FILE_MAGIC) + SALT_BYTES + 4
BODY_BYTES_MAX = 1024 * 1024

RECORD_MAGIC = b"\xf1wmr"
_HEAD = struct.Struct("<4sIQB")  # magic, body bytes, group, kind
_CHECKSUM = struct.Struct("<I")
RECORD_HEADER_BYTES = _HEAD.size + _CHECKSUM.size
_ENTRY = struct.Struct("<QQ")  # index, term
_INDEX = struct.Struct("<Q")
_HARD_STATE = struct.Struct("<QQ")  # term, commit index

KIND_ENTRY = 1
KIND_TRUNCATE = 2
KIND_HARD_STATE = 3
_LAST_OF_GROUP = 0x80


class JournalError(Exception):
    """The journal cannot be used; the message says which file, what is wrong and what to do."""


class JournalBusyError(JournalError):
    """Another process holds the journal."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path}: another process runs this node's state or checks it; stop it first")


class JournalCorruptError(JournalError):
    """A part of the journal that had been durable does not read back as it was written."""

    def __init__(self, path: Path, offset: int, what: str) -> None:
        super().__init__(
            f"{path}: {what} at byte {offset}. Entries that this node acknowledged are damaged, so it must not take "
            "part under its old name: check the disk, keep the file for inspection, restore the node's directory, "
            "but only from a copy taken after its last stop, or let it join as a new member under a new name"
        )
        self.path = path
        self.offset = offset


class HardState(NamedTuple):
    """What Raft must remember besides the entries. commit_index may lag: it is known again from the leader."""

    term: int
    voted_for: str | None
    commit_index: int


class Record(NamedTuple):
    """One sound record: its kind, group, body, whether it ends its group, and where the next one begins."""

    kind: int
    group: int
    body: bytes
    is_last: bool
    end: int


class Change(NamedTuple):
    """What one group does to the journal; None and empty for what it leaves alone."""

    truncate_from: int | None
    entries: Sequence[Entry]
    hard_state: HardState | None


def encode_file_header(salt: bytes) -> bytes:
    """Encode the start of a new file; the salt must be random."""
    start = FILE_MAGIC + salt
    return start + _CHECKSUM.pack(zlib.crc32(start))


def decode_file_header(path: Path, header: bytes) -> int:
    """Check the start of a file and return the seed of its checksums.

    Raises:
        JournalCorruptError: it is not the start of a journal.
    """
    if len(header) < FILE_HEADER_BYTES or not header.startswith(FILE_MAGIC):
        raise JournalCorruptError(path, 0, "not a journal")
    salt = header[len(FILE_MAGIC) : len(FILE_MAGIC) + SALT_BYTES]
    if encode_file_header(salt) != header:
        raise JournalCorruptError(path, 0, "damaged file header")
    return zlib.crc32(salt)


def encode_group(change: Change, *, group: int, seed: int, offset: int) -> tuple[bytes, list[int]]:
    """Encode a group that is to stand at offset.

    Returns:
        The bytes, empty if the change is, and the offset of each entry's record.
    """
    bodies = _bodies(change)
    parts: list[bytes] = []
    offsets: list[int] = []
    for position, (kind, body) in enumerate(bodies):
        flag = _LAST_OF_GROUP if position == len(bodies) - 1 else 0
        head = _HEAD.pack(RECORD_MAGIC, len(body), group, kind | flag)
        parts += (head, _CHECKSUM.pack(_checksum(seed, offset, head, body)), body)
        if kind == KIND_ENTRY:
            offsets.append(offset)
        offset += RECORD_HEADER_BYTES + len(body)
    return b"".join(parts), offsets


def parse_record(data: mmap.mmap | bytes, start: int, *, seed: int, offset: int) -> Record | None:
    """Read the record that begins at data[start] and belongs at offset in the file; None if it is not sound."""
    head = data[start : start + _HEAD.size]
    checksum = data[start + _HEAD.size : start + RECORD_HEADER_BYTES]
    if len(checksum) < _CHECKSUM.size:
        return None
    magic, body_bytes, group, kind = _HEAD.unpack(head)
    if magic != RECORD_MAGIC or body_bytes > BODY_BYTES_MAX:
        return None
    body = data[start + RECORD_HEADER_BYTES : start + RECORD_HEADER_BYTES + body_bytes]
    if len(body) < body_bytes or _CHECKSUM.pack(_checksum(seed, offset, head, body)) != checksum:
        return None
    return Record(
        kind=kind & ~_LAST_OF_GROUP,
        group=group,
        body=body,
        is_last=bool(kind & _LAST_OF_GROUP),
        end=offset + RECORD_HEADER_BYTES + body_bytes,
    )


def announced_bytes(header: bytes) -> int:
    """Return the length of the record whose header this is, as far as it can be believed."""
    if len(header) < RECORD_HEADER_BYTES:
        return 0
    body_bytes: int = _HEAD.unpack_from(header)[1]
    return RECORD_HEADER_BYTES + min(body_bytes, BODY_BYTES_MAX)


def decode_entry(body: bytes) -> Entry:
    """Decode the body of an entry's record."""
    index, term = _ENTRY.unpack_from(body)
    return body[_ENTRY.size :], index, term


def decode_index(body: bytes) -> int:
    """Decode the index that the body of an entry's record, or of a truncation, begins with."""
    index: int = _INDEX.unpack_from(body)[0]
    return index


def decode_hard_state(body: bytes) -> HardState:
    """Decode the body of a hard state's record."""
    term, commit_index = _HARD_STATE.unpack_from(body)
    vote = body[_HARD_STATE.size :].decode()
    return HardState(term=term, voted_for=vote or None, commit_index=commit_index)


def _bodies(change: Change) -> list[tuple[int, bytes]]:
    bodies: list[tuple[int, bytes]] = []
    if change.truncate_from is not None:
        bodies.append((KIND_TRUNCATE, _INDEX.pack(change.truncate_from)))
    bodies += [(KIND_ENTRY, _ENTRY.pack(index, term) + command) for command, index, term in change.entries]
    if change.hard_state is not None:
        vote = (change.hard_state.voted_for or "").encode()
        body = _HARD_STATE.pack(change.hard_state.term, change.hard_state.commit_index) + vote
        bodies.append((KIND_HARD_STATE, body))
    return bodies


def _checksum(seed: int, offset: int, head: bytes, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(head, zlib.crc32(_INDEX.pack(offset), seed)))
