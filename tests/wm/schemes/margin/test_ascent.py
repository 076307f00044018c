"""Promised: pictures move to where the loss is higher, no farther than allowed, and only to pixels that exist."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from wm.pixels import bounds, pixel_step
from wm.schemes.margin.ascent import ascended
from wm.schemes.margin.augmentation import augmented


@pytest.fixture
def few(owner):
    return owner.data.test.take(torch.arange(30))


def moved(owner, few, **options) -> torch.Tensor:
    return ascended(owner.marked.model, few.images, few.labels, owner.data.input, **options)


def test_the_loss_rises_with_every_step_more(owner, few) -> None:
    model = owner.marked.model
    found = [moved(owner, few, steps=steps, levels=4) for steps in (0, 2, 8)]
    with torch.no_grad():
        answered = [model(images) for images in found]
    losses = [float(F.cross_entropy(logits, few.labels)) for logits in answered]
    assert losses == sorted(losses)
    assert losses[2] > losses[0] + 0.1


def test_a_value_moves_by_at_most_the_steps_and_stays_a_pixel(owner, few) -> None:
    spec = owner.data.input
    found = moved(owner, few, steps=3, levels=2)
    low, high = bounds(spec)
    assert bool(((found - few.images).abs() <= 3 * 2 * pixel_step(spec) + 1e-5).all())
    assert bool(((found >= low) & (found <= high)).all())
    assert not torch.equal(found, few.images)


def test_no_steps_leave_the_pictures_as_they_are(owner, few) -> None:
    assert torch.equal(moved(owner, few, steps=0, levels=2), few.images)


def test_neither_the_model_nor_the_pictures_are_changed(fresh, owner, few) -> None:
    model, before = fresh(seed=1).train(), few.images.clone()
    statistics = model[3].running_mean.clone()
    ascended(model, few.images, few.labels, owner.data.input, steps=2, levels=2)
    assert model.training
    assert torch.equal(model[3].running_mean, statistics)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(few.images, before)
    assert not few.images.requires_grad


def test_pictures_that_are_neither_shifted_nor_mirrored_stay_as_they_are(owner, few) -> None:
    source = torch.Generator().manual_seed(1)
    assert torch.equal(augmented(few.images, owner.data.input, shift=0, mirrored=False, source=source), few.images)


def test_a_bright_dot_is_shifted_by_so_many_pixels_at_most_and_black_comes_in(owner) -> None:
    spec = owner.data.input
    black, white = bounds(spec)
    dots = black.repeat(200, 1, spec.height, spec.width)
    dots[:, :, 10, 12] = white.squeeze()
    found = augmented(dots, spec, shift=2, mirrored=False, source=torch.Generator().manual_seed(1))
    _, rows, columns = (found[:, 0] > 0).nonzero(as_tuple=True)
    assert set(rows.tolist()) == {8, 9, 10, 11, 12}
    assert set(columns.tolist()) == {10, 11, 12, 13, 14}
    assert torch.equal(found.amin((2, 3)), black.squeeze().expand(200, 3))
    assert torch.equal(found.amax((2, 3)), white.squeeze().expand(200, 3))


def test_about_half_of_the_pictures_are_mirrored(few, owner) -> None:
    found = augmented(few.images, owner.data.input, shift=0, mirrored=True, source=torch.Generator().manual_seed(1))
    is_kept = (found == few.images).flatten(1).all(1)
    is_swapped = (found == few.images.flip(3)).flatten(1).all(1)
    assert bool((is_kept | is_swapped).all())
    assert 8 <= int(is_swapped.sum()) <= 22
