"""Promised: slow running statistics are in time after a short training; public weights' and all others are as ever."""

import copy
from pathlib import Path

import pytest
import torch
from interrupted import KilledError, Killing
from torch import Tensor, nn

from wm import data, training
from wm.batch_statistics import freeze_statistics, prompt_statistics
from wm.randomness import seeded
from wm.savepoint import Savepoint


def network(momentum: float | None) -> nn.Module:
    with seeded("network", 1):
        return nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=3),
            nn.BatchNorm2d(8, momentum=momentum),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(800, 10),
        )


def batches(count: int) -> Tensor:
    return 5 + 0.1 * torch.randn(count, 16, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def shown(model: nn.Module, pictures: Tensor) -> nn.BatchNorm2d:
    with torch.no_grad():
        for batch in pictures:
            model.train()(batch)
    return model[1]


def test_slow_statistics_are_the_mean_of_the_batches() -> None:
    model, pictures = network(0.001), batches(5)
    with prompt_statistics(model), torch.no_grad():
        layer = shown(model, pictures)
        means = torch.stack([model[0](batch).mean((0, 2, 3)) for batch in pictures])
    torch.testing.assert_close(layer.running_mean, means.mean(0))
    assert layer.momentum == 0.001


def test_without_the_block_they_are_not() -> None:
    model = network(0.001)
    late = shown(model, batches(5)).running_mean.clone()
    model = network(0.001)
    with prompt_statistics(model):
        in_time = shown(model, batches(5)).running_mean
    assert float(late.norm()) < 0.1 * float(in_time.norm())


@pytest.mark.parametrize(("momentum", "seen"), [(0.1, 0), (None, 0), (0.01, 100_000)])
def test_usual_ones_and_those_of_public_weights_are_as_they_were(momentum: float | None, seen: int) -> None:
    found = []
    for promptly in (False, True):
        model = network(momentum)
        model[1].num_batches_tracked.fill_(seen)
        if promptly:
            with prompt_statistics(model):
                shown(model, batches(4))
        else:
            shown(model, batches(4))
        found.append(model[1].state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_slow_network_knows_after_its_training_what_it_learnt() -> None:
    digits, accuracies = data.digits(), {}
    for momentum in (0.1, 0.0003):  # PyTorch's, and MNASNet's
        model = network(momentum)
        training.fit(model, digits, epochs=2, lr=3e-3, seed=1)
        accuracies[momentum] = training.accuracy(model, digits.test.images, digits.test.labels)
    assert accuracies[0.0003] == pytest.approx(accuracies[0.1], abs=0.03)


def test_statistics_without_a_count_are_as_they_were() -> None:
    model = network(0.01)
    model[1].running_mean.fill_(3.0)
    with prompt_statistics(model):
        moved = shown(model, batches(1)).running_mean - 3
    assert 0 < float(moved.abs().max()) < 0.1


def test_an_error_leaves_no_hook_and_the_momentum_that_was() -> None:
    model = network(0.01)
    with pytest.raises(ValueError, match="shape"), prompt_statistics(model):  # noqa: PT012 (what fails is a later call)
        model.train()(batches(1)[0])
        raise ValueError("shape")
    assert model[1].momentum == 0.01
    assert not model[1]._forward_pre_hooks


def test_a_training_that_goes_on_has_the_bits_of_one_that_was_not_interrupted(
    few_digits: data.Dataset, tmp_path: Path
) -> None:
    path = tmp_path / "state"
    whole, begun, resumed = (network(0.001) for _ in range(3))
    training.fit(whole, few_digits, epochs=2, seed=1)
    with pytest.raises(KilledError):
        training.fit(begun, few_digits, epochs=2, seed=1, savepoint=Killing(path, after=2))
    training.fit(resumed, few_digits, epochs=2, seed=1, savepoint=Savepoint(path))
    pairs = zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_frozen_statistics_stay_while_the_rest_is_trained() -> None:
    model = network(0.1).train()
    freeze_statistics(model)
    before = copy.deepcopy(model[1].state_dict())
    with torch.no_grad():
        model(batches(1)[0])
    assert model.training
    assert not model[1].training
    assert all(torch.equal(before[name], it) for name, it in model[1].state_dict().items())
