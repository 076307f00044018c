"""The verdict engine: published statistics exactly, and every way in which a measurement can fail to convict."""

from dataclasses import replace
from fractions import Fraction
from math import comb

import pytest
from fakes import good_measurement
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import MalformedError
from registry.policy import Thresholds
from registry.verdict import (
    TRIGGERS_MAX,
    ControlCounts,
    ControlKind,
    Measurement,
    Outcome,
    binomial_tail,
    judge,
    least_significant,
    p_value,
)

THRESHOLDS = Thresholds()


@pytest.mark.parametrize(
    ("matched", "printed"), [(345, 1.4e-4), (354, 6.0e-6), (360, 5.5e-7), (390, 9e-14), (420, 2.2e-23)]
)
def test_p_values_of_six_hundred_triggers_are_the_published_ones(matched, printed):
    assert float(p_value(matched, 600)) == pytest.approx(printed, rel=0.04)


@pytest.mark.parametrize(("bits", "least"), [(64, 411), (128, 457)])
def test_the_least_count_for_a_significance_is_the_published_one(bits, least):
    assert binomial_tail(least, 600) << bits <= 1 << 600 < binomial_tail(least - 1, 600) << bits
    assert least_significant(600, 1 << bits) == least


@given(st.integers(0, 200), st.one_of(st.integers(1, 10**9), st.integers(0, 210).map(lambda bits: 1 << bits)))
def test_the_least_significant_count_is_the_first_whose_tail_is_small_enough(total, factor):
    small_enough = [count for count in range(total + 1) if binomial_tail(count, total) * factor <= 1 << total]
    assert least_significant(total, factor) == min(small_enough, default=total + 1)


@given(st.integers(1, 200), st.data())
def test_the_tail_is_the_sum_of_its_terms(total, data):
    matched = data.draw(st.integers(0, total))
    assert binomial_tail(matched, total) == sum(comb(total, right) for right in range(matched, total + 1))


@given(st.integers(1, 300), st.data())
def test_a_printed_p_value_is_rounded_up_and_close(total, data):
    matched = data.draw(st.integers(0, total))
    exact, printed = Fraction(binomial_tail(matched, total), 1 << total), Fraction(p_value(matched, total))
    assert exact <= printed <= exact * Fraction(101, 100)


@pytest.mark.parametrize("counts", [(-1, 5), (6, 5)])
def test_an_impossible_count_is_the_callers_mistake(counts):
    with pytest.raises(ValueError, match="count"):
        binomial_tail(*counts)


def test_a_marked_model_verifies():
    assert judge(good_measurement(), THRESHOLDS) == (Outcome.VERIFIED, "matched")


@pytest.mark.parametrize(
    ("matched", "outcome", "reason"),
    [
        (300, Outcome.REFUTED, "below_threshold"),
        (359, Outcome.REFUTED, "below_threshold"),
        (360, Outcome.INCONCLUSIVE, "between_bounds"),
        (419, Outcome.INCONCLUSIVE, "between_bounds"),
        (420, Outcome.VERIFIED, "matched"),
    ],
)
def test_the_share_of_matched_triggers_decides_first(matched, outcome, reason):
    assert judge(good_measurement(matched), THRESHOLDS) == (outcome, reason)


def test_few_triggers_are_not_significant_however_many_match():
    assert judge(good_measurement(50, total=60), THRESHOLDS) == (Outcome.INCONCLUSIVE, "between_bounds")


def test_a_universal_head_is_unmasked_by_permuted_channels():
    measurement = replace(good_measurement(), permutations_as_good=1)
    assert judge(measurement, THRESHOLDS) == (Outcome.REFUTED, "not_specific")


def test_a_head_that_fits_fresh_models_too_is_not_specific():
    fits = ControlCounts(kind=ControlKind.FRESH, matched=355, suspect_only=245, control_only=0)
    measurement = replace(good_measurement(), controls=(*good_measurement().controls[:7], fits))
    assert judge(measurement, THRESHOLDS) == (Outcome.REFUTED, "not_specific")


@pytest.mark.parametrize("kind", [ControlKind.BASE, ControlKind.PUBLIC])
def test_a_head_on_the_declared_base_or_a_public_model_convicts_nobody_who_shares_it(kind):
    base = ControlCounts(kind=kind, matched=590, suspect_only=10, control_only=0)
    measurement = replace(good_measurement(), controls=(*good_measurement().controls, base))
    assert judge(measurement, THRESHOLDS) == (Outcome.REFUTED, "shared_ancestor")


@pytest.mark.parametrize("kind", [ControlKind.BASE, ControlKind.PUBLIC])
def test_a_base_or_a_public_model_at_chance_does_not_stand_in_the_way(kind):
    base = good_measurement().controls[0]._replace(kind=kind)
    measurement = replace(good_measurement(), controls=(*good_measurement().controls, base))
    assert judge(measurement, THRESHOLDS) == (Outcome.VERIFIED, "matched")


@pytest.mark.parametrize("change", [{"permutations": 998}, {"controls": good_measurement().controls[:7]}])
def test_too_few_controls_convict_nobody(change):
    measurement = replace(good_measurement(), **change)
    assert judge(measurement, THRESHOLDS) == (Outcome.INCONCLUSIVE, "too_few_controls")


def test_an_aligned_count_is_judged_as_any_other():
    measurement = replace(good_measurement(420), aligned=True, matched_unaligned=300)
    assert judge(measurement, THRESHOLDS) == (Outcome.VERIFIED, "matched")
    as_good = replace(measurement, permutations_as_good=1)
    assert judge(as_good, THRESHOLDS) == (Outcome.REFUTED, "not_specific")


def test_an_aligned_count_must_be_significant_at_half_the_level_since_it_is_the_second_look():
    least = least_significant(102, 1 << THRESHOLDS.alpha_bits)
    assert least_significant(102, 2 << THRESHOLDS.alpha_bits) == least + 1
    plain = good_measurement(least, total=102)
    aligned = replace(plain, aligned=True, matched_unaligned=50)
    assert judge(plain, THRESHOLDS)[1] != "between_bounds"
    assert judge(aligned, THRESHOLDS) == (Outcome.INCONCLUSIVE, "between_bounds")


def test_a_measurement_survives_its_encoding():
    plain = good_measurement(450)
    for measurement in (plain, replace(plain, aligned=True, matched_unaligned=300), replace(plain, aligned=True)):
        assert Measurement.from_value(measurement.to_value()) == measurement


@pytest.mark.parametrize(
    "change",
    [
        {"matched": 601},
        {"total": 0},
        {"total": TRIGGERS_MAX + 1},
        {"permutations_as_good": 1000},
        {"matched": -1},
        {"matched": True},
        {"controls": [["fresh", 300, 301, 1]]},
        {"controls": [["fresh", 300, 300, 300]]},
        {"controls": [["fresh", 0, 601, 0]]},
        {"controls": [["sibling", 300, 300, 0]]},
        {"controls": [["fresh", 300, 300]]},
        {"controls": [["fresh", 300, 300, 0]] * 33},
        {"aligned": 1},
        {"aligned": None},
        {"matched_unaligned": 300},
        {"aligned": True, "matched_unaligned": 600},
        {"aligned": True, "matched_unaligned": -1},
        {"aligned": True, "matched_unaligned": False},
    ],
)
def test_counts_that_contradict_each_other_are_malformed(change):
    with pytest.raises(MalformedError):
        Measurement.from_value(good_measurement().to_value() | change)
