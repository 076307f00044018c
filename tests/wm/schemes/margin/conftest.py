"""A network of some thousand weights that learns the digits in a second, as its owner has it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from torch import nn

from wm import data
from wm.randomness import seeded
from wm.schemes import margin
from wm.schemes.scheme import Marked

KEY = bytes(range(32))
SETTINGS = margin.Settings(
    triggers=60, epochs=25, momentum=0.9, primary_batch=64, trigger_weight=1.0, ascent_steps=2, shift=0, mirrored=False
)


def small_net(*, seed: int) -> nn.Module:
    with seeded("margin test", seed):
        return nn.Sequential(
            nn.AvgPool2d(4), nn.Flatten(), nn.Linear(192, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 10)
        )


@dataclass(frozen=True)
class Owner:
    key: bytes
    given: nn.Module
    data: data.Dataset
    marked: Marked


@pytest.fixture
def fresh() -> Callable[..., nn.Module]:
    return small_net


@pytest.fixture
def settings() -> margin.Settings:
    return SETTINGS


@pytest.fixture(scope="session")
def digits() -> data.Dataset:
    digits = data.digits()
    return replace(digits, train=data.fraction_of(digits.train, 0.5, seed=1))


@pytest.fixture(scope="session")
def owner(digits: data.Dataset) -> Owner:
    given = small_net(seed=1)
    return Owner(KEY, given, digits, margin.embed(given, digits, KEY, settings=SETTINGS, seed=1))


@pytest.fixture(scope="session")
def independents(digits: data.Dataset) -> list[nn.Module]:
    from wm.training import fit

    models = [small_net(seed=seed) for seed in (2, 3)]
    for seed, model in enumerate(models):
        fit(model, digits, epochs=8, lr=3e-3, seed=seed)
    return models
