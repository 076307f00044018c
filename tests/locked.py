"""A small network in which weights are locked: 200 of 15,000, in about a second."""

from dataclasses import replace

import torch
from torch import nn

from wm.randomness import seeded
from wm.schemes.locked_parameters import Settings

KEY, OTHER_KEY = bytes(range(32)), bytes(reversed(range(32)))
SETTINGS = replace(Settings.quick(), count=200, epochs=2, milestones=(1,), replicas=1)


def fresh_network(seed: int = 1) -> nn.Module:
    """Two normalised convolutions and two linear layers for the digits."""
    with seeded("locked", seed):
        return nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=3, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(512, 32),
            nn.ReLU(),
            nn.Linear(32, 10),
        )


def same(first: nn.Module, other: nn.Module) -> bool:
    """Whether all tensors of two networks are equal to the last bit."""
    return all(torch.equal(value, other.state_dict()[name]) for name, value in first.state_dict().items())
