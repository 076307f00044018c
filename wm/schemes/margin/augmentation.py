"""Shift and mirror pictures, as the paper's training does with the task's own.

Source: the code of Kim et al. 2023; its padding is black as well.
"""

import torch
from torch import Generator, Tensor

from wm.pixels import bounds
from wm.triggers import InputSpec


def augmented(images: Tensor, spec: InputSpec, *, shift: int, mirrored: bool, source: Generator) -> Tensor:
    """Shift each picture and mirror half of them.

    Args:
        images: normalised, float32, shape (n, channels, height, width), on the CPU.
        spec: says what black is.
        shift: pixels, at most so many in each direction, at least 0.
        mirrored: whether left and right are swapped in about half of them.
        source: of the draws.

    Returns:
        As many pictures of the same size.
    """
    if shift:
        images = _shifted(images, spec, shift, source)
    if mirrored:
        swap = torch.rand(len(images), generator=source) < 0.5
        images = torch.where(swap[:, None, None, None], images.flip(3), images)
    return images


def _shifted(images: Tensor, spec: InputSpec, shift: int, source: Generator) -> Tensor:
    black, _ = bounds(spec)
    total, channels, height, width = images.shape
    padded = black.expand(total, channels, height + 2 * shift, width + 2 * shift).clone()
    padded[:, :, shift:-shift, shift:-shift] = images
    corners = torch.randint(2 * shift + 1, (len(images), 2), generator=source).tolist()
    rows = [
        picture[:, top : top + height, left : left + width]
        for picture, (top, left) in zip(padded, corners, strict=True)
    ]
    return torch.stack(rows)
