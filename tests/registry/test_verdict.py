"""The verdict engine: every way in which a measurement can fail to convict, for every statistic."""

from dataclasses import replace

import pytest
from fakes import good_measurement
from hypothesis import given
from hypothesis import strategies as st

from registry.binomial import HALF_PPM, MILLION, least_significant
from registry.errors import MalformedError
from registry.policy import Thresholds
from registry.verdict import (
    TRIGGERS_MAX,
    ControlCounts,
    ControlKind,
    Measurement,
    Outcome,
    Statistic,
    judge,
    least_of_share,
    least_passing,
)

THRESHOLDS = Thresholds()


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


TENTH_PPM = MILLION // 10


def classes(
    matched: int, *, total: int = 100, chance_ppm: int = TENTH_PPM, statistic: Statistic = Statistic.CLASSES
) -> Measurement:
    """Numbers of a black-box mark; the fresh networks are at chance."""
    fresh = _control(ControlKind.FRESH, chance_ppm * total // MILLION, matched)
    return Measurement(matched=matched, total=total, statistic=statistic, chance_ppm=chance_ppm, controls=(fresh,) * 8)


def _control(kind: ControlKind, found: int, matched: int) -> ControlCounts:
    """A control that matches nothing beside what the suspect matches, as far as it can."""
    both = min(found, matched)
    return ControlCounts(kind=kind, matched=found, suspect_only=matched - both, control_only=found - both)


@given(st.integers(500, 1000), st.integers(1, 4096))
def test_at_a_chance_of_one_half_a_share_is_what_the_policy_says(permille, total):
    assert least_of_share(permille, total, HALF_PPM) == -(-permille * total // 1000)


@given(st.integers(500, 1000), st.integers(1, 4096), st.integers(1, MILLION))
def test_a_share_lies_between_chance_and_all(permille, total, chance_ppm):
    least = least_of_share(permille, total, chance_ppm)
    assert chance_ppm * total <= least * MILLION
    assert least <= total


@pytest.mark.parametrize(
    ("matched", "outcome", "reason"),
    [
        (10, Outcome.REFUTED, "below_threshold"),
        (27, Outcome.REFUTED, "below_threshold"),
        (28, Outcome.INCONCLUSIVE, "between_bounds"),
        (45, Outcome.INCONCLUSIVE, "between_bounds"),
        (46, Outcome.VERIFIED, "matched"),
        (100, Outcome.VERIFIED, "matched"),
    ],
)
def test_classes_of_ten_are_judged_by_the_same_part_of_what_a_guess_misses(matched, outcome, reason):
    assert judge(classes(matched), THRESHOLDS) == (outcome, reason)


def test_signs_are_judged_as_bits_without_permutations():
    numbers = good_measurement(450)
    signs = Measurement(matched=450, total=600, statistic=Statistic.SIGNS, controls=numbers.controls)
    assert judge(signs, THRESHOLDS) == (Outcome.VERIFIED, "matched")
    assert judge(replace(signs, controls=signs.controls[:7]), THRESHOLDS) == (Outcome.INCONCLUSIVE, "too_few_controls")


def test_a_fresh_network_that_answers_the_triggers_refutes():
    fits = _control(ControlKind.FRESH, 27, 100)
    measurement = replace(classes(100), controls=(*classes(100).controls[:7], fits))
    assert judge(measurement, THRESHOLDS) == (Outcome.REFUTED, "not_specific")


@pytest.mark.parametrize("kind", [ControlKind.BASE, ControlKind.PUBLIC, ControlKind.NULL])
def test_another_model_that_answers_as_well_convicts_nobody(kind):
    other = _control(kind, 10 if kind is ControlKind.NULL else 90, 100)
    other = other._replace(suspect_only=other.suspect_only if kind is not ControlKind.NULL else 90)
    measurement = replace(classes(100), controls=(*classes(100).controls, other))
    expected = (Outcome.VERIFIED, "matched") if kind is ControlKind.NULL else (Outcome.REFUTED, "shared_ancestor")
    assert judge(measurement, THRESHOLDS) == expected


def test_a_measured_chance_needs_models_that_it_was_measured_on():
    bare = classes(98, chance_ppm=400_000, statistic=Statistic.CALIBRATED)
    assert judge(bare, THRESHOLDS) == (Outcome.INCONCLUSIVE, "too_few_controls")
    nulls = (_control(ControlKind.NULL, 25, 98),) * 3
    assert judge(replace(bare, controls=bare.controls + nulls), THRESHOLDS) == (Outcome.VERIFIED, "matched")
    assert judge(replace(bare, controls=bare.controls + nulls[:2]), THRESHOLDS)[1] == "too_few_controls"


def test_where_models_without_the_mark_match_nearly_all_nothing_convicts():
    nulls = (_control(ControlKind.NULL, 80, 100),) * 3
    found = classes(100, chance_ppm=900_000, statistic=Statistic.CALIBRATED)
    assert judge(replace(found, controls=found.controls + nulls), THRESHOLDS) == (
        Outcome.INCONCLUSIVE,
        "between_bounds",
    )


def test_one_answer_that_differs_is_tampering():
    intact = Measurement(matched=100, total=100, statistic=Statistic.INTEGRITY, chance_ppm=TENTH_PPM, controls=())
    assert judge(intact, THRESHOLDS) == (Outcome.INTACT, "matched")
    assert judge(replace(intact, matched=99), THRESHOLDS) == (Outcome.TAMPERED, "changed")


@pytest.mark.parametrize("statistic", Statistic)
def test_chance_says_something_of_every_count_but_of_integrity(statistic):
    measurement = replace(good_measurement(), statistic=statistic)
    assert measurement.p_value == (None if statistic is Statistic.INTEGRITY else "2.41e-181")
    assert statistic.has_chance == (measurement.p_value is not None)


@given(st.sampled_from(Statistic), st.integers(1, 700), st.sampled_from([TENTH_PPM, HALF_PPM, 900_000]), st.booleans())
def test_the_least_count_that_passes_is_where_numbers_begin_to_convict(statistic, total, chance_ppm, aligned):
    numbers = Measurement(
        matched=total, total=total, controls=(), statistic=statistic, chance_ppm=chance_ppm, aligned=aligned
    )
    least = least_passing(numbers, THRESHOLDS)
    passed = [judge(replace(numbers, matched=count), THRESHOLDS)[1] for count in (least - 1, min(least, total))]
    if statistic is Statistic.INTEGRITY:
        assert (least, passed) == (total, ["changed", "matched"])
    else:
        assert passed[0] in {"below_threshold", "between_bounds"}
        assert passed[1] == ("too_few_controls" if least <= total else "between_bounds")


@pytest.mark.parametrize("statistic", [it for it in Statistic if it is not Statistic.BRANCH])
def test_every_statistic_survives_its_encoding(statistic):
    chance_ppm = HALF_PPM if statistic is Statistic.SIGNS else TENTH_PPM
    measurement = classes(60, statistic=statistic, chance_ppm=chance_ppm)
    assert Measurement.from_value(measurement.to_value()) == measurement


@pytest.mark.parametrize(
    "change",
    [
        {"statistic": "branch"},
        {"statistic": "guess"},
        {"statistic": None},
        {"chance_ppm": 0},
        {"chance_ppm": MILLION + 1},
        {"chance_ppm": 0.1},
        {"statistic": "signs"},
        {"permutations": 999},
        {"aligned": False},
        {"matched": 101},
        {"controls": [["null", 11, 50, 1]]},
    ],
)
def test_other_statistics_that_contradict_themselves_are_malformed(change):
    with pytest.raises(MalformedError):
        Measurement.from_value(classes(60).to_value() | change)
