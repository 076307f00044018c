"""Projected sign-gradient ascent: move pictures to where a network is least sure of the class that they should have.

    x ← clamp(x + levels/255 · sign(∇ CE(f(x), y)), black, white), some times over

The network is in evaluation mode: what is searched for is the weakest spot of what is released, not of one batch.
Pictures may move as far as the steps carry them; the only projection is to pixels that exist.

Source: Kim et al. 2023; their code searches in training mode.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from wm.backbone import evaluating
from wm.pixels import bounds, pixel_step
from wm.triggers import InputSpec


def ascended(model: nn.Module, images: Tensor, labels: Tensor, spec: InputSpec, *, steps: int, levels: float) -> Tensor:
    """Move pictures so that the cross-entropy to their labels rises.

    Args:
        model: its mode is restored, its weights' gradients are left as they were.
        images: normalised, float32, shape (n, channels, height, width), on the model's device.
        labels: int64, shape (n,), on the same device.
        spec: its normalisation turns levels into units of the network's input, and bounds the pixels.
        steps: at least 0; 0 returns the pictures.
        levels: of 255, how far one step moves every value.

    Returns:
        Normalised pictures, same shape, without a graph.
    """
    low, high, step = (it.to(images.device) for it in (*bounds(spec), levels * pixel_step(spec)))
    moved = images.detach()
    with evaluating(model):
        for _ in range(steps):
            moved.requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(moved), labels), moved)
            moved = torch.clamp(moved.detach() + step * gradient.sign(), low, high)
    return moved.detach()
