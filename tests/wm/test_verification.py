"""Promised: files in, counts out; the owner's key on the owner's model passes and every twin fails."""

from pathlib import Path

import pytest
import torch

import wm
from wm.architectures import build
from wm.weights import save_weights

SEED = bytes(32)


def measured(model: Path, owner, key: bytes | None = None, *, permutations: int = 0, controls: int = 0) -> wm.Evidence:
    return wm.verify(
        model, owner.evidence_path, key or owner.key, control_seed=SEED, permutations=permutations, controls=controls
    )


def test_the_marked_model_is_recognised_with_its_controls(owner) -> None:
    found = measured(owner.model_path, owner, permutations=20, controls=1)
    assert found.matched >= 95
    assert found.total == 100
    assert found.p_value < 1e-20
    assert (found.permutations, found.permutations_as_good) == (20, 0)
    assert found.controls[0].matched <= 75
    assert found == measured(owner.model_path, owner, permutations=20, controls=1)


def test_another_key_is_at_chance(owner) -> None:
    assert 25 <= measured(owner.model_path, owner, owner.other_key).matched <= 75


def test_an_independent_model_is_at_chance(owner, tmp_path: Path) -> None:
    save_weights(build(owner.architecture, seed=99), tmp_path / "other")
    assert 25 <= measured(tmp_path / "other", owner).matched <= 75


def test_the_global_settings_are_restored(owner) -> None:
    before = torch.are_deterministic_algorithms_enabled()
    measured(owner.model_path, owner)
    assert torch.are_deterministic_algorithms_enabled() == before


def test_evidence_given_as_a_model_is_refused(owner) -> None:
    with pytest.raises(wm.WatermarkError) as caught:
        measured(owner.evidence_path, owner)
    assert caught.value.code == "mismatch"
