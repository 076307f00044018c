"""From what the watermark library counted to a vote's measurement, for nodes and owners alike.

The ledger knows nothing of the library, nor the library of the ledger: what it returns is told here by its shape.
"""

import json
from collections.abc import Sequence
from fractions import Fraction
from typing import Protocol

from registry.binomial import MILLION
from registry.evidence import EvidenceFile
from registry.verdict import ControlCounts, ControlKind, Measurement, Statistic

ACCUSES_ITSELF = "the evidence names this very file, which does not answer its triggers: it contradicts itself"


class CountedControl(Protocol):
    """What was counted on one control model."""

    @property
    def kind(self) -> str:
        """A word of `ControlKind`."""

    @property
    def matched(self) -> int:
        """What it answers as the key demands."""

    @property
    def suspect_only(self) -> int:
        """What only the suspect answers so."""

    @property
    def control_only(self) -> int:
        """What only the control answers so."""


class Counted(Protocol):
    """What the watermark library counted; the ledger knows no more of it."""

    @property
    def matched(self) -> int:
        """Of the suspect."""

    @property
    def total(self) -> int:
        """Of how many."""

    @property
    def statistic(self) -> str:
        """A word of `Statistic`."""

    @property
    def chance(self) -> Fraction:
        """In whole millionths."""

    @property
    def permutations(self) -> int:
        """Drawn."""

    @property
    def permutations_as_good(self) -> int:
        """Of them."""

    @property
    def controls(self) -> Sequence[CountedControl]:
        """Other models."""

    @property
    def aligned(self) -> bool:
        """Whether channels were aligned first."""

    @property
    def matched_unaligned(self) -> int | None:
        """What was matched before."""


def measurement_of(counted: Counted) -> Measurement:
    """Put into a vote's form what the watermark library counted.

    Raises:
        ValueError: a word that the engine does not know.
    """
    return Measurement(
        matched=counted.matched,
        total=counted.total,
        statistic=Statistic(counted.statistic),
        chance_ppm=int(counted.chance * MILLION),
        permutations=counted.permutations,
        permutations_as_good=counted.permutations_as_good,
        controls=tuple(
            ControlCounts(ControlKind(it.kind), it.matched, it.suspect_only, it.control_only) for it in counted.controls
        ),
        aligned=counted.aligned,
        matched_unaligned=counted.matched_unaligned,
    )


def accuses_itself(measurement: Measurement, evidence: EvidenceFile, model_sha256: bytes) -> bool:
    """Whether evidence of integrity names the very file that was measured, which does not answer its triggers."""
    if measurement.statistic is not Statistic.INTEGRITY or measurement.matched == measurement.total:
        return False
    return bool(json.loads(evidence.info).get("model_sha256") == model_sha256.hex())
