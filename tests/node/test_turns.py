"""The owner who used the node least of late comes first."""

import pytest

from node import turns as turns_module
from node.turns import HALF_LIFE_S, TURN_S, Turns

ALICE, BOB = b"a" * 32, b"b" * 32


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def use(turns: Turns, clock: Clock, owner: bytes, seconds: float) -> None:
    with turns.charged(owner):
        clock.now_s += seconds


def test_time_is_added_up_for_each_owner():
    clock = Clock()
    turns = Turns(clock)
    use(turns, clock, ALICE, 30)
    use(turns, clock, ALICE, 30)
    assert turns.used_s(ALICE) == pytest.approx(60, rel=0.01)
    assert turns.used_s(BOB) == 0


def test_use_is_forgotten_by_half_in_an_hour():
    clock = Clock()
    turns = Turns(clock)
    use(turns, clock, ALICE, 80)
    clock.now_s += 2 * HALF_LIFE_S
    assert turns.used_s(ALICE) == pytest.approx(20)
    clock.now_s += 1e9
    assert turns.used_s(ALICE) == pytest.approx(0)


def test_a_turn_that_ends_at_once_or_by_an_error_counts_too():
    clock = Clock()
    turns = Turns(clock)
    with pytest.raises(OSError, match="disk"), turns.charged(ALICE):
        raise OSError("disk")
    assert turns.used_s(ALICE) == TURN_S


def test_no_more_owners_are_remembered_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(turns_module, "OWNERS_MAX", 2)
    clock = Clock()
    turns = Turns(clock)
    for owner in (ALICE, BOB, ALICE, b"c" * 32):
        use(turns, clock, owner, 5)
    assert (turns.used_s(BOB), turns.used_s(ALICE) > 0) == (0, True)
