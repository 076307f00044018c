"""Promised: triggers that a cheat would publish are seen through on the model."""

import copy

import torch
from fragile_owner import SETTINGS, Owner

from wm.pixels import to_pixels
from wm.schemes import fragile
from wm.schemes.scheme import ClassTriggers, answers, matches


def test_the_owners_triggers_are_stable_and_fragile(owner: Owner) -> None:
    found = fragile.examine(owner.model, owner.triggers, owner.data.input, tolerates_tf32=True)
    assert (found.matched, found.total) == (SETTINGS.triggers, SETTINGS.triggers)
    assert found.is_stable
    assert found.is_fragile


def test_triggers_that_every_copy_answers_are_not_fragile(owner: Owner) -> None:
    pixels = to_pixels(owner.data.test.images[:24], owner.data.input)
    natural = ClassTriggers(pixels, answers(owner.model, pixels, owner.data.input))
    found = fragile.examine(owner.model, natural, owner.data.input, tolerates_tf32=True)
    assert found.matched == 24
    assert not found.is_fragile


def test_triggers_that_accuse_everybody_are_not_stable(owner: Owner) -> None:
    labels = owner.triggers.labels.clone()
    labels[3] = (labels[3] + 1) % 10
    found = fragile.examine(
        owner.model, ClassTriggers(owner.triggers.pixels, labels), owner.data.input, tolerates_tf32=True
    )
    assert found.matched == SETTINGS.triggers - 1
    assert not found.is_stable


def test_the_least_change_that_is_detected_is_told_for_each_layer(owner: Owner) -> None:
    before = copy.deepcopy(owner.model.state_dict())
    found = fragile.least_detectable(owner.model, owner.triggers, owner.data.input, seed=1)
    assert list(found) == ["0", "3", "7"]
    assert all(scale is not None and scale < 1 for scale in found.values())
    assert all(torch.equal(held, before[name]) for name, held in owner.model.state_dict().items())


def test_a_layer_that_answers_nothing_is_told_as_undetectable(owner: Owner) -> None:
    model = copy.deepcopy(owner.model)
    model.add_module("unused", torch.nn.Identity())
    model.unused.spare = torch.nn.Linear(2, 2)
    found = fragile.least_detectable(model, owner.triggers, owner.data.input, seed=1)
    assert found["unused.spare"] is None
    assert bool(matches(model, owner.triggers, owner.data.input).all())
