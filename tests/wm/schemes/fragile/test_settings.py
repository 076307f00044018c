"""Promised: the defaults are the paper's, and a setting out of range is refused by name."""

import pytest

from wm.schemes.fragile import Settings


def test_the_defaults_are_the_papers() -> None:
    paper = Settings()
    assert (paper.triggers, paper.latent, paper.variance_weight, paper.iterations) == (100, 512, 150, 300)
    assert (paper.lr, paper.beta1, paper.beta2, paper.boundary) == (1e-4, 0.5, 0.999, "uniform")
    assert paper.tolerates_tf32


def test_the_quick_recipe_changes_the_generator_alone() -> None:
    quick, paper = Settings.quick(), Settings()
    assert quick.width < paper.width
    assert (quick.triggers, quick.variance_weight, quick.margin_least) == (100, 150, paper.margin_least)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("triggers", 1),
        ("triggers", 1025),
        ("boundary", "three"),
        ("latent", 0),
        ("width", 0),
        ("variance_weight", -1),
        ("iterations", 0),
        ("lr", 0),
        ("beta1", 1),
        ("beta2", -0.1),
        ("batch", 0),
        ("margin_least", 0.5),
        ("margin_most", 11),
        ("margin_most", float("nan")),
        ("polishing_rounds", 0),
        ("attempts", 0),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        Settings(**{name: value})
