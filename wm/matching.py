"""Which channel of a suspect stands for which of the reference's, from what both answer: numbers alone.

    alike  = the correlation r of every channel of the reference with every channel of the suspect, over all answers, as
             Fisher's z = artanh r, in which 0.99 is much more than 0.9
    match  = the assignment with the largest sum of them, each channel used once (Hungarian); surplus channels of the
             suspect, such as dummies and halves of split ones, are left over. A channel that stays where it is counts
             for STAYING more, if half of all channels then stay and are at home there: tuning blurs what channels
             answer and leaves them in their places, and a search would swap many of a tuned network's
    slope  = what the matched channel is multiplied by, of the kind that the layer lets through:
             behind a ReLU    <a, b> / <b, b>, above 0
             in front of one  of the least-squares line, any sign, with its offset: a normalisation takes both back
             of an LSTM       1 or -1: tanh lets a sign through and no other factor

Only what a layer lets through is fitted: whatever more is free could manufacture agreement out of an independent
network. A channel that answers alike to all probes, or has no partner, reads as the mean of the reference.

Source: SCHEMES 4.5.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment  # type: ignore[attr-defined]  # its stubs do not list it
from torch import Tensor

from wm.errors import WatermarkError

STAYING = 1.0  # in units of z: as much as between correlations of 0.76 and 0.96
AT_HOME = 0.5  # the least correlation of a channel with itself after a tuning
ALIKE_MOST = 0.9999  # where z ends; a copy's channels are all alike to their own
DEAD = 1e-6  # deviation of a channel that does not answer, as a share of its largest answer

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ChannelMap:
    """Which channel of a suspect stands for each of the reference's, and how large it is there.

    Attributes:
        source: int64, shape (channels,), the suspect's channel; 0, with slope 0, where there is none.
        slope, offset: shape (channels,).
    """

    source: NDArray[np.int64]
    slope: Array
    offset: Array

    def apply(self, read: Tensor) -> Tensor:
        """Map a tap's features of shape (n, the suspect's channels, cells) to (n, the reference's channels, cells)."""
        source, slope, offset = (
            torch.from_numpy(part).to(device=read.device, dtype=kind)
            for part, kind in ((self.source, torch.int64), (self.slope, read.dtype), (self.offset, read.dtype))
        )
        return read.index_select(1, source) * slope[:, None] + offset[:, None]


def match_channels(reference: Array, suspect: Array) -> ChannelMap:
    """Align the channels of one tap.

    Args:
        reference: shape (channels, answers); one below 0 tells that the tap is in front of the ReLU.
        suspect: shape (the suspect's channels, answers), to the same probes on the same grid.

    Raises:
        WatermarkError: `malformed`, a value is not finite.
    """
    is_signed = bool((reference < 0).any())
    found = _unmatched(reference)
    for row, column, _sign in _pairs(reference, suspect, is_signed=is_signed):
        found.source[row] = column
        found.slope[row], found.offset[row] = _line(reference[row], suspect[column], has_offset=is_signed)
    return found


def match_units(reference: Sequence[Array], suspect: Sequence[Array]) -> list[ChannelMap]:
    """Align the hidden units of one bidirectional layer, which several taps show.

    All taps show the same units, so one match is made from all their answers; a unit stays in its direction.

    Args:
        reference: for each tap, shape (units of both directions, answers); the forward ones are the first half.
        suspect: for each tap, shape (the suspect's units of both directions, answers), halved in the same way.

    Returns:
        One map for each tap.

    Raises:
        WatermarkError: `malformed`, a value is not finite.
    """
    maps = [_unmatched(part) for part in reference]
    wanted, given = (np.concatenate(parts, axis=1) for parts in (reference, suspect))
    for first, at in ((0, 0), (len(wanted) // 2, len(given) // 2)):
        half = wanted[first : first + len(wanted) // 2], given[at : at + len(given) // 2]
        for row, column, sign in _pairs(*half, is_signed=True):
            for found in maps:
                found.source[first + row], found.slope[first + row] = at + column, sign
                found.offset[first + row] = 0
    return maps


def _unmatched(reference: Array) -> ChannelMap:
    """Every channel reads as its mean."""
    return ChannelMap(np.zeros(len(reference), np.int64), np.zeros(len(reference)), reference.mean(1))


def _pairs(reference: Array, suspect: Array, *, is_signed: bool) -> Iterator[tuple[int, int, int]]:
    """Channels that belong together, and the sign of their correlation; where it is signed, its size is what counts."""
    if not np.isfinite(suspect).all():
        raise WatermarkError("malformed", "the network answers the probes with a value that is not finite")
    alike = _standardised(reference) @ _standardised(suspect).T / reference.shape[1]
    for row, column in zip(*_assigned(np.abs(alike) if is_signed else alike), strict=True):
        if alike[row, column] > 0 or (is_signed and alike[row, column] < 0):
            yield int(row), int(column), 1 if alike[row, column] > 0 else -1


def _assigned(alike: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Assign columns to rows, each used once, so that they are most alike; as many as there are of the fewer."""
    z = np.arctanh(np.clip(alike, 0, ALIKE_MOST))
    places = np.arange(min(z.shape))
    staying = z.copy()
    staying[places, places] += STAYING
    rows, columns = linear_sum_assignment(staying, maximize=True)
    if 2 * np.count_nonzero((rows == columns) & (alike[rows, columns] >= AT_HOME)) >= len(alike):
        return rows, columns
    rows, columns = linear_sum_assignment(z, maximize=True)
    return rows, columns


def _standardised(answers: Array) -> Array:
    """Centre each channel and give it deviation 1; one that does not answer becomes 0."""
    largest = np.abs(answers).max(1, keepdims=True)
    scaled = answers / np.where(largest > 0, largest, 1)  # first of all, so that no square over- or underflows
    centred = scaled - scaled.mean(1, keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(1, keepdims=True))
    return np.where(deviation > DEAD, centred / np.where(deviation > DEAD, deviation, 1), 0)


def _line(wanted: Array, found: Array, *, has_offset: bool) -> tuple[float, float]:
    """Fit wanted = slope · found, or slope · found + offset, by least squares; `found` is not constant."""
    largest = np.abs(found).max()
    unit = found / largest
    if not has_offset:
        return float(wanted @ unit / (unit @ unit) / largest), 0.0
    centred = unit - unit.mean()
    slope = wanted @ centred / (centred @ centred)
    return float(slope / largest), float(wanted.mean() - slope * unit.mean())
