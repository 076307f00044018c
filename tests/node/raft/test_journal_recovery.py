"""Promised: what was never acknowledged is cut off cleanly, and damage to what was is never passed over in silence."""

import os
import random

import pytest

from node.raft.journal_file import JournalFile
from node.raft.journal_format import FILE_HEADER_BYTES, RECORD_MAGIC, HardState, JournalCorruptError


def write_groups(path, *, groups: int, seed: int = 1) -> list[tuple[int, list, HardState]]:
    """Write random groups; returns, for each state of the file, its size, its entries and its hard state."""
    draw = random.Random(seed)
    journal = JournalFile.open(path)
    entries: list = []
    states = [(path.stat().st_size, [], journal.hard_state)]
    for term in range(1, groups + 1):
        truncate_from = draw.randint(1, len(entries)) if entries and draw.random() < 0.3 else None
        if truncate_from is not None:
            del entries[truncate_from - 1 :]
        new = [(draw.randbytes(draw.randint(1, 9000)), len(entries) + 1 + offset, term) for offset in range(3)]
        hard_state = HardState(term=term, voted_for=draw.choice([None, "node-1"]), commit_index=0)
        journal.write(truncate_from=truncate_from, entries=new, hard_state=hard_state)
        entries += new
        states.append((path.stat().st_size, list(entries), hard_state))
    journal.close()
    return states


def read_all(path) -> tuple[list, HardState]:
    journal = JournalFile.open(path)
    entries = [journal.read(index) for index in range(1, journal.last_index + 1)]
    journal.close()
    return entries, journal.hard_state


def test_a_whole_file_reads_back_as_written(tmp_path):
    states = write_groups(tmp_path / "journal", groups=12)
    assert read_all(tmp_path / "journal") == states[-1][1:]


def test_a_file_cut_anywhere_reads_back_as_the_last_whole_group(tmp_path):
    path = tmp_path / "journal"
    states = write_groups(path, groups=12)
    whole = path.read_bytes()
    draw = random.Random(2)
    for _ in range(150):
        size = draw.randrange(FILE_HEADER_BYTES, len(whole))
        path.write_bytes(whole[:size])
        expected = max(state for state in states if state[0] <= size)
        assert read_all(path) == expected[1:]
        assert path.stat().st_size == expected[0]


def test_a_last_group_with_lost_pages_is_cut_off_even_if_its_end_reached_the_disk(tmp_path):
    path = tmp_path / "journal"
    states = write_groups(path, groups=6)
    whole = bytearray(path.read_bytes())
    start, end = states[-2][0], states[-1][0]
    draw = random.Random(3)
    for _ in range(50):
        torn = bytearray(whole)
        at = draw.randrange(start, end - 1)
        torn[at : min(end, at + 4096)] = bytes(min(end, at + 4096) - at)
        if torn == whole:
            continue
        path.write_bytes(torn)
        assert read_all(path) == states[-2][1:]


@pytest.mark.parametrize("damage", ["bit", "page"])
def test_damage_before_the_last_group_is_refused_and_leaves_the_file_alone(tmp_path, damage):
    path = tmp_path / "journal"
    states = write_groups(path, groups=8)
    whole = path.read_bytes()
    draw = random.Random(4)
    for _ in range(80):
        damaged = bytearray(whole)
        at = draw.randrange(FILE_HEADER_BYTES, states[-2][0])
        if damage == "bit":
            damaged[at] ^= 1 << draw.randrange(8)
        else:
            damaged[at : min(at + 512, states[-2][0])] = bytes(min(512, states[-2][0] - at))
        path.write_bytes(damaged)
        with pytest.raises(JournalCorruptError) as raised:
            JournalFile.open(path)
        assert raised.value.path == path
        assert raised.value.offset <= at
        assert "new member under a new name" in str(raised.value)
        assert path.read_bytes() == damaged


def test_an_appended_stray_tail_is_cut_off(tmp_path):
    path = tmp_path / "journal"
    states = write_groups(path, groups=3)
    with path.open("ab") as file:
        file.write(RECORD_MAGIC + os.urandom(500) + RECORD_MAGIC)
    assert read_all(path) == states[-1][1:]


def test_an_entry_that_carries_the_bytes_of_a_later_group_does_not_make_a_torn_tail_look_damaged(tmp_path):
    path = tmp_path / "journal"
    write_groups(path, groups=9)
    forged = path.read_bytes()[FILE_HEADER_BYTES:]
    path.unlink()
    journal = JournalFile.open(path)
    state = HardState(term=1, voted_for=None, commit_index=0)
    journal.write(truncate_from=None, entries=[(b"first", 1, 1)], hard_state=state)
    journal.write(truncate_from=None, entries=[(b"torn entry", 2, 1), (forged[:60_000], 3, 1)], hard_state=state)
    journal.close()
    data = bytearray(path.read_bytes())
    data[data.index(b"torn entry")] ^= 1
    path.write_bytes(data)
    assert read_all(path) == ([(b"first", 1, 1)], state)


def test_a_journal_that_was_repaired_goes_on(tmp_path):
    path = tmp_path / "journal"
    states = write_groups(path, groups=4)
    path.write_bytes(path.read_bytes()[: states[-1][0] - 1])
    entries, hard_state = read_all(path)
    journal = JournalFile.open(path)
    journal.write(truncate_from=None, entries=[(b"more", len(entries) + 1, 9)], hard_state=hard_state)
    journal.close()
    assert read_all(path)[0] == [*entries, (b"more", len(entries) + 1, 9)]
