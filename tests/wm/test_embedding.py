"""Promised: one call embeds, leaves the given model alone, and refuses what it does not know."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import wm
from wm.data import Dataset
from wm.weights import save_weights

pytestmark = pytest.mark.long


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


def test_the_report_tells_the_losses_on_the_way(owner) -> None:
    report = json.loads(json.dumps(owner.embedding.report, allow_nan=False))
    (row,) = report["history"]
    assert row["step"] == owner.settings.steps
    assert row.keys() == {"step", "task_loss", "mark_loss", "tuning_loss", "function_loss", "matched"}
    assert 0 <= row["matched"] <= 1
    assert 0 <= row["function_loss"] < 0.01
    assert all(row[name] > 0.01 for name in ("task_loss", "mark_loss", "tuning_loss"))


def test_in_bfloat16_a_mark_takes_and_is_verified_in_single_precision(
    owner, few_digits: Dataset, tmp_path: Path
) -> None:
    settings = replace(owner.settings, precision="bfloat16")
    half = wm.embed(owner.clean, few_digits, owner.key, architecture=owner.architecture, settings=settings, seed=1)
    model_path, evidence_path = tmp_path / "model.safetensors", tmp_path / "evidence.safetensors"
    info = half.info.with_files(model_sha256=save_weights(half.model, model_path), base_sha256=None)
    wm.save_evidence(evidence_path, wm.with_reference(wm.EvidenceFile(half.head, info, bytes(32)), half.model))

    def measured(key: bytes) -> wm.Evidence:
        return wm.verify(model_path, evidence_path, key, control_seed=bytes(32), permutations=19, controls=1)

    found = measured(owner.key)
    assert found.matched == half.report["curves"]["marked"][-1][1] * 100 >= 95
    assert found.permutations_as_good == 0
    assert found.controls[0].matched <= 75
    assert 25 <= measured(owner.other_key).matched <= 75
    weight = "layer1.0.conv1.weight"
    assert half.model.state_dict()[weight].dtype == torch.float32
    assert not torch.equal(half.model.state_dict()[weight], owner.embedding.model.state_dict()[weight])


def test_an_unknown_scheme_is_refused(owner, few_digits: Dataset) -> None:
    with pytest.raises(wm.WatermarkError) as caught:
        wm.embed(owner.clean, few_digits, owner.key, architecture=owner.architecture, scheme="rot13", seed=1)
    assert caught.value.code == "unknown_scheme"


def test_a_watermark_key_of_another_length_is_refused(owner, few_digits: Dataset) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        wm.embed(
            owner.clean, few_digits, owner.key[:-1], architecture=owner.architecture, settings=owner.settings, seed=1
        )
