"""Pixels of 8 bits are moved by single levels until every trigger's margin lies where it should.

The generator's triggers lie somewhere near the boundary, some on its wrong side: a network gives some classes hardly to
any picture but its own, and a generator that was trained for a few iterations has not found them. First, therefore, all
pixels of a trigger below the band climb the gradient of the label's log-posterior, a level a round, until it is above.
The log-posterior and not the margin, which is the distance to one other class and turns to and fro between two.

Then the triggers come down into the band. Rounding to 8 bits moves them by more than the margin that is wanted. So in
rounds: the gradient of a trigger's margin tells what one level of each pixel does to it, and pixels are chosen
greedily, one level each, that bring it to the target: at each step the one whose effect is nearest to what is still
missing. There are thousands of pixels, of all effects down to almost none, so that a few levels hit a target far finer
than one level of one pixel. It does for what is near alone: a hundred pixels a round do not carry a trigger over a
boundary that is far away.

Source: ours.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from wm.backbone import device_of
from wm.pixels import LEVELS, from_pixels, pixel_step
from wm.schemes.fragile.numerics import margins_of
from wm.schemes.scheme import ClassTriggers
from wm.triggers import InputSpec

_MOVES_MAX = 100  # levels by which a trigger moves in a round: the gradient holds for few


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


def polish(
    model: nn.Module, triggers: ClassTriggers, spec: InputSpec, *, band: Band, rounds: int, batch: int
) -> ClassTriggers:
    """Move pixels until margins lie in a band.

    Args:
        model: in evaluation mode, without parameters that need gradients.
        triggers: to begin with; left as they are.
        spec: what the network takes.
        band: where margins should lie.
        rounds: at most, of climbing and of polishing each.
        batch: triggers in memory at once.

    Returns:
        The same triggers with other pixels; the margins of some may lie outside, where the rounds were too few.
    """
    pixels = triggers.pixels.clone()
    for part in torch.split(torch.arange(len(triggers)), batch):
        _climb(model, pixels, triggers.labels, spec, part, least=band.least, rounds=rounds)
        open_ = part
        for _ in range(rounds):
            margins, slopes = _margins_and_slopes(model, pixels[open_], triggers.labels[open_], spec)
            wanting = ~band.holds(margins)
            open_ = open_[wanting]
            if not len(open_):
                break
            pixels[open_] = _moved(pixels[open_], band.target - margins[wanting], slopes[wanting])
    return ClassTriggers(pixels, triggers.labels)


def _climb(  # noqa: PLR0913 (the state of a loop)
    model: nn.Module, pixels: Tensor, labels: Tensor, spec: InputSpec, part: Tensor, *, least: float, rounds: int
) -> None:
    """Move all pixels of a part's triggers, in place, a level a round, until no margin is below the least."""
    place = device_of(model)
    for _ in range(rounds):
        images = from_pixels(pixels[part], spec).to(place).requires_grad_()
        logits, wanted = model(images), labels[part].to(place)
        below = (margins_of(logits.detach(), wanted) < least).cpu()
        if not bool(below.any()):
            break
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, wanted, reduction="sum"), images)
        part = part[below]
        # A pixel's step is positive, so that the signs are those of the slopes.
        steps = -gradient.cpu()[below].sign().to(torch.int16)
        pixels[part] = (pixels[part].to(torch.int16) + steps).clamp(0, LEVELS).to(torch.uint8)


def _margins_and_slopes(model: nn.Module, pixels: Tensor, labels: Tensor, spec: InputSpec) -> tuple[Tensor, Tensor]:
    """Margins, shape (n,), and what one level more of each pixel adds to them, shape (n, pixels)."""
    place = device_of(model)
    images = from_pixels(pixels, spec).to(place).requires_grad_()
    margins = margins_of(model(images), labels.to(place))
    (gradient,) = torch.autograd.grad(margins.sum(), images)
    return margins.detach().cpu(), (gradient.cpu() * pixel_step(spec)).flatten(1)


def _moved(pixels: Tensor, wanted: Tensor, slopes: Tensor) -> Tensor:
    """Choose pixels, a level each, whose slopes add up to what is wanted, shape (n,)."""
    flat, rows = pixels.flatten(1).to(torch.int16), torch.arange(len(pixels))
    wanted, untouched = wanted.clone(), torch.ones_like(slopes, dtype=torch.bool)
    for _ in range(_MOVES_MAX):
        goes_up = wanted[:, None] * slopes > 0
        can = untouched & (slopes != 0) & torch.where(goes_up, flat < LEVELS, flat > 0)
        left = torch.where(can, (wanted.abs()[:, None] - slopes.abs()).abs(), torch.inf)
        least, chosen = left.min(1)
        moves = least < wanted.abs()
        if not bool(moves.any()):
            break
        signs = torch.where(goes_up[rows, chosen], 1, -1) * moves
        flat[rows, chosen] += signs.to(torch.int16)
        wanted -= signs * slopes[rows, chosen]
        untouched[rows[moves], chosen[moves]] = False
    return flat.to(torch.uint8).view(pixels.shape)
