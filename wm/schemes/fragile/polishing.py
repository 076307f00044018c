"""Whole levels of pixels are moved one by one until every trigger's margin lies where it should.

First the nearest other classes are brought level with the label, between the levels of 8 bits. Rounding to these moves
each gap by more than the margin that is wanted. So in rounds: the gradients of the gaps tell what one level of each
pixel does to them, and pixels are chosen greedily, one level each: at each step the one that brings all gaps nearest to
what is wanted. There are thousands of pixels, of all effects down to almost none, so that some tens of levels hit a
target far finer than one level of one pixel.

The nearest class shall be hit exactly, since it is the margin; the others stay a typical level behind it, where they
cannot become nearest by what the greedy choice leaves over.

Source: ours.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wm.pixels import LEVELS
from wm.schemes.fragile.levelling import gaps_and_slopes, level
from wm.schemes.scheme import ClassTriggers
from wm.triggers import InputSpec

_MOVES_MAX = 150  # levels by which a trigger moves in a round: the gradient holds for few
_LEVEL_WITHIN = 4.0  # typical levels by which the furthest of the tying classes may be behind
_NEAREST_WEIGHT = 30.0  # of the nearest class, against each of the others


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Where margins should lie."""

    least: float
    most: float

    @property
    def target(self) -> float:
        """The middle, in proportion."""
        return math.sqrt(self.least * self.most)

    def holds(self, margins: Tensor) -> Tensor:
        """Tell which margins lie in it, bool, shape (n,)."""
        return (margins >= self.least) & (margins <= self.most)


def polish(  # noqa: PLR0913 (triggers, and how they are moved by name)
    model: nn.Module, triggers: ClassTriggers, spec: InputSpec, *, band: Band, ties: int, rounds: int, batch: int
) -> ClassTriggers:
    """Move pixels until margins lie in a band, and other classes near it.

    Args:
        model: in evaluation mode, without parameters that need gradients.
        triggers: to begin with; left as they are.
        spec: what the network takes.
        band: where margins should lie.
        ties: how many other classes shall be near, at least 1 and fewer than there are.
        rounds: at most, of levelling and of polishing each.
        batch: triggers in memory at once.

    Returns:
        The same triggers with other pixels; the margins of some may lie outside, where the rounds were too few.
    """
    pixels = triggers.pixels.clone()
    for part in torch.split(torch.arange(len(triggers)), batch):
        labels = triggers.labels[part]
        wanting = _wanting(*gaps_and_slopes(model, pixels[part], labels, spec, ties=ties), band)[0]
        open_ = part[wanting]
        if not len(open_):
            continue
        levelled = level(model, pixels[open_], triggers.labels[open_], spec, gap=band.target, ties=ties, rounds=rounds)
        pixels[open_] = levelled.round().to(torch.uint8)
        for _ in range(rounds):
            gaps, slopes = gaps_and_slopes(model, pixels[open_], triggers.labels[open_], spec, ties=ties)
            wanting, wanted = _wanting(gaps, slopes, band)
            open_ = open_[wanting]
            if not len(open_):
                break
            pixels[open_] = _moved(pixels[open_], wanted[wanting], slopes[wanting])
    return ClassTriggers(pixels, triggers.labels)


def _wanting(gaps: Tensor, slopes: Tensor, band: Band) -> tuple[Tensor, Tensor]:
    """Tell which triggers are not done, bool, shape (n,), and by how much each gap should grow, shape (n, ties)."""
    typical = slopes.square().mean((1, 2)).sqrt()
    goal = band.target + torch.cat([torch.zeros(len(gaps), 1), typical[:, None].expand(-1, gaps.shape[1] - 1)], 1)
    is_done = band.holds(gaps[:, 0]) & (gaps[:, -1] <= band.most + _LEVEL_WITHIN * typical)
    return ~is_done, goal - gaps


def _moved(pixels: Tensor, wanted: Tensor, slopes: Tensor) -> Tensor:
    """Choose pixels, a level each, whose slopes add up to what is wanted.

    Args:
        pixels: uint8, shape (n, channels, height, width).
        wanted: of each gap, shape (n, ties).
        slopes: what a level of each pixel adds, shape (n, ties, pixels).

    Returns:
        Other pixels of the same shape.
    """
    flat, rows = pixels.flatten(1).to(torch.int16), torch.arange(len(pixels))
    weights = torch.ones(wanted.shape[1])
    weights[0] = _NEAREST_WEIGHT
    left, slopes = wanted * weights, slopes * weights[:, None]
    squares = slopes.square().sum(1)
    untouched = squares > 0
    for _ in range(_MOVES_MAX):
        along = (slopes * left[..., None]).sum(1)
        goes_up = along > 0
        can = untouched & torch.where(goes_up, flat < LEVELS, flat > 0)
        # |left|² - |left ∓ slope|², what a move takes away.
        gain, chosen = torch.where(can, 2 * along.abs() - squares, -torch.inf).max(1)
        moves = gain > 0
        if not bool(moves.any()):
            break
        signs = torch.where(goes_up[rows, chosen], 1, -1) * moves
        flat[rows, chosen] += signs.to(torch.int16)
        left = left - signs[:, None] * slopes[rows, :, chosen]
        untouched[rows[moves], chosen[moves]] = False
    return flat.to(torch.uint8).view(pixels.shape)
