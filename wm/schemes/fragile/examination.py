"""What the triggers are worth: how fragile they are on the model that they were made for.

A suspect is INTACT if it gives every trigger its label, else TAMPERED; a black box will do. There is no p-value: the
triggers are so near the boundary that what computes something else flips some of them, and margins so far above the
numeric noise that what computes the same flips none.

How near they really are, only the untouched model tells. An owner could publish pictures that every changed copy
answers alike, and call all of them INTACT, or such that his own model does not answer, and call everybody's TAMPERED.
Whoever holds the published model therefore examines the triggers on it before he believes a verdict. What no
examination finds are triggers near the boundary that were chosen to survive one change that the owner planned
beforehand. Against that a customer makes triggers of his own, with a key of his own: the model needs no change for it.

Source: Yin et al. 2022, "verifying"; the examination is ours.
"""

import copy
from dataclasses import dataclass

import torch
from torch import nn

from wm.pixels import from_pixels
from wm.randomness import generator
from wm.schemes.fragile.numerics import measure
from wm.schemes.scheme import ClassTriggers, matches
from wm.triggers import InputSpec
from wm.weight_layers import prunable

# In units of the margin that the noise asks for. An owner keeps 1 to 1.5; another machine draws other noise.
STABLE_LEAST, FRAGILE_MOST = 0.5, 4.0
NOISE_FACTOR = 10.0
SCALES = tuple(4.0**exponent for exponent in range(-10, 1))  # of a layer's root mean square


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """Triggers on the model that they were made for.

    Attributes:
        matched: answers that are the labels; all of them, or the triggers accuse everybody.
        total: of how many.
        margin_least, margin_most: of the logits, as measured here.
        noise_margin: what the numeric noise, as measured here, asks for.
    """

    matched: int
    total: int
    margin_least: float
    margin_most: float
    noise_margin: float

    @property
    def is_stable(self) -> bool:
        """Whether numeric noise flips none: every label is given, by a margin well above it."""
        return self.matched == self.total and self.margin_least >= STABLE_LEAST * self.noise_margin

    @property
    def is_fragile(self) -> bool:
        """Whether every trigger lies near the boundary."""
        return self.margin_most <= FRAGILE_MOST * self.noise_margin


def examine(model: nn.Module, triggers: ClassTriggers, spec: InputSpec, *, tolerates_tf32: bool) -> Examination:
    """Measure triggers on the untouched model.

    Args:
        model: that was published with them, in float32; left as it is.
        triggers: with the labels of the key.
        spec: what it takes.
        tolerates_tf32: as the payload says.
    """
    measured = measure(model, from_pixels(triggers.pixels, spec), triggers.labels, tf32=tolerates_tf32)
    return Examination(
        matched=int(matches(model, triggers, spec).sum()),
        total=len(triggers),
        margin_least=float(measured.margins.min()),
        margin_most=float(measured.margins.max()),
        noise_margin=measured.least(NOISE_FACTOR),
    )


@torch.no_grad()
def least_detectable(
    model: nn.Module, triggers: ClassTriggers, spec: InputSpec, *, seed: int
) -> dict[str, float | None]:
    """Tell of each convolution and linear layer how small a random change of its weights is detected.

    Args:
        model: the untouched model; left as it is.
        triggers: that it gives their labels.
        spec: what it takes.
        seed: decides the direction of each layer's change.

    Returns:
        By the layer's name the least of `SCALES`, in units of the root mean square of its weights, at which an answer
        flips; None where none of them does, such as in a layer that the triggers do not reach.
    """
    suspect = copy.deepcopy(model)
    names = {id(weight): name.removesuffix(".weight") for name, weight in suspect.named_parameters()}
    found: dict[str, float | None] = {}
    for weight in prunable(suspect):
        before, name = weight.clone(), names[id(weight)]
        drawn = torch.randn(weight.shape, generator=generator("least detectable", seed, name)).to(weight)
        direction = drawn * before.square().mean().sqrt()
        found[name] = None
        for scale in SCALES:
            weight.copy_(before + scale * direction)
            if not bool(matches(suspect, triggers, spec).all()):
                found[name] = scale
                break
        weight.copy_(before)
    return found
