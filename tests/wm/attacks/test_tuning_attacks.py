"""Promised: each attack that trains trains what its name says, towards what its name says."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from wm.architectures import Architecture, OwnArchitecture, build
from wm.attacks import ATTACKS, Stolen, attacked
from wm.attacks.adversarial_training import perturbed
from wm.attacks.tuning import last_layer
from wm.attacks.weight_shift import shift
from wm.branch import logit_margins
from wm.data import Dataset, Examples
from wm.errors import WatermarkError
from wm.randomness import generator
from wm.training import accuracy
from wm.triggers import InputSpec, Normalisation

pytestmark = pytest.mark.long

FAINT, STRONG = 1e-6, 1e-2


def changed(model: torch.nn.Module, stolen: Stolen) -> set[str]:
    before = stolen.model.state_dict()
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("name", ["ftll", "rtll"])
def test_only_the_last_layer_changes_batch_statistics_included(stolen: Stolen, name: str) -> None:
    assert changed(attacked(ATTACKS[name], stolen, strength=STRONG, seed=1), stolen) == {"fc2.weight", "fc2.bias"}


@pytest.mark.parametrize("name", ["ftal", "rtal"])
def test_all_layers_and_the_batch_statistics_change(stolen: Stolen, name: str) -> None:
    assert changed(attacked(ATTACKS[name], stolen, strength=STRONG, seed=1), stolen) == set(stolen.model.state_dict())


@pytest.mark.parametrize(("name", "forgets"), [("ftll", False), ("ftal", False), ("rtll", True), ("rtal", True)])
def test_retraining_forgets_the_classes_first(stolen: Stolen, name: str, forgets) -> None:
    test = stolen.data.test
    barely_trained = attacked(ATTACKS[name], stolen, strength=FAINT, seed=1)
    assert (accuracy(barely_trained, test.images, test.labels) < 0.3) is forgets
    few = stolen.data.train
    trained = attacked(ATTACKS[name], stolen, strength=STRONG, seed=1)
    assert accuracy(trained, few.images, few.labels) > 0.6


def pictures(classes: int, *, side: int = 64) -> Dataset:
    """Two pictures of noise."""
    spec = InputSpec(3, side, side, Normalisation(("0.5",) * 3, ("0.5",) * 3))
    two = Examples(torch.rand(2, 3, side, side, generator=generator(1)), torch.arange(2))
    return Dataset("noise", classes, spec, train=two, validation=two, test=two)


class ClassifierFirst(nn.Module):
    """Somebody's own network: what runs last is declared first, and as wide as a layer that runs before it."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(4, 4)
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.backbone(images).mean((2, 3)))


def test_the_last_layer_is_found_in_the_catalogue_or_refused() -> None:
    of = {"resnet18": 512, "mobilenet_v3_small": 1024, "squeezenet1_1": 512}
    for name, inputs in of.items():
        assert last_layer(build(Architecture(name), seed=0), pictures(1000)).weight.shape[1] == inputs
    with pytest.raises(WatermarkError, match="ends in BatchNorm1d"):
        last_layer(nn.Sequential(nn.Flatten(), nn.Linear(48, 2), nn.BatchNorm1d(2)), pictures(2, side=4))
    with pytest.raises(WatermarkError, match="has 2 outputs"):
        last_layer(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), pictures(3, side=4))


@pytest.mark.parametrize("is_training", [True, False])
def test_the_last_layer_is_what_runs_last_and_looking_for_it_leaves_no_trace(*, is_training) -> None:
    model = ClassifierFirst().train(is_training)
    before = copy.deepcopy(model.state_dict())
    assert last_layer(model, pictures(4, side=8)) is model.classifier
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == [is_training] * 6
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(("name", "kept"), [("ftll", True), ("rtll", True), ("rtal", False)])
def test_the_attacks_on_the_last_layer_know_a_classifier_that_is_declared_first(name: str, kept) -> None:
    own = Stolen(model=ClassifierFirst().eval(), architecture=OwnArchitecture(), data=pictures(4, side=8))
    of = changed(attacked(ATTACKS[name], own, strength=STRONG, seed=1), own)
    assert of >= {"classifier.weight", "classifier.bias"}
    assert (of == {"classifier.weight", "classifier.bias"}) is kept


def test_smoothed_labels_make_the_model_less_sure(stolen: Stolen, answers) -> None:
    sure, unsure = (
        F.softmax(answers(attacked(ATTACKS["label_smoothing"], stolen, strength=s, seed=1), stolen.data.test), 1)
        for s in (0.0, 0.9)
    )
    assert unsure.amax(1).mean() < sure.amax(1).mean() - 0.05


def loss_on(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    with torch.no_grad():
        return float(F.cross_entropy(model.eval()(images), labels))


def test_adversarial_pictures_stay_near_are_pictures_and_mislead(stolen: Stolen) -> None:
    test, spec = stolen.data.test, stolen.data.input
    moved = perturbed(stolen.model, test, spec, levels=8, source=generator(1))
    std = torch.tensor([float(value) for value in spec.normalisation.std])[:, None, None]
    mean = torch.tensor([float(value) for value in spec.normalisation.mean])[:, None, None]
    assert ((moved - test.images).abs() * std * 255).max() <= 8.01
    pixels = moved * std + mean
    assert pixels.min() >= -1e-4
    assert pixels.max() <= 1 + 1e-4
    noise = 2 * torch.rand(test.images.shape, generator=generator(2)) - 1
    misled = loss_on(stolen.model, moved, test.labels)
    assert misled > 1.5 * loss_on(stolen.model, test.images + noise * 8 / 255 / std, test.labels)


def test_adversarial_training_makes_the_model_harder_to_mislead(stolen: Stolen) -> None:
    trained = attacked(ATTACKS["adversarial_training"], stolen, strength=32, seed=1)
    tuned = attacked(ATTACKS["ftal"], stolen, strength=3e-4, seed=1)
    spec, test = stolen.data.input, stolen.data.test
    hard, easy = (
        loss_on(model, perturbed(model, test, spec, levels=32, source=generator(1)), test.labels)
        for model in (trained, tuned)
    )
    assert hard < 0.9 * easy


def test_a_shift_is_as_strong_as_it_says_and_tuning_follows_it(stolen: Stolen) -> None:
    layer = stolen.model.layer2.conv1.requires_grad_(requires_grad=False)
    was, fully_connected = layer.weight.clone(), stolen.model.fc2.weight.detach().clone()
    repaired = attacked(ATTACKS["weight_shift"], stolen, strength=0.5, seed=1)
    shift(stolen.model, 0.5, seed=1)
    moved = (was - layer.weight) / 0.5 - was.mean(0)
    assert float(moved.std()) == pytest.approx(float(was.std()), rel=0.1)
    assert torch.equal(stolen.model.fc2.weight, fully_connected)
    test = stolen.data.test
    assert accuracy(repaired, test.images, test.labels) > accuracy(stolen.model, test.images, test.labels)


def test_spoiling_wears_the_mark_and_the_same_tuning_without_it_does_not(stolen: Stolen) -> None:
    """In margins: how many of a small net's 200 triggers tip over differs from one processor to another."""
    branch = replace(stolen.revealed, reference=None)

    def margin(model: torch.nn.Module) -> float:
        """By how much the model's answers are the key's, in logits, on average."""
        with torch.no_grad():
            margins = logit_margins(branch.head, branch.read(model))
        return float(torch.where(branch.triggers.labels, margins, -margins).mean())

    before = margin(stolen.model)
    tuned = attacked(ATTACKS["ftal"], stolen, strength=3e-4, seed=1)
    spoiled = attacked(ATTACKS["spoil"], stolen, strength=150, seed=2)
    assert margin(tuned) > 0.6 * before
    assert margin(spoiled) < 0.6 * margin(tuned)
    assert stolen.revealed.head.hidden.weight.requires_grad
