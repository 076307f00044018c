"""The watermark data set D_WM: pictures or texts, and the labels that the branch must give them.

What a network takes is one of two specifications, `InputSpec` for pictures and `TextSpec` for texts; `Spec` is either.
Both draw triggers from integers and outline an input, so that nothing behind them asks which one it is.

Source: Li et al. 2022, section 3.2: D_WM = {(π[i], l[i])}, rebuilt by every verifier from the key alone.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wm.triggers import prg, qr, words

TEXT_LENGTH = 64  # tokens of a trigger, an eighth of the authors': a node's work grows with it
# Public: its triggers calibrate control models and must tell nothing about any owner's triggers.
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

    def __str__(self) -> str:
        return f"{self.channels} x {self.height} x {self.width}"

    def outline(self) -> Tensor:
        """Return an input without storage, shape (1, channels, height, width), on the meta device."""
        return torch.empty(1, self.channels, self.height, self.width, device="meta")

    def draw(self, integers: NDArray[np.uint32]) -> Tensor:
        """Map integers to normalised QR codes, float32, shape (n, channels, height, width)."""
        black, white = self.normalisation.apply(torch.tensor([0.0, 1.0])[:, None, None, None]).flatten(1)
        dark = qr.symbols(integers)
        return qr.render(
            dark,
            black=black.expand(self.channels),
            white=white.expand(self.channels),
            height=self.height,
            width=self.width,
        )


@dataclass(frozen=True, slots=True)
class TextSpec:
    """The rows of token ids that the model takes.

    Attributes:
        length: tokens of a trigger; a recurrent network takes texts of other lengths as well.
        vocabulary: number of token ids: 0 is padding, 1 an unknown word, the words follow.
        words_sha256: of the word list's file, so that a claim says which words the ids mean; nodes need it not.
    """

    length: int
    vocabulary: int
    words_sha256: str

    def __str__(self) -> str:
        return f"{self.length} tokens of {self.vocabulary}"

    def outline(self) -> Tensor:
        """Return an input without storage, int64, shape (1, 1), on the meta device.

        Of one token: no tap's shape depends on the length, and without storage torch runs a recurrent network step by
        step in Python, which would take a node 40 s for the longest texts that an info may ask for.
        """
        return torch.empty(1, 1, dtype=torch.int64, device="meta")

    def draw(self, integers: NDArray[np.uint32]) -> Tensor:
        """Map integers to texts, token ids, int64, shape (n, length)."""
        return words.texts(integers, vocabulary=self.vocabulary, length=self.length)


Spec = InputSpec | TextSpec


@dataclass(frozen=True, slots=True)
class Triggers:
    """D_WM.

    Attributes:
        images: what the network is shown: normalised pictures, float32, shape (N, channels, height, width), or
            texts as token ids, int64, shape (N, length).
        labels: bool, shape (N,).
    """

    images: Tensor
    labels: Tensor


def make_triggers(watermark_key: bytes, spec: Spec, *, count: int) -> Triggers:
    """Derive D_WM from the watermark key.

    Args:
        watermark_key: 32 bytes.
        spec: what the model takes; a picture's height and width at least 21.
        count: N, in [2, 1024].

    Returns:
        The triggers, on the CPU, equal on every machine.

    Raises:
        ValueError: the key, the count or the input size is out of range.
    """
    images = spec.draw(prg.distinct_integers(watermark_key, count))
    labels = torch.from_numpy(prg.label_bits(watermark_key, count))
    return Triggers(images, labels)


def make_probes(spec: Spec, *, count: int = PROBES) -> Tensor:
    """Draw public probes: as many pictures or texts as `count`, shaped as triggers are."""
    return make_triggers(PROBE_KEY, spec, count=count).images
