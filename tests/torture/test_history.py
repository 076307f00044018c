"""The checker of histories accepts what a linearizable log can show, and names what it cannot."""

import random

import pytest
from torture.history import Append, judge

GENESIS = b"genesis"


def message(number: int) -> bytes:
    return b"m%d" % number


def acknowledged(number: int, index: int, *, from_s: float, to_s: float) -> Append:
    return Append(message=message(number), invoked_s=from_s, answered_s=to_s, index=index)


def test_a_log_that_agrees_with_its_clients_is_sound():
    appends = [
        acknowledged(1, 1, from_s=0, to_s=2),
        acknowledged(2, 2, from_s=1, to_s=5),
        acknowledged(3, 3, from_s=1, to_s=3),
        Append(message=message(4), invoked_s=1),
        Append(message=message(5), invoked_s=1),
    ]
    verdict = judge(appends, [GENESIS, message(1), message(2), message(3), message(5)])
    assert verdict.is_sound
    assert (verdict.acknowledged, verdict.longest_pause_s) == (3, 2)


@pytest.mark.parametrize("index", [2, 9])
def test_an_acknowledged_message_that_is_elsewhere_or_nowhere_is_lost(index: int):
    verdict = judge([acknowledged(1, index, from_s=0, to_s=1)], [GENESIS, message(1)])
    assert verdict.lost == (message(1),)


def test_a_message_that_stands_there_twice_is_a_duplicate_acknowledged_or_not():
    verdict = judge([Append(message=message(1), invoked_s=0)], [GENESIS, message(1), message(1)])
    assert verdict.duplicates == (message(1),)


def test_what_nobody_sent_is_foreign():
    assert judge([], [GENESIS, message(1)]).foreign == (message(1),)


def test_what_was_acknowledged_before_another_was_sent_does_not_stand_behind_it():
    appends = [acknowledged(1, 2, from_s=0, to_s=1), acknowledged(2, 1, from_s=2, to_s=3)]
    assert judge(appends, [GENESIS, message(2), message(1)]).disordered == (message(1),)
    unanswered = [appends[0], Append(message=message(2), invoked_s=2)]
    assert judge(unanswered, [GENESIS, message(2), message(1)]).disordered == (message(1),)
    overlapping = [acknowledged(1, 2, from_s=0, to_s=2.5), appends[1]]
    assert judge(overlapping, [GENESIS, message(2), message(1)]).is_sound


@pytest.mark.parametrize("seed", range(20))
def test_it_agrees_with_the_definition_on_random_histories(seed: int):
    draw = random.Random(seed)
    appends = []
    order = draw.sample(range(8), 8)
    for number in range(8):
        from_s = draw.randrange(20)
        index = order.index(number) + 1
        if draw.random() < 0.7:
            appends.append(acknowledged(number, index, from_s=from_s, to_s=from_s + draw.randrange(1, 20)))
        else:
            appends.append(Append(message=message(number), invoked_s=from_s))
    log = [GENESIS, *map(message, order)]
    naive = {
        late.message
        for late in appends
        for early in appends
        if late.answered_s is not None
        and log.index(early.message) < log.index(late.message)
        and late.answered_s < early.invoked_s
    }
    assert set(judge(appends, log).disordered) == naive
