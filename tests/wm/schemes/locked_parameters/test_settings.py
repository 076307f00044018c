"""Promised: the defaults are the released code's, and a setting out of range is refused by name."""

import pytest

from wm.schemes.locked_parameters import Settings
from wm.statistics import log10_tail


def test_the_defaults_are_the_released_codes() -> None:
    settings = Settings()
    assert (settings.replicas, settings.sharpening, settings.direction) == (4, 1e-6, 1)
    assert (settings.epochs, settings.batch, settings.lr, settings.milestones) == (300, 100, 0.1, (150, 250))


def test_seven_tenths_of_the_default_count_are_worth_75_bits() -> None:
    count = Settings().count
    assert -log10_tail(count * 7 // 10, count) > 75 * 0.30103


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("count", 99),
        ("count", 4097),
        ("amplitude", 0),
        ("replicas", -1),
        ("replicas", 65),
        ("noise", 0),
        ("sharpening", -1e-6),
        ("direction", 0),
        ("epochs", 0),
        ("batch", 0),
        ("lr", 0),
        ("momentum", 1),
        ("weight_decay", -1),
        ("milestones", (0,)),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        Settings(**{name: value})
