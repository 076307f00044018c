"""Magnitude pruning: the smallest weights become 0.

Over all convolutional and linear weights at once, so that a layer of small weights loses more of them.

Source: Han et al. 2015; the authors of MTLSign zero every weight below 0.01, which is one strength of this.
"""

import torch
from torch import nn

from wm.attacks.attack import Attack, Scale, Stolen
from wm.progress import ProgressCallback
from wm.weight_layers import prunable


@torch.no_grad()
def _run(stolen: Stolen, share: float, _seed: int, _progress: ProgressCallback) -> nn.Module:
    weights = prunable(stolen.model)
    sizes = torch.cat([weight.abs().flatten() for weight in weights])
    pruned = round(share * len(sizes))
    if pruned:
        # By rank and not by a threshold: of equal weights, such as zeros, only as many as asked for.
        flat = torch.ones_like(sizes).index_fill_(0, sizes.argsort(stable=True)[:pruned], 0)
        for weight, kept in zip(weights, torch.split(flat, [weight.numel() for weight in weights]), strict=True):
            weight.mul_(kept.view(weight.shape))
    return stolen.model


MAGNITUDE_PRUNING = Attack(
    name="magnitude_pruning",
    summary="set the smallest weights to 0",
    scale=Scale(
        unit="share of the weights set to 0",
        weakest=0.0,
        strongest=0.999,
        usual=(0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99),
    ),
    run=_run,
)
