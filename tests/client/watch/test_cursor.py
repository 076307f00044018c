"""Promises: a cursor file is whole or refused, one process moves it, and it is another ledger's for no other."""

import json
import os
from pathlib import Path

import pytest
from fakes import LedgerMaker

from client.errors import InputError, InvalidError
from client.watch.cursor import FOLLOWERS_MAX, Cursor, Learned, open_cursors
from registry import merkle

ORIGIN = "test.example/ledger"


def cursor(size: int = 5, *learned: Learned) -> Cursor:
    frontier = merkle.Frontier()
    for number in range(size):
        frontier.append(merkle.leaf_hash(b"%d" % number))
    return Cursor(origin=ORIGIN, index=size, edge=frontier.edge, learned=learned)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A cursor file in which stdout stands behind five entries and a hook behind three."""
    path = tmp_path / "state" / "cursor.json"
    with open_cursors(path, ORIGIN) as cursors:
        cursors.begin(["stdout", "hook"], cursor(3))
        cursors.store("stdout", cursor(5, Learned(b"v" * 32, b"b" * 32, is_key=True)))
    return path


def test_what_was_kept_is_there_again(path):
    with open_cursors(path, ORIGIN) as cursors:
        assert cursors.cursors["stdout"] == cursor(5, Learned(b"v" * 32, b"b" * 32, is_key=True))
        assert cursors.cursors["hook"] == cursor(3)
        assert cursors.furthest == cursors.cursors["stdout"]
        assert cursors.cursors["hook"].frontier.root() == cursor(3).frontier.root()


def test_who_stands_somewhere_does_not_begin_again(path):
    with open_cursors(path, ORIGIN) as cursors:
        cursors.begin(["stdout", "other"], cursor(9))

        assert (cursors.cursors["stdout"].index, cursors.cursors["other"].index) == (5, 9)


def test_a_move_is_on_disk_before_it_counts(path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = path.read_bytes()
    with open_cursors(path, ORIGIN) as cursors:
        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space"):
            cursors.store("hook", cursor(4))

    assert path.read_bytes() == before


@pytest.mark.parametrize("place", ["index", "edge", "learned", "origin", "format", "sha256"])
def test_a_damaged_file_is_refused_and_left_as_it_is(path, place):
    content = json.loads(path.read_text())
    part = content if place in content else content["followers"]["hook"]
    part[place] = {"index": 4, "edge": ["00" * 32] * 2, "learned": [["00" * 32] * 2 + [False]]}.get(place, "x")
    path.write_text(json.dumps(content))
    before = path.read_bytes()

    with pytest.raises(InvalidError, match="damaged"), open_cursors(path, ORIGIN):
        pass
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "[" * 10_000, '{"sha256": 1}'])
def test_what_is_no_cursor_file_is_refused(path, text):
    path.write_text(text)

    with pytest.raises(InvalidError, match="damaged"), open_cursors(path, ORIGIN):
        pass


@pytest.mark.parametrize("content", [b"caf\xe9\n", b"{", bytes(5 * 2**20)])
def test_a_file_that_was_given_by_mistake_is_refused_with_what_to_do(path, content):
    path.write_bytes(content)

    with (
        pytest.raises((InputError, InvalidError), match=r"no cursor.*choose another --cursor"),
        open_cursors(path, ORIGIN),
    ):
        pass
    assert path.read_bytes() == content


def test_another_ledgers_cursor_is_refused(path):
    other = LedgerMaker().origin
    with pytest.raises(InputError, match=f"in {ORIGIN}, not in {other}"), open_cursors(path, other):
        pass


def test_one_process_moves_it_at_a_time_and_the_next_one_after_it(path):
    busy = pytest.raises(InputError, match="another wmreg watch")
    with open_cursors(path, ORIGIN), busy, open_cursors(path, ORIGIN):
        pass
    with open_cursors(path, ORIGIN) as cursors:
        assert len(cursors.cursors) == 2


def test_hooks_do_not_add_up_without_end(path):
    with open_cursors(path, ORIGIN) as cursors:
        cursors.begin([f"hook {number}" for number in range(FOLLOWERS_MAX - 2)], cursor(1))
        with pytest.raises(InputError, match="choose another --cursor"):
            cursors.store("one more", cursor(1))


def test_a_cursor_is_a_line_of_text_and_the_same_again():
    kept = cursor(5, Learned(b"v" * 32, b"b" * 32, is_key=True))

    assert "\n" not in str(kept)
    assert Cursor.parse(str(kept)) == kept


@pytest.mark.parametrize("place", ["index", "edge", "learned", "origin", "format", "sha256"])
def test_a_damaged_text_is_no_cursor(place):
    content = json.loads(str(cursor()))
    content[place] = {"index": 4, "edge": ["00" * 32] * 2, "learned": [["00" * 32] * 2 + [False]]}.get(place, "x")

    with pytest.raises(InvalidError, match="damaged"):
        Cursor.parse(json.dumps(content))


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "[" * 10_000, '{"sha256": 1}'])
def test_another_text_is_no_cursor(text):
    with pytest.raises(InvalidError, match="damaged"):
        Cursor.parse(text)


def test_a_file_of_cursors_is_not_the_text_of_one(path):
    with pytest.raises(InvalidError, match="format"):
        Cursor.parse(path.read_text())
