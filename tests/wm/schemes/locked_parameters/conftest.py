"""A trained network, and marks in copies of it."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from locked import KEY, SETTINGS, fresh_network
from torch import nn

from wm.data import Dataset, digits, fraction_of
from wm.schemes.locked_parameters import embed
from wm.schemes.scheme import Marked
from wm.training import fit


@pytest.fixture(scope="session")
def digits_data() -> Dataset:
    whole = digits()
    return replace(
        whole, train=fraction_of(whole.train, 0.4, seed=1), validation=whole.validation.take(torch.arange(60))
    )


@pytest.fixture(scope="session")
def clean(digits_data: Dataset) -> nn.Module:
    model = fresh_network()
    fit(model, digits_data, epochs=4, lr=3e-3, seed=1)
    return model


@pytest.fixture(scope="session")
def embedded(clean: nn.Module, digits_data: Dataset) -> Callable[..., Marked]:
    def embedded(seed: int = 1, **settings: object) -> Marked:
        return embed(clean, digits_data, KEY, settings=replace(SETTINGS, **settings), seed=seed)

    return embedded


@pytest.fixture(scope="session")
def marked(embedded: Callable[..., Marked]) -> Marked:
    return embedded()
