"""Neuron permutation: renumber the channels of the network, or its hidden units; its outputs stay what they were.

Needs no data and costs no accuracy. A head that reads channels by their number loses the mark.

Source: "LayerShuffle" of the invariant neuron transforms; Li et al. 2022, section 5, name it as a weakness.
"""

import torch
from torch import Tensor, nn

from wm.attacks.attack import Attack, Scale, Stolen
from wm.progress import ProgressCallback
from wm.randomness import generator
from wm.symmetries.channels import free_streams
from wm.symmetries.streams import Stream


@torch.no_grad()
def reorder(model: nn.Module, stream: Stream, order: Tensor) -> None:
    """Renumber the channels of a stream in place.

    Args:
        model: holds the stream.
        stream: from `free_streams`.
        order: int64, shape (channels,); channel `order[i]` becomes channel i.
    """
    held = model.state_dict()
    for part in (*stream.rows, *stream.readers):
        held[part.name].copy_(part.gather(held[part.name], order, channels=stream.channels))


def partial_order(channels: int, share: float, source: torch.Generator) -> Tensor:
    """Draw an order that moves about a share of the channels, in a cycle of random ones; at least two of them.

    Returns:
        int64, shape (channels,), a permutation.
    """
    order = torch.arange(channels)
    moved = torch.randperm(channels, generator=source)[: max(min(2, channels), round(share * channels))]
    order[moved] = moved.roll(1)
    return order


def _run(stolen: Stolen, share: float, seed: int, _progress: ProgressCallback) -> nn.Module:
    source = generator(seed, "neuron permutation")
    for stream in free_streams(stolen.model):
        reorder(stolen.model, stream, partial_order(stream.channels, share, source))
    return stolen.model


PERMUTATION = Attack(
    name="permutation",
    summary="renumber the channels; the model computes the same",
    scale=Scale(
        unit="share of the channels of every layer that change their place",
        weakest=0.001,
        strongest=1.0,
        usual=(0.05, 0.1, 0.25, 0.5, 1.0),
    ),
    run=_run,
    preserves_function=True,
)
