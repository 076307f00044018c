"""Neuron scaling: make channels larger where they are computed and smaller where they are read.

Positive factors pass through ReLU, pooling and sums, so the outputs stay what they were. Half of the factors lie
below 1. The hidden units of an LSTM cannot be scaled: its gates let no factor through.

Source: "NeuronScale" of the invariant neuron transforms.
"""

import math

import torch
from torch import nn

from wm.attacks.attack import Attack, Scale, Stolen
from wm.errors import WatermarkError
from wm.progress import ProgressCallback
from wm.randomness import generator
from wm.symmetries.channels import free_streams
from wm.symmetries.streams import multiply


def _run(stolen: Stolen, largest: float, seed: int, _progress: ProgressCallback) -> nn.Module:
    source = generator(seed, "neuron scaling")
    streams = [stream for stream in free_streams(stolen.model) if not stream.is_rigid]
    if not streams:
        raise WatermarkError("unknown_architecture", "no channels of this network can be scaled")
    for stream in streams:
        exponents = 2 * torch.rand(stream.channels, generator=source, dtype=torch.float64) - 1
        multiply(stolen.model, stream, torch.exp(exponents * math.log(largest)))
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
