"""Promised: training learns, repeats bit by bit, and reports."""

import pytest
import torch
from torch import nn

from wm import data, training
from wm.progress import Progress
from wm.randomness import seeded


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
