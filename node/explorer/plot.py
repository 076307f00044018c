"""Where each node's counts stand between chance and all of the triggers: the numbers behind the plot of a claim.

Every place is a share in percent, so that the drawing is as wide as the page and its words keep their size. Nodes may
have counted different numbers of triggers; shares compare them, and the table beside the plot has the counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from registry.messages import Vote
from registry.policy import Thresholds
from registry.verdict import Measurement, least_of_share, least_passing

_FINE = 10_000  # of a percent a hundredth
_TOP_PX, _ROW_PX, _AXIS_PX = 26, 46, 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One model's share of matched triggers; `kind` is "suspect", or the kind of the control."""

    kind: str
    percent: float
    matched: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One node's marks, the suspect's last, so that it is drawn above the controls. `y` is its line, pixels."""

    member: str
    total: int
    y: int
    outcome: str
    marks: tuple[Mark, ...]

    @property
    def suspect(self) -> Mark:
        """The suspect's."""
        return self.marks[-1]

    @property
    def best_control(self) -> int | None:
        """What the control that matches most matches; None without controls."""
        return max((mark.matched for mark in self.marks[:-1]), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One row for each node that measured.

    Attributes:
        verify_percent: from this share on a suspect may be verified, by every node's numbers; of a mark of integrity,
            it is intact. None where no count is enough.
        refute_percent: below it, it is refuted, or was tampered with.
        chance_percent: the greatest that a node counts with; 0 of a mark of integrity, of which none is said.
        is_integrity: whether the mark tells of changes instead of owners.
        kinds: of the controls that occur.
        height: pixels.
    """

    rows: tuple[Row, ...]
    verify_percent: float | None
    refute_percent: float
    chance_percent: float
    is_integrity: bool
    kinds: tuple[str, ...]
    height: int

    @property
    def axis_y(self) -> int:
        """The axis, pixels from the top."""
        return self.height - _AXIS_PX


def plot_of(votes: Mapping[str, Vote], thresholds: Thresholds) -> Plot | None:
    """The plot of a claim's votes, by member name; None if none of them measured."""
    measured = [(member, vote, vote.measurement) for member, vote in votes.items() if vote.measurement is not None]
    if not measured:
        return None
    rows = tuple(
        Row(
            member=member,
            total=measurement.total,
            y=_TOP_PX + place * _ROW_PX + _ROW_PX // 2,
            outcome=str(vote.outcome),
            marks=_marks(measurement),
        )
        for place, (member, vote, measurement) in enumerate(measured)
    )
    of_owners = [measurement for _, _, measurement in measured if measurement.statistic.has_chance]
    chance_ppm = max((measurement.chance_ppm for measurement in of_owners), default=0)
    is_integrity = not of_owners
    verify_percent = max((_verify_percent(measurement, thresholds) for measurement in of_owners), default=100.0)
    return Plot(
        rows=rows,
        verify_percent=verify_percent if verify_percent <= 100 else None,
        refute_percent=100.0 if is_integrity else share_percent(thresholds.refute_permille, chance_ppm),
        chance_percent=round(chance_ppm / 10_000, 2),
        is_integrity=is_integrity,
        kinds=tuple(sorted({mark.kind for row in rows for mark in row.marks[:-1]})),
        height=_TOP_PX + len(rows) * _ROW_PX + _AXIS_PX,
    )


def share_percent(permille: int, chance_ppm: int) -> float:
    """What a share of the policy is at a chance, in percent."""
    return least_of_share(permille, _FINE, chance_ppm) * 100 / _FINE


def _verify_percent(measurement: Measurement, thresholds: Thresholds) -> float:
    """More than 100 where no count is enough."""
    return round(100 * least_passing(measurement, thresholds) / measurement.total, 2)


def _marks(measurement: Measurement) -> tuple[Mark, ...]:
    counts = [(str(control.kind), control.matched) for control in measurement.controls]
    return tuple(
        Mark(kind=kind, percent=round(100 * matched / measurement.total, 2), matched=matched)
        for kind, matched in [*counts, ("suspect", measurement.matched)]
    )
