"""Promised: a shadow leaves the model alone, and differs by its number."""

import pytest
import torch
from torch import nn

from wm.backbone import features_in_evaluation
from wm.data import Dataset
from wm.schemes.mtlsign.shadows import Shadowing, shadow_of
from wm.triggers import make_triggers


@pytest.mark.long
def test_a_shadow_is_a_tuned_copy_and_every_other_one_is_overwritten(owner, few_digits: Dataset) -> None:
    info = owner.embedding.info
    triggers = make_triggers(owner.key, info.input, count=info.triggers)
    shadowing = Shadowing(info, triggers, few_digits.train, owner.settings, 1)
    before = {name: value.clone() for name, value in owner.embedding.model.state_dict().items()}

    def read(network: nn.Module) -> torch.Tensor:
        return features_in_evaluation(network, info.modules, triggers.images, pooling=info.pooling)

    shadows = [shadow_of(owner.embedding.model, shadowing, number=number) for number in (0, 1, 0)]
    tuned, overwritten, again = (read(shadow) for shadow in shadows)
    assert not torch.equal(tuned, read(owner.embedding.model))
    assert all(value.grad is None for value in shadows[0].parameters())
    assert torch.equal(tuned, again)
    assert not torch.equal(tuned, overwritten)
    assert all(torch.equal(value, before[name]) for name, value in owner.embedding.model.state_dict().items())
