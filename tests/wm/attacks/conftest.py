"""A network of a few thousand weights that has learned the digits and carries a mark, stolen."""

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from wm import data
from wm.architectures import Architecture
from wm.attacks import Stolen
from wm.attacks.forgeries.forgery import fit_head
from wm.backbone import Tap, features_in_evaluation
from wm.branch import Branch
from wm.data import Examples
from wm.evidence import EvidenceFile, with_reference
from wm.head import initial_head
from wm.info import Info
from wm.progress import silent
from wm.randomness import seeded
from wm.training import fit
from wm.triggers import make_triggers

ARCHITECTURE = Architecture("resnet18", {"num_classes": 10})  # what students are built from
KEY = bytes(range(32))


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, images: Tensor) -> Tensor:
        read = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(images)))))
        # What a stride of 2 would skip is left out by hand: on CPUs without AVX-512 torch 2.15 writes beyond its memory
        # when it takes the gradient of a strided 1 x 1 convolution of 3 channels, channels last.
        return F.relu(read + self.shortcut(images[:, :, ::2, ::2]))


class SmallNet(nn.Module):
    """Two residual blocks; everything that the sorting of channels must understand, in a millisecond."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = Block(3, 8)
        self.layer2 = Block(8, 16)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.fc1 = nn.Linear(16 * 4, 32)
        self.fc2 = nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        read = self.pool(self.layer2(self.layer1(images)))
        return self.fc2(F.relu(self.fc1(torch.flatten(read, 1))))


@pytest.fixture(scope="session")
def digits() -> data.Dataset:
    return data.digits()


@pytest.fixture(scope="session")
def stolen_once(digits: data.Dataset) -> Stolen:
    with seeded("small net"):
        model = SmallNet()
    fit(model, digits, epochs=4, lr=1e-2, seed=1)
    info = Info(
        scheme="mtlsign",
        architecture=ARCHITECTURE,
        taps=(Tap("layer1", 8, 16, 16), Tap("layer2", 16, 8, 8)),
        pooling=4,
        hidden=32,
        triggers=200,
        gamma="0.7",
        input=digits.input,
    )
    triggers = make_triggers(KEY, info.input, count=info.triggers)
    read = features_in_evaluation(model, info.modules, triggers.images, pooling=info.pooling)
    head = initial_head(read, info.taps, pooling=info.pooling, hidden=info.hidden, seed=1)
    fit_head(head, read, triggers.labels, steps=200, progress=silent)
    evidence = with_reference(EvidenceFile(head, info, bytes(32)), model)
    branch = Branch(head, evidence.info, triggers, evidence.reference)
    return Stolen(model=model, architecture=ARCHITECTURE, data=digits, revealed=branch)


@pytest.fixture
def stolen(stolen_once: Stolen) -> Stolen:
    """Ever the same, whatever a test did to the last one; the thief has 40 pictures."""
    few = copy.copy(stolen_once.data.train).take(torch.arange(40))
    small = data.Dataset("digits", 10, stolen_once.data.input, few, stolen_once.data.validation, stolen_once.data.test)
    return Stolen(
        model=copy.deepcopy(stolen_once.model),
        architecture=ARCHITECTURE,
        data=small,
        revealed=stolen_once.revealed,
    )


@pytest.fixture
def answers():
    """What a model says to the test set's pictures: logits."""

    def ask(model: nn.Module, examples: Examples) -> Tensor:
        with torch.no_grad():
            return model.eval()(examples.images)

    return ask


@pytest.fixture
def matched():
    """How many of the 200 triggers a model answers as the stolen one's owner wants, aligned if the branch says so."""

    def count(model: nn.Module, branch: Branch) -> int:
        from wm.branch import count_matched

        return count_matched(model, branch.head, branch.info, KEY, reference=branch.reference)

    return count
