"""What a count of matches is worth, in exact integers: the same on every machine.

The null is Binomial(total, chance): labels and signs come from a PRG, so that a model which has nothing to do with the
key matches each with a known chance, whatever it answers; where no such chance is known, it is an upper bound that was
measured on models without the mark.
"""

from functools import lru_cache
from math import comb, gcd

MILLION = 1_000_000
HALF_PPM = MILLION // 2  # of label bits, parts per million


def binomial_tail(matched: int, total: int, chance_ppm: int = HALF_PPM) -> tuple[int, int]:
    """P(Binomial(total, chance) ≥ matched), as a fraction's numerator and denominator.

    At a chance of one half these are the number of answer strings with at least `matched` right, and 2^total.

    Raises:
        ValueError: not 0 ≤ matched ≤ total, or not 0 < chance ≤ 1.
    """
    if not 0 <= matched <= total or not 0 < chance_ppm <= MILLION:
        raise ValueError(f"{matched} of {total} at a chance of {chance_ppm} ppm is not a count")
    hit, miss, whole = _odds(chance_ppm)
    term = tail = comb(total, matched) * hit**matched * miss ** (total - matched)
    for right in range(matched, total):
        if not term:
            break
        term = term * (total - right) * hit // ((right + 1) * miss)
        tail += term
    return (tail if miss else whole**total), whole**total


@lru_cache(maxsize=8192)  # an audit asks for the same few hundred numbers of triggers again and again
def least_significant(total: int, factor: int, chance_ppm: int = HALF_PPM) -> int:
    """Least count whose exact p-value is at most 1 / factor.

    Returns:
        A count in [0, total + 1]; total + 1 when not even all of them are enough.
    """
    hit, miss, whole = _odds(chance_ppm)
    if not miss:
        return total + 1 if factor > 1 else 0
    # term: of the strings with exactly least - 1 right; tail: of those with as many or more
    least, term, limit = total + 1, hit**total, whole**total
    tail = term
    while least and tail * factor <= limit:
        least -= 1
        term = term * least * miss // ((total - least + 1) * hit)
        tail += term
    return least


def p_value(matched: int, total: int, chance_ppm: int = HALF_PPM) -> str:
    """Exact binomial tail, rounded up to three digits, spelled like "2.20e-23".

    Integer arithmetic only: the same spelling on every machine.
    """
    numerator, denominator = binomial_tail(matched, total, chance_ppm)
    exponent = 0
    while numerator < denominator:
        numerator, exponent = numerator * 10, exponent - 1
    digits = -(-100 * numerator // denominator)
    if digits == 1000:
        digits, exponent = 100, exponent + 1
    return f"{digits // 100}.{digits % 100:02d}e{exponent}"


def _odds(chance_ppm: int) -> tuple[int, int, int]:
    """A match, a miss and their sum, in the smallest integers of their proportion."""
    common = gcd(chance_ppm, MILLION)
    return chance_ppm // common, (MILLION - chance_ppm) // common, MILLION // common
