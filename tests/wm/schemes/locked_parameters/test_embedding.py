"""Promised: the lock holds through a whole training that does its task, and no stranger has the key's signs."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import scenes
import texts
import torch
from locked import KEY, OTHER_KEY, SETTINGS, fresh_network, same
from torch import nn

from wm.architectures import build
from wm.data import Dataset
from wm.errors import WatermarkError
from wm.schemes.locked_parameters import LockedPayload, agreements, correlation, embed, positions
from wm.schemes.locked_parameters.payload import read
from wm.schemes.scheme import Marked
from wm.statistics import tail
from wm.training import fit, score

pytestmark = pytest.mark.long


def matched(model: nn.Module, marked: Marked, key: bytes = KEY) -> int:
    return int(agreements(model, marked.payload, key).sum())


def test_every_locked_weight_is_what_was_written_to_the_last_bit(marked: Marked) -> None:
    places = positions(KEY, marked.payload.shapes, 200)
    assert torch.equal(read(marked.model.state_dict(), places), marked.payload.values)
    assert matched(marked.model, marked) == 200
    assert correlation(marked.model, marked.payload, KEY) == pytest.approx(1)


def test_strangers_agree_by_chance(marked: Marked, clean: nn.Module, digits_data: Dataset) -> None:
    independent = fresh_network(seed=2)
    fit(independent, digits_data, epochs=1, lr=3e-3, seed=2)
    for model, key in ((clean, KEY), (independent, KEY), (marked.model, OTHER_KEY)):
        assert tail(matched(model, marked, key), 200) > 1e-4
    assert tail(matched(marked.model, marked), 200) < 1e-60
    assert abs(correlation(independent, marked.payload, KEY)) < 0.3


def test_the_given_model_is_untouched_and_the_marked_one_does_the_task(
    marked: Marked, clean: nn.Module, digits_data: Dataset, embedded: Callable[..., Marked]
) -> None:
    before = copy.deepcopy(clean)
    again = embedded()
    assert same(clean, before)
    assert same(again.model, marked.model)
    assert not again.model.training
    assert score(marked.model, digits_data.test) > score(clean, digits_data.test) - 0.02


def test_another_seed_trains_another_model_with_the_same_mark(marked: Marked, embedded: Callable[..., Marked]) -> None:
    other = embedded(seed=2)
    assert not same(other.model, marked.model)
    assert torch.equal(other.payload.values, marked.payload.values)


def test_a_replica_leaves_no_trace_but_its_gradient(embedded: Callable[..., Marked]) -> None:
    plain, idle, active = embedded(replicas=0), embedded(sharpening=0.0), embedded(sharpening=0.001)
    assert same(plain.model, idle.model)
    assert not same(plain.model, active.model)


def test_what_is_not_locked_is_trained(marked: Marked, clean: nn.Module) -> None:
    moved = marked.model[3].weight != clean[3].weight
    assert float(moved.float().mean()) > 0.95


def test_the_report_says_what_it_cost(marked: Marked) -> None:
    report = marked.report
    assert report["matched"]["marked"] == 200
    assert report["matched"]["clean"] < 140
    assert set(report["validation_accuracy"]) == {"clean", "marked"}
    assert [row["epoch"] for row in report["history"]] == [1, 2]
    assert 1 < report["largest_locked"] < 4


def test_a_training_that_diverges_says_so(embedded: Callable[..., Marked]) -> None:
    with pytest.raises(ValueError, match="diverged in epoch 1"):
        embedded(lr=1e6)


def test_other_weights_than_float32_and_a_dead_layer_are_refused(clean: nn.Module, digits_data: Dataset) -> None:
    dead = copy.deepcopy(clean)
    nn.init.zeros_(dead[3].weight)
    for model, complaint in ((copy.deepcopy(clean).half(), r"'0\.weight' is torch\.float16"), (dead, r"'3\.weight'")):
        with pytest.raises(WatermarkError, match=complaint) as refused:
            embed(model, digits_data, KEY, settings=SETTINGS, seed=1)
        assert refused.value.code == "mismatch"


def test_texts_are_alike_to_it() -> None:
    data, model = texts.sentiments(train=64), build(texts.ARCHITECTURE, seed=1)
    marked = embed(model, data, KEY, settings=replace(SETTINGS, epochs=1, batch=16), seed=1)
    assert matched(marked.model, marked) == 200
    assert tail(matched(model, marked), 200) > 1e-4
    assert isinstance(marked.payload, LockedPayload)
    assert marked.payload.reference is None
    assert {name.rpartition(".")[2][:9] for name in marked.payload.shapes} == {"weight_ih", "weight_hh"}


def test_pictures_with_objects_are_alike_to_it_and_only_the_backbone_is_locked() -> None:
    data, model = scenes.few_shapes(), build(scenes.ARCHITECTURE, seed=1)
    marked = embed(model, data, KEY, settings=replace(SETTINGS, epochs=1, batch=2), seed=1)
    assert matched(marked.model, marked) == 200
    assert set(marked.report) >= {"validation_mask_map"}
    assert all(name.startswith("backbone.") for name in marked.payload.shapes)
    assert torch.equal(
        marked.model.state_dict()["backbone.body.bn1.running_mean"],
        model.state_dict()["backbone.body.bn1.running_mean"],
    )


def test_a_network_whose_layers_run_twice_is_marked_without_a_reference(digits_data: Dataset) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.inner = fresh_network(), nn.Linear(10, 10)
            self.last = nn.Linear(10, 10)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.last(self.inner(self.inner(self.network(images))))

    few = replace(digits_data, train=digits_data.train.take(torch.arange(64)))
    marked = embed(Twice(), few, KEY, settings=replace(SETTINGS, epochs=1), seed=1)
    assert marked.payload.reference is None
    assert matched(marked.model, marked) == 200
