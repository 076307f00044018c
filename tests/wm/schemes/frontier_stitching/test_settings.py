"""Promised: the defaults are the paper's; a setting out of range is refused by name."""

import math

import pytest

from wm.schemes.frontier_stitching import Settings


def test_the_defaults_are_the_papers_half_and_half() -> None:
    settings = Settings()
    assert (settings.triggers, settings.true_adversaries, settings.passes_after) == (100, 50, 0)
    assert round(255 * 0.25) == settings.epsilon_levels


def test_the_quick_recipe_asks_only_what_honest_networks_get_wrong() -> None:
    assert Settings.quick().true_adversaries == Settings.quick().triggers


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("triggers", 19),
        ("triggers", 1025),
        ("epsilon_levels", 0),
        ("epsilon_levels", 128),
        ("true_fraction", -0.1),
        ("true_fraction", 1.1),
        ("true_fraction", math.nan),
        ("lr", 0),
        ("lr", math.nan),
        ("trigger_batch", 0),
        ("primary_batch", 0),
        ("primary_weight", -1),
        ("primary_weight", math.inf),
        ("passes_max", 0),
        ("passes_after", -1),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Settings(**{name: value})
