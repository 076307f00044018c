"""Sign flip: make channels or hidden units with the other sign, and read them with it.

A hidden unit of an LSTM may be turned over, since tanh is odd, and so may a convolution's channel in front of a batch
normalisation. The outputs stay what they were, to the last bit. What is read behind a ReLU never changes its sign, so
marks at the usual taps of convolutional networks do not notice.

Source: "SignFlip" of the invariant neuron transforms.
"""

import torch
from torch import Tensor, nn

from wm.attacks.attack import Attack, Scale, Stolen
from wm.progress import ProgressCallback
from wm.randomness import generator
from wm.symmetries.channels import odd_streams
from wm.symmetries.streams import multiply


def drawn_signs(channels: int, share: float, source: torch.Generator) -> Tensor:
    """Draw signs of which a share is -1, at least one of them, float64, shape (channels,)."""
    signs = torch.ones(channels, dtype=torch.float64)
    signs[torch.randperm(channels, generator=source)[: max(1, round(share * channels))]] = -1
    return signs


def _run(stolen: Stolen, share: float, seed: int, _progress: ProgressCallback) -> nn.Module:
    source = generator(seed, "sign flip")
    for stream in odd_streams(stolen.model):
        multiply(stolen.model, stream, drawn_signs(stream.channels, share, source))
    return stolen.model


SIGN_FLIP = Attack(
    name="sign_flip",
    summary="turn channels over, and back where they are read; the model computes the same",
    scale=Scale(
        unit="share of the channels of every layer that change their sign",
        weakest=0.001,
        strongest=1.0,
        usual=(0.1, 0.25, 0.5, 1.0),
    ),
    run=_run,
    preserves_function=True,
)
