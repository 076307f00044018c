"""Pictures as their pixels, of 8 bits each: what a file, a PNG and a prediction endpoint hold of them.

Black-box watermarks are sets of pictures that are shown to a suspect, who may sit behind an endpoint. So they are kept
as the bytes that everybody sends, and normalised only where a network is at hand. What a scheme optimises in floating
point is rounded to these bytes before it is used for anything.
"""

import torch
from torch import Tensor

from wm.triggers import InputSpec

LEVELS = 255


def to_pixels(images: Tensor, spec: InputSpec) -> Tensor:
    """Undo the normalisation and round to 8 bits.

    Args:
        images: normalised, float32, shape (n, channels, height, width), on any device.
        spec: what the network takes.

    Returns:
        uint8, same shape, on the CPU; what lies outside [0, 1] is clamped.
    """
    mean, std = (_per_channel(values) for values in (spec.normalisation.mean, spec.normalisation.std))
    unit = (images.detach().cpu() * std + mean).clamp(0, 1)
    return (unit * LEVELS).round().to(torch.uint8)


def from_pixels(pixels: Tensor, spec: InputSpec) -> Tensor:
    """Normalise pictures as the network takes them.

    Args:
        pixels: uint8, or float32 between the levels, shape (n, channels, height, width).
        spec: what the network takes.

    Returns:
        float32, same shape, on the CPU, equal on every machine.
    """
    return spec.normalisation.apply(pixels.cpu().float() / LEVELS)


def pixel_step(spec: InputSpec) -> Tensor:
    """Return how far one level of a pixel is in normalised units, float32, shape (channels, 1, 1)."""
    return 1 / (LEVELS * _per_channel(spec.normalisation.std))


def bounds(spec: InputSpec) -> tuple[Tensor, Tensor]:
    """Return the normalised values of a black and of a white pixel, float32, shape (channels, 1, 1) each."""
    mean, std = (_per_channel(values) for values in (spec.normalisation.mean, spec.normalisation.std))
    return -mean / std, (1 - mean) / std


def _per_channel(values: tuple[str, ...]) -> Tensor:
    return torch.tensor([float(value) for value in values])[:, None, None]
