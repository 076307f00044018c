"""What each scheme of this release counts, by its name: for texts, before a node has measured.

No rule reads this. A publication may name any scheme, and a vote says itself what was counted.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from registry.verdict import Statistic

STATISTICS: Mapping[str, Statistic] = MappingProxyType(
    {
        "mtlsign": Statistic.BRANCH,
        "frontier_stitching": Statistic.CALIBRATED,
        "margin": Statistic.CLASSES,
        "locked_parameters": Statistic.SIGNS,
        "fragile": Statistic.INTEGRITY,
    }
)


def statistic_of(scheme: str, counted: Iterable[Statistic] = ()) -> Statistic | None:
    """What is counted of a mark.

    Args:
        scheme: as its publication names it.
        counted: what votes say that they counted.

    Returns:
        What the votes say, if they all say one thing; else what the scheme counts; None for an unknown one.
    """
    found = set(counted)
    return found.pop() if len(found) == 1 else STATISTICS.get(scheme)
