"""Promised: what computes the same computes the same, however oddly a network is built; and what cannot is refused."""

from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from wm.architectures import OwnArchitecture
from wm.attacks import ATTACKS, Stolen, attacked
from wm.data import Dataset, Examples
from wm.errors import WatermarkError
from wm.randomness import generator, seeded
from wm.triggers import InputSpec, Normalisation

SIDE, CHANNELS = 32, 16
PRESERVING = [attack.name for attack in ATTACKS.values() if attack.preserves_function]
STRENGTHS = {"permutation": 1.0, "scaling": 10, "sign_flip": 0.5, "dummy_neurons": 0.3}


class Odd(nn.Module):
    """Two convolutions and a classifier, with something odd between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, CHANNELS, 3, stride=2, padding=1)
        self.last = nn.Conv2d(CHANNELS, CHANNELS, 3)
        self.classifier = nn.Linear(CHANNELS, 10)

    def forward(self, images: Tensor) -> Tensor:
        read = F.relu(self.last(self.between(F.relu(self.first(images)))))
        return self.classifier(torch.flatten(F.adaptive_avg_pool2d(read, 1), 1))

    def between(self, read: Tensor) -> Tensor:
        return read


class OnWidth(Odd):
    """A linear layer along the width, which is as wide as there are channels."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(SIDE // 2, SIDE // 2)

    def between(self, read: Tensor) -> Tensor:
        return read + F.relu(self.linear(read))


class ThroughWidth(OnWidth):
    """The same without a way round it."""

    def between(self, read: Tensor) -> Tensor:
        return F.relu(self.linear(read))


class Tied(Odd):
    """Two convolutions with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = (nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(2))
        self.other.weight = self.one.weight

    def between(self, read: Tensor) -> Tensor:
        return F.relu(self.other(F.relu(self.one(read))))


class OnceNormalised(Odd):
    """A convolution that runs twice, and once with a normalisation behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.norm = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.BatchNorm2d(CHANNELS)

    def between(self, read: Tensor) -> Tensor:
        return F.relu(self.twice(F.relu(self.norm(self.twice(read)))))


class ReadByName(Odd):
    """A weight and a buffer that are read beside their modules."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(CHANNELS)

    def between(self, read: Tensor) -> Tensor:
        return F.relu(self.norm(read)) + self.first.weight.flatten()[:1] + self.norm.running_mean[:1]


class WithoutStatistics(Odd):
    """Batch normalisation that has no running statistics."""

    OPTIONS: ClassVar = {"track_running_stats": False}

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(CHANNELS, **self.OPTIONS)

    def between(self, read: Tensor) -> Tensor:
        return F.relu(self.norm(read))


class WithoutFactors(WithoutStatistics):
    """Batch normalisation without weights of its own."""

    OPTIONS: ClassVar = {"affine": False}


NETWORKS = [OnWidth, ThroughWidth, Tied, OnceNormalised, ReadByName, WithoutStatistics, WithoutFactors]
SPEC = InputSpec(3, SIDE, SIDE, Normalisation(("0.5",) * 3, ("0.5",) * 3))
NOISE = Examples(torch.rand(2, 3, SIDE, SIDE, generator=generator(1)), torch.arange(2))
DATA = Dataset("noise", 10, SPEC, train=NOISE, validation=NOISE, test=NOISE)


def moved(made: type[Odd], name: str) -> tuple[Tensor, Tensor]:
    """What a network answers before and after an attack."""
    with seeded("odd network"):
        model = made().eval()
    for value in model.state_dict().values():
        if value.ndim == 1:
            value.copy_(torch.rand(value.shape, generator=generator("odd", len(value))) + 0.5)
    stolen = Stolen(model=model, architecture=OwnArchitecture(), data=DATA)
    with torch.no_grad():
        after = attacked(ATTACKS[name], stolen, strength=STRENGTHS[name], seed=1)(NOISE.images)
        return model(NOISE.images), after


@pytest.mark.parametrize("name", [name for name in PRESERVING if name != "sign_flip"])
@pytest.mark.parametrize("made", NETWORKS)
def test_an_odd_network_answers_as_before(made: type[Odd], name: str) -> None:
    before, after = moved(made, name)
    assert float((after - before).abs().max() / before.abs().max()) < 1e-5


@pytest.mark.parametrize("made", NETWORKS)
def test_what_is_not_normalised_for_itself_is_not_turned_over(made: type[Odd]) -> None:
    with pytest.raises(WatermarkError, match="turned over"):
        moved(made, "sign_flip")


@pytest.mark.parametrize("made", [Odd, OnWidth, OnceNormalised, WithoutStatistics])
def test_what_is_understood_around_the_oddity_still_moves(made: type[Odd]) -> None:
    with seeded("odd network"):
        model = made().eval()
    stolen = Stolen(model=model, architecture=OwnArchitecture(), data=DATA)
    after = attacked(ATTACKS["permutation"], stolen, strength=1.0, seed=1)
    assert any(not torch.equal(value, after.state_dict()[name]) for name, value in model.state_dict().items())
