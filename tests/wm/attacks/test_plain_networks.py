"""Promised: in plain convolutional networks, without normalisation or shortcuts, moved channels are found again too."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from wm.architectures import Architecture, build
from wm.attacks import ATTACKS, Stolen, attacked
from wm.attacks.forgeries.forgery import fit_head
from wm.backbone import Tap, features_in_evaluation, read_taps, taps_in_evaluation
from wm.branch import Branch, count_matched
from wm.data import Dataset
from wm.errors import WatermarkError
from wm.evidence import EvidenceFile, with_reference
from wm.head import initial_head
from wm.info import Info
from wm.progress import silent
from wm.randomness import seeded
from wm.triggers import InputSpec, Normalisation, make_triggers

KEY, TRIGGERS, MOST, LEAST = bytes(range(32)), 100, 75, 95
MOVES = {"permutation": 1.0, "scaling": 10.0, "dummy_neurons": 0.5}
SMALL = Architecture("vgg11", {"num_classes": 10})  # only its name goes into the info
CATALOGUE = {  # architecture: side of the picture, taps behind a ReLU, and one in front of it
    "alexnet": (64, ("features.1", "features.4", "features.6")),
    "vgg11": (32, ("features.1", "features.4", "features.8")),
    "vgg11_bn": (32, ("features.2", "features.6", "features.8")),
}


def plain_net(seed: int) -> nn.Module:
    with seeded("plain net", seed):
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(4),
            nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 10),
        ).eval()  # fmt: skip


def marked(model: nn.Module, of: Architecture, taps: tuple[str, ...], data: Dataset, side: int) -> Stolen:
    """A model with a head that was fitted to it as it is."""
    spec = InputSpec(3, side, side, Normalisation(("0.5",) * 3, ("0.5",) * 3))
    triggers = make_triggers(KEY, spec, count=TRIGGERS)
    shapes = [part.shape[1:] for part in read_taps(model, taps, triggers.images[:1])]
    info = Info(
        scheme="mtlsign",
        architecture=of,
        taps=tuple(Tap(tap, *shape) for tap, shape in zip(taps, shapes, strict=True)),
        pooling=4,
        hidden=32,
        triggers=TRIGGERS,
        gamma="0.7",
        input=spec,
    )
    read = features_in_evaluation(model, taps, triggers.images, pooling=info.pooling)
    head = initial_head(read, info.taps, pooling=info.pooling, hidden=info.hidden, seed=1)
    fit_head(head, read, triggers.labels, steps=200, progress=silent)
    evidence = with_reference(EvidenceFile(head, info, bytes(32)), model)
    revealed = Branch(head, evidence.info, triggers, evidence.reference)
    return Stolen(model=model, architecture=of, data=data, revealed=revealed)


def moved(stolen: Stolen, *names: str) -> nn.Module:
    for name in names:
        stolen = replace(stolen, model=attacked(ATTACKS[name], stolen, strength=MOVES[name], seed=1))
    return stolen.model


def matched(model: nn.Module, stolen: Stolen, *, aligned: bool) -> int:
    branch = stolen.revealed
    assert branch is not None
    return count_matched(model, branch.head, branch.info, KEY, reference=branch.reference if aligned else None)


@torch.no_grad()
def answers(model: nn.Module, stolen: Stolen) -> Tensor:
    assert stolen.revealed is not None
    logits: Tensor = model(stolen.revealed.triggers.images[:8])
    return logits


def at_taps(model: nn.Module, stolen: Stolen) -> list[Tensor]:
    assert stolen.revealed is not None
    return taps_in_evaluation(model, stolen.revealed.info.modules, stolen.revealed.triggers.images[:8], pooling=1)


def check_that_alignment_undoes_it(stolen: Stolen, stranger: nn.Module) -> None:
    before, hidden = answers(stolen.model, stolen), moved(stolen, "permutation", "scaling")
    assert float((answers(hidden, stolen) - before).abs().max() / before.abs().max()) < 1e-4
    for plain, disguised in zip(at_taps(stolen.model, stolen), at_taps(hidden, stolen), strict=True):
        assert not torch.allclose(plain, disguised, rtol=0.1)
    assert matched(stolen.model, stolen, aligned=False) >= LEAST
    assert matched(hidden, stolen, aligned=False) <= MOST
    assert matched(hidden, stolen, aligned=True) >= LEAST
    wide = moved(replace(stolen, model=hidden), "dummy_neurons")
    with pytest.raises(WatermarkError):
        matched(wide, stolen, aligned=False)
    assert matched(wide, stolen, aligned=True) >= LEAST
    assert matched(stranger, stolen, aligned=True) <= MOST


@pytest.mark.parametrize("taps", [("1", "4"), ("0", "3")], ids=["behind a ReLU", "in front of it"])
def test_a_plain_network_is_read_through_its_alignment(digits: Dataset, taps: tuple[str, ...]) -> None:
    check_that_alignment_undoes_it(marked(plain_net(1), SMALL, taps, digits, side=32), plain_net(2))


@pytest.mark.slow
@pytest.mark.parametrize("name", CATALOGUE)
def test_it_holds_for_plain_networks_of_the_catalogue(digits: Dataset, name: str) -> None:
    of, (side, taps) = Architecture(name, {"num_classes": 10}), CATALOGUE[name]
    stolen = marked(build(of, seed=1).eval(), of, taps, digits, side)
    check_that_alignment_undoes_it(stolen, build(of, seed=2).eval())
