"""A checkpoint is checked once by one policy, and nothing is remembered that did not hold."""

import pytest
from fakes import LedgerMaker

from node.vouching import Vouching
from registry.errors import MalformedError, RefusedError, UntrustedError
from registry.note import Note
from registry.trust import TrustPolicy


@pytest.fixture
def maker() -> LedgerMaker:
    maker = LedgerMaker()
    maker.publish("alice")
    return maker


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[Note]:
    """The notes that were really checked."""
    seen: list[Note] = []
    check = TrustPolicy.check

    def counting(trust: TrustPolicy, note: Note) -> object:
        seen.append(note)
        return check(trust, note)

    monkeypatch.setattr(TrustPolicy, "check", counting)
    return seen


def test_a_note_is_checked_once_as_a_note_and_as_text(maker: LedgerMaker, checked: list[Note]):
    vouching, note = Vouching(maker.policy, maker.origin), maker.note()
    found = [vouching.check(note), vouching.read(str(note)), vouching.check(Note.parse(str(note)))]
    assert found == [maker.trust.check(note)] * 3
    assert checked == [note] * 2  # one of them is the line above


def test_a_forged_note_is_refused_each_time_beside_the_honest_one(maker: LedgerMaker, checked: list[Note]):
    vouching, note = Vouching(maker.policy, maker.origin), maker.note()
    vouching.check(note)
    other = Note(str(maker.checkpoint(1)), note.signatures)
    for _ in range(2):
        with pytest.raises(RefusedError):
            vouching.check(other)
        with pytest.raises(RefusedError):
            vouching.read(str(other))
        with pytest.raises(UntrustedError):
            vouching.read(str(Note(note.text, note.signatures[:2])))
        with pytest.raises(MalformedError):
            vouching.read("no note")
    assert len(checked) == 7


def test_another_policy_asks_anew(maker: LedgerMaker):
    note = maker.note(nodes=(1, 2))
    Vouching(maker.policy, maker.origin).check(note)
    with pytest.raises(UntrustedError):
        Vouching(maker.policy, "another.example/log").check(note)
