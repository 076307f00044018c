"""Neuron scaling: make channels larger where they are computed and smaller where they are read.

Positive factors pass through ReLU, pooling and sums, so the outputs stay what they were. Half of the factors lie
below 1.

Source: "NeuronScale" of the invariant neuron transforms.
"""

import math

import torch
from torch import nn

from wm.attacks.attack import Attack, Scale, Stolen
from wm.attacks.channels import free_streams
from wm.errors import WatermarkError
from wm.progress import ProgressCallback
from wm.randomness import generator


@torch.no_grad()
def _run(stolen: Stolen, largest: float, seed: int, _progress: ProgressCallback) -> nn.Module:
    source = generator(seed, "neuron scaling")
    held = stolen.model.state_dict()
    streams = [stream for stream in free_streams(stolen.model) if not stream.is_rigid]
    if not streams:
        raise WatermarkError("unknown_architecture", "no channels of this network can be scaled")
    for stream in streams:
        exponents = 2 * torch.rand(stream.channels, generator=source, dtype=torch.float64) - 1
        factors = torch.exp(exponents * math.log(largest))
        for name in stream.makers:
            made = held[name]
            made.mul_(factors.to(made).view(-1, *[1] * (made.ndim - 1)))
        for name, cells in stream.readers:
            read = held[name]
            read.div_(factors.to(read).repeat_interleave(cells).view(1, -1, *[1] * (read.ndim - 2)))
    return stolen.model


SCALING = Attack(
    name="scaling",
    summary="scale channels up or down where they are made, and back where they are read; the model computes the same",
    scale=Scale(
        unit="largest factor; factors lie evenly in their logarithm between its inverse and it",
        weakest=1.01,
        strongest=1000.0,
        usual=(1.5, 2, 3, 5, 10, 100),
    ),
    run=_run,
    preserves_function=True,
)
