"""Promised: a mark in a Bi-LSTM is embedded, verified with all controls, and missed by every twin."""

from pathlib import Path

import pytest
import torch
from texts import ARCHITECTURE, SETTINGS, SPEC, TextOwner, make_text_owner, sentiments

import wm
from wm.architectures import build
from wm.attacks import ATTACKS, Stolen, attacked
from wm.attacks.forgeries import FORGERIES
from wm.attacks.forgeries.forgery import info_for
from wm.branch import Branch
from wm.evidence import load_evidence
from wm.networks import bilstm
from wm.training import accuracy, fit
from wm.triggers import make_triggers
from wm.weights import load_weights, save_weights

pytestmark = pytest.mark.long

KEY, OTHER_KEY, SEED = bytes(range(32)), bytes(reversed(range(32))), bytes(32)


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> TextOwner:
    return make_text_owner(tmp_path_factory.mktemp("texts"), KEY)


def measured(model: Path, owner: TextOwner, key: bytes = KEY, *, controls: int = 0, permutations: int = 0):
    return wm.verify(model, owner.evidence_path, key, control_seed=SEED, controls=controls, permutations=permutations)


def test_the_marked_model_is_recognised_with_its_controls(owner: TextOwner) -> None:
    found = measured(owner.model_path, owner, controls=2, permutations=50)
    assert (found.total, found.permutations_as_good) == (100, 0)
    assert found.matched >= 95
    assert all(control.matched <= 75 for control in found.controls)
    assert found == measured(owner.model_path, owner, controls=2, permutations=50)


def test_another_key_and_an_independent_model_are_at_chance(owner: TextOwner, tmp_path: Path) -> None:
    other = build(ARCHITECTURE, seed=99)
    fit(other, owner.data, epochs=1, lr=1e-2, seed=99)
    save_weights(other, tmp_path / "other")
    assert 25 <= measured(owner.model_path, owner, OTHER_KEY).matched <= 75
    assert 25 <= measured(tmp_path / "other", owner).matched <= 75


def test_the_marked_model_still_does_its_task(owner: TextOwner) -> None:
    test = owner.data.test
    clean, marked = (accuracy(model, test.images, test.labels) for model in (owner.clean, owner.embedding.model))
    assert clean > 0.8
    assert marked > clean - 0.05


def test_a_head_that_is_fitted_afterwards_fits_a_model_without_a_mark_and_the_evidence_says_so(
    owner: TextOwner, tmp_path: Path
) -> None:
    triggers = make_triggers(KEY, SPEC, count=100)
    stolen = Stolen(
        model=owner.clean,
        architecture=ARCHITECTURE,
        data=owner.data,
        revealed=Branch(owner.embedding.head, owner.embedding.info, triggers),
    )
    forged = FORGERIES["posthoc_head"].forge(stolen, 60, 1, lambda _number: OTHER_KEY, lambda _progress: None)
    info = forged.info.with_files(model_sha256=save_weights(forged.accused, tmp_path / "model"), base_sha256=None)
    wm.save_evidence(tmp_path / "evidence", wm.EvidenceFile(forged.head, info, bytes(32)))
    found = wm.verify(
        tmp_path / "model", tmp_path / "evidence", OTHER_KEY, control_seed=SEED, permutations=20, controls=1
    )
    assert found.matched > 0.9 * found.total  # which is why a head counts only if it was published before
    assert owner.embedding.head.tensors()["mean"].shape == forged.head.tensors()["mean"].shape


def test_the_whole_evidence_survives_the_disk(owner: TextOwner) -> None:
    loaded = load_evidence(owner.evidence_path)
    assert loaded.info.input == SPEC
    assert loaded.info.modules == bilstm.taps(2)


def test_a_frozen_embedding_is_left_alone_by_the_embedding_too(tmp_path: Path) -> None:
    data, clean = sentiments(train=32), build(ARCHITECTURE, seed=1)
    bilstm.freeze_embedding(clean)
    marked = wm.embed(clean, data, KEY, architecture=ARCHITECTURE, settings=SETTINGS, seed=1).model
    assert torch.equal(clean.embedding.weight, marked.embedding.weight)
    assert not torch.equal(clean.layers[0].lstm.weight_hh_l0, marked.layers[0].lstm.weight_hh_l0)


def test_attacks_on_networks_of_texts_run_or_say_why_not(owner: TextOwner) -> None:
    few = sentiments(train=16)
    stolen = Stolen(model=load_weights(owner.model_path, ARCHITECTURE), architecture=ARCHITECTURE, data=few)
    tuned = attacked(ATTACKS["ftll"], stolen, strength=1e-4, seed=1)
    assert torch.equal(tuned.embedding.weight, stolen.model.embedding.weight)
    for name in ("adversarial_training", "scaling", "neuron_pruning"):
        with pytest.raises(wm.WatermarkError) as caught:
            attacked(ATTACKS[name], stolen, strength=ATTACKS[name].scale.usual[0], seed=1)
        assert caught.value.code == "unknown_architecture"


def test_forgers_describe_a_branch_of_texts_as_owners_do(owner: TextOwner) -> None:
    stolen = Stolen(model=owner.clean, architecture=ARCHITECTURE, data=owner.data)
    assert info_for(stolen).taps == owner.embedding.info.taps
