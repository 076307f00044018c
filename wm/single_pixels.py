"""Convolutions of maps that are one pixel large, without the arithmetic of zeros.

A ResNet that is given pictures of 32 x 32 has maps of a single pixel in its last stage, where most of its weights are.
A kernel of 3 x 3 that is laid over one pixel multiplies eight of its nine taps with padding. On a CPU those taps, and
the gradients of zero that they get, take half of a training step. What is left of such a convolution is a matrix
product with the middle tap: the same number, but for the order of its sum.

GPUs are left alone: there such a layer takes no time that one would notice.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode


class SinglePixels(TorchFunctionMode):
    """Inside the block convolutions of single pixels, on a CPU, are matrix products. Gradients are there once only."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        _types: object,
        arguments: tuple[Any, ...] = (),
        options: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 (whatever the function returns)
        """Call a function, or what stands for it."""
        if function is F.conv2d and not options and not torch.is_autocast_enabled("cpu") and _is_single(*arguments):
            images, weight, bias = arguments[:3]
            return _MiddleTap.apply(images, weight, bias)
        return function(*arguments, **(options or {}))


def _is_single(
    images: Tensor,
    weight: Tensor,
    _bias: Tensor | None = None,
    _stride: Any = 1,  # noqa: ANN401 (a number, or one for each side; of a single pixel none matters)
    padding: Any = 0,  # noqa: ANN401 (a number, one for each side, or a word)
    dilation: Any = 1,  # noqa: ANN401 (a number, or one for each side)
    groups: int = 1,
) -> bool:
    """Tell whether a convolution sees one pixel, and its middle tap alone."""
    if images.device.type != "cpu" or images.ndim != 4 or images.shape[2:] != (1, 1) or groups != 1:
        return False
    sides = weight.shape[2:]
    middles = tuple(step * (side // 2) for step, side in zip(_pair(dilation), sides, strict=True))
    return sides != (1, 1) and all(side % 2 for side in sides) and _pair(padding) == middles


def _pair(value: Any) -> Any:  # noqa: ANN401 (as above; a word is no pair of numbers and equals none)
    return value if isinstance(value, (tuple, str)) else (value, value)


class _MiddleTap(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: ANN401
        context.save_for_backward(images, weight)
        context.has_bias = bias is not None
        # Nobody may write into a view that a function of its own hands out, as a ReLU in place does.
        answers = images.new_empty(len(images), len(weight), 1, 1)
        flat, taps = images.flatten(1), _middle(weight).T
        if bias is None:
            torch.mm(flat, taps, out=answers.flatten(1))
        else:
            torch.addmm(bias, flat, taps, out=answers.flatten(1))
        return answers

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # noqa: ANN401
        images, weight = context.saved_tensors
        flat = gradient.flatten(1)
        of_images = of_weight = None
        if context.needs_input_grad[0]:
            of_images = (flat @ _middle(weight))[:, :, None, None]
        if context.needs_input_grad[1]:
            of_weight = torch.zeros_like(weight)  # in the weight's own layout, or it is copied into that
            _middle(of_weight).copy_(flat.T @ images.flatten(1))
        return of_images, of_weight, flat.sum(0) if context.has_bias else None


def _middle(weight: Tensor) -> Tensor:
    """Return a view of the middle tap, shape (channels out, channels in)."""
    return weight[:, :, weight.shape[2] // 2, weight.shape[3] // 2]
