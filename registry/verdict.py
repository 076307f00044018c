"""The verdict engine: counts and controls in, the outcome of one vote out (DESIGN 6.3; SCHEMES 4.4).

Everything is exact integer arithmetic, so a node, an auditor and a court compute the same outcome from the
numbers in a vote. The engine is the same for every watermark scheme.

* S1: enough matched, and the exact binomial tail at the scheme's chance is small enough. The policy's shares are those
  of a chance of one half, where a guess is right half the time; for another chance they are moved so that the same part
  of what a guess misses must be answered.
* S2: the head on permuted channels falls to chance; a head that does not read *this* model's channels fails. Only a
  branch has a head.
* S3: freshly initialised models stay near chance, and the suspect beats every control by an exact paired test.

The numbers may be those of aligned channels: the suspect's were put into the order of the published model's before it
was read. They are judged by the same three tests, since S1's null does not depend on how the features came about as
long as the key had no part in it, and S2 and S3 were run on aligned channels too. Only that the suspect was looked at
twice is paid for: an aligned count must be significant at half the level (Bonferroni).

A mark of integrity says nothing of an owner: its triggers lie where any change of the model moves their answers. So one
answer that differs is enough to say that the model is not the one that was published.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, cast

from registry import schema
from registry.binomial import HALF_PPM, MILLION, least_significant, p_value
from registry.encoding import Value
from registry.errors import MalformedError, shown
from registry.policy import Thresholds

TRIGGERS_MAX = 4096  # bounds the exact arithmetic that every node does for every vote
CONTROLS_MAX = 32
NULLS_MIN = 3  # models without the mark, for a chance that is measured on them


class Outcome(StrEnum):
    """What a vote or a verdict says of a claim.

    Members:
        VERIFIED, REFUTED: the suspect carries the owner's mark, or does not.
        INTACT, TAMPERED: of a mark of integrity: the suspect is the model that was published, or a changed one.
        INCONCLUSIVE: the numbers do not suffice.
        UNVERIFIABLE: there are none.
    """

    VERIFIED = "VERIFIED"
    REFUTED = "REFUTED"
    INCONCLUSIVE = "INCONCLUSIVE"
    UNVERIFIABLE = "UNVERIFIABLE"
    INTACT = "INTACT"
    TAMPERED = "TAMPERED"


# What a certificate may say: each of these was measured, and a reader relies on it.
CERTIFIED = (Outcome.VERIFIED, Outcome.INTACT, Outcome.TAMPERED)
# What an owner claims for.
WON = (Outcome.VERIFIED, Outcome.INTACT)


class Statistic(StrEnum):
    """What was counted.

    Members:
        BRANCH: answers of a head to triggers whose labels are bits of a PRG.
        SIGNS: signs of weights, which are bits of a PRG.
        CLASSES: the suspect's own classes of triggers, which a PRG drew; the chance is exact.
        CALIBRATED: the suspect's own classes of triggers that no PRG drew; the chance is measured on null models.
        INTEGRITY: the suspect's own classes of triggers that any change of the model moves.
    """

    BRANCH = "branch"
    SIGNS = "signs"
    CLASSES = "classes"
    CALIBRATED = "calibrated"
    INTEGRITY = "integrity"

    @property
    def has_chance(self) -> bool:
        """Whether chance says something of a count; of integrity it does not, since one answer that differs decides."""
        return self is not Statistic.INTEGRITY


class ControlKind(StrEnum):
    """Where a control model comes from.

    Members:
        FRESH: a seeded fresh initialisation.
        BASE: what the owner declared to have fine-tuned.
        PUBLIC: weights that the node's operator knows to be public.
        NULL: what the owner declared to be trained for the same task without the mark.
    """

    FRESH = "fresh"
    BASE = "base"
    PUBLIC = "public"
    NULL = "null"


class ControlCounts(NamedTuple):
    """The head on one control model, trigger by trigger beside the suspect.

    Attributes:
        matched: triggers that the control answers as the key demands.
        suspect_only: triggers that the suspect matches and the control does not.
        control_only: the reverse.
    """

    kind: ControlKind
    matched: int
    suspect_only: int
    control_only: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The numbers of one node's run on the suspect.

    Attributes:
        matched, total: what the suspect answers as the key demands, of all.
        statistic: what that is.
        chance_ppm: probability that a model without the mark matches one, parts per million, rounded up.
        permutations, permutations_as_good: channel permutations drawn (S2), and those that matched as many.
        controls: the control models (S3).
        aligned: whether the channels of the suspect and of the controls were aligned before all this was counted.
        matched_unaligned: what the suspect matched before; None where nothing was aligned, or where its channels are
            not as many as the head reads.
    """

    matched: int
    total: int
    controls: tuple[ControlCounts, ...]
    statistic: Statistic = Statistic.BRANCH
    chance_ppm: int = HALF_PPM
    permutations: int = 0
    permutations_as_good: int = 0
    aligned: bool = False
    matched_unaligned: int | None = None

    @property
    def p_value(self) -> str | None:
        """The exact tail of the count, as it is shown; None where chance says nothing."""
        return p_value(self.matched, self.total, self.chance_ppm) if self.statistic.has_chance else None

    def to_value(self) -> dict[str, Value]:
        """The measurement as part of a vote's body.

        A branch's is spelled as it was before there were others; those name their statistic.
        """
        counts: dict[str, Value] = {
            "matched": self.matched,
            "total": self.total,
            "controls": [[str(c.kind), c.matched, c.suspect_only, c.control_only] for c in self.controls],
        }
        if self.statistic is not Statistic.BRANCH:
            return counts | {"statistic": str(self.statistic), "chance_ppm": self.chance_ppm}
        return counts | {
            "permutations": self.permutations,
            "permutations_as_good": self.permutations_as_good,
            "aligned": self.aligned,
            "matched_unaligned": self.matched_unaligned,
        }

    @classmethod
    def from_value(cls, value: Value) -> "Measurement":
        """Read a measurement; raises MalformedError when a count contradicts another."""
        is_branch = not (isinstance(value, dict) and "statistic" in value)
        read = schema.fields(value, _BRANCH if is_branch else _MEASUREMENT, what="measurement")
        read["controls"] = tuple(cast("list[ControlCounts]", read["controls"]))
        measurement = cls(**read)  # type: ignore[arg-type]  # schema.fields returns exactly these fields
        _check_counts(measurement)
        return measurement


def judge(measurement: Measurement, thresholds: Thresholds) -> tuple[Outcome, str]:
    """Decide what the numbers say.

    Returns:
        The outcome and a stable reason: matched, below_threshold, between_bounds, not_specific, shared_ancestor,
        too_few_controls; of a mark of integrity matched or changed.
    """
    if measurement.statistic is Statistic.INTEGRITY:
        is_intact = measurement.matched == measurement.total
        return (Outcome.INTACT, "matched") if is_intact else (Outcome.TAMPERED, "changed")
    if not _reaches(measurement.matched, thresholds.refute_permille, measurement):
        return Outcome.REFUTED, "below_threshold"
    if measurement.matched < least_passing(measurement, thresholds):
        return Outcome.INCONCLUSIVE, "between_bounds"
    return _judge_controls(measurement, thresholds)


def least_of_share(permille: int, total: int, chance_ppm: int = HALF_PPM) -> int:
    """Least count that reaches a share, which the policy states for a chance of one half.

    A share γ there is 2γ - 1 of what a guess misses; so of a chance p it is p + (2γ - 1)(1 - p).
    """
    return -(-total * _billionths(permille, chance_ppm) // 10**9)


def least_passing(measurement: Measurement, thresholds: Thresholds) -> int:
    """Least count that passes S1: the share γ, and an exact tail ≤ 2^-alpha_bits, or half of it for a second count.

    Returns:
        A count; one more than all where none passes; all of them of a mark of integrity.
    """
    total, chance_ppm = measurement.total, measurement.chance_ppm
    if not measurement.statistic.has_chance:
        return total
    return least_above_chance(total, chance_ppm, thresholds, aligned=measurement.aligned)


def least_above_chance(total: int, chance_ppm: int, thresholds: Thresholds, *, aligned: bool = False) -> int:
    """Return the same of a count that chance can explain; one more than all where none passes."""
    factor = 1 << (thresholds.alpha_bits + aligned)
    return max(
        least_of_share(thresholds.gamma_permille, total, chance_ppm), least_significant(total, factor, chance_ppm)
    )


def _billionths(permille: int, chance_ppm: int) -> int:
    return 1000 * chance_ppm + (2 * permille - 1000) * (MILLION - chance_ppm)


def _reaches(count: int, permille: int, measurement: Measurement) -> bool:
    return count >= least_of_share(permille, measurement.total, measurement.chance_ppm)


def _exceeds(count: int, permille: int, measurement: Measurement) -> bool:
    return count * 10**9 > measurement.total * _billionths(permille, measurement.chance_ppm)


def _judge_controls(measurement: Measurement, thresholds: Thresholds) -> tuple[Outcome, str]:
    """S2 and S3, for a measurement that passed S1."""
    if not _has_enough_controls(measurement, thresholds):
        return Outcome.INCONCLUSIVE, "too_few_controls"
    if measurement.statistic is Statistic.BRANCH:
        as_good, drawn = measurement.permutations_as_good + 1, measurement.permutations + 1
        if as_good * 1000 > thresholds.permutation_p_permille * drawn:
            return Outcome.REFUTED, "not_specific"
    best = max((it.matched for it in measurement.controls if it.kind is ControlKind.FRESH), default=0)
    if _exceeds(best, thresholds.control_permille, measurement):
        return Outcome.REFUTED, "not_specific"
    # Exact one-sided McNemar test with Bonferroni's correction: P(Bin(b + c, 1/2) ≥ b) · controls ≤ 10^-d.
    factor = len(measurement.controls) * 10**thresholds.paired_alpha_digits
    for control in measurement.controls:
        discordant = control.suspect_only + control.control_only
        if control.suspect_only < least_significant(discordant, factor):
            is_fresh = control.kind is ControlKind.FRESH
            return Outcome.REFUTED, "not_specific" if is_fresh else "shared_ancestor"
    return Outcome.VERIFIED, "matched"


def _has_enough_controls(measurement: Measurement, thresholds: Thresholds) -> bool:
    kinds = [control.kind for control in measurement.controls]
    if kinds.count(ControlKind.FRESH) < thresholds.controls_min:
        return False
    if measurement.statistic is Statistic.BRANCH:
        return measurement.permutations >= thresholds.permutations_min
    if measurement.statistic is Statistic.CALIBRATED:
        return kinds.count(ControlKind.NULL) + kinds.count(ControlKind.PUBLIC) >= NULLS_MIN
    return True


def _check_counts(measurement: Measurement) -> None:
    if measurement.matched > measurement.total or measurement.permutations_as_good > measurement.permutations:
        raise MalformedError("measurement: more counted than there are")
    before = measurement.matched_unaligned
    if before is not None and not (measurement.aligned and before < measurement.matched):
        raise MalformedError("measurement: an aligned count stands only where it is greater than the one before")
    if measurement.statistic in _BITS and measurement.chance_ppm != HALF_PPM:
        raise MalformedError("measurement: of bits the chance is one half")
    matched, missed = measurement.matched, measurement.total - measurement.matched
    for control in measurement.controls:
        if control.kind is ControlKind.NULL and control.matched * MILLION > measurement.chance_ppm * measurement.total:
            raise MalformedError("measurement: a null model matches more than the chance that was measured on it")
        both = matched - control.suspect_only
        if both < 0 or control.control_only > missed or control.matched != both + control.control_only:
            raise MalformedError("measurement: the counts of a control contradict each other")


def _control(value: Value) -> ControlCounts:
    word, matched, suspect_only, control_only = _FOUR(value)
    kind = _KINDS.get(word) if type(word) is str else None
    if kind is None:
        raise MalformedError(f"unknown kind of control {shown(word)}")
    return ControlCounts(kind, _COUNT(matched), _COUNT(suspect_only), _COUNT(control_only))


def _statistic(value: Value) -> Statistic:
    statistic = _STATISTICS.get(schema.text(16)(value))
    if statistic is None:
        raise MalformedError(f"unknown statistic {shown(value)}")
    return statistic


_KINDS = {str(kind): kind for kind in ControlKind}
_STATISTICS = {str(it): it for it in Statistic if it is not Statistic.BRANCH}
_BITS = (Statistic.BRANCH, Statistic.SIGNS)
_FOUR, _COUNT = schema.row(4), schema.uint(TRIGGERS_MAX)
_COUNTS: dict[str, schema.Checker[object]] = {
    "matched": schema.uint(TRIGGERS_MAX),
    "total": schema.uint(TRIGGERS_MAX, 1),
    "controls": schema.listed(_control, CONTROLS_MAX),
}
_BRANCH: dict[str, schema.Checker[object]] = {
    **_COUNTS,
    "permutations": schema.uint(10**6),
    "permutations_as_good": schema.uint(10**6),
    "aligned": schema.truth,
    "matched_unaligned": schema.optional(schema.uint(TRIGGERS_MAX)),
}
_MEASUREMENT: dict[str, schema.Checker[object]] = {
    **_COUNTS,
    "statistic": _statistic,
    "chance_ppm": schema.uint(MILLION, 1),
}
