"""W0: the weights on which the taps depend, as they were when the mark was made. R_func keeps the model near them.

Source: Li et al. 2022, equation 8.
"""

import math
import statistics
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from wm.backbone import backbone_names, device_of
from wm.info import Info
from wm.savepoint import State, fill

Pairs = Sequence[tuple[nn.Parameter, Tensor]]  # a parameter as it is now, and its value in W0


class Anchor:
    """W0 of one mark.

    Args:
        model: as it is when the mark is made; its parameters are copied.
        info: names the taps.
    """

    def __init__(self, model: nn.Module, info: Info) -> None:
        names = set(backbone_names(model, info.modules, info.input.outline()))
        self._device = device_of(model)
        self._values = {name: value.detach().clone() for name, value in model.named_parameters() if name in names}

    def paired(self, model: nn.Module) -> Pairs:
        """Pair each parameter of the tapped prefix with its value in W0.

        Raises:
            ValueError: the model is on another device, or lacks a parameter that the taps depend on.
        """
        if device_of(model) != self._device:
            raise ValueError(
                f"the model is on {device_of(model)}, its mark on {self._device}: make the mark where it is"
            )
        held = dict(model.named_parameters())
        if missing := sorted(set(self._values) - set(held)):
            raise ValueError(f"the mark was made for another model: this one has no parameter {missing[0]!r}")
        return [(value, self._values[name]) for name, value in held.items() if name in self._values]

    @torch.no_grad()
    def relative_change(self, model: nn.Module) -> float:
        """Return ||W - W0|| over the tapped prefix, relative to ||W0||."""
        pairs = self.paired(model)
        change = sum(float((now - then).square().sum()) for now, then in pairs)
        size = sum(float(then.square().sum()) for _, then in pairs)
        return math.sqrt(change / size)

    def typical_weight(self) -> float:
        """Return the median over the tapped layers' weights of their root mean square in W0; 1 where there are none.

        Layers with a weight for each pair of channels count; scales and biases of one axis do not.
        """
        sizes = [float(value.square().mean().sqrt()) for value in self._values.values() if value.ndim > 1]
        return statistics.median(sizes) if sizes else 1.0

    def state(self) -> State:
        """Return W0 itself, not a copy."""
        return dict(self._values)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put another W0 in its place; errors as of `fill`."""
        fill(self._values, state)


def distance(pairs: Pairs) -> Tensor:
    """Return R_func, ||W - W0||², a scalar with a graph."""
    return torch.stack([(now - then).square().sum() for now, then in pairs]).sum()
