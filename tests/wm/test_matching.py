"""Promised: channels renumbered, scaled, split, added or dropped are found again, and hidden units turned over too."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wm.matching import match_channels, match_units

CHANNELS, ANSWERS = 12, 60


def answers(seed: int, channels: int = CHANNELS) -> np.ndarray:
    """What a tap behind a ReLU answers: nothing below 0."""
    return np.maximum(np.random.default_rng(seed).normal(size=(channels, ANSWERS)), 0)


def mapped(reference: np.ndarray, suspect: np.ndarray) -> np.ndarray:
    found = match_channels(reference, suspect)
    return found.slope[:, None] * suspect[found.source] + found.offset[:, None]


@given(st.integers(0, 1000), st.integers(0, 5), st.integers(0, 30))
def test_channels_in_any_order_and_size_among_others_are_found_again(seed: int, added: int, exponent: int) -> None:
    draws, reference = np.random.default_rng(seed), answers(seed)
    factors = 10 ** draws.uniform(-exponent, exponent, size=(CHANNELS, 1))
    others = np.concatenate([reference * factors, answers(seed + 1, added), reference[:added]])
    suspect = others[draws.permutation(len(others))]
    assert np.allclose(mapped(reference, suspect), reference, rtol=1e-9)


def test_the_order_of_the_suspects_channels_changes_nothing() -> None:
    reference, suspect = answers(1), answers(2)
    order = np.random.default_rng(3).permutation(CHANNELS)
    assert np.array_equal(mapped(reference, suspect), mapped(reference, suspect[order]))


def blurred(reference: np.ndarray, share: float, seed: int) -> np.ndarray:
    """What tuning leaves of answers: a part of each channel's own, and a part of what its neighbour answers."""
    return (1 - share) * reference + share * np.roll(reference, 1, axis=0) + 0.1 * answers(seed)


def test_channels_that_tuning_has_blurred_stay_in_their_places() -> None:
    reference = answers(1)
    assert np.array_equal(match_channels(reference, blurred(reference, 0.55, 2)).source, np.arange(CHANNELS))


def test_channels_that_were_renumbered_are_found_although_they_are_blurred() -> None:
    reference = answers(1)
    for moved in (CHANNELS, CHANNELS // 2, 2):
        order = np.arange(CHANNELS)
        order[:moved] = np.roll(order[:moved], 1)
        suspect = blurred(reference, 0.2, 2)[order]
        assert np.array_equal(match_channels(reference, suspect).source, np.argsort(order)), moved


def test_a_channel_split_in_two_is_read_once_at_its_whole_size() -> None:
    reference = answers(1)
    halves = np.concatenate([reference, reference[:3]])
    halves[:3] *= 0.3
    halves[-3:] *= 0.7
    assert np.allclose(mapped(reference, halves), reference)


def test_what_is_dead_or_lost_reads_as_the_mean_that_it_had() -> None:
    reference = answers(1)
    reference[0], reference[1] = 0, 2.5  # answer alike to everything
    suspect = np.delete(reference, 5, axis=0)  # dropped by the thief
    found = mapped(reference, suspect)
    for lost in (0, 1, 5):
        assert np.allclose(found[lost], reference[lost].mean())
    others = [row for row in range(CHANNELS) if row not in {0, 1, 5}]
    assert np.allclose(found[others], reference[others])


def test_behind_a_relu_no_channel_is_turned_over() -> None:
    reference = answers(1)
    found = match_channels(reference, reference.max(1, keepdims=True) - reference)
    assert (found.slope >= 0).all()
    assert (found.offset[found.slope > 0] == 0).all()


def test_in_front_of_a_relu_sign_and_offset_are_found_as_well() -> None:
    reference = np.random.default_rng(1).normal(size=(CHANNELS, ANSWERS))
    factors = np.random.default_rng(2).normal(size=(CHANNELS, 1))
    suspect = (reference * factors + 3)[::-1]
    assert np.allclose(mapped(reference, suspect), reference)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_answer_that_is_not_finite_is_refused(value: float) -> None:
    suspect = answers(2)
    suspect[3, 7] = value
    with pytest.raises(ValueError, match="finite"):
        match_channels(answers(1), suspect)


def states(seed: int, units: int = CHANNELS) -> list[np.ndarray]:
    """What two taps of one layer answer: between -1 and 1."""
    draws = np.random.default_rng(seed)
    return [np.tanh(draws.normal(size=(units, answers))) for answers in (ANSWERS, ANSWERS // 2)]


def disguised(parts: list[np.ndarray], seed: int) -> list[np.ndarray]:
    """Units in another order, each direction by itself, some of them turned over, with two dummies in each."""
    draws, half = np.random.default_rng(seed), len(parts[0]) // 2
    order = np.concatenate([first + draws.permutation([*range(half), 0, 1]) for first in (0, half)])
    signs = draws.choice([-1, 1], size=(len(order), 1))
    return [signs * part[order] for part in parts]


def mapped_units(reference: list[np.ndarray], suspect: list[np.ndarray]) -> list[np.ndarray]:
    maps = match_units(reference, suspect)
    return [it.slope[:, None] * part[it.source] + it.offset[:, None] for it, part in zip(maps, suspect, strict=True)]


@given(st.integers(0, 1000))
def test_units_in_any_order_and_turned_over_are_found_again_in_every_tap(seed: int) -> None:
    reference = states(seed)
    found = mapped_units(reference, disguised(reference, seed))
    assert all(np.array_equal(part, wanted) for part, wanted in zip(found, reference, strict=True))


def test_a_unit_is_never_scaled_nor_shifted() -> None:
    reference, suspect = states(1), states(2)
    for found in match_units(reference, [3 * part + 0.5 for part in suspect]):
        assert set(found.slope) == {-1, 1}
        assert not found.offset.any()


def test_a_unit_stays_in_its_direction() -> None:
    reference, half = states(1), CHANNELS // 2
    swapped = [np.concatenate([part[half:], part[:half]]) for part in reference]
    for found in match_units(reference, swapped):
        assert (found.source[:half] < half).all()
        assert (found.source[half:] >= half).all()


def test_all_taps_of_a_layer_get_one_match() -> None:
    reference, suspect = states(1), states(1)
    suspect[1] = states(2)[1]  # alone, the second tap would be matched otherwise
    first, second = match_units(reference, suspect)
    assert np.array_equal(first.source, np.arange(CHANNELS))
    assert np.array_equal(second.source, first.source)
    assert not np.array_equal(match_channels(reference[1], suspect[1]).source, second.source)


def test_a_unit_that_answers_nothing_reads_as_the_mean_of_each_tap() -> None:
    reference = states(1)
    suspect = [part.copy() for part in reference]
    for part in suspect:
        part[3] = 0.25
    for found, wanted in zip(mapped_units(reference, suspect), reference, strict=True):
        assert np.allclose(found[3], wanted[3].mean())
        assert np.array_equal(np.delete(found, 3, axis=0), np.delete(wanted, 3, axis=0))


def test_a_hidden_state_that_is_not_finite_is_refused() -> None:
    suspect = states(2)
    suspect[1][3, 7] = np.nan
    with pytest.raises(ValueError, match="finite"):
        match_units(states(1), suspect)
