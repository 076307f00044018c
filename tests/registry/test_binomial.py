"""What a count is worth: published statistics exactly, and integers that a sum done by hand gives."""

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.binomial import MILLION, binomial_tail, least_significant, p_value

CHANCES_PPM = st.one_of(st.just(MILLION // 2), st.integers(1, MILLION))


def tail(matched: int, total: int, chance_ppm: int = MILLION // 2) -> Fraction:
    return Fraction(*binomial_tail(matched, total, chance_ppm))


@pytest.mark.parametrize(
    ("matched", "printed"), [(345, 1.4e-4), (354, 6.0e-6), (360, 5.5e-7), (390, 9e-14), (420, 2.2e-23)]
)
def test_p_values_of_six_hundred_triggers_are_the_published_ones(matched, printed):
    assert float(p_value(matched, 600)) == pytest.approx(printed, rel=0.04)


@pytest.mark.parametrize(("matched", "printed"), [(25, 1.3e-5), (30, 2.5e-8), (50, 6e-24)])
def test_p_values_of_a_hundred_triggers_of_ten_classes_are_the_published_ones(matched, printed):
    assert float(p_value(matched, 100, MILLION // 10)) == pytest.approx(printed, rel=0.04)


@pytest.mark.parametrize(("bits", "least"), [(64, 411), (128, 457)])
def test_the_least_count_for_a_significance_is_the_published_one(bits, least):
    assert tail(least, 600) <= Fraction(1, 1 << bits) < tail(least - 1, 600)
    assert least_significant(600, 1 << bits) == least


@given(
    st.integers(0, 60), st.one_of(st.integers(1, 10**9), st.integers(0, 70).map(lambda bits: 1 << bits)), CHANCES_PPM
)
def test_the_least_significant_count_is_the_first_whose_tail_is_small_enough(total, factor, chance_ppm):
    small_enough = [count for count in range(total + 1) if tail(count, total, chance_ppm) * factor <= 1]
    assert least_significant(total, factor, chance_ppm) == min(small_enough, default=total + 1)


@given(st.integers(1, 80), CHANCES_PPM, st.data())
def test_the_tail_is_the_sum_of_its_terms(total, chance_ppm, data):
    matched, chance = data.draw(st.integers(0, total)), Fraction(chance_ppm, MILLION)
    terms = (comb(total, it) * chance**it * (1 - chance) ** (total - it) for it in range(matched, total + 1))
    assert tail(matched, total, chance_ppm) == sum(terms)


@given(st.integers(1, 200), CHANCES_PPM, st.data())
def test_a_printed_p_value_is_rounded_up_and_close(total, chance_ppm, data):
    matched = data.draw(st.integers(0, total))
    exact, printed = tail(matched, total, chance_ppm), Fraction(p_value(matched, total, chance_ppm))
    assert exact <= printed <= exact * Fraction(101, 100)


@pytest.mark.parametrize("counts", [(-1, 5), (6, 5), (1, 5, 0), (1, 5, MILLION + 1)])
def test_an_impossible_count_is_the_callers_mistake(counts):
    with pytest.raises(ValueError, match="count"):
        binomial_tail(*counts)
