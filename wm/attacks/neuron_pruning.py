"""Neuron pruning: the filters with the smallest weights are cut off, the same share of every layer.

A filter is cut off by zeroing it together with the batch normalisation behind it, so that its channel is 0 for every
picture.

Source: Li et al. 2017 (filters by their L1 norm); Li et al. 2022, section 4.3 ("NP").
"""

import torch
from torch import Tensor, nn

from wm.attacks.attack import Attack, Scale, Stolen
from wm.progress import ProgressCallback
from wm.symmetries.channels import neurons


@torch.no_grad()
def cut_off(convolution: nn.Conv2d, normalisation: nn.Module | None, filters: Tensor) -> None:
    """Zero filters and what the batch normalisation behind them makes of them, in place; `filters` are indices."""
    for layer in (convolution, normalisation):
        for value in (getattr(layer, "weight", None), getattr(layer, "bias", None)):
            if value is not None:
                value[filters] = 0


def _run(stolen: Stolen, share: float, _seed: int, _progress: ProgressCallback) -> nn.Module:
    for convolution, normalisation in neurons(stolen.model):
        sizes = convolution.weight.detach().abs().sum((1, 2, 3))
        cut_off(convolution, normalisation, sizes.argsort(stable=True)[: round(share * len(sizes))])
    return stolen.model


NEURON_PRUNING = Attack(
    name="neuron_pruning",
    summary="cut off the filters with the smallest weights",
    scale=Scale(
        unit="share of every layer's filters",
        weakest=0.0,
        strongest=0.99,
        usual=(0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5),
    ),
    run=_run,
)
