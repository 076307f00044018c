"""Promised: training learns, repeats bit by bit, and reports."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from interrupted import KilledError, Killing
from torch import nn

from wm import data, training
from wm.errors import WatermarkError
from wm.progress import Progress
from wm.randomness import seeded
from wm.savepoint import Savepoint


def small_model() -> nn.Module:
    with seeded("small", 1):
        return nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(800, 10)
        )


def test_a_model_learns_the_digits_and_says_how_far_it_is() -> None:
    digits, reports = data.digits(), list[Progress]()
    model = small_model()
    before = training.accuracy(model, digits.test.images, digits.test.labels)
    report = training.fit(model, digits, epochs=2, lr=3e-3, seed=1, progress=reports.append)
    assert training.accuracy(model, digits.test.images, digits.test.labels) > max(0.7, before)
    assert (report.epochs, report.steps, report.images) == (2, 40, 1258)
    assert [(report.done, report.total) for report in reports] == [(1, 2), (2, 2)]
    assert not model.training


def test_one_seed_gives_bit_identical_weights_and_another_does_not(few_digits: data.Dataset) -> None:
    models = [small_model() for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        training.fit(model, few_digits, epochs=2, seed=seed)
    first, again, other = (model[0].weight for model in models)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def forgetful_model() -> nn.Module:
    with seeded("forgetful", 1):
        return nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(800, 10),
        )


def same(first: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in first.state_dict().items())


def test_what_dropout_drops_is_decided_by_the_seed_and_the_callers_generator_is_left_alone(
    few_digits: data.Dataset,
) -> None:
    first, again = forgetful_model(), forgetful_model()
    training.fit(first, few_digits, epochs=1, seed=1)
    torch.rand(7)
    before = torch.get_rng_state()
    training.fit(again, few_digits, epochs=1, seed=1)
    assert same(first, again)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("after", [1, 4, 6, 8])  # within an epoch, between two, and when all is done
def test_a_training_that_was_killed_goes_on_to_the_same_bits(tmp_path: Path, after: int) -> None:
    usual = {"data": data.digits(), "fraction": 0.2, "epochs": 2, "lr": 1e-2, "seed": 1}
    whole, killed, resumed = forgetful_model(), forgetful_model(), forgetful_model()
    report = training.fit(whole, **usual)
    assert report.steps == 8
    with pytest.raises(KilledError):
        training.fit(killed, savepoint=Killing(tmp_path / "state", after=after), **usual)
    steps = list[Progress]()
    went_on = training.fit(resumed, savepoint=Savepoint(tmp_path / "state"), progress=steps.append, **usual)
    assert same(whole, resumed)
    assert went_on.losses == report.losses
    assert len(steps) == 2 - after // 4
    assert not resumed.training


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 2}, "data set|seed"),
        ({"epochs": 6}, r"epochs \(5 there, 6 here\)"),
        ({"lr": 1e-3}, "learning rate"),
        ({"precision": "bfloat16"}, "precision"),
    ],
)
def test_another_training_does_not_go_on_from_it(
    few_digits: data.Dataset, tmp_path: Path, changes: dict, named: str
) -> None:
    usual = {"epochs": 5, "lr": 1e-2, "seed": 1, "savepoint": Savepoint(tmp_path / "state", every_s=0)}
    training.fit(small_model(), few_digits, **usual)
    with pytest.raises(WatermarkError, match=named) as caught:
        training.fit(small_model(), few_digits, **usual | changes)
    assert caught.value.code == "mismatch"


def test_neither_another_model_nor_other_data_go_on_from_it(few_digits: data.Dataset, tmp_path: Path) -> None:
    usual = {"epochs": 1, "seed": 1, "savepoint": Savepoint(tmp_path / "state", every_s=0)}
    frozen = small_model()
    frozen[0].requires_grad_(requires_grad=False)
    fewer = replace(few_digits, train=few_digits.train.take(torch.arange(20)))
    training.fit(small_model(), few_digits, **usual)
    training.fit(small_model(), few_digits, **usual)
    for model, task, named in [
        (forgetful_model(), few_digits, "model to begin with"),
        (frozen, few_digits, "model to begin with"),
        (small_model(), fewer, "data set"),
    ]:
        with pytest.raises(WatermarkError, match=named):
            training.fit(model, task, **usual)


def test_in_bfloat16_a_model_learns_too_and_its_weights_stay_in_single_precision() -> None:
    digits, model = data.digits(), small_model()
    report = training.fit(model, digits, epochs=2, lr=3e-3, seed=1, precision="bfloat16")
    assert training.accuracy(model, digits.test.images, digits.test.labels) > 0.7
    assert all(value.dtype == torch.float32 for value in model.parameters())
    plain = training.fit(small_model(), digits, epochs=2, lr=3e-3, seed=1)
    assert plain.losses != report.losses
    assert plain.losses == pytest.approx(report.losses, abs=0.1)


def test_a_fraction_uses_fewer_images(few_digits: data.Dataset) -> None:
    assert training.fit(small_model(), few_digits, epochs=1, seed=1, fraction=0.5).images < len(few_digits.train)


def test_accuracy_counts_right_answers_and_restores_the_mode() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4, bias=False)).train()
    nn.init.eye_(model[1].weight)
    images = torch.eye(4).reshape(4, 1, 1, 4)
    assert training.accuracy(model, images, torch.tensor([0, 1, 2, 0])) == 0.75
    assert model.training


@pytest.mark.parametrize(("images", "sizes"), [(4, [4, 4]), (50, [10])])
def test_batches_are_full_and_an_epoch_meets_every_example_at_most_once(images: int, sizes: list[int]) -> None:
    examples = data.Examples(torch.zeros(10, 1, 1, 1), torch.arange(10))
    batches = training.endless_batches(examples, images=images, seed=1)
    epoch = [next(batches).labels.tolist() for _ in sizes]
    assert [len(batch) for batch in epoch] == sizes
    assert len({label for batch in epoch for label in batch}) == sum(sizes)


def test_the_rate_falls_from_one_towards_nothing() -> None:
    rates = [training.cosine(step, 10) for step in range(10)]
    assert rates[0] == 1
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 0.05
