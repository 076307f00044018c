"""Promised: θ is the largest number that fulfils the paper's inequality; a null model does the task."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wm.schemes.frontier_stitching import NullCount, theta


def test_theta_of_a_hundred_is_41_and_not_42() -> None:
    assert theta(100) == 41


@given(st.integers(5, 300))
def test_theta_is_the_largest_that_a_coin_reaches_in_less_than_one_case_of_twenty(total: int) -> None:
    def reached(mismatches: int) -> Fraction:
        return Fraction(sum(math.comb(total, z) for z in range(mismatches + 1)), 2**total)

    assert reached(theta(total)) < Fraction(1, 20) <= reached(theta(total) + 1)


def test_of_four_triggers_none_mismatched_is_no_evidence() -> None:
    with pytest.raises(ValueError, match="at least 5"):
        theta(4)


def test_a_null_model_counts_only_if_it_sees_what_is_there() -> None:
    assert NullCount(matched=3, agreed=70, total=100).is_honest
    assert not NullCount(matched=3, agreed=69, total=100).is_honest
