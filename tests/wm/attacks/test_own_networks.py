"""Promised: in a network without usual taps a thief reads where the owner's claim has shown, or is told why not."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import wm
from wm.architectures import Architecture, OwnArchitecture, build
from wm.attacks import ATTACKS, Stolen, attacked
from wm.attacks.forgeries import FORGERIES, Forged
from wm.attacks.forgeries.forgery import info_for
from wm.attacks.forgeries.universal_head import POOLING as UNIVERSAL_POOLING
from wm.backbone import feature_count
from wm.branch import Branch
from wm.data import Dataset, Examples
from wm.head import Head
from wm.info import Info
from wm.progress import silent
from wm.randomness import generator, key_of
from wm.tap_shapes import taps_of
from wm.triggers import InputSpec, Normalisation, make_triggers

pytestmark = pytest.mark.long

SPEC = InputSpec(3, 32, 32, Normalisation(("0.5",) * 3, ("0.5",) * 3))
FITTED = {"posthoc_head": 1, "universal_head": 1, "public_base": 1e-4}  # each with a strength


class OwnNet(nn.Module):
    """What the catalogue lacks."""

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Conv2d(3, 6, 3, stride=2)
        self.late = nn.Conv2d(6, 4, 3, stride=2)
        self.classifier = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.late(self.early(images).relu()).relu().mean((2, 3)))


TAPS = {"own": "late", "shufflenet_v2_x0_5": "stage2"}  # that their owners chose


def forgers_key(number: int) -> bytes:
    return key_of("forger", number)


def stolen_net(name: str) -> Stolen:
    """A network as its thief sees it before a claim."""
    own = OwnArchitecture(builder=OwnNet)
    architecture = own if name == "own" else Architecture(name, {"num_classes": 2})
    two = Examples(torch.rand(2, 3, 32, 32, generator=generator(1)), torch.arange(2))
    noise = Dataset("noise", 2, SPEC, train=two, validation=two, test=two)
    return Stolen(model=build(architecture, seed=1).eval(), architecture=architecture, data=noise)


def claimed(name: str) -> Stolen:
    """The same after a claim of an owner with taps, pooling and hidden size of his own."""
    stolen = stolen_net(name)
    info = Info(
        scheme="mtlsign",
        architecture=stolen.architecture,
        taps=tuple(taps_of(stolen.model, [TAPS[name]], SPEC)),
        pooling=2,
        hidden=7,
        triggers=100,
        gamma="0.7",
        input=SPEC,
    )
    head = Head(inputs=feature_count(info.taps, pooling=info.pooling), hidden=info.hidden)
    return replace(stolen, revealed=Branch(head, info, make_triggers(bytes(32), SPEC, count=info.triggers)))


def forged(name: str, stolen: Stolen) -> Forged:
    return FORGERIES[name].forge(stolen, FITTED[name], 1, forgers_key, silent)


@pytest.mark.parametrize("network", TAPS)
@pytest.mark.parametrize("name", FITTED)
def test_who_fits_a_head_of_his_own_reads_where_the_owners_claim_has_shown(network: str, name: str) -> None:
    stolen = claimed(network)
    found = forged(name, stolen)
    assert (found.info.taps, found.info.hidden) == (stolen.revealed.info.taps, 7)
    assert found.info.pooling == (UNIVERSAL_POOLING if name == "universal_head" else 2)
    assert found.head is not stolen.revealed.head
    count = wm.count_matched(found.accused, found.head, found.info, forgers_key(0))
    assert 0 <= count <= found.info.triggers == wm.EmbedSettings().triggers


@pytest.mark.parametrize("name", FITTED)
def test_without_a_claim_he_is_told_what_would_show_him_where_to_read(name: str) -> None:
    with pytest.raises(wm.WatermarkError, match=r"no default taps.*Stolen\(revealed=") as caught:
        forged(name, stolen_net("own"))
    assert caught.value.code == "unknown_architecture"


@pytest.mark.parametrize(
    ("network", "modules"),
    [("resnet18", ("layer1", "layer2", "layer3")), ("shufflenet_v2_x0_5", ("maxpool", "stage2", "stage3"))],
)
def test_without_a_claim_he_reads_at_the_usual_places_of_a_network_that_has_some(
    network: str, modules: tuple[str, ...]
) -> None:
    info, usual = info_for(stolen_net(network)), wm.EmbedSettings()
    assert info.modules == modules
    assert (info.pooling, info.hidden) == (usual.pooling, usual.hidden)


def test_who_overwrites_without_a_claim_is_told_the_same_before_any_work() -> None:
    with pytest.raises(wm.WatermarkError, match=r"no default taps for 'own'.*Stolen\(revealed="):
        attacked(ATTACKS["overwriting"], stolen_net("own"), strength=1, seed=1)
