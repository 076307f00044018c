"""A small trained network on small digits, and its triggers; a few seconds in all."""

import copy
from dataclasses import replace

import pytest
import torch.nn.functional as F  # noqa: N812
from fragile_owner import KEY, SETTINGS, Owner, small_network

from wm import data
from wm.data import Dataset, Examples
from wm.schemes import fragile
from wm.training import fit


@pytest.fixture(scope="package")
def digits() -> Dataset:
    """Of 12 x 11 pixels, which no doubling gives."""
    large = data.digits()

    def smaller(examples: Examples) -> Examples:
        return Examples(F.interpolate(examples.images, size=(12, 11)), examples.labels)

    return replace(
        large,
        input=replace(large.input, height=12, width=11),
        train=smaller(large.train),
        validation=smaller(large.validation),
        test=smaller(large.test),
    )


@pytest.fixture(scope="package")
def owner(digits: Dataset) -> Owner:
    model = small_network(1)
    fit(model, digits, epochs=4, lr=3e-3, seed=1)
    model.train()
    before = copy.deepcopy(model)
    marked = fragile.embed(model, digits, KEY, settings=SETTINGS, seed=1)
    return Owner(digits, model, before, marked, fragile.class_triggers(marked.payload, KEY))
