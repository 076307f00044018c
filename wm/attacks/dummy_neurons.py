"""Dummy neurons: every layer gets further channels that nothing reads; the outputs stay what they were.

Each is a copy of a channel of the layer, at a random place, so that it does not stand out; what reads it does so with
weight 0. The network becomes wider than the catalogue's, so its weights no longer fit that architecture.

Source: Yan et al., "Neural Structural Obfuscation", USENIX Security 2023.
"""

import torch
from torch import Tensor, nn

from wm.attacks.attack import Attack, Scale, Stolen
from wm.progress import ProgressCallback
from wm.randomness import generator
from wm.symmetries.channels import free_streams
from wm.symmetries.streams import Stream


@torch.no_grad()
def widen(model: nn.Module, stream: Stream, *, dummies: int, source: torch.Generator) -> None:
    """Put dummy channels into a stream, in place."""
    copied = torch.randint(stream.channels, (dummies,), generator=source)
    places = torch.cat([torch.arange(stream.channels), copied])  # the channel that each one of the wider stream copies
    is_real = torch.arange(len(places)) < stream.channels
    shuffled = torch.randperm(len(places), generator=source)
    places, is_real = places[shuffled], is_real[shuffled]
    for part in stream.rows:
        _replace(model, part.name, part.gather(_held(model, part.name), places, channels=stream.channels))
    for part in stream.readers:
        read = part.gather(_held(model, part.name), places, channels=stream.channels)
        read.index_fill_(part.axis, part.entries(len(places))[:, ~is_real].flatten().to(read.device), 0)
        _replace(model, part.name, read)


def _held(model: nn.Module, name: str) -> Tensor:
    path, _, part = name.rpartition(".")
    held: Tensor = getattr(model.get_submodule(path), part)
    return held


def _replace(model: nn.Module, name: str, value: Tensor) -> None:
    path, _, part = name.rpartition(".")
    layer = model.get_submodule(path)
    setattr(layer, part, nn.Parameter(value) if isinstance(getattr(layer, part), nn.Parameter) else value)
    if isinstance(layer, nn.BatchNorm2d):
        layer.num_features = len(value)
    elif part == "weight" and isinstance(layer, nn.Conv2d):
        layer.out_channels, layer.in_channels = value.shape[:2]
    elif part == "weight" and isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = value.shape
    elif part.startswith("weight_hh") and isinstance(layer, nn.LSTM):
        layer.hidden_size = value.shape[1]
    elif part.startswith("weight_ih") and isinstance(layer, nn.LSTM):
        layer.input_size = value.shape[1]


def _run(stolen: Stolen, share: float, seed: int, _progress: ProgressCallback) -> nn.Module:
    source = generator(seed, "dummy neurons")
    for stream in reversed(free_streams(stolen.model)):  # what a tensor holds further on keeps its place until then
        widen(stolen.model, stream, dummies=max(1, round(share * stream.channels)), source=source)
    return stolen.model


DUMMY_NEURONS = Attack(
    name="dummy_neurons",
    summary="add channels that nothing reads; the model computes the same, but no longer fits its architecture",
    scale=Scale(
        unit="dummies, as a share of the channels of every layer",
        weakest=0.001,
        strongest=2.0,
        usual=(0.01, 0.1, 0.5),
    ),
    run=_run,
    preserves_function=True,
)
