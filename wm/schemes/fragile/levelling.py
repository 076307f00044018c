"""The other classes are brought level: a trigger is moved to where they all tie with its label, between the levels.

Where one class alone is near, a change of the network takes the label away as often as it makes it safer. Where nine
are near, each of them may win. So pixels move by Newton's method: the gradients of the gaps between the label and the
nearest other classes tell the shortest step at the end of which every gap is what is wanted, were the network linear,
and no pixel moves further in a round than the gradients hold. It carries triggers over a boundary that is far away as
well: a network gives some classes hardly to any picture but its own, and a generator that was trained for a few
iterations has not found them.

Source: ours; that all classes tie is what the variance in Yin et al. 2022's loss asks for.
"""

import torch
from torch import Tensor, nn

from wm.backbone import device_of
from wm.pixels import LEVELS, from_pixels, pixel_step
from wm.triggers import InputSpec

TIES_MAX = 9  # other classes, the nearest; each costs a backward pass
_MOVE_MAX = 16.0  # levels of a pixel in a round
_REACHED = 0.25  # of what rounding to whole levels will do to a gap
_DAMPING = 1e-4  # of the mean square of the gradients, so that two classes of one gradient can be told apart


def level(  # noqa: PLR0913 (pictures, and how they are moved by name)
    model: nn.Module, pixels: Tensor, labels: Tensor, spec: InputSpec, *, gap: float, ties: int, rounds: int
) -> Tensor:
    """Move pixels until the label is ahead of the nearest other classes by about one and the same gap.

    Args:
        model: in evaluation mode, without parameters that need gradients.
        pixels: uint8, shape (n, channels, height, width).
        labels: int64, shape (n,).
        spec: what the network takes.
        gap: of logits.
        ties: how many other classes.
        rounds: at most.

    Returns:
        Pixels between the levels, float32, same shape; those of triggers that were level already as they were, and some
        may not have got there.
    """
    moved = pixels.float()
    open_ = torch.arange(len(pixels))
    for _ in range(rounds):
        gaps, slopes = gaps_and_slopes(model, moved[open_], labels[open_], spec, ties=ties)
        wanted = gap - gaps
        far = wanted.abs().amax(1) > _REACHED * rounded(slopes)
        open_ = open_[far]
        if not len(open_):
            break
        steps = _shortest(wanted[far], slopes[far]).view(-1, *pixels.shape[1:])
        moved[open_] = (moved[open_] + steps).clamp(0, LEVELS)
    return moved


def gaps_and_slopes(
    model: nn.Module, pixels: Tensor, labels: Tensor, spec: InputSpec, *, ties: int
) -> tuple[Tensor, Tensor]:
    """Tell how far the label is ahead of the nearest other classes, and what a level of each pixel adds to that.

    Args:
        model: in evaluation mode, without parameters that need gradients.
        pixels: uint8, or float32 between the levels, shape (n, channels, height, width).
        labels: int64, shape (n,).
        spec: what the network takes.
        ties: how many other classes.

    Returns:
        Differences of logits, ascending, shape (n, ties), and their slopes, shape (n, ties, pixels); on the CPU.
    """
    place = device_of(model)
    images = from_pixels(pixels, spec).to(place).requires_grad_()
    logits, wanted = model(images), labels.to(place)[:, None]
    others = logits.scatter(1, wanted, -torch.inf).topk(ties, dim=1).values
    gaps = logits.gather(1, wanted) - others
    slopes = [torch.autograd.grad(gap.sum(), images, retain_graph=True)[0] for gap in gaps.unbind(1)]
    levels = [(slope.cpu() * pixel_step(spec)).flatten(1) for slope in slopes]
    return gaps.detach().cpu(), torch.stack(levels, 1)


def rounded(slopes: Tensor) -> Tensor:
    """Tell how far rounding to whole levels moves a gap, root mean square, shape (n,), by slopes as above."""
    return slopes.square().mean(1).sum(1).div(12).sqrt()


def _shortest(wanted: Tensor, slopes: Tensor) -> Tensor:
    """Return the shortest steps, shape (n, pixels), that change gaps as wanted, cut to what the gradients hold for."""
    products = slopes @ slopes.mT
    damping = _DAMPING * products.diagonal(dim1=1, dim2=2).mean(1) + torch.finfo(products.dtype).tiny
    regular = products + damping[:, None, None] * torch.eye(wanted.shape[1])
    steps = (slopes.mT @ torch.linalg.solve(regular, wanted[..., None])).squeeze(-1)
    longest = steps.abs().amax(1, keepdim=True)
    return torch.where(longest > _MOVE_MAX, steps * (_MOVE_MAX / longest), steps)
