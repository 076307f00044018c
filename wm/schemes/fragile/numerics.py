"""How far a network's answers move for reasons that are nobody's fault: the numeric noise of its margins.

The truth is what the network computes in double precision. Against it are held single precision with other batch sizes,
memory format, number of threads and kernels, and TF32, in which GPUs compute convolutions by default: the factors of
products keep 10 bits of the mantissa, and sums are in single precision. TF32 is simulated, so that an owner without a
GPU has its noise as well. A margin must be many times that noise, since other devices draw other noise. Most of what
TF32 does to a trigger is the same on every device; the rest depends on the order of sums, so a few orders are drawn.
Among many triggers and devices some noise is greater than in those few, by up to a sixth where it was measured
(`python -m bench.schemes fragile`), so that noise counts for more.

Factors may also be cut off instead of rounded, as some kernels might do. That moves all of them the same way, so much
further; but it is no draw of chance, and a margin that is safely above it is enough.

bfloat16 keeps 7 bits. That is another network, not noise.

Source: SCHEMES 1.3, "engineering trap". TF32: NVIDIA, "A100 Tensor Core GPU Architecture", 2020.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from wm.backbone import device_of, evaluating, full_precision
from wm.randomness import generator
from wm.schemes.fragile.other_sums import AnotherOrder
from wm.schemes.scheme import TRIGGERS_AT_ONCE

CUT_OFF = "TF32, cut off"
_CUT_OFF_FACTOR = 1.5
_USUAL_SHARE = 0.9
_ORDERS = 4  # with TF32
_UNSEEN_FACTOR = 1.2  # of the noise of TF32: what other orders may add
_MARGIN_LEAST = 1e-6  # where all ways to compute agree to the bit: of equal logits the first class is the answer
_DROPPED_BITS = 13  # of the 23 of single precision, so that 10 are left
_PRODUCTS = frozenset(
    {
        torch.ops.aten.convolution,
        torch.ops.aten.mm,
        torch.ops.aten.addmm,
        torch.ops.aten.bmm,
        torch.ops.aten.baddbmm,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,  # noqa: SLF001 -- aten names it so
    }
)
Logits = Callable[[nn.Module, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Margins:
    """How near triggers lie to the boundary, and how far their margins move by themselves.

    Attributes:
        margins: logit of the label minus the best other, in double precision, float64, shape (n,).
        distances: by the name of a variation, how far from that each margin is, float64, shape (n,).
    """

    margins: Tensor
    distances: dict[str, Tensor]

    @property
    def noise(self) -> dict[str, float]:
        """By the name of a variation, the greatest distance."""
        return {name: float(distances.max()) for name, distances in self.distances.items()}

    def least(self, factor: float) -> float:
        """Return the margin that noise leaves alone: so many times what chance draws, and above what it does not."""
        return float(self.leasts(factor).max())

    def usual_least(self, factor: float) -> float:
        """Return what the noise of nearly all triggers leaves alone; a few have far more than the others."""
        return float(self.leasts(factor).quantile(_USUAL_SHARE))

    def leasts(self, factor: float) -> Tensor:
        """Return the same as each trigger alone would have it, float64, shape (n,)."""
        wanted = [_factor_of(name, factor) * distances for name, distances in self.distances.items()]
        return torch.stack(wanted).amax(0).clamp(min=_MARGIN_LEAST)

    def replaced(self, chosen: Tensor, found: "Margins") -> "Margins":
        """Return the same with what was found of the chosen triggers, bool, shape (n,), in the place of theirs."""
        return Margins(
            self.margins.masked_scatter(chosen, found.margins),
            {name: it.masked_scatter(chosen, found.distances[name]) for name, it in self.distances.items()},
        )


def measure(model: nn.Module, images: Tensor, labels: Tensor, *, tf32: bool) -> Margins:
    """Measure the margins of triggers, and their noise.

    Args:
        model: a classifier in float32, on any device; left as it is.
        images: normalised, float32, shape (n, channels, height, width), on the CPU.
        labels: int64, shape (n,).
        tf32: whether TF32 is among the variations.
    """
    truth = _double(model, images)
    margins = margins_of(truth, labels)
    distances = {
        name: (margins_of(logits(model, images), labels) - margins).abs()
        for name, logits in variations(tf32=tf32).items()
    }
    return Margins(margins, distances)


def variations(*, tf32: bool) -> dict[str, Logits]:
    """Return by name all ways to compute that must give the same answers, double precision excepted."""
    found: dict[str, Logits] = {
        "float32": _single,
        "batches of 1": lambda model, images: _single(model, images, batch=1),
        "batches of 7": lambda model, images: _single(model, images, batch=7),
        "channels last": _channels_last,
        "other threads": _other_threads,
        "no oneDNN": _without_onednn,
    }
    if tf32:
        found |= {"TF32, rounded": _Tf32(is_rounded=True).logits, CUT_OFF: _Tf32(is_rounded=False).logits}
        found |= {f"TF32, order {number}": partial(_tf32_in_order, number) for number in range(1, _ORDERS + 1)}
    return found


def _factor_of(variation: str, factor: float) -> float:
    if variation == CUT_OFF:
        return _CUT_OFF_FACTOR
    return factor * _UNSEEN_FACTOR if variation.startswith("TF32") else factor


def margins_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the logit of the label minus the best other, shape (n,), for logits of shape (n, classes)."""
    labelled = logits.gather(1, labels[:, None]).squeeze(1)
    return labelled - logits.scatter(1, labels[:, None], -torch.inf).amax(1)


@torch.no_grad()
def _single(model: nn.Module, images: Tensor, *, batch: int = TRIGGERS_AT_ONCE) -> Tensor:
    place = device_of(model)
    with evaluating(model), full_precision(place):
        return torch.cat([model(part.to(place)).cpu().double() for part in torch.split(images, batch)])


def _double(model: nn.Module, images: Tensor) -> Tensor:
    return _single(copy.deepcopy(model).double(), images.double())


def _channels_last(model: nn.Module, images: Tensor) -> Tensor:
    changed = copy.deepcopy(model).to(memory_format=torch.channels_last)
    return _single(changed, images.contiguous(memory_format=torch.channels_last))


def _other_threads(model: nn.Module, images: Tensor) -> Tensor:
    before = torch.get_num_threads()
    torch.set_num_threads(2 if before == 1 else 1)
    try:
        return _single(model, images)
    finally:
        torch.set_num_threads(before)


def _without_onednn(model: nn.Module, images: Tensor) -> Tensor:
    # None leaves oneDNN's own TF32 alone, which warns where there is none.
    with torch.backends.mkldnn.flags(enabled=False, allow_tf32=None):
        return _single(model, images)


def _tf32_in_order(number: int, model: nn.Module, images: Tensor) -> Tensor:
    with AnotherOrder(generator("fragile orders", number)):
        return _Tf32(is_rounded=True).logits(model, images)


class _Tf32(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside the block the factors of products keep 10 bits of the mantissa."""

    def __init__(self, *, is_rounded: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._is_rounded = is_rounded

    def logits(self, model: nn.Module, images: Tensor) -> Tensor:
        """Compute logits so."""
        with self:
            return _single(model, images)

    def __torch_dispatch__(
        self,
        function: Any,  # noqa: ANN401
        _types: object,
        arguments: tuple[Any, ...] = (),
        options: Any = None,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        if function.overloadpacket in _PRODUCTS:
            arguments = tuple(self._shortened(argument) for argument in arguments)
        return function(*arguments, **(options or {}))

    def _shortened(self, argument: Any) -> Any:  # noqa: ANN401
        # Biases, which have one axis, are added in single precision.
        if not isinstance(argument, Tensor) or argument.dtype != torch.float32 or argument.ndim < 2:
            return argument
        bits = argument.view(torch.int32)
        if self._is_rounded:  # to nearest, ties to even
            bits = bits + ((1 << (_DROPPED_BITS - 1)) - 1) + ((bits >> _DROPPED_BITS) & 1)
        return (bits & -(1 << _DROPPED_BITS)).view(torch.float32)
