"""Streams: channels that are numbered alike, wherever in a network they are made and read.

A stream lists the parts of tensors that belong to its channels. Whoever renumbers, scales, turns over or adds channels
treats all parts alike, and never asks what kind of layer holds them.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Part:
    """Where a stream's channels lie in one tensor: along one axis, in so many blocks one behind the other.

    Attributes:
        name: of the tensor.
        axis: along which they lie.
        cells: entries in a row that each channel has in a block, as the flattened cells of a picture.
        blocks: in which all channels come once, as in the four gates of an LSTM.
        first: entry at which the first block begins.
    """

    name: str
    axis: int = 0
    cells: int = 1
    blocks: int = 1
    first: int = 0

    def entries(self, channels: int) -> Tensor:
        """Return the entries of each channel, int64, shape (blocks, channels, cells)."""
        entries = self.first + torch.arange(self.blocks * channels * self.cells)
        return entries.view(self.blocks, channels, self.cells)

    def gather(self, held: Tensor, places: Tensor, *, channels: int) -> Tensor:
        """Copy a tensor with other channels in the place of its own.

        Args:
            held: the tensor.
            places: int64, shape (wanted,); channel `places[i]` becomes channel i.
            channels: how many it has.
        """
        entries = self.entries(channels)
        behind = torch.arange(self.first + entries.numel(), held.shape[self.axis])
        order = torch.cat([torch.arange(self.first), entries[:, places].flatten(), behind])
        return held.index_select(self.axis, order.to(held.device))

    def multiply(self, held: Tensor, factors: Tensor) -> None:
        """Multiply each channel's entries in place by its factor; `factors` has the shape (channels,)."""
        by_entry = torch.ones(held.shape[self.axis], dtype=factors.dtype)
        by_entry[self.entries(len(factors))] = factors[:, None]
        held.mul_(by_entry.to(held).view(-1, *[1] * (held.ndim - 1 - self.axis)))


@dataclass(slots=True)
class Stream:
    """Values whose channels are numbered alike.

    Attributes:
        channels: how many.
        rows: the parts that make each channel.
        makers: those of them that the size, or at least the sign, of the values that are read follows from.
        readers: the parts that read each channel.
        is_pinned: its channels must stay where they are.
        is_rigid: they must keep their size as well.
        is_odd: they may all the same be turned over: made with the other sign, and read with it.
    """

    channels: int
    rows: list[Part] = field(default_factory=list)
    makers: set[Part] = field(default_factory=set)
    readers: list[Part] = field(default_factory=list)
    is_pinned: bool = False
    is_rigid: bool = False
    is_odd: bool = False


@torch.no_grad()
def multiply(model: nn.Module, stream: Stream, factors: Tensor) -> None:
    """Multiply a stream's channels in place where they are made, and divide where they are read.

    Args:
        model: holds the stream.
        stream: neither pinned nor rigid, or odd and the factors are signs.
        factors: float64, shape (channels,), none of them 0.
    """
    held = model.state_dict()
    for part in stream.makers:
        part.multiply(held[part.name], factors)
    for part in stream.readers:
        part.multiply(held[part.name], 1 / factors)
