"""By which counts the numbers of a vote are judged, exactly as `registry.verdict` does it.

The policy states its shares for a chance of one half. A page that repeated them for a mark of another chance would say
what is not true of it, and of a mark of integrity there is no such bound at all.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from registry.policy import Thresholds
from registry.verdict import Measurement, least_of_share, least_passing

_PPM_IN_PERCENT = 10_000


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Bounds:
    """The bounds of one number of triggers and one chance.

    Attributes:
        total: triggers, or signs.
        chance_percent: the chance of a match.
        refuted_below: of fewer matches a vote says REFUTED.
        verified_from: from so many on it may say VERIFIED; more than all where no count is enough.
    """

    total: int
    chance_percent: float
    refuted_below: int
    verified_from: int


def bounds_of(measured: Iterable[Measurement], thresholds: Thresholds) -> tuple[Bounds, ...]:
    """The different bounds of some votes' numbers; none for those of integrity."""
    found = {
        Bounds(
            total=one.total,
            chance_percent=round(one.chance_ppm / _PPM_IN_PERCENT, 2),
            refuted_below=least_of_share(thresholds.refute_permille, one.total, one.chance_ppm),
            verified_from=least_passing(one, thresholds),
        )
        for one in measured
        if one.statistic.has_chance
    }
    return tuple(sorted(found))
