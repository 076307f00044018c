"""Sums in another order, as the kernels of other devices take them.

In real numbers a sum does not depend on its order. In floating point its last digits do, and where factors are rounded
to TF32 those digits decide which way the next layer's factors are rounded.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode

_CHANNELS: dict[Callable[..., Any], int] = {F.conv2d: 1, F.linear: -1}  # by function, their axis in what it is given


class AnotherOrder(TorchFunctionMode):
    """Inside the block convolutions and linear layers sum over their channels in an order drawn anew each time.

    Args:
        draws: where the orders come from.
    """

    def __init__(self, draws: torch.Generator) -> None:
        super().__init__()
        self._draws = draws

    def __torch_function__(
        self,
        function: Callable[..., Any],
        _types: Sequence[Any],
        arguments: tuple[Any, ...] = (),
        options: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        if function in _CHANNELS and len(arguments) > 1:
            inputs, weight, *others = arguments
            axis = _CHANNELS[function]
            if inputs.shape[axis] == weight.shape[1]:  # not in groups
                order = torch.randperm(weight.shape[1], generator=self._draws).to(weight.device)
                arguments = (inputs.index_select(axis, order), weight[:, order], *others)
        return function(*arguments, **(options or {}))
