"""Where a key locks weights, with which signs and how large: all of it from the watermark key and from shapes.

    keystream    = ChaCha20(key, nonce, counter 0), read as 4-byte big-endian words; one nonce for each purpose
    places       = words below the largest multiple of the weights' number, modulo it; repeats skipped, first n
    sign i       = bit i mod 8 (least significant first) of byte ⌊i / 8⌋; 1 is positive
    magnitude i  = 1/2 + word i / 2^32, in units of the amplitude

The weights of all tensors that can be locked are numbered through, tensors in the order of their names and entries in
row-major order: that is the paper's draw, a tensor with a probability proportional to its size and then an entry of it.
Only names and shapes are needed, so a node finds the owner's places in the skeleton of the architecture.

Weights are those of convolutional, linear and recurrent layers. Biases and normalisations are left out (the released
code takes them too): there are few of them, and their size follows from the layer's, so that a locked one would stand
out. So is the last layer, which anyone replaces who reuses a network for other classes; of torchvision's detectors and
segmenters, whose heads all go then, only the backbone counts.

Source: Tartaglione et al. 2020 and the authors' code (`bury_watermark`), which seeds two other generators.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wm.errors import WatermarkError
from wm.triggers.prg import keystream

PLACE_NONCE = b"wmreg/pos/v1"
SIGN_NONCE = b"wmreg/sgn/v1"
MAGNITUDE_NONCE = b"wmreg/mag/v1"
SHARE_MAX = 10  # at most a tenth of the weights, or the rest could not make up for what they do
_WORD = 1 << 32
_LAYERS = (nn.modules.conv._ConvNd, nn.Linear, nn.RNNBase)  # noqa: SLF001 -- the base of all convolutions

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Which weights are locked, in the order of the key's signs.

    Attributes:
        names: of the tensors that have any, in alphabetical order.
        tensor: int64, shape (n,), for each locked weight the number of its tensor's name.
        entry: int64, shape (n,), its number in that tensor, row by row.
        shapes: of the tensors in `names`.
    """

    names: tuple[str, ...]
    tensor: Tensor
    entry: Tensor
    shapes: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.entry)

    def of(self, number: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return which locked weights lie in a tensor, int64, and where: one index tensor for each of its axes.

        Memory formats differ, so an entry is addressed along its axes and never through a flat view.
        """
        chosen = (self.tensor == number).nonzero().squeeze(1)
        return chosen, torch.unravel_index(self.entry[chosen], self.shapes[number])


def lockable(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """List the tensors whose entries can be locked, with their shapes.

    Args:
        model: a network, or its skeleton without storage.

    Returns:
        By name in the state dict; empty where the network has no such layer in front of its last one.
    """
    backbone = getattr(model, "backbone", None)
    is_torchvisions = any(it.__module__.startswith("torchvision.") for it in type(model).__mro__)
    if isinstance(backbone, nn.Module) and is_torchvisions:
        return {f"backbone.{name}": shape for name, shape in _weights(backbone).items()}
    found = _weights(model)
    last = [name.rpartition(".")[0] for name in found][-1:]
    return {name: shape for name, shape in found.items() if name.rpartition(".")[0] not in last}


def positions(watermark_key: bytes, shapes: Shapes, count: int) -> Places:
    """Draw the weights that a key locks.

    Args:
        watermark_key: 32 bytes.
        shapes: from `lockable`, in any order.
        count: n, at least 1.

    Returns:
        n different places.

    Raises:
        WatermarkError: `mismatch`, more than a tenth of the weights would be locked.
        ValueError: the key's length.
    """
    names = sorted(shapes)
    sizes = [prod(shapes[name]) for name in names]
    if count * SHARE_MAX > sum(sizes):
        raise WatermarkError(
            "mismatch",
            f"the network has {sum(sizes)} weights that can be locked, too few for {count}: "
            f"at most a tenth of them are; lock fewer, or take a larger network",
        )
    numbers = _distinct(watermark_key, sum(sizes), count)
    ends = np.cumsum(sizes)
    owner = np.searchsorted(ends, numbers, side="right")
    entry = numbers - (ends - sizes)[owner]
    used, tensor = np.unique(owner, return_inverse=True)
    held = tuple(names[number] for number in used)
    return Places(held, torch.from_numpy(tensor), torch.from_numpy(entry), tuple(tuple(shapes[it]) for it in held))


def signs(watermark_key: bytes, count: int) -> Tensor:
    """Draw the signs that a key gives its locked weights; bool, shape (count,), true for a positive one."""
    stream = np.frombuffer(keystream(watermark_key, SIGN_NONCE, -(-count // 8)), dtype=np.uint8)
    return torch.from_numpy(np.unpackbits(stream, bitorder="little")[:count].astype(np.bool_))


def pattern(watermark_key: bytes, count: int) -> Tensor:
    """Draw what a key writes, in units of the amplitude; float32, shape (count,), sizes in [1/2, 3/2].

    The sizes differ so that the locked weights of a layer are not known by all being equally large.
    """
    words = _words(watermark_key, MAGNITUDE_NONCE, count)
    sizes = torch.from_numpy(0.5 + words / _WORD).float()
    return torch.where(signs(watermark_key, count), sizes, -sizes)


def _weights(model: nn.Module) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    seen: set[int] = set()  # a tensor of two names is one
    for path, module in model.named_modules():
        for name, value in module.named_parameters(recurse=False):
            is_weight = isinstance(module, _LAYERS) and name.startswith("weight")
            if (is_weight or name == "in_proj_weight") and id(value) not in seen:  # of attention: three linear layers
                seen.add(id(value))
                found[f"{path}.{name}" if path else name] = tuple(value.shape)
    return found


def _distinct(watermark_key: bytes, total: int, count: int) -> NDArray[np.int64]:
    """Draw `count` different numbers below `total`, each as likely as every other."""
    seen: dict[int, None] = {}
    words = 2 * count
    while len(seen) < count:  # no more than a tenth of them are wanted: hardly ever a second time
        stream = _words(watermark_key, PLACE_NONCE, words)
        seen = dict.fromkeys((stream[stream < _WORD // total * total] % total).tolist())
        words *= 2
    return np.fromiter(list(seen)[:count], dtype=np.int64)


def _words(watermark_key: bytes, nonce: bytes, count: int) -> NDArray[np.int64]:
    return np.frombuffer(keystream(watermark_key, nonce, 4 * count), dtype=">u4").astype(np.int64)
