"""Promised: a setting out of range is refused by name; the defaults are the published recipe."""

import pytest

from wm.schemes.margin import Settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("triggers", 19),
        ("triggers", 1025),
        ("epochs", 0),
        ("lr", 0),
        ("lr", float("inf")),
        ("momentum", 1),
        ("momentum", -0.1),
        ("weight_decay", -1e-4),
        ("weight_decay", float("nan")),
        ("primary_batch", 0),
        ("trigger_batch", 0),
        ("trigger_weight", -0.1),
        ("ascent_steps", -1),
        ("ascent_levels", 0),
        ("ascent_levels", 256),
        ("shift", -1),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Settings(**{name: value})


def test_the_defaults_are_the_published_recipe() -> None:
    settings = Settings()
    assert (settings.triggers, settings.trigger_batch, settings.primary_batch) == (100, 25, 128)
    assert (settings.ascent_steps, settings.ascent_levels, settings.trigger_weight) == (5, 1, 0.1)
    assert (settings.epochs, settings.lr, settings.momentum, settings.weight_decay) == (200, 0.1, 0, 1e-4)


def test_quick_differs_from_a_plain_backdoor_by_the_ascent() -> None:
    assert Settings.quick().ascent_steps > 0
    assert Settings.quick().epochs < Settings().epochs
