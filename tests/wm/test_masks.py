"""Promised: networks that find objects are trained and marked as classifiers are, and the mark is in their backbone."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from interrupted import KilledError, Killing
from scenes import ARCHITECTURE, SETTINGS, SIDE, few_shapes

import wm
from wm.architectures import build
from wm.backbone import Precision, backbone_names
from wm.data import digits
from wm.evidence import load_evidence
from wm.scenes import Scenes, input_of
from wm.training import fit, measure_of, primary_loss, score
from wm.weights import save_weights

pytestmark = pytest.mark.long

KEY, OTHER_KEY, SEED = bytes(range(32)), bytes(reversed(range(32))), bytes(32)
DATA = few_shapes()


def statistics(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items() if "running_" in name}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_training_lowers_a_detectors_losses_and_one_seed_gives_one_model() -> None:
    models = [build(ARCHITECTURE, seed=1) for _ in range(2)]
    before = primary_loss(models[0].eval(), DATA.train).item()
    for model in models:
        report = fit(model, DATA, epochs=8, lr=2e-3, seed=1)
        assert (report.steps, report.images) == (8, 4)
    assert primary_loss(models[0], DATA.train).item() < 0.9 * before
    assert same(models[0].state_dict(), models[1].state_dict())
    assert not any(module.training for module in models[0].modules())


@pytest.mark.parametrize("keeps", [True, False])
def test_batch_normalisation_keeps_its_statistics_only_where_it_is_told_to(keeps: bool) -> None:
    model = build(ARCHITECTURE, seed=1)
    before, weight = statistics(model), model.get_parameter("backbone.body.bn1.weight").detach().clone()
    fit(model, DATA, epochs=1, seed=1, keeps_statistics=keeps)
    assert same(before, statistics(model)) is keeps
    assert not torch.equal(weight, model.get_parameter("backbone.body.bn1.weight"))


def test_the_measure_is_the_mask_map_of_scenes_and_the_accuracy_of_labels() -> None:
    assert (measure_of(DATA.test), measure_of(digits().test)) == ("mask_map", "accuracy")
    assert score(Knowing(DATA.test), DATA.test) == 1
    assert score(Knowing(DATA.test.take(torch.tensor([1, 0]))), DATA.test) < 0.5


class Knowing(torch.nn.Module):
    """Answers with the objects of given pictures, one after the other."""

    def __init__(self, scenes: Scenes) -> None:
        super().__init__()
        self.weight, self.scenes = torch.nn.Parameter(torch.zeros(1)), scenes

    def forward(self, pictures: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        assert len(pictures) == len(self.scenes)
        return [
            {"scores": torch.ones(len(each.labels)), "labels": each.labels, "masks": each.masks[:, None].float()}
            for each in self.scenes.objects
        ]


def test_triggers_have_half_the_pictures_side_within_limits() -> None:
    assert [input_of(side).width for side in (32, 64, 100, 224, 226, 800)] == [32, 32, 50, 112, 112, 112]


def test_the_usual_recipe_takes_few_whole_pictures_at_a_time() -> None:
    ours, theirs = (wm.EmbedSettings.usual(data.train, has_base=True) for data in (DATA, digits()))
    assert (ours.primary_batch, theirs.primary_batch) == (4, 64)
    assert ours.steps == theirs.steps == wm.EmbedSettings.beside_a_base().steps
    assert wm.EmbedSettings.usual(digits().train, has_base=False) == wm.EmbedSettings()


class Owner:
    """What an owner of a detector has after embedding."""

    def __init__(self, directory: Path) -> None:
        self.clean = build(ARCHITECTURE, seed=1).eval()
        self.before = copy.deepcopy(self.clean.state_dict())
        self.embedding = wm.embed(self.clean, DATA, KEY, architecture=ARCHITECTURE, settings=SETTINGS, seed=1)
        self.model_path, self.evidence_path = directory / "model.safetensors", directory / "evidence.safetensors"
        model_sha256 = save_weights(self.embedding.model, self.model_path)
        info = self.embedding.info.with_files(model_sha256=model_sha256, base_sha256=None)
        evidence = wm.EvidenceFile(self.embedding.head, info, bytes(32))
        wm.save_evidence(self.evidence_path, wm.with_reference(evidence, self.embedding.model))


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Owner:
    return Owner(tmp_path_factory.mktemp("masks"))


def test_embedding_trains_the_backbone_and_leaves_its_statistics_and_the_given_model_alone(owner: Owner) -> None:
    info, after = owner.embedding.info, owner.embedding.model.state_dict()
    tapped = backbone_names(owner.clean, info.modules, info.input.outline())
    trained = {name for name, _ in owner.clean.named_parameters()} & set(tapped)
    assert {name for name in trained if not torch.equal(owner.before[name], after[name])} == trained
    assert same(statistics(owner.clean), statistics(owner.embedding.model))
    assert same(owner.before, owner.clean.state_dict())
    assert owner.embedding.report["weight_change"] > 0
    assert set(owner.embedding.report["validation_mask_map"]) == {"clean", "marked"}


def test_the_mark_is_read_at_the_backbones_taps_and_another_key_is_at_chance(owner: Owner) -> None:
    info = load_evidence(owner.evidence_path).info
    assert info.modules == ("backbone.body.layer1", "backbone.body.layer2", "backbone.body.layer3")
    assert (info.input.height, info.input.width) == (SIDE, SIDE)
    found = wm.verify(owner.model_path, owner.evidence_path, KEY, control_seed=SEED, controls=2, permutations=20)
    assert found.matched >= 95
    assert found.permutations_as_good == 0
    assert all(control.matched <= 75 for control in found.controls)
    assert 25 <= wm.verify(owner.model_path, owner.evidence_path, OTHER_KEY, control_seed=SEED).matched <= 75


def test_new_detector_heads_do_not_hide_the_mark(owner: Owner, tmp_path: Path) -> None:
    stolen, fresh = copy.deepcopy(owner.embedding.model), build(ARCHITECTURE, seed=5)
    for part in ("rpn", "roi_heads", "backbone.fpn"):
        stolen.get_submodule(part).load_state_dict(fresh.get_submodule(part).state_dict())
    save_weights(stolen, tmp_path / "stolen")
    assert wm.verify(tmp_path / "stolen", owner.evidence_path, KEY, control_seed=SEED).matched >= 95
    stolen.get_submodule("backbone.body").load_state_dict(fresh.get_submodule("backbone.body").state_dict())
    save_weights(stolen, tmp_path / "other")
    assert wm.verify(tmp_path / "other", owner.evidence_path, KEY, control_seed=SEED).matched <= 75


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_finds_objects_goes_on_after_a_kill_to_the_same_bits(tmp_path: Path, precision: Precision) -> None:
    def trained(savepoint: wm.Savepoint | None) -> torch.nn.Module:
        model = build(ARCHITECTURE, seed=1)
        fit(model, DATA, epochs=3, seed=1, precision=precision, savepoint=savepoint)
        return model

    def embedded(savepoint: wm.Savepoint | None) -> torch.nn.Module:
        settings = replace(SETTINGS, precision=precision)
        usual = {"architecture": ARCHITECTURE, "settings": settings, "seed": 1}
        return wm.embed(models[0], DATA, KEY, savepoint=savepoint, **usual).model

    models = [trained(None)]
    for make in (trained, embedded):
        path = tmp_path / make.__name__
        whole = make(None).state_dict()
        with pytest.raises(KilledError):
            make(Killing(path, after=2))
        resumed = make(wm.Savepoint(path)).state_dict()
        assert all(bool(torch.isfinite(value).all()) for value in whole.values())
        assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
