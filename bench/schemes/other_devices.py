"""What other devices might compute: variations of which triggers were not chosen.

An owner's triggers are kept by how far their margins move under `wm.schemes.fragile.numerics.variations`. Whether they
bear numeric noise is for others to tell: sums over channels in other orders, as other kernels take them, and batches of
other sizes, both with TF32 as well where the triggers are to bear it.
"""

import torch
from torch import Tensor, nn

from wm.randomness import generator
from wm.schemes.fragile.numerics import Logits, margins_of, variations
from wm.schemes.fragile.numerics import measure as measured_noise
from wm.schemes.fragile.other_sums import AnotherOrder

_BATCHES, _ORDERS = (3, 32), 12


def held_out(model: nn.Module, images: Tensor, labels: Tensor, *, tf32: bool) -> dict[str, float]:
    """Count the answers that flip over these variations, and tell how far the least margin is above their noise.

    Args:
        model: a classifier in float32 on the CPU; left as it is.
        images: normalised, shape (n, channels, height, width).
        labels: the answers that are right, int64, shape (n,).
        tf32: whether TF32 is among the variations.
    """
    margins = measured_noise(model, images, labels, tf32=False).margins  # in double precision
    computed = [logits(model, images) for logits in other_variations(tf32=tf32)]
    noise = max(float((margins_of(logits, labels) - margins).abs().max()) for logits in computed)
    return {
        "false alarms, held out": float(sum(int((logits.argmax(1) != labels).sum()) for logits in computed)),
        "least margin, in units of the noise held out": float(margins.min()) / noise,
    }


def other_variations(*, tf32: bool) -> list[Logits]:
    """Return ways to compute that no owner measures."""
    names = ("float32", "TF32, rounded")[: 1 + tf32]
    usual = variations(tf32=tf32)
    batches = [_in_batches(usual[name], images) for name in names for images in _BATCHES]
    return batches + [_in_another_order(usual[name], seed) for name in names for seed in range(_ORDERS)]


def _in_batches(logits: Logits, size: int) -> Logits:
    return lambda model, images: torch.cat([logits(model, part) for part in torch.split(images, size)])


def _in_another_order(logits: Logits, seed: int) -> Logits:
    def computed(model: nn.Module, images: Tensor) -> Tensor:
        with AnotherOrder(generator("sums in another order", seed)):
            return logits(model, images)

    return computed
