"""Promised: margins come into the band by whole levels of pixels, and a pixel never leaves its range."""

import torch
from fragile_owner import Owner
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wm.pixels import from_pixels, to_pixels
from wm.schemes.fragile.numerics import margins_of
from wm.schemes.fragile.polishing import Band, _moved, polish
from wm.schemes.scheme import ClassTriggers


@torch.no_grad()
def _margins(model: nn.Module, triggers: ClassTriggers, owner: Owner) -> torch.Tensor:
    return margins_of(model(from_pixels(triggers.pixels, owner.data.input)), triggers.labels)


def test_pictures_are_brought_into_the_band_by_few_levels(owner: Owner) -> None:
    frozen, band = owner.marked.model, Band(least=0.3, most=0.31)
    polished = polish(frozen, owner.triggers, owner.data.input, band=band, rounds=40, batch=10)
    assert bool(band.holds(_margins(frozen, polished, owner)).all())
    moved = (polished.pixels.int() - owner.triggers.pixels.int()).abs()
    assert 0 < float(moved.float().mean()) < 2
    assert torch.equal(polished.labels, owner.triggers.labels)


def test_what_lies_in_the_band_is_left_alone(owner: Owner) -> None:
    margins = _margins(owner.marked.model, owner.triggers, owner)
    band = Band(least=0.9 * float(margins.min()), most=1.1 * float(margins.max()))
    polished = polish(owner.marked.model, owner.triggers, owner.data.input, band=band, rounds=5, batch=10)
    assert torch.equal(polished.pixels, owner.triggers.pixels)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.floats(-3, 3))
def test_moves_are_of_one_level_within_the_range_and_nearer_the_goal(seed: int, wanted: float) -> None:
    draws = torch.Generator().manual_seed(seed)
    pixels = torch.tensor([0, 1, 128, 254, 255], dtype=torch.uint8)[torch.randint(5, (2, 1, 4, 5), generator=draws)]
    slopes = torch.randn(2, 20, generator=draws)
    moved = _moved(pixels, torch.tensor([wanted, 0.0]), slopes)
    steps = moved.int() - pixels.int()
    assert int(steps.abs().max()) <= 1  # 0 - 1 and 255 + 1 would wrap around
    assert not bool(steps[1].any())
    left = abs(wanted - float((steps[0].flatten() * slopes[0]).sum()))
    assert left <= abs(wanted) + 1e-5


def test_triggers_far_behind_the_boundary_come_into_the_band(owner: Owner) -> None:
    pictures = owner.data.test.images[:24]
    others = (owner.data.test.labels[:24] + 1) % 10
    wrong = ClassTriggers(to_pixels(pictures, owner.data.input), others)
    frozen, band = owner.marked.model, Band(least=0.3, most=0.31)
    assert float(_margins(frozen, wrong, owner).max()) < 0
    polished = polish(frozen, wrong, owner.data.input, band=band, rounds=40, batch=10)
    assert bool(band.holds(_margins(frozen, polished, owner)).all())
