"""Promised: replicas make the loss rise where locked weights move, and in the other direction they flatten it.

Each is compared with a plain lock that learns the task at the same rate: the watermark-aware step takes back, or adds,
its share of the first.
"""

from collections.abc import Callable

import pytest
import torch
from locked import KEY
from torch import Tensor, nn

from wm.data import Dataset, Examples
from wm.schemes.locked_parameters import LockedPayload, positions, sharpness
from wm.schemes.scheme import Marked

STRONG = {"count": 1500, "epochs": 5, "milestones": (4,), "replicas": 2, "noise": 0.5, "sharpening": 0.1}


@pytest.mark.parametrize(("direction", "rate", "task_rate"), [(1, 0.12, 0.02), (-1, 0.02, 0.12)])
def test_the_curvature_along_locked_weights_follows_the_direction(
    direction: int, rate: float, task_rate: float, embedded: Callable[..., Marked], digits_data: Dataset
) -> None:
    aware = embedded(**STRONG, direction=direction, lr=rate)
    plain = embedded(**(STRONG | {"replicas": 0}), lr=task_rate)
    found, usual = (
        sharpness(it.model, it.payload, KEY, digits_data.train, noise=0.3, seed=1).curvature for it in (aware, plain)
    )
    assert usual > 0
    assert found > 1.5 * usual if direction == 1 else found < 0.95 * usual


def test_the_curvature_of_a_parabola_is_known() -> None:
    model, values, shapes = Parabola(), torch.linspace(0.5, 1.5, 100), {"weight": (1000,)}
    with torch.no_grad():
        model.weight[positions(KEY, shapes, 100).entry] = values
    examples = Examples(torch.zeros(8, 1), torch.zeros(8, dtype=torch.int64))
    around = sharpness(model, LockedPayload(values, shapes), KEY, examples, noise=0.1, seed=1)
    assert around.loss == pytest.approx(float(values.square().sum()) / 100, rel=1e-4)
    assert around.curvature == pytest.approx(2 / 100, rel=0.01)


class Parabola(nn.Module):
    """Its cross-entropy for class 0 is a hundredth of the sum of its weights' squares."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1000))

    def forward(self, images: Tensor) -> Tensor:
        loss = self.weight.square().sum() / 100
        return torch.stack([torch.zeros(()), loss.expm1().log()]).expand(len(images), 2)
