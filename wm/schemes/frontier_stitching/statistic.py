"""What a count of matches is worth: the paper's θ, and which models are null models.

The paper has a coin for the null: a model that knows nothing of the key matches each trigger with probability ½. That
is wrong for this scheme. The demanded class is the original one, so honest networks match nearly all false adversaries,
and those true adversaries that do not carry over to them. What replaces it is the worst of some null models: honest
classifiers of the same task that have nothing to do with the owner's. Networks differ by more than the sampling of
triggers explains, and of those that differ towards the key a suspect must not be one by chance; so it is the worst and
not their mean, and bounded from above: `wm.schemes.measuring.chance_of`.

Source: Le Merrer et al. 2020, SCHEMES 1.4; the calibration is SCHEMES 1.4, "wmreg verdict".
"""

import math
from dataclasses import dataclass
from fractions import Fraction

from torch import nn

from wm.schemes.frontier_stitching.key_set import KeySet, class_triggers, clean_triggers
from wm.schemes.scheme import matches
from wm.triggers import InputSpec

SIGNIFICANCE = Fraction(1, 20)
AGREEMENT_LEAST = Fraction(7, 10)  # of the originals, for a null model to count


@dataclass(frozen=True, slots=True)
class NullCount:
    """What a null model came to.

    Attributes:
        matched: triggers that it answers as the key demands.
        agreed: originals that it answers with the class that the key demands of their triggers.
        total: |K|.
    """

    matched: int
    agreed: int
    total: int

    @property
    def is_honest(self) -> bool:
        """Whether it is a classifier of this task at all, so that what it matches calibrates anything."""
        return self.agreed >= AGREEMENT_LEAST * self.total


def counted(model: nn.Module, payload: KeySet, watermark_key: bytes, spec: InputSpec) -> NullCount:
    """Count what a null model matches, and how often it sees in the originals what the owner says is there.

    Raises:
        ValueError: as `wm.schemes.scheme.answers`, or the key's length.
    """
    matched, agreed = (
        int(matches(model, triggers, spec).sum())
        for triggers in (class_triggers(payload, watermark_key), clean_triggers(payload, watermark_key))
    )
    return NullCount(matched, agreed, payload.total)


def theta(total: int) -> int:
    """Return the paper's θ: the most mismatches that a coin would make with a probability below 5 %.

        θ = max { t : 2^-|K| · Σ_{z ≤ t} C(|K|, z) < 0.05 }

    A model is the owner's, by the paper, where it has at most θ mismatches. Third-party code returns the first number
    that no longer fulfils this, one more. Exact, in integers.

    Args:
        total: |K|, at least 5: of fewer, even none mismatched would be no evidence.

    Raises:
        ValueError: it is less.
    """
    if total < 5:
        raise ValueError(f"θ is for key sets of at least 5, not {total}")
    most, below = -1, 0
    while (below + math.comb(total, most + 1)) * SIGNIFICANCE.denominator < SIGNIFICANCE.numerator << total:
        most += 1
        below += math.comb(total, most)
    return most
