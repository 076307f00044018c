"""Pictures to bytes and back."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from wm.pixels import bounds, from_pixels, pixel_step, to_pixels
from wm.triggers import InputSpec, Normalisation

_SPEC = InputSpec(3, 5, 4, Normalisation(("0.4914", "0.4822", "0.4465"), ("0.2470", "0.2435", "0.2616")))


def test_every_level_of_every_channel_comes_back() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).repeat(3)[: 3 * 240].reshape(12, 3, 5, 4)
    assert torch.equal(to_pixels(from_pixels(pixels, _SPEC), _SPEC), pixels)


@given(st.integers(0, 2**32))
def test_rounding_moves_a_pixel_by_half_a_level_at_most(seed: int) -> None:
    drawn = torch.rand(2, 3, 5, 4, generator=torch.Generator().manual_seed(seed))
    images = _SPEC.normalisation.apply(drawn)
    moved = (from_pixels(to_pixels(images, _SPEC), _SPEC) - images).abs()
    assert bool((moved <= 0.5001 * pixel_step(_SPEC)).all())


def test_what_no_pixel_can_show_is_clamped() -> None:
    black, white = bounds(_SPEC)
    images = torch.stack([(black - 1).expand(3, 5, 4), (white + 1).expand(3, 5, 4)])
    assert to_pixels(images, _SPEC).flatten(1).unique(dim=1).tolist() == [[0], [255]]
    assert torch.allclose(from_pixels(to_pixels(images, _SPEC), _SPEC)[1], white.expand(3, 5, 4))
