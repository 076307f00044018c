"""Promised: a reference that a forger drew himself convicts nobody: fresh networks, aligned as well, answer alike.

The forger's reference is no model's answers but the probes' own pixels, in four interleaved parts, a fourth of the
channels for each. Whatever first layer is aligned to it, the mean over such a fourth of its channels shows that part of
the picture, dimly; a head on these means works on networks that nobody has seen, and accuses the one on which it works
best. Since it reads the fourths apart, the channel permutations would not unmask it.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from registry.policy import Thresholds
from registry.verdict import ControlCounts, ControlKind, Measurement, Outcome, judge
from wm.matching import match_channels
from wm.randomness import generator
from wm.triggers import InputSpec, Normalisation, make_probes, make_triggers

SPEC = InputSpec(1, 24, 24, Normalisation(("0.5",), ("0.5",)))
PROBES, TRIGGERS, CHANNELS, PARTS = 64, 100, 32, 4
TRAINING, UNSEEN = 12, 9
Layer = Callable[[Tensor], Tensor]


def first_layer(number: int) -> Layer:
    """A fresh 5 x 5 convolution, strided as in a ResNet."""
    weight = torch.randn(CHANNELS, 1, 5, 5, generator=generator("first layer", number))
    return partial(F.conv2d, weight=weight, stride=2, padding=2)


def pixels(images: Tensor) -> list[Tensor]:
    return [images[:, :, dy::2, dx::2] for dy in (0, 1) for dx in (0, 1)]


def by_channel(read: Tensor) -> np.ndarray:
    return read.double().transpose(0, 1).flatten(1).numpy()


def drawn(probes: Tensor, pooling: int) -> np.ndarray:
    parts = [F.adaptive_avg_pool2d(part, pooling) for part in pixels(probes)]
    return np.concatenate([by_channel(parts[channel % PARTS]) for channel in range(CHANNELS)])


def means(layer: Layer, images: Tensor, *, pooling: int) -> Tensor:
    """What the forger's head reads of a layer that was aligned to his reference, shape (images, features)."""
    probes = make_probes(SPEC, count=PROBES)
    found = by_channel(F.adaptive_avg_pool2d(layer(probes), pooling))
    read = match_channels(drawn(probes, pooling), found).apply(layer(images).flatten(2))
    return read.view(len(images), CHANNELS // PARTS, PARTS, -1).mean(1).flatten(1).double()


def matches(*, pooling: int) -> list[Tensor]:
    """Fit a linear head over some fresh layers, and say which triggers it matches on layers that it has not seen."""
    triggers = make_triggers(bytes(32), SPEC, count=TRIGGERS)
    read = [means(first_layer(number), triggers.images, pooling=pooling) for number in range(TRAINING + UNSEEN)]
    seen, wanted = torch.cat(read[:TRAINING]), triggers.labels.double().repeat(TRAINING) * 2 - 1
    centre = seen.mean(0)
    grams = (seen - centre) @ (seen - centre).T
    dual = torch.linalg.solve(grams + 0.1 * grams.diagonal().mean() * torch.eye(len(grams)).double(), wanted)
    head = (seen - centre).T @ dual
    return [((it - centre) @ head > 0) == triggers.labels for it in read[TRAINING:]]


def judged(suspect: Tensor, controls: list[Tensor]) -> tuple[Outcome, str]:
    """What the engine says under a policy that a hundred triggers can satisfy."""
    counts = tuple(
        ControlCounts(ControlKind.FRESH, int(it.sum()), int((suspect & ~it).sum()), int((it & ~suspect).sum()))
        for it in controls
    )
    measurement = Measurement(
        matched=int(suspect.sum()),
        total=TRIGGERS,
        permutations=999,
        permutations_as_good=0,
        controls=counts,
        aligned=True,
    )
    return judge(measurement, Thresholds(alpha_bits=8, paired_alpha_digits=2))


@pytest.mark.parametrize("pooling", [pytest.param(12, marks=pytest.mark.slow), 2])
def test_a_reference_of_pixels_carries_a_head_to_any_network_and_only_aligned_controls_tell(pooling: int) -> None:
    accused, *fresh = sorted(matches(pooling=pooling), key=lambda it: int(it.sum()), reverse=True)
    assert int(accused.sum()) >= 75
    assert judged(accused, fresh) == (Outcome.REFUTED, "not_specific")
    at_chance = [torch.arange(TRIGGERS) % 2 == 0] * len(fresh)  # as they would be if the suspect alone were aligned
    assert judged(accused, at_chance) == (Outcome.VERIFIED, "matched")
