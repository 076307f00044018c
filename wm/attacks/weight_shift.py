"""Weight shift: move every filter by its layer's mean filter and by noise, then repair the task by fine-tuning.

    w <- w - strength · (mean over the layer's filters + standard deviation of the layer · N(0, 1))

Source: Lukas et al. 2022, "weight shifting"; their factors of the two parts, 1.5 and 1, are here one strength.
"""

import torch
from torch import nn

from wm.attacks.attack import Attack, Scale, Stolen
from wm.attacks.tuning import EPOCHS, LR, Tuning, tune
from wm.progress import ProgressCallback
from wm.randomness import generator


@torch.no_grad()
def shift(model: nn.Module, strength: float, *, seed: int) -> None:
    """Shift every convolutional filter of a model in place."""
    noise = generator(seed, "weight shift")
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            weight = module.weight
            drawn = torch.randn(weight.shape, generator=noise).to(weight.device)
            weight.sub_(strength * (weight.mean(0) + weight.std() * drawn))


def _run(stolen: Stolen, strength: float, seed: int, progress: ProgressCallback) -> nn.Module:
    shift(stolen.model, strength, seed=seed)
    return tune(stolen.model, stolen.data.train, Tuning(seed=seed), progress)


WEIGHT_SHIFT = Attack(
    name="weight_shift",
    summary="move every filter by the mean filter and by noise, then fine-tune",
    scale=Scale(
        unit=f"deviations of the layer, before {EPOCHS} epochs at {LR:g}",
        weakest=0.01,
        strongest=10.0,
        usual=(0.05, 0.1, 0.2, 0.5, 1.0),
    ),
    run=_run,
)
