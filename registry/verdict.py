"""The verdict engine: counts and controls in, the outcome of one vote out (DESIGN 6.3; SCHEMES 4.4).

Everything is exact integer arithmetic, so a node, an auditor and a court compute the same outcome from the
numbers in a vote. The engine is the same for every watermark scheme.

* S1: enough triggers matched, and the exact binomial tail at p = 1/2 is small enough.
* S2: the head on permuted channels falls to chance; a head that does not read *this* model's channels fails.
* S3: freshly initialised models stay near chance, and the suspect beats every control by an exact paired test.

The numbers may be those of aligned channels: the suspect's were put into the order of the published model's before it
was read. They are judged by the same three tests, since S1's null does not depend on how the features came about as
long as the key had no part in it, and S2 and S3 were run on aligned channels too. Only that the suspect was looked at
twice is paid for: an aligned count must be significant at half the level (Bonferroni).
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from math import comb
from typing import NamedTuple, cast

from registry import schema
from registry.encoding import Value
from registry.errors import MalformedError, shown
from registry.policy import Thresholds

TRIGGERS_MAX = 4096  # bounds the exact arithmetic that every node does for every vote
CONTROLS_MAX = 32


class Outcome(StrEnum):
    """What a vote or a verdict says of a claim."""

    VERIFIED = "VERIFIED"
    REFUTED = "REFUTED"
    INCONCLUSIVE = "INCONCLUSIVE"
    UNVERIFIABLE = "UNVERIFIABLE"


class ControlKind(StrEnum):
    """Where a control model comes from.

    Members:
        FRESH: a seeded fresh initialisation.
        BASE: what the owner declared to have fine-tuned.
        PUBLIC: weights that the node's operator knows to be public.
    """

    FRESH = "fresh"
    BASE = "base"
    PUBLIC = "public"


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
    """The numbers of one node's run of the head on the suspect.

    Attributes:
        matched, total: triggers answered as the key demands, of all.
        permutations, permutations_as_good: channel permutations drawn (S2), and those that matched as many.
        controls: the control models (S3).
        aligned: whether the channels of the suspect and of the controls were aligned before all this was counted.
        matched_unaligned: what the suspect matched before; None where nothing was aligned, or where its channels are
            not as many as the head reads.
    """

    matched: int
    total: int
    permutations: int
    permutations_as_good: int
    controls: tuple[ControlCounts, ...]
    aligned: bool = False
    matched_unaligned: int | None = None

    def to_value(self) -> dict[str, Value]:
        """The measurement as part of a vote's body."""
        return {
            "matched": self.matched,
            "total": self.total,
            "permutations": self.permutations,
            "permutations_as_good": self.permutations_as_good,
            "controls": [[str(c.kind), c.matched, c.suspect_only, c.control_only] for c in self.controls],
            "aligned": self.aligned,
            "matched_unaligned": self.matched_unaligned,
        }

    @classmethod
    def from_value(cls, value: Value) -> "Measurement":
        """Read a measurement; raises MalformedError when a count contradicts another."""
        read = schema.fields(value, _MEASUREMENT, what="measurement")
        read["controls"] = tuple(cast("list[ControlCounts]", read["controls"]))
        measurement = cls(**read)  # type: ignore[arg-type]  # schema.fields returns exactly these fields
        _check_counts(measurement)
        return measurement


def judge(measurement: Measurement, thresholds: Thresholds) -> tuple[Outcome, str]:
    """Decide what the numbers say.

    Returns:
        The outcome and a stable reason: matched, below_threshold, between_bounds, not_specific,
        shared_ancestor or too_few_controls.
    """
    total = measurement.total
    if measurement.matched * 1000 < thresholds.refute_permille * total:
        return Outcome.REFUTED, "below_threshold"
    if not _is_significant(measurement, thresholds):
        return Outcome.INCONCLUSIVE, "between_bounds"
    return _judge_controls(measurement, thresholds)


def binomial_tail(matched: int, total: int) -> int:
    """Number of the 2^total answer strings with at least `matched` right; divided by 2^total the exact p-value.

    Raises:
        ValueError: not 0 ≤ matched ≤ total.
    """
    if not 0 <= matched <= total:
        raise ValueError(f"{matched} of {total} is not a count")
    term = tail = comb(total, matched)
    for right in range(matched, total):
        term = term * (total - right) // (right + 1)
        tail += term
    return tail


@lru_cache(maxsize=8192)  # an audit asks for the same few hundred numbers of triggers again and again
def least_significant(total: int, factor: int) -> int:
    """Least count whose exact p-value, `binomial_tail(count, total)` / 2^total, is at most 1 / factor.

    Returns:
        A count in [0, total + 1]; total + 1 when not even all of them are enough.
    """
    least, term, tail = total + 1, 1, 1  # term: strings with exactly least - 1 right; tail: with as many or more
    while least and tail * factor <= 1 << total:
        least -= 1
        term = term * least // (total - least + 1)
        tail += term
    return least


def p_value(matched: int, total: int) -> str:
    """Exact binomial tail at p = 1/2, rounded up to three digits, spelled like "2.20e-23".

    Integer arithmetic only: the same spelling on every machine.
    """
    numerator, denominator = binomial_tail(matched, total), 1 << total
    exponent = 0
    while numerator < denominator:
        numerator, exponent = numerator * 10, exponent - 1
    digits = -(-100 * numerator // denominator)
    if digits == 1000:
        digits, exponent = 100, exponent + 1
    return f"{digits // 100}.{digits % 100:02d}e{exponent}"


def _is_significant(measurement: Measurement, thresholds: Thresholds) -> bool:
    """S1: matched ≥ ⌈γN⌉ and the exact tail ≤ 2^-alpha_bits, or half of it where this is the second count."""
    if measurement.matched * 1000 < thresholds.gamma_permille * measurement.total:
        return False
    factor = 1 << (thresholds.alpha_bits + measurement.aligned)
    return measurement.matched >= least_significant(measurement.total, factor)


def _judge_controls(measurement: Measurement, thresholds: Thresholds) -> tuple[Outcome, str]:
    """S2 and S3, for a measurement that passed S1."""
    fresh = [control for control in measurement.controls if control.kind is ControlKind.FRESH]
    if measurement.permutations < thresholds.permutations_min or len(fresh) < thresholds.controls_min:
        return Outcome.INCONCLUSIVE, "too_few_controls"
    as_good, drawn = measurement.permutations_as_good + 1, measurement.permutations + 1
    if as_good * 1000 > thresholds.permutation_p_permille * drawn:
        return Outcome.REFUTED, "not_specific"
    if max((control.matched for control in fresh), default=0) * 1000 > thresholds.control_permille * measurement.total:
        return Outcome.REFUTED, "not_specific"
    # Exact one-sided McNemar test with Bonferroni's correction: P(Bin(b + c, 1/2) ≥ b) · controls ≤ 10^-d.
    factor = len(measurement.controls) * 10**thresholds.paired_alpha_digits
    for control in measurement.controls:
        discordant = control.suspect_only + control.control_only
        if control.suspect_only < least_significant(discordant, factor):
            is_fresh = control.kind is ControlKind.FRESH
            return Outcome.REFUTED, "not_specific" if is_fresh else "shared_ancestor"
    return Outcome.VERIFIED, "matched"


def _check_counts(measurement: Measurement) -> None:
    if measurement.matched > measurement.total or measurement.permutations_as_good > measurement.permutations:
        raise MalformedError("measurement: more counted than there are")
    before = measurement.matched_unaligned
    if before is not None and not (measurement.aligned and before < measurement.matched):
        raise MalformedError("measurement: an aligned count stands only where it is greater than the one before")
    matched, missed = measurement.matched, measurement.total - measurement.matched
    for control in measurement.controls:
        both = matched - control.suspect_only
        if both < 0 or control.control_only > missed or control.matched != both + control.control_only:
            raise MalformedError("measurement: the counts of a control contradict each other")


def _control(value: Value) -> ControlCounts:
    word, matched, suspect_only, control_only = _FOUR(value)
    kind = _KINDS.get(word) if type(word) is str else None
    if kind is None:
        raise MalformedError(f"unknown kind of control {shown(word)}")
    return ControlCounts(kind, _COUNT(matched), _COUNT(suspect_only), _COUNT(control_only))


_KINDS = {str(kind): kind for kind in ControlKind}
_FOUR, _COUNT = schema.row(4), schema.uint(TRIGGERS_MAX)
_MEASUREMENT: dict[str, schema.Checker[object]] = {
    "matched": schema.uint(TRIGGERS_MAX),
    "total": schema.uint(TRIGGERS_MAX, 1),
    "permutations": schema.uint(10**6),
    "permutations_as_good": schema.uint(10**6),
    "controls": schema.listed(_control, CONTROLS_MAX),
    "aligned": schema.truth,
    "matched_unaligned": schema.optional(schema.uint(TRIGGERS_MAX)),
}
