"""What a count of matches is worth.

Label bits come from a PRG keyed after the model existed or in ignorance of it, so for a model and head that
know nothing of the key the count is exactly Binomial(N, 1/2), however correlated the branch's answers are.
The paper bounds its tail by Chernoff; verdicts use the exact tail.

Source: Li et al. 2022, appendix A; SCHEMES 4.4.
"""

import math
from collections.abc import Iterable
from fractions import Fraction

from scipy.special import betaincinv

CHANCE = 0.5
MILLION = 1_000_000


def tail(matched: int, total: int) -> float:
    """Return P(Binomial(total, 1/2) >= matched), exact up to the rounding of the result.

    Args:
        matched: at least 0; more than `total` gives 0.
        total: at least 1.

    Returns:
        A probability in [0, 1].

    Raises:
        ValueError: out of range.
    """
    favourable = _favourable(matched, total)
    return favourable / (1 << total) if total < 1000 else 10.0 ** log10_tail(matched, total)


def tail_of(matched: int, total: int, chance: Fraction) -> float:
    """Return P(Binomial(total, chance) >= matched); by exact integers at one half, else in floating point."""
    if chance == Fraction(1, 2):
        return tail(matched, total)
    if chance <= 0:
        return float(matched <= 0)
    return 1.0 if chance >= 1 else binomial_tail(matched, total, chance=float(chance))


def log10_tail(matched: int, total: int) -> float:
    """Return log10 of `tail`, also where the tail itself would be too small for a float.

    Returns:
        At most 0; minus infinity when matched > total.

    Raises:
        ValueError: out of range.
    """
    favourable = _favourable(matched, total)
    if favourable == 0:
        return -math.inf
    return _log10(favourable) - total * math.log10(2)


def least_matched(total: int, *, log10_alpha: float) -> int:
    """Return k*, the least count whose tail is at most alpha.

    Args:
        total: N, at least 1.
        log10_alpha: log10 of the error that one accepts, negative.

    Returns:
        k* in [1, total + 1]; total + 1 where even a perfect count would not do.
    """
    least, most = 0, total + 1
    while least < most:
        middle = (least + most) // 2
        if log10_tail(middle, total) <= log10_alpha:
            most = middle
        else:
            least = middle + 1
    return least


def chernoff(gamma: float, total: int, *, chance: float, exponent: float | None = None) -> float:
    """Bound the tail as the paper does: ((1 - p + p e^λ) / e^(γλ))^N.

    Args:
        gamma: the fraction that must match, in (chance, 1).
        total: N.
        chance: p, the accuracy of a guess, in (0, 1).
        exponent: λ, at least 0; by default the best one.

    Returns:
        An upper bound on P(X >= gamma N).
    """
    if exponent is None:
        exponent = math.log(gamma * (1 - chance) / (chance * (1 - gamma)))
    base = math.log1p(chance * math.expm1(exponent)) - gamma * exponent
    return math.exp(total * base)


def beta_binomial_tail(matched: int, total: int, *, correlation: float) -> float:
    """Return P(X >= matched) where the chance of a match is itself drawn, with mean 1/2: an overdispersed count.

    Verdicts need it not, since labels are drawn bit by bit; it tells how much a doubt of that would change.

    Args:
        matched: the count, from 0 to total.
        total: N.
        correlation: ρ of any two of the matches, in (0, 1); with α = β = (1/ρ - 1) / 2 the chance is Beta(α, β).

    Source: SCHEMES 4.4, "overdispersion sensitivity".
    """
    shape = (1 / correlation - 1) / 2
    whole = _log_beta(shape, shape)
    terms: Iterable[float] = (
        math.exp(_log_choose(total, k) + _log_beta(shape + k, shape + total - k) - whole)
        for k in range(matched, total + 1)
    )
    return math.fsum(terms)


def _log_beta(first: float, second: float) -> float:
    return math.lgamma(first) + math.lgamma(second) - math.lgamma(first + second)


def binomial_tail(matched: int, total: int, *, chance: float) -> float:
    """Return P(Binomial(total, chance) >= matched) in floating point, for a chance other than 1/2."""
    terms: Iterable[float] = (
        math.exp(_log_choose(total, k) + k * math.log(chance) + (total - k) * math.log1p(-chance))
        for k in range(matched, total + 1)
    )
    return math.fsum(terms)


def clopper_pearson_upper(matched: int, total: int, *, confidence: float = 0.999) -> Fraction:
    """Bound a probability from above by what was counted of it (Clopper and Pearson 1934, one-sided).

    Args:
        matched: how often it happened.
        total: of how many, at least 1.
        confidence: that the bound holds, in (0, 1).

    Returns:
        The bound in millionths, rounded up, so that machines whose last digits differ say the same.

    Raises:
        ValueError: not 0 <= matched <= total.
    """
    if not 0 <= matched <= total or total < 1:
        raise ValueError(f"cannot have {matched} of {total}")
    upper = 1.0 if matched == total else float(betaincinv(matched + 1, total - matched, confidence))
    return Fraction(min(MILLION, math.ceil(upper * MILLION - 1e-6)), MILLION)


def mcnemar(suspect_only: int, control_only: int) -> float:
    """Test whether the suspect answers better than a control on the same triggers (exact, one-sided).

    Args:
        suspect_only: triggers that the suspect gets right and the control wrong.
        control_only: the reverse.

    Returns:
        P(Binomial(suspect_only + control_only, 1/2) >= suspect_only); 1 when they never differ.

    Raises:
        ValueError: a negative count.
    """
    discordant = suspect_only + control_only
    return 1.0 if discordant == 0 else tail(suspect_only, discordant)


def _favourable(matched: int, total: int) -> int:
    if matched < 0 or total < 1:
        raise ValueError(f"cannot have {matched} of {total}")
    term = math.comb(total, matched)
    favourable = 0
    for k in range(matched, total + 1):
        favourable += term
        term = term * (total - k) // (k + 1)
    return favourable


def _log10(value: int) -> float:
    # math.log10 takes integers of any size without overflowing.
    return math.log10(value)


def _log_choose(total: int, chosen: int) -> float:
    return math.lgamma(total + 1) - math.lgamma(chosen + 1) - math.lgamma(total - chosen + 1)
