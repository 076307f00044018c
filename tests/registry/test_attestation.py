"""A backdated entry is found by the cosignatures around it; an honest ledger, whatever befell it, is never accused."""

from random import Random

import pytest
from clocks import SKEW_S, HonestCluster, trusted
from fakes import LedgerMaker
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.attestation import Chronology, Mark, Misdated, mark_of

LATEST_S = 2**63 - 1


@pytest.mark.parametrize(
    ("times_s", "cosigners", "early_s", "late_s"),
    [
        ((10, 20, 30), 3, 20, 20),
        ((10, 20), 3, 10, 20),
        ((10, 5000), 3, 10, 5000),
        ((10, 5000, 5001), 3, 5000, 5000),
        ((10, 5000, 5001), 5, 10, 5001),
        ((10, 20, 30, 40), 4, 20, 30),
        ((10,), 1, 10, 10),
        ((10,), 3, 0, LATEST_S),
        ((), 0, 0, LATEST_S),
        ((), 3, 0, LATEST_S),
    ],
)
def test_a_missing_cosignature_counts_as_the_one_that_accuses_least(times_s, cosigners, early_s, late_s):
    mark = mark_of(trusted(*times_s), cosigners)

    assert mark == Mark(size=1, early_s=early_s, late_s=late_s)
    assert mark.is_void == (early_s == 0)


def chronology(times_s: dict[int, int]) -> Chronology:
    return Chronology(Mark(size=size, early_s=time_s, late_s=time_s) for size, time_s in times_s.items())


def misdated(times: Chronology, recorded_s: list[int]) -> list[Misdated]:
    return times.misdated(recorded_s, skew_s=[SKEW_S] * len(recorded_s))


HOURLY = {size: 3600 * size for size in range(1, 6)}  # the entry with index i was recorded in hour i + 1


def test_entries_that_say_when_they_were_recorded_are_not_accused():
    assert misdated(chronology(HOURLY), [3600 * size for size in HOURLY]) == []


def test_a_backdated_entry_is_found():
    recorded_s = [3600, 7200, 3600, 14400, 18000]

    found = misdated(chronology(HOURLY), recorded_s)

    assert [(one.index, one.is_early, one.is_settled, one.bound_size, one.bound_s) for one in found] == [
        (2, True, True, 2, 7200)
    ]


def test_a_postdated_entry_is_found():
    found = misdated(chronology(HOURLY), [3600, 7200 + SKEW_S + 1, 10800, 14400, 18000])

    assert [(one.index, one.is_early, one.is_settled, one.bound_size) for one in found] == [(1, False, True, 2)]


@pytest.mark.parametrize("off_s", [-SKEW_S, SKEW_S])
def test_a_clock_that_is_off_by_no_more_than_the_skew_is_not_accused(off_s):
    assert misdated(chronology(HOURLY), [3600, 7200, 10800 + off_s, 14400, 18000]) == []


@pytest.mark.parametrize(("skew_s", "accused"), [([300, 300, 300, 60, 60], []), ([60] * 5, [2])])
def test_each_entry_is_judged_by_the_skew_that_was_in_force_for_it(skew_s, accused):
    recorded_s = [3600, 7200, 7000, 14400, 18000]
    marks = {1: 3600, 2: 7200, 3: 7301, 4: 14400, 5: 18000}

    assert [one.index for one in chronology(marks).misdated(recorded_s, skew_s=skew_s)] == accused


def test_entries_that_waited_together_are_not_accused():
    restarted = {1: 100, 2: 90_000, 3: 90_001, 4: 90_002}

    assert misdated(chronology(restarted), [100, 200, 201, 202]) == []


def test_an_entry_that_a_checkpoint_just_behind_it_could_clear_is_not_settled():
    sparse = {1: 100, 2: 90_000, 9: 200_000}

    (one,) = misdated(chronology(sparse), [100, 200, 201])

    assert (one.index, one.is_settled, one.next_size) == (2, False, 9)
    assert misdated(chronology(sparse | {3: 90_001}), [100, 200, 201]) == []
    assert misdated(chronology(sparse | {3: 180_000}), [100, 200, 201])[0].is_settled


def test_a_larger_size_that_was_reached_sooner_bounds_the_smaller_ones_too():
    marks = [Mark(size=1, early_s=0, late_s=100), Mark(size=2, early_s=5000, late_s=LATEST_S)]
    marks.append(Mark(size=3, early_s=4000, late_s=4000))

    found = misdated(Chronology(marks), [100, 4000 + SKEW_S + 1, 4000])

    assert [(one.index, one.bound_s, one.is_early) for one in found] == [(1, 4000, False)]


def test_behind_the_last_checkpoint_nothing_is_said():
    assert misdated(chronology({1: 100}), [100, 9**9]) == []


def test_one_of_three_nodes_cannot_hide_a_backdated_entry_or_accuse_an_honest_one():
    def marks(lie_s: int) -> list[Mark]:
        return [mark_of(trusted(lie_s, time_s, time_s + 1, size=size), 3) for size, time_s in HOURLY.items()]

    honest, forged = [3600 * size for size in HOURLY], [3600, 7200, 3600, 14400, 18000]
    for lie_s in (0, 10**9):
        assert misdated(Chronology(marks(lie_s)), honest) == []
        assert [one.index for one in misdated(Chronology(marks(lie_s)), forged)] == [2]


@settings(max_examples=200)
@given(st.integers(0, 2**32))
def test_an_honest_ledger_is_never_accused(seed):
    random = Random(seed)
    cluster = HonestCluster(random)
    sizes = range(1, len(cluster.recorded_s) + 1)
    asked = random.sample(range(cluster.nodes), random.randint(cluster.nodes // 2 + 1, cluster.nodes))
    marks = [mark for size in sizes if (mark := cluster.mark(size, asked)) and random.random() < 0.7]

    found = misdated(Chronology(marks), cluster.recorded_s)

    assert [one for one in found if one.is_settled] == []


def test_the_times_of_a_real_ledger_fit_its_own_checkpoints():
    maker = LedgerMaker()
    maker.verified_claim()
    marks = [mark_of(maker.trust.check(note), 3) for note in maker.notes.values()]
    times_s = [maker.ledger.find(digest).recorded_s for digest in maker.ledger._placed]

    assert misdated(Chronology(marks), times_s) == []
    assert misdated(Chronology(marks), [*times_s[:-1], times_s[-1] + 10**6]) != []
