"""What a scheme counts: the votes' word where they all say one thing, else what the scheme's name says."""

import pytest

from registry.schemes import STATISTICS, statistic_of
from registry.verdict import Statistic


@pytest.mark.parametrize(
    ("scheme", "counted", "expected"),
    [
        ("mtlsign", [], Statistic.BRANCH),
        ("fragile", [], Statistic.INTEGRITY),
        ("fragile", [Statistic.INTEGRITY] * 3, Statistic.INTEGRITY),
        ("fragile", [Statistic.INTEGRITY, Statistic.BRANCH], Statistic.INTEGRITY),  # one of the nodes lies
        ("fragile ", [], None),
        ("of tomorrow", [Statistic.CLASSES], Statistic.CLASSES),
        ("of tomorrow", [Statistic.CLASSES, Statistic.SIGNS], None),
    ],
)
def test_what_is_counted_of_a_mark(scheme, counted, expected):
    assert statistic_of(scheme, counted) is expected


def test_every_statistic_is_some_schemes():
    assert set(STATISTICS.values()) == set(Statistic)
