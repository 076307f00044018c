"""Gathered notes are kept while readers trust them, and a start that was cut short leaves nothing in the way."""

from pathlib import Path

import pytest
from fakes import LedgerMaker

from node.errors import InconsistentStateError
from node.notes import NoteCache
from registry.checkpoint import Checkpoint


def test_a_note_is_there_after_opening_again_and_the_largest_is_the_latest(tmp_path: Path):
    maker = LedgerMaker()
    maker.publish("alice")
    notes = NoteCache(tmp_path / "notes.db")
    for size in (1, 2):
        notes.put(size, maker.note(size))
    notes.close()
    again = NoteCache(tmp_path / "notes.db")
    assert (str(again.get(1)), str(again.latest())) == (str(maker.note(1)), str(maker.note(2)))
    assert again.get(3) is None
    again.close()


def test_a_note_is_read_while_another_is_being_written(tmp_path: Path):
    maker = LedgerMaker()
    notes = NoteCache(tmp_path / "notes.db")
    notes.put(1, maker.note(1))
    with notes._writing:
        assert str(notes.latest()) == str(maker.note(1))
    notes.close()


def test_a_note_of_nodes_that_have_left_is_replaced(tmp_path: Path):
    maker = LedgerMaker()
    notes = NoteCache(tmp_path / "notes.db")
    for nodes in ((1, 2), (2, 3)):
        notes.put(1, maker.note(1, nodes=nodes))
    assert str(notes.get(1)) == str(maker.note(1, nodes=(2, 3)))
    notes.close()


def test_the_latest_note_of_a_member_is_told_however_notes_come_and_go(tmp_path: Path):
    maker = LedgerMaker()
    maker.publish("alice")
    maker.publish("bob")
    notes, name = NoteCache(tmp_path / "notes.db"), f"{maker.origin}/node-1"
    assert notes.latest_signed_by(name) is None
    told = []
    for size, nodes in ((1, (1, 2)), (3, (1, 2)), (2, (1, 3)), (3, (2, 3)), (2, (2, 3))):
        notes.put(size, maker.note(size, nodes=nodes))
        note = notes.latest_signed_by(name)
        told.append(Checkpoint.parse(note.text).size if note else 0)
        assert note is None or name in str(note)
    assert told == [1, 3, 3, 2, 1]
    notes.close()
    again = NoteCache(tmp_path / "notes.db")
    assert str(again.latest_signed_by(name)) == str(maker.note(1, nodes=(1, 2)))
    again.close()


def test_a_node_that_was_killed_while_it_made_the_file_starts_again(tmp_path: Path):
    (tmp_path / "notes.db.new").write_bytes(b"half a file")
    notes = NoteCache(tmp_path / "notes.db")
    assert notes.latest() is None
    notes.close()
    assert not (tmp_path / "notes.db.new").exists()


def test_a_damaged_file_is_refused(tmp_path: Path):
    (tmp_path / "notes.db").write_bytes(b"not a database, and long enough to be one" * 10)
    with pytest.raises(InconsistentStateError, match=r"notes\.db.*may be deleted"):
        NoteCache(tmp_path / "notes.db")
