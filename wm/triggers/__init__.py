"""The watermark data set D_WM: pictures and the labels that the branch must give them.

Source: Li et al. 2022, section 3.2: D_WM = {(π[i], l[i])}, rebuilt by every verifier from the key alone.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from wm.triggers import prg, qr

# Public: its pictures calibrate control models and must tell nothing about any owner's triggers.
PROBE_KEY = hashlib.sha256(b"wmreg-probe-v1").digest()
PROBES = 256


@dataclass(frozen=True, slots=True)
class Normalisation:
    """What the model's own preprocessing does to a pixel in [0, 1]: (pixel - mean) / std, per channel.

    Decimal strings, since they are hashed as part of `info` and a float has many spellings.
    """

    mean: tuple[str, ...]
    std: tuple[str, ...]

    def apply(self, images: Tensor) -> Tensor:
        """Normalise images of shape (n, channels, height, width) with pixels in [0, 1]."""
        mean = torch.tensor([float(value) for value in self.mean])
        std = torch.tensor([float(value) for value in self.std])
        return (images - mean[:, None, None]) / std[:, None, None]


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The tensor that the model takes: its size in pixels and its normalisation."""

    channels: int
    height: int
    width: int
    normalisation: Normalisation


@dataclass(frozen=True, slots=True)
class Triggers:
    """D_WM: normalised images, float32, shape (N, channels, height, width), and labels, bool, shape (N,)."""

    images: Tensor
    labels: Tensor


def make_triggers(watermark_key: bytes, spec: InputSpec, *, count: int) -> Triggers:
    """Derive D_WM from the watermark key.

    Args:
        watermark_key: 32 bytes.
        spec: what the model takes; height and width at least 21.
        count: N, in [2, 1024].

    Returns:
        The triggers, on the CPU, equal on every machine.

    Raises:
        ValueError: the key, the count or the input size is out of range.
    """
    dark = qr.symbols(prg.distinct_integers(watermark_key, count))
    images = qr.render(dark, channels=spec.channels, height=spec.height, width=spec.width)
    labels = torch.from_numpy(prg.label_bits(watermark_key, count))
    return Triggers(spec.normalisation.apply(images), labels)


def make_probes(spec: InputSpec, *, count: int = PROBES) -> Tensor:
    """Draw public probes: float32, shape (count, channels, height, width)."""
    return make_triggers(PROBE_KEY, spec, count=count).images
