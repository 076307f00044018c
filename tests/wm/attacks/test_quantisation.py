"""Promised: no layer has more than 2^bits different weights, and many bits change next to nothing."""

import pytest
import torch

from wm.attacks import ATTACKS, Stolen, attacked
from wm.weight_layers import prunable


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_a_layer_has_as_many_values_as_its_bits_allow(stolen: Stolen, bits: int) -> None:
    model = attacked(ATTACKS["quantisation"], stolen, strength=bits, seed=1)
    for weight, was in zip(prunable(model), prunable(stolen.model), strict=True):
        assert len(weight.unique()) <= 2**bits
        assert torch.allclose(torch.stack(weight.aminmax()), torch.stack(was.aminmax()), rtol=1e-4)
        step = (was.max() - was.min()) / (2**bits - 1)
        assert (weight - was).abs().max() <= 0.501 * step


def test_sixteen_bits_keep_the_weights(stolen: Stolen) -> None:
    model = attacked(ATTACKS["quantisation"], stolen, strength=16, seed=1)
    for weight, was in zip(prunable(model), prunable(stolen.model), strict=True):
        assert torch.allclose(weight, was, atol=1e-4)


def test_a_layer_of_equal_weights_stays(stolen: Stolen) -> None:
    torch.nn.init.constant_(stolen.model.fc2.weight, 0.25)
    model = attacked(ATTACKS["quantisation"], stolen, strength=2, seed=1)
    assert torch.equal(model.fc2.weight, stolen.model.fc2.weight)
