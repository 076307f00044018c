"""Promised: files in, counts out; the owner's key on the owner's model passes and every twin fails.

Channels are aligned where the plain count is not enough and the evidence has a reference, and nowhere else.
"""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import wm
from wm.architectures import build
from wm.attacks import ATTACKS, Stolen, attacked
from wm.symmetries.channels import free_streams
from wm.symmetries.streams import Part, multiply
from wm.weights import save_weights

pytestmark = pytest.mark.long

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


def attacked_file(owner, few_digits, path: Path, **strengths: float) -> Path:
    stolen = Stolen(model=owner.embedding.model, architecture=owner.architecture, data=few_digits)
    for name, strength in strengths.items():
        stolen = replace(stolen, model=attacked(ATTACKS[name], stolen, strength=strength, seed=1))
    save_weights(stolen.model, path)
    return path


def without_reference(owner, path: Path) -> Path:
    evidence = wm.load_evidence(owner.evidence_path)
    wm.save_evidence(path, replace(evidence, info=replace(evidence.info, reference=None), reference=None))
    return path


def test_what_convicts_as_it_is_is_not_aligned(owner) -> None:
    found = measured(owner.model_path, owner)
    assert (found.aligned, found.matched_unaligned) == (False, None)


def test_a_permuted_copy_is_recognised_with_aligned_controls(owner, few_digits, tmp_path: Path) -> None:
    hidden = attacked_file(owner, few_digits, tmp_path / "hidden", permutation=1.0, scaling=5.0)
    found = measured(hidden, owner, permutations=20, controls=1)
    assert found.matched >= 95
    assert found.aligned
    assert found.matched_unaligned <= 75
    assert found.permutations_as_good == 0
    assert found.controls[0].matched <= 75
    assert found == measured(hidden, owner, permutations=20, controls=1)


def test_a_count_above_the_callers_bound_and_the_infos_own_is_not_improved(owner, few_digits, tmp_path: Path) -> None:
    few = attacked_file(owner, few_digits, tmp_path / "few", scaling=1.5)
    plain = measured(few, owner)
    assert 70 <= plain.matched < 100
    assert not plain.aligned
    asked_for_all = wm.verify(
        few, owner.evidence_path, owner.key, control_seed=SEED, permutations=0, controls=0, least_matched=100
    )
    assert asked_for_all.aligned
    assert asked_for_all.matched_unaligned == plain.matched < asked_for_all.matched


def test_a_permuted_copy_is_lost_to_evidence_without_a_reference(owner, few_digits, tmp_path: Path) -> None:
    hidden = attacked_file(owner, few_digits, tmp_path / "hidden", permutation=1.0)
    old = replace(owner, evidence_path=without_reference(owner, tmp_path / "evidence"))
    found = measured(hidden, old)
    assert found.matched <= 75
    assert not found.aligned


@pytest.mark.parametrize(("value", "is_counted"), [(3.4e38, False), (-1e30, True), (1e-45, True)])
def test_a_centre_out_of_all_bounds_is_an_error_that_is_named_or_convicts_nobody(
    owner, tmp_path: Path, value: float, *, is_counted: bool
) -> None:
    evidence = wm.load_evidence(owner.evidence_path)
    centre = torch.full_like(evidence.reference.centre, value)
    wm.save_evidence(tmp_path / "evidence", replace(evidence, reference=replace(evidence.reference, centre=centre)))
    save_weights(build(owner.architecture, seed=99), tmp_path / "other")
    hostile = replace(owner, evidence_path=tmp_path / "evidence")
    if is_counted:
        assert measured(tmp_path / "other", hostile).matched <= 75
    else:
        with pytest.raises(wm.WatermarkError, match="not finite") as refused:
            measured(tmp_path / "other", hostile)
        assert refused.value.code == "malformed"
        assert measured(owner.model_path, hostile).matched >= 95  # which is read as it is


@pytest.mark.parametrize(("name", "value"), [("mean", 3e38), ("std", 1e-44)])
def test_a_head_that_answers_with_infinities_is_refused(owner, tmp_path: Path, name: str, value: float) -> None:
    evidence = wm.load_evidence(owner.evidence_path)
    getattr(evidence.head, name).fill_(value)
    wm.save_evidence(tmp_path / "evidence", evidence)
    with pytest.raises(wm.WatermarkError, match="the branch answers with a value that is not finite") as refused:
        measured(owner.model_path, replace(owner, evidence_path=tmp_path / "evidence"))
    assert refused.value.code == "malformed"


def test_a_widened_copy_is_recognised_if_there_is_something_to_align_it_to(owner, few_digits, tmp_path: Path) -> None:
    hidden = attacked_file(owner, few_digits, tmp_path / "hidden", dummy_neurons=0.1)
    found = measured(hidden, owner, controls=1)
    assert found.matched >= 95
    assert (found.aligned, found.matched_unaligned) == (True, None)
    with pytest.raises(wm.WatermarkError) as caught:
        measured(hidden, replace(owner, evidence_path=without_reference(owner, tmp_path / "evidence")))
    assert caught.value.code == "mismatch"


def test_controls_go_through_the_alignment_of_the_suspect(owner, few_digits, tmp_path: Path) -> None:
    hidden = attacked_file(owner, few_digits, tmp_path / "hidden", permutation=1.0)
    found = wm.verify(
        hidden,
        owner.evidence_path,
        owner.key,
        control_seed=SEED,
        permutations=0,
        controls=0,
        control_files=wm.ControlFiles(base=attacked_file(owner, few_digits, tmp_path / "base", scaling=3.0)),
    )
    assert found.aligned
    assert found.controls[0].matched >= 95  # a base whose mark only the alignment finds


@pytest.mark.parametrize("fewer", [{"permutations": -1}, {"controls": -1}])
def test_fewer_controls_than_none_are_refused(owner, fewer: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be 0 or more"):
        wm.verify(owner.model_path, owner.evidence_path, owner.key, control_seed=bytes(32), **fewer)


def test_paths_may_be_texts(owner) -> None:
    paths = str(owner.model_path), str(owner.evidence_path)
    assert wm.verify(*paths, owner.key, control_seed=bytes(32), permutations=0, controls=0).total


def test_channels_too_large_for_the_head_are_aligned(owner, tmp_path: Path) -> None:
    model = copy.deepcopy(owner.embedding.model)
    (tapped,) = (it for it in free_streams(model) if Part("layer1.0.bn2.weight") in it.makers)
    multiply(model, tapped, torch.full((tapped.channels,), 2.0**123, dtype=torch.float64))
    save_weights(model, tmp_path / "scaled")
    found = measured(tmp_path / "scaled", owner, controls=1)
    assert (found.aligned, found.matched_unaligned) == (True, None)
    assert found.matched >= 95
    assert found.controls[0].matched <= 75
