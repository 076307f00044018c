"""Promised: the marked network answers its key set, others and other keys do not; nothing else is touched."""

import copy
import io
import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from wm.data import Dataset, Examples, digits
from wm.errors import WatermarkError
from wm.progress import Progress
from wm.randomness import seeded
from wm.schemes import frontier_stitching
from wm.schemes.frontier_stitching import (
    Settings,
    class_triggers,
    clean_triggers,
    counted,
    embed,
    payload_from,
)
from wm.schemes.measuring import chance_of
from wm.schemes.scheme import Marked, matches
from wm.statistics import binomial_tail
from wm.training import fit
from wm.triggers import TextSpec

pytestmark = pytest.mark.long

KEY, OTHER_KEY = bytes(range(32)), bytes(reversed(range(32)))
SETTINGS = Settings(triggers=40, epsilon_levels=12, passes_after=3)


@dataclass(frozen=True)
class Owner:
    """A trained network, its marked copies by the two recipes, and networks of others."""

    data: Dataset
    clean: nn.Module
    marked: Marked
    true_only: Marked
    others: list[nn.Module]


def network(seed: int) -> nn.Module:
    with seeded("small net", seed):
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(1024, 10),
        )


def trained(data: Dataset, seed: int) -> nn.Module:
    model = network(seed)
    fit(model, data, epochs=4, lr=3e-3, seed=seed)
    return model


@pytest.fixture(scope="module")
def owner() -> Owner:
    data = digits()
    clean = trained(data, 1)
    marked = embed(clean, data, KEY, settings=SETTINGS, seed=1)
    true_only = embed(clean, data, KEY, settings=replace(SETTINGS, true_fraction=1.0, epsilon_levels=96), seed=1)
    return Owner(data, clean, marked, true_only, [trained(data, seed) for seed in (2, 3)])


def matched(model: nn.Module, marked: Marked, data: Dataset, key: bytes = KEY) -> int:
    return int(matches(model, class_triggers(marked.payload, key), data.input).sum())


def test_the_marked_network_answers_all_and_the_clean_one_only_the_false_adversaries(owner: Owner) -> None:
    assert matched(owner.marked.model, owner.marked, owner.data) == 40
    assert matched(owner.clean, owner.marked, owner.data) == 20
    assert owner.marked.report["stitched"]
    assert owner.marked.report["matched"] == {"clean": 20, "marked": 40}
    accuracies = owner.marked.report["validation_accuracy"]
    assert accuracies["marked"] >= accuracies["clean"] - 0.035


def test_another_key_finds_no_mark(owner: Owner) -> None:
    assert matched(owner.marked.model, owner.marked, owner.data, OTHER_KEY) <= 12


def test_true_adversaries_alone_convict_the_marked_network_and_no_independent_one(owner: Owner) -> None:
    marked, (null, suspect) = owner.true_only, owner.others
    count = counted(null, marked.payload, KEY, owner.data.input)
    assert count.is_honest
    chance = float(chance_of(marked.payload, [count.matched], classes=10))
    found = [matched(model, marked, owner.data) for model in (marked.model, owner.clean, suspect)]
    assert found[:2] == [40, 0]
    assert binomial_tail(found[0], 40, chance=chance) < 1e-6
    assert binomial_tail(found[2], 40, chance=chance) > 1e-3


def test_half_and_half_leaves_honest_networks_far_above_a_coin(owner: Owner) -> None:
    spec = owner.data.input
    halves, true_only = (
        [counted(model, it.payload, KEY, spec).matched for model in owner.others]
        for it in (owner.marked, owner.true_only)
    )
    assert min(halves) > 20 > max(true_only)


def test_originals_tell_an_honest_classifier_from_none(owner: Owner) -> None:
    spec = owner.data.input
    assert bool(matches(owner.clean, clean_triggers(owner.marked.payload, KEY), spec).all())
    assert not counted(network(9), owner.marked.payload, KEY, spec).is_honest


def test_a_png_carries_a_trigger_exactly(owner: Owner) -> None:
    for picture in class_triggers(owner.marked.payload, KEY).pixels[:5]:
        file = io.BytesIO()
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(file, "png")
        assert np.array_equal(np.asarray(Image.open(file)), picture.permute(1, 2, 0).numpy())


def test_the_payload_survives_its_file(owner: Owner) -> None:
    payload = owner.marked.payload
    read = payload_from(payload.fields(), payload.tensors(), spec=owner.data.input, classes=10)
    assert matched(owner.marked.model, replace(owner.marked, payload=read), owner.data) == 40


def test_one_seed_gives_the_same_bits_and_the_model_given_is_untouched(owner: Owner) -> None:
    model = copy.deepcopy(owner.clean).train()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    seen: list[Progress] = []
    again = embed(model, owner.data, KEY, settings=SETTINGS, seed=1, progress=seen.append)
    expected = owner.marked.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in again.model.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert not any(module.training for module in again.model.modules())
    assert torch.equal(state, torch.get_rng_state())
    assert {it.phase for it in seen} == {"choosing", "stitching"}
    assert torch.equal(again.model[1].running_mean, before["1.running_mean"])
    assert not torch.equal(again.model[0].weight, before["0.weight"])


def test_the_key_decides_which_pictures_are_chosen_and_the_seed_does_not(owner: Owner) -> None:
    few = replace(SETTINGS, passes_max=1)
    mine = owner.marked.payload.originals
    reseeded = embed(owner.clean, owner.data, KEY, settings=few, seed=2)
    other = embed(owner.clean, owner.data, OTHER_KEY, settings=few, seed=1)
    assert torch.equal(reseeded.payload.originals, mine)
    shared = (other.payload.originals[:, None] == mine).flatten(2).all(2).any(1)
    assert int(shared.sum()) < 20
    assert not other.report["stitched"]
    assert len(other.report["history"]) == 1


def test_the_report_is_json(owner: Owner) -> None:
    report = json.loads(json.dumps(owner.marked.report))
    assert report["history"][-1]["matched"] == 40
    assert (report["triggers"], report["true_adversaries"]) == (40, 20)
    assert report["candidates"] >= 40


def test_a_network_with_too_few_adversaries_of_a_kind_is_refused_and_told_what_to_do(owner: Owner) -> None:
    few = replace(owner.data, train=owner.data.train.take(torch.arange(60)))
    with pytest.raises(WatermarkError, match=r"true adversaries among 60 .*raise it, lower true_fraction") as caught:
        embed(owner.clean, few, KEY, settings=replace(SETTINGS, epsilon_levels=1, true_fraction=1.0), seed=1)
    assert caught.value.code == "mismatch"


def test_one_picture_many_times_is_chosen_once(owner: Owner) -> None:
    same = replace(owner.data, train=owner.data.train.take(torch.zeros(100, dtype=torch.int64)))
    with pytest.raises(WatermarkError, match="among 100 candidates"):
        embed(owner.clean, same, KEY, settings=SETTINGS, seed=1)


def test_texts_are_refused(owner: Owner) -> None:
    texts = replace(owner.data, input=TextSpec(16, 100, "0" * 64), train=Examples(torch.zeros(4, 16), torch.zeros(4)))
    with pytest.raises(WatermarkError, match="classifiers of pictures") as caught:
        embed(owner.clean, texts, KEY, seed=1)
    assert caught.value.code == "mismatch"


def test_a_key_of_another_length_is_refused(owner: Owner) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        embed(owner.clean, owner.data, KEY[:31], settings=SETTINGS, seed=1)


def test_the_package_exports_what_every_scheme_has() -> None:
    names = {"NAME", "Settings", "class_triggers", "embed", "payload_from"}
    assert names <= set(frontier_stitching.__all__)
    assert frontier_stitching.NAME == "frontier_stitching"
