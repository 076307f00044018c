"""Promised: overwriting embeds the thief's own mark into the owner's model."""

import pytest

import wm
from wm.architectures import build
from wm.attacks import ATTACKS, Stolen, attacked


@pytest.mark.slow
def test_the_overwritten_model_has_moved_and_is_the_same_for_the_same_seed(few_digits) -> None:
    architecture = wm.Architecture("resnet18", {"num_classes": 10})
    stolen = Stolen(model=build(architecture, seed=1).eval(), architecture=architecture, data=few_digits)
    first, again, other = (
        attacked(ATTACKS["overwriting"], stolen, strength=1, seed=seed).get_parameter("layer1.0.conv1.weight")
        for seed in (1, 1, 2)
    )
    assert (first == again).all()
    assert not (first == other).all()
    assert not (first == stolen.model.get_parameter("layer1.0.conv1.weight")).all()
