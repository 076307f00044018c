"""Promised: stage 2 repeats bit by bit, and without R_DA it meets no shadow."""

from dataclasses import replace

import pytest
import torch

import wm
from wm.architectures import Architecture, build
from wm.data import Dataset

pytestmark = pytest.mark.long

KEY = bytes(32)
ARCHITECTURE = Architecture("resnet18", {"num_classes": 10})
SETTINGS = wm.EmbedSettings(
    triggers=100,
    hidden=8,
    pooling=1,
    steps=2,
    trigger_batch=20,
    primary_batch=2,
    shadows=1,
    shadow_steps=1,
    head_steps=3,
)


def embedded(data: Dataset, settings: wm.EmbedSettings, *, seed: int = 1) -> wm.Embedding:
    model = build(ARCHITECTURE, seed=1)
    return wm.embed(model, data, KEY, architecture=ARCHITECTURE, settings=settings, seed=seed)


def test_one_seed_gives_a_bit_identical_embedding(few_digits: Dataset) -> None:
    first, again = (embedded(few_digits, SETTINGS) for _ in range(2))
    other = embedded(few_digits, SETTINGS, seed=2)
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])
    assert torch.equal(first.head.hidden.weight, again.head.hidden.weight)
    assert not torch.equal(first.head.hidden.weight, other.head.hidden.weight)


def test_without_the_regularizer_no_shadow_is_met(few_digits: Dataset) -> None:
    plain = embedded(few_digits, replace(SETTINGS, tuning_regularizer="none", lambda1=0.0, primary_weight=0.0))
    assert plain.report["curves"]["unseen_shadow"] == []


def test_taps_may_be_chosen(few_digits: Dataset) -> None:
    chosen = embedded(few_digits, replace(SETTINGS, taps=("layer1.0", "layer2"), steps=1, shadows=0))
    assert chosen.info.modules == ("layer1.0", "layer2")
