"""The figures of docs/statistics.md are what the code says."""

import doctest
from pathlib import Path

from registry.policy import Thresholds
from registry.verdict import CONTROLS_MAX

PAGE = Path(__file__).parents[2] / "docs" / "statistics.md"


def test_every_example_gives_what_the_page_shows():
    failed, attempted = doctest.testfile(str(PAGE), module_relative=False)
    assert (failed, attempted >= 8) == (0, True)


def test_the_thresholds_in_the_text_are_the_default_policys():
    text, thresholds = PAGE.read_text(), Thresholds()
    assert f"γ = {thresholds.gamma_permille / 1000}" in text
    assert f"Below {thresholds.refute_permille / 1000} N" in text
    assert f"draws {thresholds.permutations_min} permutations" in text
    assert f"at most {thresholds.permutation_p_permille / 1000} is allowed" in text
    assert f"`fresh`, {thresholds.controls_min} at least" in text
    assert f"more than {thresholds.control_permille // 10} %" in text
    assert (thresholds.alpha_bits, thresholds.paired_alpha_digits, CONTROLS_MAX) == (64, 6, 32)
