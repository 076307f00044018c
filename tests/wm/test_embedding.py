"""Promised: one call embeds, leaves the given model alone, and refuses what it does not know."""

import json

import pytest
import torch

import wm
from wm.data import Dataset


def test_the_clean_model_is_left_alone_and_the_marked_one_has_moved(owner) -> None:
    clean, marked = owner.clean.state_dict(), owner.embedding.model.state_dict()
    assert not torch.equal(clean["layer1.0.conv1.weight"], marked["layer1.0.conv1.weight"])
    assert 0 < owner.embedding.report["weight_change"] < 0.1
    assert torch.equal(clean["bn1.running_mean"], marked["bn1.running_mean"])
    assert not owner.embedding.model.training


def test_the_report_is_plain_json_with_curves(owner) -> None:
    report = json.loads(json.dumps(owner.embedding.report))
    assert len(report["curves"]["unseen_shadow"]) == owner.settings.shadows
    assert report["curves"]["marked"][-1][1] >= 0.95


def test_an_unknown_scheme_is_refused(owner, few_digits: Dataset) -> None:
    with pytest.raises(wm.WatermarkError) as caught:
        wm.embed(owner.clean, few_digits, owner.key, architecture=owner.architecture, scheme="rot13", seed=1)
    assert caught.value.code == "unknown_scheme"


def test_a_watermark_key_of_another_length_is_refused(owner, few_digits: Dataset) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        wm.embed(
            owner.clean, few_digits, owner.key[:-1], architecture=owner.architecture, settings=owner.settings, seed=1
        )
