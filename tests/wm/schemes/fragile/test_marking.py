"""Promised: the model stays as it was to the bit, every trigger gets its label near the boundary, noise flips none."""

import copy
from dataclasses import replace

import pytest
import torch
from fragile_owner import KEY, OTHER_KEY, SETTINGS, Owner, small_network
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wm.data import Dataset
from wm.errors import WatermarkError
from wm.pixels import from_pixels
from wm.schemes import fragile
from wm.schemes.fragile import marking
from wm.schemes.fragile.numerics import Margins, measure, variations
from wm.schemes.scheme import answers, matches
from wm.training import fit
from wm.triggers import TextSpec

pytestmark = pytest.mark.long


def _same_bits(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_the_model_is_bit_identical_and_the_one_given_is_untouched(owner: Owner) -> None:
    assert _same_bits(owner.marked.model, owner.before)
    assert _same_bits(owner.model, owner.before)
    assert owner.marked.model is not owner.model
    assert owner.model.training
    assert not owner.marked.model.training
    assert all(it.requires_grad for it in owner.marked.model.parameters())
    assert owner.marked.report["validation_accuracy"]["clean"] == owner.marked.report["validation_accuracy"]["marked"]


def test_the_marked_model_gives_every_trigger_its_label(owner: Owner) -> None:
    assert matches(owner.marked.model, owner.triggers, owner.data.input).sum() == SETTINGS.triggers
    assert owner.marked.report["matched"] == {"clean": SETTINGS.triggers, "marked": SETTINGS.triggers}


def test_a_wrong_key_an_independent_and_a_tuned_model_do_not(owner: Owner) -> None:
    spec, payload = owner.data.input, owner.marked.payload
    wrong = fragile.class_triggers(payload, OTHER_KEY)
    assert matches(owner.model, wrong, spec).sum() < SETTINGS.triggers / 2
    independent = small_network(2)
    fit(independent, owner.data, epochs=2, lr=3e-3, seed=2)
    assert matches(independent, owner.triggers, spec).sum() < SETTINGS.triggers
    tuned = copy.deepcopy(owner.model)
    fit(tuned, owner.data, epochs=1, lr=1e-3, seed=3)
    assert matches(tuned, owner.triggers, spec).sum() < SETTINGS.triggers


def test_no_benign_variation_flips_a_label(owner: Owner) -> None:
    images = from_pixels(owner.triggers.pixels, owner.data.input)
    for name, logits in variations(tf32=True).items():
        assert torch.equal(logits(owner.model, images).argmax(1), owner.triggers.labels), name
    double = copy.deepcopy(owner.model).double().eval()
    assert torch.equal(double(images.double()).argmax(1), owner.triggers.labels)


def test_margins_are_ten_times_the_noise_and_hardly_more(owner: Owner, monkeypatch) -> None:
    found = []

    def watched(*arguments: object, **options: object) -> Margins:
        found.append(measure(*arguments, **options))
        return found[-1]

    monkeypatch.setattr(marking, "measure", watched)
    marked = fragile.embed(owner.model, owner.data, KEY, settings=SETTINGS, seed=1)
    images = from_pixels(marked.payload.tensors()["pixels"], owner.data.input)
    measured = measure(owner.model, images, owner.triggers.labels, tf32=True)
    drawn = max(distance for name, distance in measured.noise.items() if name != "TF32, cut off")
    assert float(measured.margins.min()) >= measured.least(10) >= 10 * drawn
    band = found[1].usual_least(10)  # the noise after the first polishing sets it
    assert band <= float(measured.margins.min()) <= float(measured.margins.max()) <= 1.5 * band


def test_a_trigger_of_great_noise_is_begun_anew_and_what_is_good_stays(owner: Owner, monkeypatch) -> None:
    shown = []

    def noisy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, *, tf32: bool) -> Margins:
        found = measure(model, images, labels, tf32=tf32)
        shown.append(images)
        if len(shown) == 2:  # after the first polishing
            for distances in found.distances.values():
                distances[3] *= 50
        return found

    monkeypatch.setattr(marking, "measure", noisy)
    marked = fragile.embed(owner.model, owner.data, KEY, settings=SETTINGS, seed=1)
    final = from_pixels(marked.payload.tensors()["pixels"], owner.data.input)
    stayed = (shown[1] == final).flatten(1).all(1)
    assert not bool(stayed[3])
    assert int(stayed.sum()) >= 0.7 * SETTINGS.triggers
    assert marked.report["in_band"][0] < marked.report["in_band"][-1] == SETTINGS.triggers
    assert [len(it) for it in shown[:2]] == [SETTINGS.triggers] * 2
    assert all(len(it) <= int((~stayed).sum()) for it in shown[2:])  # what stays is not measured again


def test_without_tf32_margins_are_finer(owner: Owner) -> None:
    marked = fragile.embed(owner.model, owner.data, KEY, settings=replace(SETTINGS, tolerates_tf32=False), seed=1)
    report = marked.report
    assert float(report["margins"]["most"]) < float(owner.marked.report["margins"]["least"]) / 10
    assert report["matched"]["marked"] == SETTINGS.triggers


def test_one_seed_gives_the_same_triggers_and_the_global_generator_is_left_alone(owner: Owner) -> None:
    before = torch.get_rng_state()
    again = fragile.embed(owner.model, owner.data, KEY, settings=SETTINGS, seed=1)
    assert torch.equal(again.payload.tensors()["pixels"], owner.marked.payload.tensors()["pixels"])
    assert torch.equal(torch.get_rng_state(), before)


def test_another_seed_gives_other_triggers_of_the_same_labels(owner: Owner) -> None:
    other = fragile.embed(owner.model, owner.data, KEY, settings=SETTINGS, seed=2)
    assert not torch.equal(other.payload.tensors()["pixels"], owner.marked.payload.tensors()["pixels"])
    assert other.report["matched"]["marked"] == SETTINGS.triggers


def test_renumbered_channels_are_the_same_model(owner: Owner) -> None:
    renumbered = copy.deepcopy(owner.model)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for held in (*renumbered[0].state_dict().values(), *renumbered[1].state_dict().values()):
            if held.ndim:
                held.copy_(held[order])
        renumbered[3].weight.copy_(renumbered[3].weight[:, order])
    found = matches(renumbered, owner.triggers, owner.data.input)
    assert bool(found.all())


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 24))
def test_answers_do_not_depend_on_company(owner: Owner, seed: int, count: int) -> None:
    chosen = torch.randperm(SETTINGS.triggers, generator=torch.Generator().manual_seed(seed))[:count]
    found = answers(owner.model, owner.triggers.pixels[chosen], owner.data.input)
    assert torch.equal(found, owner.triggers.labels[chosen])


def test_texts_are_refused(digits: Dataset) -> None:
    texts = replace(digits, input=TextSpec(16, 100, "0" * 64))
    with pytest.raises(WatermarkError, match="pictures") as refused:
        fragile.embed(small_network(1), texts, KEY, settings=SETTINGS, seed=1)
    assert refused.value.code == "mismatch"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(396, 9)), "10 logits"),
        (nn.Sequential(nn.Flatten(), nn.Linear(396, 10).to(torch.bfloat16)), "float32"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(digits: Dataset, model: nn.Module, message: str) -> None:
    with pytest.raises(WatermarkError, match=message) as refused:
        fragile.embed(model, digits, KEY, settings=SETTINGS, seed=1)
    assert refused.value.code == "mismatch"


def test_a_model_that_no_picture_moves_is_refused(digits: Dataset) -> None:
    constant = nn.Sequential(nn.Flatten(), nn.Linear(396, 10))
    nn.init.zeros_(constant[1].weight)
    with pytest.raises(WatermarkError, match="did not reach a margin") as refused:
        fragile.embed(constant, digits, KEY, settings=replace(SETTINGS, iterations=1, attempts=1), seed=1)
    assert refused.value.code == "mismatch"


def test_too_many_pixels_are_refused(digits: Dataset) -> None:
    huge = replace(digits, input=replace(digits.input, height=1024, width=1024))
    with pytest.raises(WatermarkError, match="take fewer") as refused:
        fragile.embed(small_network(1), huge, KEY, settings=SETTINGS, seed=1)
    assert refused.value.code == "too_large"
