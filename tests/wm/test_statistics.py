"""Promised: the figures of SCHEMES 4.4, and agreement with a sum done by hand."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wm.statistics import (
    MILLION,
    beta_binomial_tail,
    binomial_tail,
    chernoff,
    clopper_pearson_upper,
    least_matched,
    log10_tail,
    mcnemar,
    tail,
    tail_of,
)


@pytest.mark.parametrize(
    ("matched", "p"), [(345, 1.37e-4), (354, 5.95e-6), (360, 5.48e-7), (390, 9.02e-14), (420, 2.24e-23)]
)
def test_the_tail_of_600_is_the_published_one(matched: int, p: float) -> None:
    assert tail(matched, 600) == pytest.approx(p, rel=0.005, abs=0)


def test_the_logarithm_at_gamma_is_the_published_one() -> None:
    assert log10_tail(420, 600) == pytest.approx(-22.65, abs=0.005)


@pytest.mark.parametrize(
    ("log10_alpha", "least"), [(-6, 359), (-9, 374), (-64 * math.log10(2), 411), (-128 * math.log10(2), 457)]
)
def test_the_least_count_is_the_published_one(log10_alpha: float, least: int) -> None:
    assert least_matched(600, log10_alpha=log10_alpha) == least


def test_no_count_is_enough_where_even_all_would_not_do() -> None:
    assert least_matched(10, log10_alpha=-6) == 11


@pytest.mark.parametrize(
    ("chance", "exponent", "bound"),
    [(0.5, None, 3.6e-22), (0.575, None, 2.2e-9), (0.5739, 0.34, 2.69e-8), (0.5, 0.34, 1.07e-14)],
)
def test_chernoff_gives_the_papers_bound_only_where_a_guess_is_far_from_a_coin(
    chance: float, exponent: float | None, bound: float
) -> None:
    assert chernoff(0.7, 600, chance=chance, exponent=exponent) == pytest.approx(bound, rel=0.02, abs=0)


@pytest.mark.parametrize(("correlation", "p"), [(0.001, 1.72e-15), (0.005, 2.5e-7), (0.01, 7e-5), (0.02, 2.8e-3)])
def test_matches_that_hang_together_make_a_count_likelier(correlation: float, p: float) -> None:
    assert beta_binomial_tail(420, 600, correlation=correlation) == pytest.approx(p, rel=0.1, abs=0)
    assert beta_binomial_tail(0, 600, correlation=correlation) == pytest.approx(1)


def test_matches_that_hardly_hang_together_are_binomial() -> None:
    assert beta_binomial_tail(345, 600, correlation=1e-9) == pytest.approx(tail(345, 600), rel=1e-3)


def test_the_exact_tail_at_the_inflated_chance_is_the_published_one() -> None:
    assert binomial_tail(420, 600, chance=0.575) == pytest.approx(1.9e-10, rel=0.05)


def test_five_thousand_keys_spread_as_the_paper_saw_by_sampling_alone() -> None:
    expected_outside = 5000 * 2 * tail(346, 600)
    assert expected_outside == pytest.approx(0.99, abs=0.01)


@given(st.integers(1, 60), st.data())
def test_the_tail_is_the_sum_done_by_hand(total: int, data: st.DataObject) -> None:
    matched = data.draw(st.integers(0, total + 1))
    assert tail(matched, total) == sum(math.comb(total, k) for k in range(matched, total + 1)) / 2**total


def test_a_tail_too_small_for_a_float_still_has_a_logarithm() -> None:
    assert tail(5000, 5000) == 0
    assert log10_tail(5000, 5000) == pytest.approx(-5000 * math.log10(2))


def test_more_matches_than_triggers_never_happen() -> None:
    assert tail(601, 600) == 0
    assert log10_tail(601, 600) == -math.inf


@pytest.mark.parametrize(("matched", "total"), [(-1, 10), (0, 0)])
def test_impossible_counts_are_refused(matched: int, total: int) -> None:
    with pytest.raises(ValueError, match="cannot have"):
        tail(matched, total)


def test_mcnemar_convicts_only_a_suspect_that_is_really_better() -> None:
    assert mcnemar(30, 0) == 2.0**-30
    assert mcnemar(0, 30) == 1
    assert mcnemar(0, 0) == 1
    assert mcnemar(15, 15) > 0.5


@pytest.mark.parametrize(("matched", "total"), [(0, 100), (10, 100), (55, 120), (599, 600)])
def test_the_upper_bound_is_the_chance_at_which_so_few_are_rare(matched: int, total: int) -> None:
    bound = clopper_pearson_upper(matched, total, confidence=0.999)

    def at_most(chance: Fraction) -> float:
        return 1 - binomial_tail(matched + 1, total, chance=float(chance))

    assert at_most(bound) <= 0.001 < at_most(bound - Fraction(1, MILLION))
    assert bound * MILLION == int(bound * MILLION)


def test_of_all_matched_nothing_is_ruled_out() -> None:
    assert clopper_pearson_upper(100, 100) == 1
    with pytest.raises(ValueError, match="cannot have 3 of 2"):
        clopper_pearson_upper(3, 2)


@pytest.mark.parametrize(("chance", "expected"), [(0, [1.0, 0.0]), (1, [1.0, 1.0])])
def test_what_never_or_always_matches_has_a_tail(chance: int, expected: list[float]) -> None:
    assert [tail_of(matched, 10, Fraction(chance)) for matched in (0, 1)] == expected
