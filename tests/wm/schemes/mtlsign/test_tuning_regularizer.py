"""Promised: whom R_DA teaches: `head` the head alone, `fomaml` the backbone too but once, `delta` both by one shift."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from wm.architectures import Architecture
from wm.backbone import Tap, features, features_in_evaluation
from wm.data import Dataset
from wm.head import Head, initial_head
from wm.info import Info, Probing
from wm.randomness import seeded
from wm.schemes.mtlsign import EmbedSettings
from wm.schemes.mtlsign.shadows import Shadowing, shadow_of
from wm.schemes.mtlsign.tuning_regularizer import TuningRegularizer
from wm.triggers import make_triggers

CHOSEN = torch.arange(0, 100, 3)
SETTINGS = EmbedSettings(triggers=100, shadows=3, steps=10, shadow_steps=3, primary_batch=8, trigger_batch=20, hidden=8)


@pytest.fixture
def network() -> nn.Module:
    with seeded("regularized"):
        layers = [nn.Conv2d(3, 6, 3, stride=4), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 64, 10)]
        return nn.Sequential(*layers).eval()


@pytest.fixture
def shadowing(few_digits: Dataset) -> Shadowing:
    info = Info(
        scheme="mtlsign",
        architecture=Architecture("resnet18"),  # is not asked for here
        taps=(Tap("2", 6, 8, 8),),
        pooling=4,
        hidden=8,
        triggers=100,
        gamma="0.7",
        input=few_digits.input,
        reference=Probing(probes=16, pooling=2, centred=True),
    )
    triggers = make_triggers(bytes(32), info.input, count=info.triggers)
    return Shadowing(info, triggers, few_digits.train, SETTINGS, 1)


def regularizer(shadowing: Shadowing, form: str) -> TuningRegularizer:
    return TuningRegularizer(replace(shadowing, settings=replace(SETTINGS, tuning_regularizer=form)))


def read(network: nn.Module, shadowing: Shadowing) -> Tensor:
    info = shadowing.info
    return features_in_evaluation(network, info.modules, shadowing.triggers.images, pooling=info.pooling)


def head_of(network: nn.Module, shadowing: Shadowing) -> Head:
    return initial_head(read(network, shadowing), shadowing.info.taps, pooling=4, hidden=8, seed=1)


def moved(network: nn.Module) -> None:
    with torch.no_grad():
        for value in network.parameters():
            value.add_(0.05)


@pytest.mark.parametrize("form", ["head", "fomaml"])
def test_the_head_learns_on_features_that_stay_as_they_were(
    network: nn.Module, shadowing: Shadowing, form: str
) -> None:
    rda = regularizer(shadowing, form)
    met = rda.meet(network)
    moved(network)
    present = read(network, shadowing)[CHOSEN].requires_grad_()
    tuned = rda.tuned(present, CHOSEN)
    assert torch.equal(tuned, met[CHOSEN])
    assert not tuned.requires_grad


def test_a_shadow_is_kept_as_verification_reads_it_with_the_models_own_mean(
    network: nn.Module, shadowing: Shadowing
) -> None:
    before, shadow = read(network, shadowing), read(shadow_of(network, shadowing, number=0), shadowing)
    met = regularizer(shadowing, "head").meet(network)
    assert not torch.allclose(shadow.mean(0), before.mean(0), atol=1e-4)
    assert torch.allclose(met.mean(0), before.mean(0), atol=1e-5)
    assert torch.allclose(met - met.mean(0), shadow - shadow.mean(0), atol=1e-5)
    for probing in (Probing(probes=16, pooling=2), None):  # nothing is centred in verification either
        info = replace(shadowing.info, reference=probing)
        assert torch.equal(regularizer(replace(shadowing, info=info), "head").meet(network), shadow)


def test_delta_is_the_shift_of_the_tuning_and_no_more_when_the_model_moves_on(
    network: nn.Module, shadowing: Shadowing
) -> None:
    rda = regularizer(shadowing, "delta")
    before = read(network, shadowing)
    shift = (rda.meet(network) - before)[CHOSEN]
    moved(network)
    present = read(network, shadowing)[CHOSEN].requires_grad_()
    tuned = rda.tuned(present, CHOSEN)
    assert float(shift.abs().max()) > 0
    assert torch.allclose(tuned - present, shift, atol=1e-6)
    (gradient,) = torch.autograd.grad(tuned.sum(), present)
    assert torch.equal(gradient, torch.ones_like(present))


def test_fomamls_term_has_the_gradient_at_the_tuned_weights_once_and_no_value(
    network: nn.Module, shadowing: Shadowing
) -> None:
    network[1].weight.requires_grad = False  # a frozen parameter has no gradient, and is in nobody's way
    head, labels = head_of(network, shadowing), shadowing.triggers.labels[CHOSEN].long()
    shadow = shadow_of(network, shadowing, number=0)
    images = shadowing.triggers.images[CHOSEN]
    shift = read(network, shadowing).mean(0) - read(shadow, shadowing).mean(0)
    loss = F.cross_entropy(head(features(shadow, ["2"], images, pooling=4) + shift), labels)
    (expected,) = torch.autograd.grad(3.0 * loss, [shadow[0].weight])
    rda = regularizer(shadowing, "fomaml")
    rda.meet(network)
    term = rda.fresh_term(network, head, CHOSEN, labels, weight=3.0)
    term.backward()
    assert float(term.detach()) == 0
    assert torch.allclose(network[0].weight.grad, expected, atol=1e-6)
    assert rda.fresh_term(network, head, CHOSEN, labels, weight=3.0) is None  # it is not fresh any more
    assert float(expected.abs().max()) > 0
    assert network[1].weight.grad is None
    assert network[4].weight.grad is None
    assert head.hidden.weight.grad is None


@pytest.mark.parametrize("form", ["head", "delta"])
def test_without_fomaml_there_is_no_such_term(network: nn.Module, shadowing: Shadowing, form: str) -> None:
    rda = regularizer(shadowing, form)
    rda.meet(network)
    labels = shadowing.triggers.labels[CHOSEN].long()
    assert rda.fresh_term(network, head_of(network, shadowing), CHOSEN, labels, weight=1.0) is None


def test_shadows_are_met_at_even_steps_after_the_first_fifth_and_not_at_all_without_r_da(
    network: nn.Module, shadowing: Shadowing
) -> None:
    rda, due = regularizer(shadowing, "head"), []
    for step in range(SETTINGS.steps):
        if rda.is_due(step):
            due.append(step)
            rda.meet(network)
    assert (due, rda.met) == ([2, 4, 6], 3)
    none = regularizer(shadowing, "none")
    assert not any(none.is_due(step) for step in range(SETTINGS.steps))
    assert none.tuned(read(network, shadowing)[CHOSEN], CHOSEN) is None
