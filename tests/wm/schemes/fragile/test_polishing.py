"""Promised: margins come into the band by whole levels of pixels, and a pixel never leaves its range."""

from functools import partial

import torch
from fragile_owner import Owner
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wm.pixels import from_pixels, to_pixels
from wm.schemes.fragile.levelling import gaps_and_slopes
from wm.schemes.fragile.numerics import margins_of
from wm.schemes.fragile.polishing import Band, _moved, polish
from wm.schemes.scheme import ClassTriggers


@torch.no_grad()
def _margins(model: nn.Module, triggers: ClassTriggers, owner: Owner) -> torch.Tensor:
    return margins_of(model(from_pixels(triggers.pixels, owner.data.input)), triggers.labels)


def _pictures_of_other_classes(owner: Owner) -> ClassTriggers:
    """Of the test set, with the label that comes after theirs."""
    pixels = to_pixels(owner.data.test.images[:24], owner.data.input)
    return ClassTriggers(pixels, (owner.data.test.labels[:24] + 1) % 10)


def test_pictures_are_brought_into_the_band_by_few_levels(owner: Owner) -> None:
    frozen, band = owner.marked.model, Band(least=0.3, most=0.31)
    polished = polish(frozen, owner.triggers, owner.data.input, band=band, ties=9, rounds=40, batch=10)
    assert bool(band.holds(_margins(frozen, polished, owner)).all())
    moved = (polished.pixels.int() - owner.triggers.pixels.int()).abs()
    assert 0 < float(moved.float().mean()) < 2
    assert torch.equal(polished.labels, owner.triggers.labels)


def test_what_lies_in_the_band_is_left_alone(owner: Owner) -> None:
    margins = _margins(owner.marked.model, owner.triggers, owner)
    band = Band(least=0.9 * float(margins.min()), most=1.1 * float(margins.max()))
    polished = polish(owner.marked.model, owner.triggers, owner.data.input, band=band, ties=1, rounds=5, batch=10)
    assert torch.equal(polished.pixels, owner.triggers.pixels)


def test_all_other_classes_come_level_with_the_label_and_then_are_left_alone(owner: Owner) -> None:
    frozen, spec, band = owner.marked.model, owner.data.input, Band(least=0.3, most=0.31)
    polishing = partial(polish, frozen, spec=spec, band=band, rounds=40, batch=10)
    pictures = _pictures_of_other_classes(owner)
    alone, among_all = polishing(pictures, ties=1), polishing(pictures, ties=9)
    spread = {
        name: gaps_and_slopes(frozen, polished.pixels, polished.labels, spec, ties=9)[0].amax(1)
        for name, polished in (("alone", alone), ("among all", among_all))
    }
    assert float(spread["among all"].max()) < 0.4
    assert float(spread["alone"].median()) > 1
    assert torch.equal(polishing(among_all, ties=9).pixels, among_all.pixels)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.floats(-3, 3))
def test_moves_are_of_one_level_within_the_range_and_nearer_the_goal(seed: int, ties: int, wanted: float) -> None:
    draws = torch.Generator().manual_seed(seed)
    pixels = torch.tensor([0, 1, 128, 254, 255], dtype=torch.uint8)[torch.randint(5, (2, 1, 4, 5), generator=draws)]
    slopes = torch.randn(2, ties, 20, generator=draws)
    goal = torch.stack([torch.full((ties,), wanted), torch.zeros(ties)])
    moved = _moved(pixels, goal, slopes)
    steps = (moved.int() - pixels.int()).flatten(1)
    assert int(steps.abs().max()) <= 1  # 0 - 1 and 255 + 1 would wrap around
    assert not bool(steps[1].any())
    nearest = abs(wanted - float(steps[0].float() @ slopes[0, 0]))
    left = (goal[0] - slopes[0] @ steps[0].float()).square()
    assert 900 * left[0] + left[1:].sum() <= (900 + ties - 1) * wanted**2 + 1e-4
    assert ties > 1 or nearest <= abs(wanted) + 1e-5


def test_triggers_far_behind_the_boundary_come_into_the_band(owner: Owner) -> None:
    wrong = _pictures_of_other_classes(owner)
    frozen, band = owner.marked.model, Band(least=0.3, most=0.31)
    assert float(_margins(frozen, wrong, owner).max()) < 0
    polished = polish(frozen, wrong, owner.data.input, band=band, ties=9, rounds=40, batch=10)
    assert bool(band.holds(_margins(frozen, polished, owner)).all())
