"""Promised: the numbers and gradients of the convolution, where a map is one pixel large; everything else untouched."""

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wm.single_pixels import SinglePixels, _MiddleTap


def _draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _gradients(layer: nn.Conv2d, images: torch.Tensor) -> list[torch.Tensor]:
    given = images.clone().requires_grad_()
    answers = layer(given)
    layer.zero_grad()
    (answers * torch.randn(answers.shape, generator=_draws(1))).sum().backward()
    return [answers.detach(), given.grad, *(it.grad for it in layer.parameters())]


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([(3, 3), (5, 3), (1, 3), (7, 7)]),
    st.integers(1, 2),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from([torch.contiguous_format, torch.channels_last]),
)
def test_answers_and_gradients_are_the_convolutions(kernel, dilation, stride, bias, layout) -> None:
    padding = tuple(dilation * (side // 2) for side in kernel)
    layer = nn.Conv2d(6, 4, kernel, stride=stride, padding=padding, dilation=dilation, bias=bias).to(
        memory_format=layout
    )
    images = torch.randn(5, 6, 1, 1, generator=_draws(2))
    plain = _gradients(layer, images)
    with SinglePixels():
        answers = layer(images.requires_grad_())
        lean = _gradients(layer, images.detach())
    assert type(answers.grad_fn).__name__ == f"{_MiddleTap.__name__}Backward"
    for one, other in zip(plain, lean, strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one, other, atol=1e-5)
    assert layer.weight.grad.stride() == layer.weight.stride()


@pytest.mark.parametrize(
    ("layer", "side"),
    [
        (nn.Conv2d(4, 4, 3, padding=1), 2),  # a larger map
        (nn.Conv2d(4, 4, 1), 1),  # nothing to leave out
        (nn.Conv2d(4, 4, 3, padding=1, groups=2), 1),
        (nn.Conv2d(4, 4, 3, padding=2), 1),  # more pixels come out than went in
        (nn.Conv2d(4, 4, 2, padding=1), 1),  # no middle
        (nn.Conv2d(4, 4, 3, padding="same"), 1),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), 2),
    ],
)
def test_other_convolutions_are_computed_to_the_bit_as_without(layer: nn.Conv2d, side: int) -> None:
    images = torch.randn(3, 4, side, side, generator=_draws(3))
    plain = _gradients(copy.deepcopy(layer), images)
    with SinglePixels():
        lean = _gradients(layer, images)
    assert all(torch.equal(one, other) for one, other in zip(plain, lean, strict=True))


def test_in_half_precision_the_convolution_itself_runs() -> None:
    layer, images = nn.Conv2d(4, 4, 3, padding=1), torch.randn(3, 4, 1, 1)
    with SinglePixels(), torch.autocast("cpu", dtype=torch.bfloat16):
        answers = layer(images)
    assert answers.dtype == torch.bfloat16
    assert type(answers.grad_fn).__name__ != f"{_MiddleTap.__name__}Backward"


def test_a_frozen_layer_gets_no_gradient_and_hands_its_images_theirs() -> None:
    layer, images = nn.Conv2d(4, 4, 3, padding=1).requires_grad_(requires_grad=False), torch.randn(3, 4, 1, 1)
    with SinglePixels():
        F.mse_loss(layer(images.requires_grad_()), torch.zeros(3, 4, 1, 1)).backward()
    assert images.grad is not None
    assert layer.weight.grad is None
    assert layer.bias.grad is None


@pytest.mark.parametrize("bias", [False, True])
def test_what_follows_may_work_in_place(bias: bool) -> None:
    layer, images = nn.Conv2d(4, 4, 3, padding=1, bias=bias), torch.randn(3, 4, 1, 1, generator=_draws(4))
    network, plain = (nn.Sequential(copy.deepcopy(layer), nn.ReLU(inplace=it)) for it in (True, False))
    expected = _gradients(plain, images)
    with SinglePixels():
        found = _gradients(network, images)
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(expected, found, strict=True))
