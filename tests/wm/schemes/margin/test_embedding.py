"""Promised: a marked model matches nearly all triggers, and nobody else does; a seed repeats bit by bit."""

import copy
import json
from collections import Counter
from dataclasses import replace

import pytest
import torch

from wm.errors import WatermarkError
from wm.progress import Progress
from wm.schemes import margin
from wm.schemes.margin.draws import chosen_indices
from wm.schemes.margin.preparation import prepared
from wm.schemes.scheme import matches
from wm.statistics import binomial_tail
from wm.training import accuracy, fit
from wm.triggers import TextSpec


def count(model, payload, key, data) -> int:
    return int(matches(model, margin.class_triggers(payload, key), data.input).sum())


def test_the_marked_model_matches_nearly_all_triggers_and_still_does_its_task(owner) -> None:
    matched = count(owner.marked.model, owner.marked.payload, owner.key, owner.data)
    assert matched >= 0.95 * owner.marked.payload.total
    test = owner.data.test
    assert accuracy(owner.marked.model, test.images, test.labels) > 0.9


def test_models_that_know_nothing_of_the_key_match_by_chance(owner, independents) -> None:
    payload = owner.marked.payload
    for model in (owner.given, *independents):
        matched = count(model, payload, owner.key, owner.data)
        assert binomial_tail(matched, payload.total, chance=float(payload.chance)) > 1e-3


def test_another_key_is_not_matched(owner) -> None:
    payload = owner.marked.payload
    for number in range(5):
        matched = count(owner.marked.model, payload, number.to_bytes(32, "big"), owner.data)
        assert binomial_tail(matched, payload.total, chance=float(payload.chance)) > 1e-4


def test_triggers_moved_by_their_owner_are_not_matched(owner) -> None:
    # Of what the labels were drawn for, only that is evidence: who improves his pictures afterwards has new labels.
    payload = owner.marked.payload
    better = replace(payload, pixels=payload.pixels.bitwise_xor(torch.ones(1, dtype=torch.uint8)))
    matched = count(owner.marked.model, better, owner.key, owner.data)
    assert binomial_tail(matched, payload.total, chance=float(payload.chance)) > 1e-4


def test_an_evidence_file_carries_the_mark(owner) -> None:
    written = owner.marked.payload
    read = margin.payload_from(written.fields(), written.tensors(), spec=owner.data.input, classes=owner.data.classes)
    assert count(owner.marked.model, read, owner.key, owner.data) == owner.marked.report["matched"]["marked"]


def test_the_report_is_json_and_tells_what_happened(owner) -> None:
    report = json.loads(json.dumps(owner.marked.report, allow_nan=False))
    assert report["matched"]["total"] == 60
    assert report["matched"]["clean"] == count(owner.given, owner.marked.payload, owner.key, owner.data)
    assert report["validation_accuracy"]["marked"] > report["validation_accuracy"]["clean"]
    assert report["history"][-1]["moved_matched"] > report["history"][0]["moved_matched"]
    assert len(report["history"]) == report["epochs"]


def test_one_seed_gives_the_same_bits_and_the_given_model_is_untouched(fresh, settings, digits) -> None:
    given, few = fresh(seed=1).eval(), replace(settings, epochs=2, shift=1, mirrored=True)
    before = copy.deepcopy(given.state_dict())
    torch_state = torch.get_rng_state()
    first, again, other = (margin.embed(given, digits, bytes(32), settings=few, seed=seed) for seed in (1, 1, 2))
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])
    assert torch.equal(first.payload.pixels, other.payload.pixels)
    assert not torch.equal(first.model[2].weight, other.model[2].weight)
    assert all(torch.equal(value, before[name]) for name, value in given.state_dict().items())
    assert not first.model.training
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_embedding_goes_on_from_the_weights_that_it_is_given(fresh, settings, digits) -> None:
    given = fresh(seed=1)
    fit(given, digits, epochs=5, lr=3e-3, seed=1)
    marked = margin.embed(given, digits, bytes(32), settings=replace(settings, epochs=1, lr=1e-6), seed=1)
    assert marked.report["validation_accuracy"]["marked"] == pytest.approx(
        marked.report["validation_accuracy"]["clean"], abs=0.05
    )


def test_every_epoch_is_told(fresh, settings, digits) -> None:
    told: list[Progress] = []
    margin.embed(fresh(seed=1), digits, bytes(32), settings=replace(settings, epochs=2), seed=1, progress=told.append)
    assert [(it.phase, it.done, it.total) for it in told] == [("embedding", 1, 2), ("embedding", 2, 2)]


def test_triggers_are_validation_pictures_and_the_accuracy_is_measured_without_them(fresh, digits) -> None:
    parts = prepared(fresh(seed=1), digits, bytes(32), triggers=60)
    assert parts.train is digits.train
    assert len(parts.validation) == len(digits.validation) - 60
    chosen = set(chosen_indices(bytes(32), count=60, pool=len(digits.validation)).tolist())
    others = [index for index in range(len(digits.validation)) if index not in chosen]
    assert torch.equal(parts.validation.images, digits.validation.images[others])


def test_where_validation_pictures_are_too_few_training_pictures_are_taken_and_no_longer_trained_on(
    fresh, digits
) -> None:
    small = replace(digits, validation=digits.validation.take(torch.arange(60)))
    parts = prepared(fresh(seed=1), small, bytes(32), triggers=60)
    chosen = chosen_indices(bytes(32), count=60, pool=len(digits.train))
    assert parts.validation is small.validation
    assert len(parts.train) == len(digits.train) - 60
    known = Counter(image.numpy().tobytes() for image in digits.train.images)
    trained_on = Counter(image.numpy().tobytes() for image in parts.train.images)
    triggers = Counter(image.numpy().tobytes() for image in digits.train.images[chosen])
    assert known == trained_on + triggers


def test_too_few_pictures_are_a_mismatch(fresh, settings, digits) -> None:
    few = digits.train.take(torch.arange(60))
    with pytest.raises(WatermarkError, match="use fewer triggers") as refusal:
        margin.embed(fresh(seed=1), replace(digits, train=few, validation=few), bytes(32), settings=settings, seed=1)
    assert refusal.value.code == "mismatch"


def test_texts_are_a_mismatch(fresh, settings, digits) -> None:
    texts = replace(digits, input=TextSpec(length=16, vocabulary=100, words_sha256="0" * 64))
    with pytest.raises(WatermarkError, match="classifiers of pictures") as refusal:
        margin.embed(fresh(seed=1), texts, bytes(32), settings=settings, seed=1)
    assert refusal.value.code == "mismatch"


def test_a_network_of_other_classes_is_a_mismatch(fresh, settings, digits) -> None:
    with pytest.raises(WatermarkError, match="num_classes=9") as refusal:
        margin.embed(fresh(seed=1), replace(digits, classes=9), bytes(32), settings=settings, seed=1)
    assert refusal.value.code == "mismatch"


def test_a_key_of_another_length_is_refused(fresh, settings, digits) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        margin.embed(fresh(seed=1), digits, bytes(31), settings=settings, seed=1)
