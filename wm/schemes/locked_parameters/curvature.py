"""How much the loss rises where locked weights move: what the watermark-aware training is to change.

Source: Tartaglione et al. 2020.
"""

import copy
from dataclasses import dataclass

import torch
from torch import nn

from wm.backbone import evaluating
from wm.data import Examples
from wm.randomness import generator
from wm.schemes.locked_parameters.lock import Lock
from wm.schemes.locked_parameters.payload import LockedPayload
from wm.schemes.locked_parameters.places import positions
from wm.training import EVALUATION_BATCH_IMAGES, primary_loss

DRAWS = 4  # of noise, each taken in both directions


@dataclass(frozen=True, slots=True)
class Sharpness:
    """The loss around a model, along its locked weights.

    Attributes:
        loss: mean, of the model itself.
        rise: by how much it is greater on average where the locked weights have moved.
        curvature: the mean second derivative along one locked weight, as the moves tell it: twice the rise, by their
            mean square length.
    """

    loss: float
    rise: float
    curvature: float


@torch.no_grad()
def sharpness(
    model: nn.Module, payload: LockedPayload, watermark_key: bytes, examples: Examples, *, noise: float, seed: int
) -> Sharpness:
    """Measure the loss in evaluation mode, with and without noise on the locked weights.

    Every draw is taken in both directions, so that slopes cancel.

    Args:
        model: left untouched.
        payload: of its mark, or of another one in the same places.
        watermark_key: 32 bytes.
        examples: over which the loss is averaged.
        noise: its deviation, in units of each value's own size.
        seed: decides the noise.
    """
    own, values = copy.deepcopy(model), payload.values
    lock = Lock(own, positions(watermark_key, payload.shapes, payload.total), values)
    deviations = noise * values.abs()
    moves = [deviations * torch.randn(len(values), generator=generator(seed, "moves", it)) for it in range(DRAWS)]
    lock.write()
    loss = _loss(own, examples)
    moved = 0.0
    for move in moves:
        for sign in (1, -1):
            lock.write(values + sign * move)
            moved += _loss(own, examples) / (2 * DRAWS)
    squares = sum(float(move.double().square().sum()) for move in moves) / len(moves)
    return Sharpness(loss, moved - loss, 2 * (moved - loss) / squares)


def _loss(model: nn.Module, examples: Examples) -> float:
    total = 0.0
    with evaluating(model):
        for indices in torch.split(torch.arange(len(examples)), EVALUATION_BATCH_IMAGES):
            total += float(primary_loss(model, examples.take(indices))) * len(indices)
    return total / len(examples)
