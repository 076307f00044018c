"""Promised: a mark that strangers would answer once they are aligned is read without a centre."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import wm
from wm.architectures import Architecture, OwnArchitecture, build
from wm.data import digits
from wm.randomness import seeded
from wm.schemes.mtlsign.specificity import FRESH_NETWORKS
from wm.statistics import least_matched

pytestmark = pytest.mark.long

KEY = bytes(range(32))
SETTINGS = wm.EmbedSettings(shadows=0)
CHANCE = least_matched(600, log10_alpha=-6)


class Shallow(nn.Module):
    """Whose first layer every network has much alike."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 48, 3, stride=2, padding=1), nn.BatchNorm2d(48), nn.ReLU())
        self.classifier = nn.Linear(48, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.stem(images).mean((2, 3)))


class Scaled(Shallow):
    """With a weight of its own that no module knows how to initialise."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(self.factor * images)


def finished(model: nn.Module, architecture: Architecture | None = None, **changes: object) -> wm.Mark:
    settings = replace(SETTINGS, **changes)
    taps = ("stem",) if hasattr(model, "stem") else None
    mark = wm.Mark(
        model.eval(), KEY, taps=taps, input_spec=digits().input, architecture=architecture, settings=settings
    )
    with torch.no_grad():
        for value in model.parameters():
            value.mul_(1.001)
    mark.finish(model)
    return mark


def seeded_net(made: type[Shallow], seed: int = 1) -> Shallow:
    with seeded("specificity", seed):
        return made()


def strangers_count(mark: wm.Mark, model: nn.Module, *, centred: bool) -> int:
    """What another network answers, aligned to the marked one."""
    assert mark.info.reference is not None
    info = replace(mark.info, reference=replace(mark.info.reference, centred=centred))
    evidence = wm.with_reference(wm.EvidenceFile(mark.head, info, bytes(32)), model)
    other = seeded_net(Shallow, 2).eval()
    return wm.count_matched(other, evidence.head, evidence.info, KEY, reference=evidence.reference)


@pytest.mark.parametrize("architecture", [None, OwnArchitecture(builder=Shallow)])
def test_a_first_layer_alone_is_read_without_a_centre(architecture: Architecture | None) -> None:
    model = seeded_net(Shallow)
    mark = finished(model, architecture)
    assert mark.matched(model) >= 590
    assert mark.info.reference is not None
    assert not mark.info.reference.centred
    assert len(mark.fresh_aligned) == FRESH_NETWORKS
    assert strangers_count(mark, model, centred=True) > CHANCE
    assert strangers_count(mark, model, centred=False) < strangers_count(mark, model, centred=True)


def test_a_centre_that_the_settings_ask_for_stays() -> None:
    mark = finished(seeded_net(Shallow), centred=True)
    assert mark.info.reference is not None
    assert mark.info.reference.centred
    assert max(mark.fresh_aligned) > CHANCE


def test_the_stages_of_a_resnet_keep_their_centre_and_strangers_stay_at_chance() -> None:
    architecture = Architecture("resnet18", {"num_classes": 10})
    mark = finished(build(architecture, seed=1), architecture)
    assert mark.info.reference is not None
    assert mark.info.reference.centred
    assert len(mark.fresh_aligned) == FRESH_NETWORKS
    assert max(mark.fresh_aligned) < CHANCE


def test_where_no_fresh_network_can_be_made_nothing_is_tried() -> None:
    mark = finished(seeded_net(Scaled))
    assert mark.fresh_aligned == ()
    assert mark.info.reference is not None
    assert mark.info.reference.centred


def test_beside_negative_controls_nothing_is_tried() -> None:
    architecture = Architecture("shufflenet_v2_x0_5", {"num_classes": 10})
    model, base = (build(architecture, seed=seed).eval() for seed in (1, 2))
    settings = wm.EmbedSettings.beside_a_base()
    mark = wm.Mark(
        model,
        KEY,
        input_spec=digits().input,
        architecture=architecture,
        settings=replace(settings, shadows=0, siblings=0, head_steps=1),
        negatives=[base],
    )
    with torch.no_grad():
        model.get_parameter("conv1.0.weight").mul_(1.01)
    mark.finish(model)
    assert mark.fresh_aligned == ()
    assert mark.negatives_matched()
