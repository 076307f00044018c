"""Quantisation: every weight becomes one of 2^bits evenly spaced values of its layer, with its least and greatest.

Of convolutional and linear layers; batch normalisation and biases stay, as they do in practice.

Source: Lukas et al. 2022, "weight quantization".
"""

import torch
from torch import nn

from wm.attacks.attack import Attack, Scale, Stolen
from wm.progress import ProgressCallback
from wm.weight_layers import prunable


@torch.no_grad()
def _run(stolen: Stolen, bits: float, _seed: int, _progress: ProgressCallback) -> nn.Module:
    for weight in prunable(stolen.model):
        least, most = weight.aminmax()
        step = (most - least) / (2 ** int(bits) - 1)
        if step > 0:
            weight.copy_(least + ((weight - least) / step).round() * step)
    return stolen.model


QUANTISATION = Attack(
    name="quantisation",
    summary="round the weights of each layer to evenly spaced values",
    scale=Scale(unit="bits a weight", weakest=16, strongest=1, usual=(8, 6, 5, 4, 3, 2), is_whole=True),
    run=_run,
)
