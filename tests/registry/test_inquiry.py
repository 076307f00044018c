"""Promises: an auditor's questions find liars, are few on an honest ledger, and never lead to a false accusation."""

from random import Random

import pytest
from clocks import SKEW_S, HonestCluster
from hypothesis import example, given, settings
from hypothesis import strategies as st

from registry.attestation import Chronology, Mark
from registry.audit import Replay
from registry.inquiry import Inquiry

pytestmark = pytest.mark.long

ROUNDS = 64


def replayed(recorded_s: list[int]) -> Replay:
    """A replay of entries that say these times."""
    state = Replay()
    state.recorded_s.extend(recorded_s)
    state.skew_s.extend([SKEW_S] * len(recorded_s))
    return state


def asked(inquiry: Inquiry, marks: dict[int, Mark], answer) -> tuple[Chronology, set[int]]:
    """Ask until nothing is left to ask."""
    questions: set[int] = set()
    for number in range(ROUNDS):
        wanted = set(inquiry.sizes_to_ask(Chronology(marks.values()), each=1 << number)) - questions
        if not wanted:
            break
        questions |= wanted
        marks |= {size: mark for size in wanted if (mark := answer(size)) is not None}
    return Chronology(marks.values()), questions


def every_256th(size: int, answer) -> dict[int, Mark]:
    return {number: mark for number in (1, *range(256, size, 256), size) if (mark := answer(number)) is not None}


def weekly_rhythm(count: int, random: Random) -> list[int]:
    """Times of entries that come by day and rarely by night, a few of a claim's together."""
    now_s, times_s = 10**9, []
    while len(times_s) < count:
        now_s += int(random.expovariate(1 / (600 if now_s % 86400 < 43200 else 20_000)))
        times_s += [now_s + random.randint(0, 200) for _ in range(random.choice([1, 1, 1, 4]))]
        now_s = times_s[-1]
    return times_s[:count]


def test_an_honest_ledger_of_100_000_entries_costs_few_questions():
    random = Random(1)
    ordered_s = weekly_rhythm(100_000, random)
    inquiry = Inquiry(replayed([time_s + random.randint(-100, 100) for time_s in ordered_s]))
    for place in range(1, len(ordered_s)):
        ordered_s[place] = max(ordered_s[place - 1], ordered_s[place])

    def answer(size: int) -> Mark:
        return Mark(size=size, early_s=ordered_s[size - 1], late_s=ordered_s[size - 1] + 1)

    chronology, questions = asked(inquiry, every_256th(100_000, answer), answer)

    assert len(questions) <= 6 * (100_000 // 256 + 1)
    assert (inquiry.misdated(chronology), inquiry.undecided(chronology, [])) == ([], [])


@settings(max_examples=200)
@given(st.integers(0, 2**32))
@example(28564)  # the median passes from one clock to another, a skew apart, while a node applies its journal
@example(1_004_224)
def test_what_an_auditor_asks_for_never_accuses_an_honest_ledger(seed):
    random = Random(seed)
    cluster = HonestCluster(random)
    nodes = random.sample(range(cluster.nodes), random.randint(cluster.nodes // 2 + 1, cluster.nodes))

    def answer(size: int) -> Mark | None:
        return cluster.mark(size, nodes) if 0 < size <= len(cluster.recorded_s) else None

    inquiry = Inquiry(replayed(cluster.recorded_s))
    chronology, questions = asked(inquiry, every_256th(len(cluster.recorded_s), answer), answer)

    assert [one for one in inquiry.misdated(chronology) if one.is_settled] == []
    assert len(questions) <= len(cluster.recorded_s)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_a_lie_of_more_than_what_clocks_and_silences_allow_is_found(seed):
    random = Random(seed)
    ordered_s = [10**9 + 3600 * index for index in range(1000)]
    recorded_s, liar = list(ordered_s), random.randrange(2, 1000)
    recorded_s[liar] += random.choice([-1, 1]) * random.randint(3600 + 2 * SKEW_S, 10**8)
    inquiry = Inquiry(replayed(recorded_s))

    def answer(size: int) -> Mark:
        return Mark(size=size, early_s=ordered_s[size - 1], late_s=ordered_s[size - 1])

    chronology, _ = asked(inquiry, every_256th(1000, answer), answer)

    assert [one.index for one in inquiry.misdated(chronology) if one.is_settled] == [liar]
