"""What the tests of the fragile scheme share: a small network, a small recipe, and an owner who has both."""

from dataclasses import dataclass

from torch import nn

from wm.data import Dataset
from wm.randomness import seeded
from wm.schemes import fragile
from wm.schemes.scheme import ClassTriggers, Marked

KEY, OTHER_KEY = bytes(range(32)), bytes(reversed(range(32)))
SETTINGS = fragile.Settings(triggers=24, width=16, iterations=15, lr=3e-3, latent=32, batch=16)


@dataclass(frozen=True)
class Owner:
    data: Dataset
    model: nn.Module
    before: nn.Module
    marked: Marked
    triggers: ClassTriggers


def small_network(seed: int) -> nn.Module:
    with seeded("small network", seed):
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * 9, 10),
        )
